"""The stateless revisions as a dialect: what their requests carry, and what their results demand (2026-07-28)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import ERROR, Message, scan_reply
from mcp_manager._core.stateless_frame import StatelessFrame
from mcp_manager.errors import CallError, InputRequiredError, ProtocolError, SessionLostError, ToolNotAllowedError
from mcp_manager.protocol import methods
from mcp_manager.protocol.caching import CACHEABLE
from mcp_manager.protocol.discover import Stateless
from mcp_manager.protocol.envelope import Envelope
from mcp_manager.protocol.error_codes import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from mcp_manager.protocol.header_values import header_line
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import (
    COMPLETE,
    INPUT_REQUIRED,
    MAX_ROUNDS,
    TASK,
    MalformedResult,
    read_input_required,
    result_type,
    retry_params,
)
from mcp_manager.protocol.revisions import Era, newest_shared
from mcp_manager.protocol.rpc_error import read_error
from mcp_manager.protocol.trace_context import in_trace, read_trace
from mcp_manager.session.era_probe import probe_era
from mcp_manager.session.knowledge.response_cache import Ticket
from mcp_manager.session.listening import Listening
from mcp_manager.session.resubscription import read_uri
from mcp_manager.session.server_requests import ServerRequests
from mcp_manager.session.tasks import TaskFollower
from mcp_manager.session.template import SessionTemplate
from mcp_manager.transports.base import CallListener, Exchange, Request, Sendable, Transport, takes_every_result

__all__ = ["StatelessDialect"]

_LIST_TOOLS_RAW: Final = b'"tools/list"'
_PING_RAW: Final = b'"ping"'
_SET_LEVEL_RAW: Final = b'"logging/setLevel"'
_SUBSCRIBE_RAW: Final = b'"resources/subscribe"'
_UNSUBSCRIBE_RAW: Final = b'"resources/unsubscribe"'
_LISTEN_RAW: Final = b'"subscriptions/listen"'
# Methods that these revisions do not have; what they do is done in another way.
_LOCAL: Final = frozenset({_PING_RAW, _SET_LEVEL_RAW, _SUBSCRIBE_RAW, _UNSUBSCRIBE_RAW})
_CACHEABLE: Final = frozenset(f'"{method}"'.encode() for method in CACHEABLE)
_DISCOVER_RAW: Final = b'"server/discover"'
# Errors that a stateless server sends with status 400, 404 or 405. Others may come from a server of the handshake era.
_EXPECTED: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, METHOD_NOT_FOUND, INVALID_PARAMS})
_MAX_LISTED_PAGES: Final = 1000

_method_decoder = msgspec.json.Decoder(str)
_page_decoder = JsonDecoder(dict[str, msgspec.Raw])


class _LogLevel(msgspec.Struct):
    level: str


_level_decoder = msgspec.json.Decoder(_LogLevel)


class StatelessDialect:
    """Speak a stateless revision over one transport.

    Parameters
    ----------
    template
        The template of the server's sessions, with what is known about the server.
    endpoint
        The key under which the era of this endpoint is kept. It is forgotten when it no longer fits.
    revision
        The negotiated revision.
    transport, ids
        Those of the session.
    requests
        Answers the server's requests for input.
    pause
        ``await pause(seconds)`` waits, or raises :class:`ConnectionLostError` if the session ends first.

    Attributes
    ----------
    listening
        The session's stream of notifications, ``None`` until it is set.
    stateless_frame
        Makes the exchanges of most calls in compiled code; ``None`` if that is not possible.
    """

    def __init__(
        self,
        template: SessionTemplate,
        endpoint: str,
        revision: str,
        transport: Transport,
        ids: RequestIds,
        requests: ServerRequests,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        host, knowledge = template.host, template.knowledge
        self._server_id = template.server_id
        self._client = host.identity
        self._transport = transport
        self._ids = ids
        self._requests = requests
        self._eras = knowledge.eras
        self._endpoint = endpoint
        self._mirrored = knowledge.mirrored
        self._has_fields = transport.has_request_streams
        self._envelope = Envelope(host.identity, revision)
        self._trace_context = host.trace_context
        self._envelope.set_log_level(knowledge.log_level)
        self._names: dict[bytes, str] = {}
        self._knowledge = knowledge
        self._cache = knowledge.cache
        self._needs_call = _LOCAL | {_LIST_TOOLS_RAW} | (_CACHEABLE if self._cache.enabled else frozenset())
        # The compiled frame cannot call trace_context.
        self.stateless_frame: StatelessFrame | None = (
            self._new_frame() if self._has_fields and host.trace_context is None else None
        )
        self._tasks = TaskFollower(template.server_id, self._send_own, requests, pause)
        self.listening: Listening | None = None

    # Called by the compiled call path

    def _new_frame(self) -> StatelessFrame:
        known = {}
        for method, member in methods.NAME_MEMBER.items():
            method_raw = msgspec.json.encode(method)
            if method_raw not in self._needs_call:
                known[method_raw] = (header_line("Mcp-Method", method), member.encode())
        return StatelessFrame(self._envelope.opening, known, self._mirrored.parameters)

    def exchange(self, request: Sendable, request_id: int, deadline_ns: int) -> Exchange | None:
        """Return the exchange of a request, ``None`` if the request needs :meth:`call`.

        Raises
        ------
        InvalidRequestError
            This revision does not allow the params.
        """
        method_raw = request.method if type(request) is Request else request.method_raw
        if method_raw in self._needs_call:
            return None
        return self._exchange_for(_plain(request), request_id, deadline_ns)

    def accepts(self, reply: Message) -> bool:
        """Tell whether a result completes its call."""
        try:
            return result_type(reply.result_buffer or b"null") == COMPLETE
        except MalformedResult:
            return False

    # The general call path

    async def call(self, request: Sendable, deadline_ns: int, listener: CallListener | None = None) -> Message:
        """Send a request and whatever follows from its results, and return the final reply.

        What follows may be rounds of input, polls of a task, or the same request with other header fields or in another
        revision. Raises as :meth:`Session.call`, and :class:`InputRequiredError` if the server does not get its input.
        """
        request = _plain(request)
        if request.method in _LOCAL:
            return await self._translate(request, deadline_ns)
        if request.method in _CACHEABLE:
            ticket = self._cache.ticket(self._name_of(request.method), request.params)
            if ticket is not None:
                kept = self._cache.find(ticket)
                return (
                    self._result(kept) if kept is not None else await self._send(request, deadline_ns, listener, ticket)
                )
        return await self._send(request, deadline_ns, listener)

    async def _translate(self, request: Request, deadline_ns: int) -> Message:
        """Do what a method of the handshake revisions does, with the means of this revision."""
        method_raw, params = request.method, request.params
        if method_raw == _PING_RAW:
            return await self._ping(request, deadline_ns)
        if method_raw == _SET_LEVEL_RAW:
            return self._set_log_level(params)
        uri = read_uri(params)
        if uri is None or self.listening is None:
            return self._error(INVALID_PARAMS, "Invalid params: uri must be a string")
        if method_raw == _UNSUBSCRIBE_RAW:
            self.listening.unsubscribe(uri)
            return self._result(b"{}")
        refusal = await self.listening.subscribe(uri, deadline_ns)
        return self._result(b"{}") if refusal is None else self._error_of(refusal)

    async def listen(self, params: bytes, request_id: int) -> Message:
        """Open a stream of notifications and return the reply that ends it; raises :class:`CallError`."""
        return await self._transport.exchange_lasting(self._exchange_for(Request(_LISTEN_RAW, params), request_id, 0))

    async def _send(
        self,
        request: Request,
        deadline_ns: int,
        listener: CallListener | None = None,
        ticket: Ticket | None = None,
    ) -> Message:
        exchange = self._exchange_for(request, self._ids.take(), deadline_ns, listener)
        return await self._finish(request, exchange, self._transport.exchange(exchange), ticket)

    async def _send_own(
        self, method_raw: bytes, params: bytes | None, deadline_ns: int, listener: CallListener | None = None
    ) -> Message:
        return await self._send(Request(method_raw, params), deadline_ns, listener)

    async def landed(self, request: Sendable, exchange: Exchange, answer: Any) -> Message:
        """Return the final reply to a request that the channel sent, given the channel's result or exception."""
        return await self._finish(_plain(request), exchange, self._transport.landed(exchange, answer))

    def fields(self, method: str, params: bytes | None) -> bytes | None:
        """Render the header fields of a message, ``None`` if the transport has none."""
        return self._envelope.fields(method, params) if self._has_fields else None

    def _exchange_for(
        self, request: Request, request_id: int, deadline_ns: int, listener: CallListener | None = None
    ) -> Exchange:
        if self._trace_context is not None:
            trace = read_trace(self._trace_context)
            request = in_trace(request, trace, replaces=False) if trace else request
        method_raw, params = request.method, request.params
        exchange = Request(method_raw, self._envelope.params(params, request.meta)).exchange(request_id, deadline_ns)
        exchange.listener = listener
        if self._has_fields:
            method = self._names.get(method_raw) or self._name_of(method_raw)
            fields = self._envelope.fields(method, params)
            if self._mirrored.any and method == methods.CALL_TOOL:
                fields += self._mirrored.fields(params)
            exchange.fields = fields if request.fields is None else fields + request.fields
        return exchange

    async def _finish(
        self, request: Request, exchange: Exchange, answered: Awaitable[Message], ticket: Ticket | None = None
    ) -> Message:
        """Await the reply, give the server the input that it asks for, and return the final reply."""
        deadline_ns, listener = exchange.deadline_ns, exchange.listener
        method = self._name_of(request.method)
        reply = await self._reply_with_retry(request, exchange, answered)
        for rounds in range(MAX_ROUNDS + 1):
            if reply.kind == ERROR:
                if ticket is not None:
                    self._cache.refused(ticket)
                return reply
            kind = self._type_of(reply)
            if kind == COMPLETE:
                if method == methods.LIST_TOOLS and self._has_fields:
                    reply = self._without_invalid_tools(reply)
                if ticket is not None:
                    self._cache.keep(ticket, reply.result or b"null")
                return reply
            if takes_every_result(listener):
                return reply
            if kind == TASK and method == methods.CALL_TOOL:
                return await self._tasks.follow(reply.result_buffer or b"null", deadline_ns, listener)
            if kind != INPUT_REQUIRED or method not in methods.MULTI_ROUND:
                raise self._protocol_error(f"the result has the type {kind[:40]!r}, which {method} does not allow")
            if rounds == MAX_ROUNDS:
                break
            try:
                asked = read_input_required(reply.result or b"null")
            except MalformedResult as error:
                raise self._protocol_error(str(error)) from None
            # A result that depends on the user's input must not be cached (2026-07-28, caching, cache key).
            ticket = None
            responses = await self._requests.fulfil(asked.input_requests, deadline_ns, listener)
            again = Request(
                request.method, retry_params(request.params, asked, responses), request.meta, request.fields
            )
            exchange = self._exchange_for(again, self._ids.take(), deadline_ns, listener)
            answered = self._transport.exchange(exchange)
            try:
                reply = await self._reply_with_retry(again, exchange, answered)
            except ToolNotAllowedError as forbidden:
                # The rules have changed since the server asked for input.
                forbidden.delivery = "answered"
                raise
        raise InputRequiredError(
            f"the server asked for input {MAX_ROUNDS} times without completing the request", server_id=self._server_id
        )

    async def _reply_with_retry(self, request: Request, exchange: Exchange, answered: Awaitable[Message]) -> Message:
        """Return the reply to one exchange; send the request once more if the error says how to correct it.

        Raises
        ------
        SessionLostError
            The server no longer speaks this revision.
        CallError
            No reply arrived.
        """
        deadline_ns = exchange.deadline_ns
        try:
            reply = await answered
        except ProtocolError as refusal:
            if refusal.http_status not in (400, 404, 405):
                raise
            await self._check_era(deadline_ns)
            raise
        if reply.kind != ERROR:
            return reply
        code = reply.error_code
        method = self._name_of(request.method)
        if code == HEADER_MISMATCH and self._has_fields and method == methods.CALL_TOOL:
            # 2026-07-28, streamable HTTP, client behavior: the tool may have changed.
            self._cache.drop(methods.LIST_TOOLS)
            if not await self._list_tools(deadline_ns):
                return reply
        elif code == UNSUPPORTED_VERSION:
            self._change_revision(reply.error or b"")
        else:
            if exchange.status in (400, 404, 405) and code not in _EXPECTED:
                await self._check_era(deadline_ns)
            return reply
        again = self._exchange_for(request, self._ids.take(), deadline_ns, exchange.listener)
        return await self._transport.exchange(again)

    def _change_revision(self, error: bytes) -> None:
        """Switch to a stateless revision that the error names; raises :class:`SessionLostError` if it names none."""
        data = read_error(error).data
        named = newest_shared(data.get("supported"), Era.STATELESS) if isinstance(data, dict) else None
        if named is None:
            self._eras.forget(self._endpoint)
            raise SessionLostError("the server no longer speaks this revision", server_id=self._server_id)
        if named != self._envelope.revision:
            self._envelope = self._envelope.in_revision(named)
            self._refresh_frame()
            self._transport.settle(named)

    async def _check_era(self, deadline_ns: int) -> None:
        """Probe the server after an unexpected refusal, because a server of another era may have replaced it.

        Raises
        ------
        SessionLostError
            One has. The request was refused, so it can be sent again on a new session.
        """
        try:
            verdict = await probe_era(
                self._server_id, self._transport, self._client, self._ids, self._envelope.revision, deadline_ns
            )
        except CallError:
            return
        finally:
            self._transport.settle(self._envelope.revision)
        if not isinstance(verdict, Stateless):
            self._eras.forget(self._endpoint)
            raise SessionLostError("the server no longer speaks this revision", server_id=self._server_id)

    async def _ping(self, request: Request, deadline_ns: int) -> Message:
        """Answer ``ping``, which these revisions do not have: send ``server/discover``, which a live server answers."""
        reply = await self._send(Request(_DISCOVER_RAW, None, request.meta, request.fields), deadline_ns)
        return self._result(b"{}") if reply.kind != ERROR or reply.error_code == METHOD_NOT_FOUND else reply

    def _set_log_level(self, params: bytes | None) -> Message:
        """Set the log level that every later request carries (2026-07-28, server/utilities/logging)."""
        try:
            level = _level_decoder.decode(params or b"{}").level
        except (msgspec.DecodeError, RecursionError):
            return self._error(INVALID_PARAMS, "Invalid params: level must be a string")
        self._knowledge.log_level = level
        self._envelope.set_log_level(level)
        self._refresh_frame()
        return self._result(b"{}")

    def _refresh_frame(self) -> None:
        if self.stateless_frame is not None:
            self.stateless_frame.open_with(self._envelope.opening)

    async def _list_tools(self, deadline_ns: int) -> bool:
        """List all pages of the tools again, to learn their header parameters; tell whether that succeeded."""
        params: bytes | None = None
        seen: set[bytes] = set()
        for _ in range(_MAX_LISTED_PAGES):
            try:
                reply = await self.call(Request(_LIST_TOOLS_RAW, params), deadline_ns)
                if reply.kind == ERROR:
                    return False
                cursor = bytes(_page_decoder.decode(reply.result or b"{}").get("nextCursor", b"null"))
            except (CallError, msgspec.DecodeError, RecursionError):
                # The caller gets the refusal of its own call, which says more.
                return False
            if cursor == b"null" or cursor in seen:
                break
            seen.add(cursor)
            params = b'{"cursor":' + cursor + b"}"
        return True

    def _without_invalid_tools(self, reply: Message) -> Message:
        result = self._mirrored.learn(reply.result or b"null")
        return reply if result is None else self._result(result, reply.id_raw or b"0")

    def _type_of(self, reply: Message) -> str:
        try:
            return result_type(reply.result_buffer or b"null")
        except MalformedResult as error:
            raise self._protocol_error(str(error)) from None

    def _name_of(self, method_raw: bytes) -> str:
        name = self._names.get(method_raw)
        if name is None:
            name = _method_decoder.decode(method_raw)
            if len(self._names) < 256:
                self._names[method_raw] = name
        return name

    def _result(self, result: bytes, id_raw: bytes = b"0") -> Message:
        return scan_reply(b'{"jsonrpc":"2.0","id":' + id_raw + b',"result":' + result + b"}")

    def _error(self, code: int, message: str) -> Message:
        error = msgspec.json.encode({"code": code, "message": message})
        return scan_reply(b'{"jsonrpc":"2.0","id":0,"error":' + error + b"}")

    def _error_of(self, error: bytes) -> Message:
        return scan_reply(b'{"jsonrpc":"2.0","id":0,"error":' + error + b"}")

    def _protocol_error(self, message: str) -> ProtocolError:
        return ProtocolError(message, server_id=self._server_id, delivery="answered")


def _plain(request: Sendable) -> Request:
    """Return a request as it was encoded here, without what else the caller wrote."""
    if type(request) is Request:
        return request
    method_raw = request.method_raw
    assert isinstance(method_raw, bytes)
    return Request(method_raw, request.params)
