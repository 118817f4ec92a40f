"""Streamable HTTP on the aiohttp pool (2025-11-25, basic/transports): one POST per message, JSON or SSE replies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final, NoReturn

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from mcp_manager._core.jsonrpc import FrameError, Message, scan_batch
from mcp_manager._core.sse import SseLimitError, SseParser
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, ProtocolError
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.transports import _http_status as http_status
from mcp_manager.transports.base import Exchange, MessageSink
from mcp_manager.transports.http_pool import HttpPool, connecting_server

__all__ = ["HttpTransport"]

_ACCEPT: Final = "application/json, text/event-stream"
_SESSION_HEADER: Final = "Mcp-Session-Id"
_VERSION_HEADER: Final = "MCP-Protocol-Version"
# How long an event stream may take to end after it has delivered the reply before its connection is dropped.
_STREAM_END_S: Final = 1.0


class _MarkedPayload(aiohttp.BytesPayload):
    """A body that notes on its exchange that bytes are about to leave."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.frame, content_type="application/json")
        self._exchange = exchange

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._exchange.sent = True
        await super().write_with_length(writer, content_length)


class HttpTransport:
    """Exchange frames with one MCP endpoint over the shared pool.

    Parameters
    ----------
    pool
        Where connections come from.
    url, headers
        The endpoint and the headers of every request, credentials included.
    server_id
        Names the server in errors.
    sink
        Takes requests and notifications that arrive on a reply's event stream.
    connect_timeout_s
        Bounds each connection attempt, TLS included.
    max_response_bytes
        A reply, or one event of a stream, longer than this is refused.
    """

    def __init__(
        self,
        pool: HttpPool,
        url: str,
        headers: Mapping[str, str],
        *,
        server_id: str,
        sink: MessageSink,
        connect_timeout_s: float,
        max_response_bytes: int,
    ) -> None:
        self._pool = pool
        self._url = url
        self._server_id = server_id
        self._sink = sink
        self._max_response_bytes = max_response_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._headers = {**headers, "Accept": _ACCEPT, "Accept-Encoding": "identity"}
        self._settled = False
        self._closed = False
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int:
        """Always 0: the server is nobody's child."""
        return 0

    @property
    def session_id(self) -> str | None:
        """The id the server gave this session, or ``None`` when it keeps none."""
        return self._headers.get(_SESSION_HEADER)

    def settle(self, revision: str) -> None:
        """Send ``MCP-Protocol-Version`` from now on (MUST after the handshake) and keep the session id as it is."""
        self._headers[_VERSION_HEADER] = revision
        self._settled = True

    async def open(self) -> None:
        """Do nothing: a connection is taken from the pool with the first request."""

    async def exchange(self, exchange: Exchange) -> Message:
        """POST a request and return its reply; see :meth:`Transport.exchange`.

        Raises :class:`SessionLostError` on a 404 that answers a session id: the request was not executed.
        """
        response = await self._post(exchange)
        reply: Message | None = None
        try:
            reply = await self._read_reply(response, exchange)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error, CallError):
                raise
            self._raise_mapped(error, sent=True)
        finally:
            # Released before its end, a response takes its connection with it: nobody can read another's bytes.
            if reply is None or not self._let_stream_end(response):
                response.release()
        return reply

    async def notify(self, frame: bytes) -> None:
        """POST a notification or a reply to the server; any 2xx means accepted (202 by the specification)."""
        response = await self._post(Exchange(frame, 0))
        try:
            if not 200 <= response.status < 300:
                http_status.raise_for_status(response, self._server_id, has_session=self.session_id is not None)
        finally:
            response.release()

    async def aclose(self, grace_s: float) -> None:
        """DELETE the session if the server gave one (SHOULD), ignoring what it answers."""
        if self._closed:
            return
        self._closed = True
        for task in self._draining:
            task.cancel()
        if self.session_id is None or grace_s <= 0:
            return
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with (
                asyncio.timeout(grace_s),
                self._pool.client.delete(
                    self._url, headers=self._headers, timeout=self._timeout, allow_redirects=False
                ),
            ):
                pass

    async def _post(self, exchange: Exchange) -> aiohttp.ClientResponse:
        connecting_server.set(self._server_id)
        try:
            return await self._pool.client.post(
                self._url,
                data=_MarkedPayload(exchange),
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._raise_mapped(error, sent=exchange.sent)

    async def _read_reply(self, response: aiohttp.ClientResponse, exchange: Exchange) -> Message:
        if not self._settled and _SESSION_HEADER not in self._headers:
            session_id = response.headers.get(_SESSION_HEADER)
            if session_id is not None and 200 <= response.status < 300:
                self._headers[_SESSION_HEADER] = session_id
        status = response.status
        if status == 200:
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise self._broken(f"the reply is compressed ({encoding[:20]!r}) although identity was asked for")
            if response.content_type == "text/event-stream":
                return await self._read_stream(response, exchange.request_id)
            if response.content_type == "application/json":
                body = await self._read_body(response)
                return self._own_reply(self._scan(body), exchange.request_id)
            raise self._broken(
                f"the reply has content type {response.content_type[:60]!r}, not JSON or an event stream"
            )
        if 200 <= status < 300:
            raise self._broken(f"the server accepted the request with HTTP {status} and gave no reply")
        return await self._read_refusal(response, exchange.request_id)

    async def _read_refusal(self, response: aiohttp.ClientResponse, request_id: int) -> Message:
        """Return the JSON-RPC error that a 4xx or 5xx carries for this request, or raise what its status means."""
        detail = ""
        if response.content_type == "application/json":
            try:
                messages = self._scan(await self._read_body(response))
            except ProtocolError:
                messages = []
            for message in messages:
                if message.error is None:
                    continue
                mine = message.id == request_id
                if mine and http_status.carries_answer(response.status, self.session_id is not None):
                    return message
                detail = error_text(message.error)
        http_status.raise_for_status(response, self._server_id, has_session=self.session_id is not None, detail=detail)

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._max_response_bytes
        if response.content_length is not None and response.content_length > limit:
            raise self._oversize(response.content_length)
        content = response.content
        chunks: list[bytes] = []
        size = 0
        while not content.at_eof():
            chunk = await content.readany()
            size += len(chunk)
            if size > limit:
                raise self._oversize(size)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_stream(self, response: aiohttp.ClientResponse, request_id: int) -> Message:
        parser = SseParser(max_line=self._max_response_bytes, max_event=self._max_response_bytes)
        content = response.content
        while True:
            chunk = await content.readany()
            if not chunk and content.at_eof():
                raise ConnectionLostError(
                    "the event stream ended before the reply", server_id=self._server_id, delivery="unknown"
                )
            try:
                events = parser.feed(chunk)
            except SseLimitError as error:
                raise self._broken(str(error)) from None
            reply: Message | None = None
            for event in events:
                if event.event != "message" or not event.data:
                    continue
                for message in self._scan(event.data):
                    if reply is None and message.method is None and message.id == request_id:
                        reply = message
                    else:
                        self._sink.on_message(message)
            if reply is not None:
                return reply

    def _let_stream_end(self, response: aiohttp.ClientResponse) -> bool:
        """Read the rest of a stream beside the caller, so that its connection can be used again."""
        if self._closed or response.content.is_eof():
            return False
        task = asyncio.get_running_loop().create_task(self._drain(response))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
        return True

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        try:
            async with asyncio.timeout(_STREAM_END_S):
                while not response.content.at_eof():
                    await response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        finally:
            response.release()

    def _scan(self, body: bytes) -> list[Message]:
        try:
            return scan_batch(body)
        except FrameError as error:
            raise self._broken(f"the reply is not JSON-RPC: {error}") from None

    def _own_reply(self, messages: list[Message], request_id: int) -> Message:
        reply: Message | None = None
        for message in messages:
            if reply is None and message.method is None and message.id == request_id:
                reply = message
            else:
                self._sink.on_message(message)
        if reply is not None:
            return reply
        first = messages[0]
        if first.error is not None and first.id is None:
            raise ProtocolError(
                f"the server refused the message: {error_text(first.error)}",
                server_id=self._server_id,
                delivery="rejected",
            )
        raise self._broken(f"the reply does not carry the request's id {request_id}")

    def _broken(self, message: str) -> ProtocolError:
        return ProtocolError(message, server_id=self._server_id, delivery="unknown")

    def _oversize(self, size: int) -> ProtocolError:
        return ProtocolError(
            f"the reply has {size} bytes or more, max_response_bytes is {self._max_response_bytes}",
            server_id=self._server_id,
            delivery="unknown",
            hint="raise max_response_bytes for this server if such replies are expected",
        )

    def _raise_mapped(self, error: Exception, *, sent: bool) -> NoReturn:
        # The text of a ClientResponseError quotes the URL with its query: never pass it on.
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or not sent:
            raise ConnectError(
                f"cannot connect to {http_status.origin(self._url)}: {http_status.reason_of(error)}",
                server_id=self._server_id,
            ) from None
        if isinstance(error, aiohttp.ClientResponseError):
            raise self._broken("the reply is not valid HTTP") from None
        raise ConnectionLostError(
            f"the connection to {http_status.origin(self._url)} broke before the reply: {http_status.reason_of(error)}",
            server_id=self._server_id,
            delivery="unknown",
        ) from None
