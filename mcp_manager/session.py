"""One MCP session: handshake, request ids, and what the server sends without being asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
import orjson

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.jsonrpc import ERROR, REQUEST, Message, notification_frame
from mcp_manager.errors import CallError, ProtocolError
from mcp_manager.protocol import methods
from mcp_manager.protocol.handshake import (
    ClientIdentity,
    HandshakeError,
    ServerIdentity,
    initialize_params,
    read_initialize_result,
)
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.transports.base import Exchange, Request, Sendable, Transport

__all__ = ["Handler", "Handlers", "ProgressCallback", "Session"]

_log = logging.getLogger(__name__)

Handler = Callable[[str, Any], Awaitable[Any]]
"""``await handler(server_id, params)`` answers a server's request, or takes its notification."""
Handlers = Mapping[str, Handler]
"""Handlers by method name, such as ``sampling/createMessage`` or ``notifications/message``."""
ProgressCallback = Callable[[float, float | None, str | None], None]
"""``callback(progress, total, message)`` of one request."""

_METHOD_NOT_FOUND: Final = -32601
_INTERNAL_ERROR: Final = -32603
# As long as most callers' ids: theirs can be written over ours in a long reply, which is not copied then.
_FIRST_ID: Final = 1_000_000_000
_MAX_SERVER_REQUESTS: Final = 64
# The announcement that a request was given up must not outlive the server that ignores it.
_CANCEL_NOTICE_NS: Final = 2_000_000_000


class _ProgressParams(msgspec.Struct, rename="camel"):
    progress_token: str | int
    progress: float
    total: float | None = None
    message: str | None = None


_progress_decoder = msgspec.json.Decoder(_ProgressParams)


