"""HTTP+SSE, the transport of 2024-11-05: a stream for all that the gateway sends, and POSTs for what the client sends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from secrets import token_urlsafe
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict

from mcp_manager._core.jsonrpc import FrameError, scan_batch
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.handshake import HandshakeEra
from mcp_manager.gateway.http import refusals
from mcp_manager.gateway.http.accepting import is_json
from mcp_manager.gateway.http.reception import Reception, cors_fields
from mcp_manager.gateway.http.web_requests import WebEventStream, WebRequest, parsed
from mcp_manager.gateway.security.accounting import CURRENT, Sender, Usage
from mcp_manager.gateway.security.authentication import Denial
from mcp_manager.gateway.security.leases import Lease
from mcp_manager.gateway.security.limits import LimitReachedError
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.protocol.error_codes import INTERNAL_ERROR
from mcp_manager.runtime.background import background_task

__all__ = ["LegacySse"]

_log = logging.getLogger(__name__)

_MESSAGES: Final = "/messages"
_STREAM: Final = "/sse"
_ENDPOINT: Final = "/mcp"
_ENDPOINT_EVENT: Final = b"event: endpoint\ndata: %b\n\n"
_MOST_SESSIONS: Final = 10_000
_MOST_RUNNING: Final = 1_024
# How long cancelled requests may take to end.
_CANCELLED_S: Final = 2.0
_OWN: Final = {"source": "gateway"}


class _Channel:
    """The way back for one message, whose reply comes on the stream; see :class:`~mcp_manager.gateway.channels.Channel`."""

    __slots__ = ("_send", "id_raw", "on_gone", "on_quiet", "sender", "usage")

    can_send = True

    def __init__(self, send: Callable[[bytes], None], id_raw: bytes | None, sender: Sender | None) -> None:
        self._send = send
        self.sender: Sender | None = sender
        self.usage: Usage | None = None
        self.id_raw: bytes | None = id_raw
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], object] | None = None

    def send(self, message: bytes) -> None:
        """Send a message before the reply."""
        self._send(message)

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        """Begin no stream: the session has one for all requests."""
        return None

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        """Send the reply."""
        if self.usage is not None:
            self.usage.end(message)
        self._send(message)

    def accept(self) -> None:
        """End without a reply."""


class _Session:
    """A client: it lives as long as its stream."""

    def __init__(
        self, handshake: HandshakeEra, endpoint: Endpoint, stream: WebEventStream, lease: Lease, sender: Sender
    ) -> None:
        self.stream: WebEventStream = stream
        self.lease: Lease = lease
        self._sender = sender
        self._connection = handshake.connect(endpoint, lease.principal.name, self._send)
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def is_full(self) -> bool:
        """Whether too many messages are under way."""
        return len(self._running) >= _MOST_RUNNING

    def is_of(self, principal: Principal) -> bool:
        """Tell whether a principal may speak for the client, and if so, let the stream last with its credentials."""
        mine = self.lease.principal
        is_same = principal.name == mine.name and principal.grant is mine.grant
        if is_same:
            self.lease.renew(principal)
        return is_same

    def take(self, body: bytes, context: Context) -> None:
        """Take a message or a batch in a context; raises :class:`FrameError` if it is neither."""
        batch = scan_batch(body)
        is_batch = body.lstrip()[:1] == b"["
        sender = self._sender.current(self.lease.principal)
        channel = _Channel(self._send, None if is_batch else batch[0].id_raw, sender)
        if sender is not None and not is_batch:
            usage = channel.usage = sender.begin(batch[0], len(body))
            if usage is not None and usage.refusal is not None:
                channel.finish(failures.as_response(channel.id_raw or messages.NO_ID, usage.refusal))
                return
        connection = self._connection
        take = partial(connection.take_batch, batch) if is_batch else partial(connection.take, batch[0])
        task: asyncio.Task[None] = background_task(
            self._guarded(channel, partial(take, channel)),
            "take a message of a client",
            among=self._running,
            context=context,
        )
        if channel.usage is not None:
            # Also if it is cancelled before it has begun.
            ended = channel.usage.end
            task.add_done_callback(lambda _: ended(None))

    async def aclose(self) -> None:
        """End the session, with the requests that are under way."""
        await self._connection.aclose()
        left = set(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_CANCELLED_S)

    def _send(self, message: bytes) -> None:
        self.stream.send(messages.event(message))

    async def _guarded(self, channel: _Channel, take: Callable[[], Awaitable[None]]) -> None:
        """Take a message; a fault of the gateway costs one reply."""
        if channel.usage is not None:
            CURRENT.set(channel.usage)
        try:
            await take()
        except Exception:
            _log.exception("a message of a client was not taken", extra={"event": "message_failed"})
            if channel.id_raw is not None:
                channel.finish(messages.error(channel.id_raw, INTERNAL_ERROR, "Internal error of the gateway", _OWN))


class LegacySse:
    """Serve HTTP+SSE beside streamable HTTP (2024-11-05, basic/transports).

    ``/sse`` is the stream of the endpoint ``/mcp``, ``/sse/{view}`` that of ``/mcp/{view}``, and ``/servers/{id}/sse``
    that of ``/servers/{id}/mcp``. Its first event names the URL for POSTs, in which a secret name stands for the stream:
    whoever knows it, and acts for the same principal, can speak for the client. The session ends with its stream, and
    that with the credentials of the principal.

    Parameters
    ----------
    handshake
        Takes the messages.
    reception
        Knows the endpoints, and who sends a request.
    """

    def __init__(self, handshake: HandshakeEra, reception: Reception) -> None:
        self._reception = reception
        self._passing = reception.passing
        self._worker = 0 if self._passing is None else self._passing.number
        self._handshake = handshake
        self._sessions: dict[str, _Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def serve(self, request: web.Request) -> web.StreamResponse | None:
        """Answer a request, whose host and origin are accepted; ``None`` if it does not belong to this transport."""
        path = request.raw_path.partition("?")[0]
        is_message = path == _MESSAGES
        endpoint_path = None if is_message else _endpoint_path(path)
        security = self._reception.security
        if endpoint_path is None and not is_message:
            return None
        if (
            endpoint_path is not None
            and not security.is_required
            and self._reception.endpoints.find(endpoint_path) is None
        ):
            return None
        origin = request.headers.get("Origin")
        fields = parsed(b"" if origin is None else cors_fields(origin.encode("utf-8", "surrogateescape")))
        allowed = "POST" if is_message else "GET"
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "")
            if asked.isascii() and asked.isprintable():
                fields["Access-Control-Allow-Headers"] = asked
            fields["Access-Control-Allow-Methods"] = f"{allowed}, OPTIONS"
            return web.Response(status=204, headers=fields)
        if request.method != allowed:
            return _refused(405, refusals.NO_METHOD, CIMultiDict({**fields, "Allow": f"{allowed}, OPTIONS"}))
        incoming = WebRequest(request, b"")
        principal = await security.identify(incoming)
        if isinstance(principal, Denial):
            security.accounting.deny(incoming, principal.cause)
            fields.extend(parsed(principal.fields))
            return _refused(principal.status, principal.body, fields)
        if self._passing is not None and not self._passing.agrees(incoming, principal.name):
            security.accounting.deny(incoming, "authentication", principal.name)
            return _refused(403, refusals.OTHER_PRINCIPAL, fields)
        if endpoint_path is None:
            return await self._post(request, principal, fields)
        endpoint = self._reception.endpoints.find(endpoint_path, principal.grant)
        if endpoint is None:
            if principal.grant is not None and self._reception.endpoints.find(endpoint_path) is not None:
                security.accounting.deny(incoming, "rule", principal.name)
            return _refused(404, refusals.NOT_FOUND, fields)
        return await self._stream(request, endpoint, principal, fields)

    def drain(self) -> None:
        """End the streams, and with them the sessions."""
        for session in list(self._sessions.values()):
            session.stream.end()

    async def _stream(
        self, request: web.Request, endpoint: Endpoint, principal: Principal, fields: CIMultiDict[str]
    ) -> web.StreamResponse:
        if len(self._sessions) >= _MOST_SESSIONS:
            return _refused(503, _error("Too many sessions"), fields)
        stream = WebEventStream(fields)
        name = f"{self._worker}.{token_urlsafe(32)}"
        accounting = self._reception.security.accounting
        sender = accounting.connected(principal, endpoint.name, name)
        end_of_count = None
        incoming = WebRequest(request, b"")
        sender.came(incoming)
        if accounting.is_on:
            try:
                end_of_count = sender.stream()
            except LimitReachedError as refusal:
                accounting.deny(incoming, "limit", principal.name)
                refused = CIMultiDict({**fields, **parsed(refusal.fields)})
                return _refused(429, failures.as_response(messages.NO_ID, refusal), refused)
        lease = self._reception.security.leases.add(principal, stream)
        session = self._sessions[name] = _Session(self._handshake, endpoint, stream, lease, sender)
        stream.send(_ENDPOINT_EVENT % f"{_MESSAGES}?session={name}".encode("ascii"))
        self._reception.keep_alives.add(stream)
        try:
            return await stream.serve(request)
        finally:
            self._reception.keep_alives.discard(stream)
            lease.close()
            del self._sessions[name]
            if end_of_count is not None:
                end_of_count()
            stream.end()
            await session.aclose()

    async def _post(self, request: web.Request, principal: Principal, fields: CIMultiDict[str]) -> web.StreamResponse:
        name = request.query.get("session", "")
        session = self._sessions.get(name)
        if session is None and self._passing is not None:
            passed = await self._passing.named(request, name, principal.name)
            if passed is not None:
                return passed
        deny = partial(self._reception.security.accounting.deny, WebRequest(request, b""), principal=principal.name)
        if session is None or not session.is_of(principal):
            deny("session")
            return _refused(404, _error("Session not found: open the stream again"), fields)
        if not is_json(request.headers.get("Content-Type", "").encode("utf-8", "surrogateescape") or None):
            deny("malformed")
            return _refused(415, refusals.UNSUPPORTED_MEDIA, fields)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            deny("malformed")
            return _refused(413, refusals.TOO_LARGE, fields)
        if not session.stream.is_open:
            return _refused(404, _error("Session not found: open the stream again"), fields)
        if session.is_full:
            deny("limit")
            return _refused(429, _error("Too many requests are under way: wait for replies"), fields)
        try:
            session.take(body, self._reception.context_of(WebRequest(request, b""), principal))
        except FrameError as error:
            deny("malformed")
            return _refused(400, refusals.malformed(body, str(error)), fields)
        return web.Response(status=202, text="Accepted", headers=fields)


def _endpoint_path(path: str) -> str | None:
    """Return the path of the endpoint that a stream belongs to; ``None`` if the path is not that of a stream."""
    if path == _STREAM or path.startswith(_STREAM + "/"):
        return _ENDPOINT + path[len(_STREAM) :]
    if path.startswith("/servers/") and path.endswith(_STREAM):
        return path[: -len(_STREAM)] + _ENDPOINT
    return None


def _refused(status: int, body: bytes, fields: CIMultiDict[str]) -> web.Response:
    return web.Response(status=status, body=body, headers=CIMultiDict({**fields, "Content-Type": "application/json"}))


def _error(text: str) -> bytes:
    return messages.error(messages.NO_ID, -32000, text, _OWN)
