"""The trace context (W3C) of requests, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

import msgspec
from opentelemetry import context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from mcp_manager.protocol.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE

__all__ = ["Parent", "context_variable", "given_in", "parse", "traceparent"]

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
# 32 entries of at most 256 characters each, with commas.
_LONGEST_STATE: Final = 8_224
_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta_decoder = msgspec.json.Decoder(dict[str, Any])


class Parent(NamedTuple):
    """A span that a call is made in."""

    trace_id: int
    span_id: int
    is_sampled: bool
    trace_state: str
    is_remote: bool


def context_variable() -> ContextVar[Any] | None:
    """Return the context variable that holds OpenTelemetry's current context; ``None`` if it is not known.

    To ask it costs a tenth of ``get_current()``, and every call has to.
    """
    runtime = getattr(context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    is_known = isinstance(runtime, ContextVarsRuntimeContext) and isinstance(variable, ContextVar)
    return variable if is_known else None


def traceparent(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """Return the value of ``traceparent``."""
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if sampled else '00'}"


def parse(given: Mapping[str, str]) -> Parent | None:
    """Return the span that a trace context names; ``None`` if there is none, or it is invalid."""
    text = given.get(TRACEPARENT)
    found = None if text is None else _FORM.fullmatch(text)
    if found is None:
        return None
    state = given.get(TRACESTATE, "")
    sampled = bool(int(found[3], 16) & 1)
    return Parent(int(found[1], 16), int(found[2], 16), sampled, state if len(state) <= _LONGEST_STATE else "", True)


def given_in(params: bytes | None) -> dict[str, str]:
    """Return the trace context that the ``_meta`` of a request has already."""
    if params is None or b'"traceparent"' not in params:
        return {}
    try:
        meta = _meta_decoder.decode(_params_decoder.decode(params).get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {name: meta[name] for name in (TRACEPARENT, TRACESTATE, BAGGAGE) if isinstance(meta.get(name), str)}