class Session:
    """Hold one MCP session over one transport.

    Parameters
    ----------
    server_id
        Names the server in errors.
    client
        What the handshake tells the server about this client.
    handlers
        Answer the server's requests; one without a handler is answered with "method not found".
    on_closed
        Called once when the transport dies without having been asked to.
    """

    def __init__(
        self,
        server_id: str,
        client: ClientIdentity,
        handlers: Handlers,
        on_closed: Callable[[Session, CallError], None],
    ) -> None:
        self._server_id = server_id
        self._client = client
        self._handlers = handlers
        self._on_closed = on_closed
        self._transport: Transport | None = None
        self._ids = RequestIds(_FIRST_ID)
        self._progress: dict[str, ProgressCallback] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving = 0
        self._closed = False
        self.identity: ServerIdentity | None = None
        # Where calls may go out without coming by here, while the session is live.
        self.channel: Channel | None = None
        self.stray_messages = 0

    @property
    def pid(self) -> int:
        """The process id of the transport's child, 0 if it has none."""
        return self._transport.pid if self._transport is not None else 0

    async def connect(self, transport: Transport) -> ServerIdentity:
        """Open the transport and perform the handshake; the caller bounds it in time.

        Raises
        ------
        CallError
            The server cannot be reached, refuses, or answers nonsense; the transport is closed.
        """
        self._transport = transport
        try:
            await transport.open()
            # The first id of a session; whoever connects it bounds it in time.
            initialize = Request(b'"initialize"', initialize_params(self._client)).exchange(self._ids.take(), 0)
            reply = await transport.exchange(initialize)
            if reply.kind == ERROR:
                raise ProtocolError(
                    f"the server refused initialize: {error_text(reply.error or b'')}",
                    server_id=self._server_id,
                    delivery="rejected",
                )
            try:
                self.identity = read_initialize_result(reply.result or b"null")
            except HandshakeError as error:
                raise ProtocolError(str(error), server_id=self._server_id, delivery="answered") from None
            transport.settle(self.identity.protocol_version)
            await transport.notify(notification_frame(b'"notifications/initialized"', None), 0)
        except BaseException:
            await self.aclose(0.0)
            raise
        self.channel = transport.channel(self, self._ids)
        return self.identity

    def call(
        self,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None = None,
    ) -> Awaitable[Message]:
        """Return the sending of a request, to be awaited for its reply.

        Parameters
        ----------
        request
            The method and its params.
        deadline_ns
            A time of :func:`time.monotonic_ns`.
        progress
            A progress token that the params carry, and who listens to it.

        Raises
        ------
        DeadlineExceededError
            The deadline passed; the server is told that nobody waits any more.
        CallError
            No reply arrived.
        """
        transport = self._transport
        assert transport is not None
        sending = transport.exchange(request.exchange(self._ids.take(), deadline_ns))
        return sending if progress is None else self._listening(sending, *progress)

    def landed(self, exchange: Exchange, answer: Any) -> Awaitable[Message]:
        """Return the reading of what came back on the channel, to be awaited for the reply; see :meth:`call`."""
        assert self._transport is not None
        return self._transport.landed(exchange, answer)

    async def notify(self, method_raw: bytes, params: bytes | None, deadline_ns: int) -> None:
        """Send a notification; raises :class:`CallError` if it could not be handed over by the deadline."""
        transport = self._transport
        assert transport is not None
        await transport.notify(notification_frame(method_raw, params), deadline_ns)

    async def retire(self) -> None:
        """End a session that is lost. Its calls under way each learn it, or their reply, by themselves."""
        await self._end(0.0)

    async def aclose(self, grace_s: float) -> None:
        """End the session, its calls under way and everything else that belongs to it; idempotent."""
        if self._transport is not None:
            self._transport.interrupt()
        await self._end(grace_s)

    async def _end(self, grace_s: float) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            if self._transport is not None:
                await self._transport.aclose(grace_s)
        finally:
            if tasks:
                await asyncio.gather(*tasks, return_exceptions=True)

    def on_message(self, message: Message) -> None:
        """Take what the server sent without being asked; see :class:`MessageSink`."""
        method = message.method
        if method is None:
            self.stray_messages += 1
            _log.warning("server %r sent a reply nobody waits for", self._server_id)
        elif message.kind == REQUEST:
            self._answer(message, method)
        elif method == methods.PROGRESS:
            self._take_progress(message)
        elif method in self._handlers:
            self._spawn(self._run_notification_handler(method, message.params))

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        """Tell the server that a reply is not awaited any more; see :class:`MessageSink`.

        2025-11-25, basic/utilities/cancellation: a disconnect is no cancellation, the notification is; ``initialize``
        must not be cancelled.
        """
        if self.identity is not None:
            params = orjson.dumps({"requestId": exchange.request_id, "reason": reason})
            self._spawn(self._send_quietly(notification_frame(b'"notifications/cancelled"', params)))

    def on_closed(self, error: CallError) -> None:
        """Pass on that the transport died; see :class:`MessageSink`."""
        self._on_closed(self, error)

    async def _listening(self, sending: Awaitable[Message], token: str, listener: ProgressCallback) -> Message:
        self._progress[token] = listener
        try:
            return await sending
        finally:
            self._progress.pop(token, None)

    def _answer(self, message: Message, method: str) -> None:
        request_id = message.id_raw or b"null"
        if method == methods.PING:
            self._spawn(self._send_quietly(_result_frame(request_id, b"{}")))
        elif method not in self._handlers:
            self._spawn(self._send_quietly(_error_frame(request_id, _METHOD_NOT_FOUND, "Method not found")))
        elif self._serving >= _MAX_SERVER_REQUESTS:
            self._spawn(self._send_quietly(_error_frame(request_id, _INTERNAL_ERROR, "Too many requests at once")))
        else:
            self._serving += 1
            self._spawn(self._run_request_handler(method, request_id, message.params))

    async def _run_request_handler(self, method: str, request_id: bytes, params: bytes | None) -> None:
        try:
            try:
                result = await self._handlers[method](self._server_id, orjson.loads(params or b"{}"))
                frame = _result_frame(request_id, orjson.dumps({} if result is None else result))
            except Exception:
                # A user's handler may raise anything; it must cost the server one error reply and nothing else.
                _log.exception("the handler of %s failed", method)
                frame = _error_frame(request_id, _INTERNAL_ERROR, "The client's handler failed")
            await self._send_quietly(frame)
        finally:
            self._serving -= 1

    async def _run_notification_handler(self, method: str, params: bytes | None) -> None:
        try:
            await self._handlers[method](self._server_id, orjson.loads(params or b"{}"))
        except Exception:
            _log.exception("the handler of %s failed", method)

    def _take_progress(self, message: Message) -> None:
        try:
            report = _progress_decoder.decode(message.params or b"")
        except (msgspec.DecodeError, RecursionError):
            self.stray_messages += 1
            return
        callback = self._progress.get(str(report.progress_token))
        if callback is None:
            return
        try:
            callback(report.progress, report.total, report.message)
        except Exception:
            _log.exception("the progress callback of a call failed")

    async def _send_quietly(self, frame: bytes) -> None:
        transport = self._transport
        assert transport is not None
        try:
            await transport.notify(frame, time.monotonic_ns() + _CANCEL_NOTICE_NS)
        except CallError as error:
            _log.debug("server %r did not take a message: %s", self._server_id, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _result_frame(request_id: bytes, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"result":' + result + b"}"


def _error_frame(request_id: bytes, code: int, message: str) -> bytes:
    error = orjson.dumps({"code": code, "message": message})
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"error":' + error + b"}"
