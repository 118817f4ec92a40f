"""Traces calls: it makes their spans, and says what the servers are told of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from random import getrandbits
from time import monotonic_ns
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current

from mcp_manager._core.call_ring import PastCall
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager._core.readings import Exemplar, note_exemplar
from mcp_manager._core.records import Server
from mcp_manager.calls.call_log import CallLog, FlightRecord
from mcp_manager.config import ServerConfig, TracesConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.rpc_error import read_error
from mcp_manager.protocol.safety import tool_of
from mcp_manager.protocol.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE, TraceContext, in_trace, read_trace
from mcp_manager.runtime.current_trace import CurrentTrace
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry.allowance import Allowance
from mcp_manager.telemetry.places import place_of
from mcp_manager.telemetry.propagation import Parent, context_variable, given_in, parse, traceparent
from mcp_manager.transports.base import Sendable

__all__ = ["CallTracer", "Incoming", "Made", "Shown", "Span", "SpanMaker", "TracedCall"]

_log = logging.getLogger(__name__)

_LONGEST_MESSAGE: Final = 256
_MOST_SEARCHED: Final = 1_000_000
# Bytes of the params or the result of a call that may be kept until its span is exported.
_MOST_KEPT: Final = 16 * 1024
_MOST_SERVERS: Final = 1_024
_baggage: Final = W3CBaggagePropagator()


class Shown(NamedTuple):
    """What a span shows from its beginning on."""

    name: str
    attributes: dict[str, Any]


class Span(Protocol):
    """A span under way.

    ``attributes`` are those that are known at its end. ``finish`` adds to them and may be called at any time after the
    end, on any thread.
    """

    trace_id: int
    span_id: int
    trace_state: str
    attributes: dict[str, Any]
    record: PastCall | FlightRecord | None
    events: Sequence[tuple[str, int, Mapping[str, Any]]]
    error: str | None
    finish: Callable[[], object]

    def end(self, end_ns: int) -> None: ...


class SpanMaker(Protocol):
    """Makes spans: our own ones, or those of the application's tracer; ``None`` if its sampler refuses.

    ``shown`` may be called at any time later, on any thread.
    """

    def __call__(
        self, shown: Callable[[], Shown], parent: Parent | None, link: Parent | None, start_ns: int
    ) -> Span | None: ...


class Incoming(NamedTuple):
    """The trace that a caller is in: its span, and what else the server may be told."""

    parent: Parent
    carried: Mapping[str, str]


class _Named(msgspec.Struct):
    name: str | None = None
    uri: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class _Judged(msgspec.Struct):
    isError: bool = False


_NAMELESS: Final = _Named()
_named_decoder = msgspec.json.Decoder(_Named)
_judged_decoder = msgspec.json.Decoder(_Judged)


class Made(NamedTuple):
    """A call as its span shows it.

    Attributes
    ----------
    server
        The router's record of its server.
    config
        The server's configuration.
    secrets
        Masked in all that the span shows.
    method, params
        The method that is called, and its params.
    started_ns
        When the call began, in nanoseconds of the monotonic clock.
    """

    server: Server
    config: ServerConfig
    secrets: Secrets
    method: str
    params: bytes | None
    started_ns: int


class TracedCall(NamedTuple):
    """A call under way that is traced."""

    span: Span
    made: Made
    current: CurrentTrace


class CallTracer:
    """Make the spans of one manager's calls.

    Parameters
    ----------
    make_span
        Makes a span.
    config
        Which calls are traced.
    trace_context
        Returns the caller's trace context; ``None`` if OpenTelemetry's current context says it.
    log
        Has the records of calls, from which spans get their details.
    propagate_baggage
        Whether ``baggage`` is passed on.
    application_traces
        Whether the application uses OpenTelemetry, so that its current context may hold a span.

    Attributes
    ----------
    may_be_in_trace
        Whether callers may be in a trace, so that :meth:`incoming` must be asked.
    variable
        The context variable that holds OpenTelemetry's context, which is empty if the caller is in no trace; ``None``
        if another way must be asked.
    asks
        Whether that must be asked for every call.
    """

    def __init__(
        self,
        make_span: SpanMaker,
        config: TracesConfig,
        trace_context: TraceContext | None,
        log: CallLog,
        *,
        propagate_baggage: bool,
        application_traces: bool,
    ) -> None:
        self._make_span = make_span
        self._content_bytes = config.content_bytes
        self._trace_context = trace_context
        self._log = log
        self._propagate_baggage = propagate_baggage
        self._tail = Allowance(config.tail_per_s, time.monotonic)
        self._places: dict[str, tuple[ServerConfig, dict[str, Any]]] = {}
        self.may_be_in_trace: bool = trace_context is not None or application_traces
        self.variable: ContextVar[Any] | None = (
            context_variable() if trace_context is None and application_traces else None
        )
        self.asks: bool = self.may_be_in_trace and self.variable is None

    # Before a call

    def incoming(self) -> Incoming | None:
        """Return the trace that the caller is in; ``None`` if it is in none."""
        carried: Mapping[str, str] = {}
        if self._trace_context is not None:
            given = read_trace(self._trace_context)
            parent = parse(given)
            if self._propagate_baggage and BAGGAGE in given:
                carried = {BAGGAGE: given[BAGGAGE]}
        else:
            context = get_current()
            if not context:
                return None
            parent = _parent_in(context)
            if self._propagate_baggage and parent is not None:
                carried = _baggage_of(context)
        return None if parent is None else Incoming(parent, carried)

    def begin(self, made: Made, request: Sendable, incoming: Incoming | None) -> tuple[TracedCall | None, Sendable]:
        """Start the span of a call; return the call, and the request that tells the server of the span.

        There is no span if the application's sampler refuses.
        """
        try:
            return self._begun(made, request, incoming)
        except Exception:
            # Of the application's tracer, say: no call must fail because of it.
            _log.exception("a span could not be made")
            return None, request

    def _begun(self, made: Made, request: Sendable, incoming: Incoming | None) -> tuple[TracedCall | None, Sendable]:
        parent = incoming.parent if incoming is not None else parse(given_in(made.params))
        span = self._make_span(self._later_shown(made), parent, None, time.time_ns())
        if span is None:
            return None, request if incoming is None else self.passed_on(request, incoming)
        told = {TRACEPARENT: traceparent(span.trace_id, span.span_id, sampled=True)}
        if span.trace_state:
            told[TRACESTATE] = span.trace_state
        if incoming is not None:
            told.update(incoming.carried)
        current = CurrentTrace(span.trace_id, span.span_id, made.started_ns, [])
        return TracedCall(span, made, current), in_trace(request, told, replaces=True)

    def passed_on(self, request: Sendable, incoming: Incoming) -> Sendable:
        """Return the request of a call that is not traced, with the trace that its caller is in."""
        parent = incoming.parent
        told = {TRACEPARENT: traceparent(parent.trace_id, getrandbits(64) or 1, sampled=False), **incoming.carried}
        if parent.trace_state:
            told[TRACESTATE] = parent.trace_state
        return in_trace(request, told, replaces=True)

    # After a call

    def end(self, call: TracedCall, outcome: Message | BaseException) -> None:
        """End the span of a call that got a reply or failed."""
        try:
            span = call.span
            if call.current.events:
                span.events = [
                    (event.name, event.at_ns, {} if event.error is None else {names.ERROR_TYPE: event.error})
                    for event in call.current.events
                ]
            self._conclude(span, call.made, outcome, time.time_ns())
        except Exception:
            _log.exception("a span could not be ended")

    def may_look_back(self) -> bool:
        """Tell whether one more span may be made of a call that has ended, and count it."""
        return self._tail.take()

    def after(self, made: Made, now_ns: int, outcome: Message | BaseException) -> None:
        """Make the span of a call that has ended and was not traced; call it in the context of the caller.

        It has a trace of its own, and a link to the caller's.

        Parameters
        ----------
        made
            The call.
        now_ns
            When it ended, in nanoseconds of the monotonic clock.
        outcome
            The reply or the error.
        """
        try:
            ended_at_ns = time.time_ns()
            incoming = self.incoming() if self.may_be_in_trace else None
            link = None if incoming is None else incoming.parent
            # Among the first attributes, which an application's sampler sees.
            shown = partial(_shown_afterwards, self._later_shown(made))
            span = self._make_span(shown, None, link, ended_at_ns - (now_ns - made.started_ns))
            if span is not None:
                self._conclude(span, made, outcome, ended_at_ns)
        except Exception:
            _log.exception("a span could not be made")

    def _later_shown(self, made: Made) -> Callable[[], Shown]:
        """Return what finds out later what the span of a call shows; large params are not kept for that."""
        server_id, config, params = made.server.server_id, made.config, made.params
        if params is None or len(params) <= _MOST_KEPT:
            return partial(self._shown, server_id, config, made.method, params, made.secrets)
        found = self._shown(server_id, config, made.method, params, made.secrets)
        return lambda: found

    def _shown(
        self, server_id: str, config: ServerConfig, method: str, params: bytes | None, secrets: Secrets
    ) -> Shown:
        found: dict[str, Any] = {names.METHOD: method, **self._place_of(server_id, config)}
        is_tool_call = method == CALL_TOOL
        if params is None or not (is_tool_call or method == "prompts/get" or self._content_bytes):
            return Shown(method, found)
        members = _members(params)
        target = members.name if is_tool_call or method == "prompts/get" else None
        if is_tool_call:
            found[names.OPERATION] = names.EXECUTE_TOOL
        if target is not None:
            found[names.TOOL if is_tool_call else names.PROMPT] = target
        if self._content_bytes:
            if is_tool_call and members.arguments:
                found[names.TOOL_ARGUMENTS] = self._content(secrets, bytes(members.arguments))
            if members.uri is not None:
                found[names.RESOURCE_URI] = secrets.masked(members.uri)
        return Shown(method if target is None else f"{method} {target}", found)

    def _place_of(self, server_id: str, config: ServerConfig) -> dict[str, Any]:
        known = self._places.get(server_id)
        if known is not None and known[0] is config:
            return known[1]
        if len(self._places) >= _MOST_SERVERS:
            self._places.clear()
        found = {names.SERVER: server_id, **place_of(config)}
        self._places[server_id] = config, found
        return found

    def _conclude(self, span: Span, made: Made, outcome: Message | BaseException, ended_at_ns: int) -> None:
        """End a span; how the call ended is said later if not much must be kept for that."""
        record = span.record = self._log.found(made.server.server_id, made.started_ns)
        is_reply = isinstance(outcome, Message)
        took_ns = _measured_ns(record) if record is not None or not is_reply else monotonic_ns() - made.started_ns
        if took_ns is not None:
            tool = tool_of(made.params) if made.method == CALL_TOOL else None
            note_exemplar(made.server, made.method, Exemplar(span.trace_id, span.span_id, took_ns, ended_at_ns), tool)
        if isinstance(outcome, Message) and outcome.kind != ERROR and len(outcome.result_buffer or b"") <= _MOST_KEPT:
            if made.method == CALL_TOOL:
                span.finish = partial(self._describe_result, span, made.secrets, outcome.result_buffer or b"")
        else:
            self._describe(span, made, outcome)
        span.end(ended_at_ns)

    def _describe(self, span: Span, made: Made, outcome: Message | BaseException) -> None:
        record, masked = span.record, made.secrets.masked
        if not isinstance(outcome, Message):
            kind = record.status if isinstance(record, FlightRecord) else type(outcome).__name__
            span.attributes[names.ERROR_TYPE] = kind
            message = type(outcome).__name__
            if isinstance(outcome, CallError):
                span.attributes[names.DELIVERY], span.attributes[names.ATTEMPTS] = outcome.delivery, outcome.attempts
                message = outcome.message
            span.error = masked(message)[:_LONGEST_MESSAGE]
        elif outcome.kind == ERROR:
            refusal = read_error(outcome.error or b"")
            span.attributes[names.ERROR_TYPE] = span.attributes[names.STATUS_CODE] = str(refusal.code)
            span.error = masked(refusal.message)[:_LONGEST_MESSAGE]
        elif made.method == CALL_TOOL:
            self._describe_result(span, made.secrets, outcome.result_buffer or b"")

    def _describe_result(self, span: Span, secrets: Secrets, result: bytes | memoryview) -> None:
        if len(result) > _MOST_SEARCHED:
            return
        data = bytes(result)
        if b'"isError"' in data and _is_error(data):
            span.attributes[names.ERROR_TYPE], span.error = names.TOOL_ERROR, ""
        if self._content_bytes:
            span.attributes[names.TOOL_RESULT] = self._content(secrets, data)

    def _content(self, secrets: Secrets, data: bytes) -> str:
        # Masked before it is shortened: a part of a secret would not be found.
        text = secrets.masked(data.decode(errors="replace"))
        return text.encode()[: self._content_bytes].decode(errors="ignore")


def _shown_afterwards(shown: Callable[[], Shown]) -> Shown:
    name, attributes = shown()
    return Shown(name, {**attributes, names.AFTERWARDS: True})


def _parent_in(context: Context) -> Parent | None:
    span = trace.get_current_span(context).get_span_context()
    if not span.is_valid:
        return None
    state = span.trace_state.to_header() if span.trace_state else ""
    return Parent(span.trace_id, span.span_id, span.trace_flags.sampled, state, span.is_remote)


def _baggage_of(context: Context) -> Mapping[str, str]:
    """Return the baggage of a context; empty if it cannot be written."""
    carried: dict[str, str] = {}
    try:
        _baggage.inject(carried, context)
    except Exception:
        # It is the application's, and must not fail the call.
        _log.exception("baggage cannot be written; the request is sent without it")
        return {}
    return carried


def _measured_ns(record: PastCall | FlightRecord | None) -> int | None:
    """Return how long a call took whose only attempt the router has measured; ``None`` if that is not known."""
    if record is None:
        return None
    if isinstance(record, PastCall):
        return record.ended_ns - record.started_ns
    if record.attempts != 1 or record.hedged:
        return None
    return max(round((record.total_s - record.queue_wait_s) * 1e9), 0)


def _members(params: bytes) -> _Named:
    try:
        return _named_decoder.decode(params)
    except (msgspec.DecodeError, RecursionError):
        return _NAMELESS


def _is_error(result: bytes) -> bool:
    try:
        return _judged_decoder.decode(result).isError
    except (msgspec.DecodeError, RecursionError):
        return False
