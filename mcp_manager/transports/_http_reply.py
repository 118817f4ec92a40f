"""What an HTTP response says in JSON-RPC: the reply to a request, on whichever way it came."""

from __future__ import annotations

import zlib
from typing import Final, NoReturn

from yarl import URL

from mcp_manager._core.http_message import STANDING, Exchange, WireReply
from mcp_manager._core.jsonrpc import FrameError, Message, scan_replies
from mcp_manager._core.sse import SseLimitError, SseParser
from mcp_manager.errors import CallError, ConnectionLostError, ProtocolError
from mcp_manager.protocol.error_codes import STATELESS_ERRORS
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.transports import _http_status as http_status
from mcp_manager.transports.base import MessageTaker, StreamListener

__all__ = ["ReplyReader"]

# zlib's window for what each coding is: gzip with its header, deflate with zlib's (RFC 9110, section 8.4.1).
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class ReplyReader:
    """Read responses for one session.

    Parameters
    ----------
    server_id
        Names the server in errors.
    sink
        Takes what else came along with a reply.
    limit
        ``max_response_bytes``: also what a compressed reply may grow to.
    """

    def __init__(self, server_id: str, sink: MessageTaker, limit: int) -> None:
        self._server_id = server_id
        self._sink = sink
        self._limit = limit
        # Whose stream stands open, if there is one.
        self.listener: StreamListener | None = None

    def read(self, reply: WireReply, exchange: Exchange, endpoint: URL, *, has_session: bool) -> Message:
        """Return the reply to a request from a complete response.

        Raises
        ------
        CallError
            The response has no such reply: by its status, or because it is broken.
        """
        status = reply.status
        if 200 <= status < 300:
            try:
                return self._read_success(reply, exchange)
            except ProtocolError as error:
                error.http_status = status
                raise
        exchange.status = status
        for message in self._refusals(reply):
            # A server that refuses a request before it has read it knows no id; the response can be to no other one.
            is_stateless = exchange.fields is not None or message.error_code in STATELESS_ERRORS
            named = message.id == exchange.request_id or (message.id is None and is_stateless)
            if named and http_status.carries_answer(status):
                return message
        self.raise_refusal(reply, endpoint, has_session=has_session)

    def raise_refusal(self, reply: WireReply, endpoint: URL, *, has_session: bool) -> NoReturn:
        """Raise what a response that is no success stands for, with what its body says."""
        detail, code = "", None
        for message in self._refusals(reply):
            detail, code = error_text(message.error or b""), message.error_code
        http_status.raise_for_status(
            reply, self._server_id, endpoint, has_session=has_session, detail=detail, code=code
        )

    def take_event(self, exchange: Exchange, data: bytes) -> Message | None:
        """Return the reply to the exchange if an event's data has it; everything else goes to the sink."""
        if exchange.request_id == STANDING:
            self._take_standing(exchange, data)
            return None
        reply: Message | None = None
        for message in self.scan(data):
            if not exchange.answered and message.method is None and message.id == exchange.request_id:
                reply = message
                exchange.answered = True
            else:
                self._sink.on_message(message)
        return reply

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take an event that is no message, of the stream that stands open."""
        if self.listener is not None:
            self.listener.take_named_event(name, data)

    def stream_opened(self, exchange: Exchange) -> None:
        """Learn that a stream stands open."""
        if exchange.wire is not None:
            exchange.wire.stand()
        if self.listener is not None:
            self.listener.stream_opened()

    def scan(self, body: bytes) -> list[Message]:
        """Scan a message or a batch of them."""
        try:
            return scan_replies(body)
        except FrameError as error:
            raise self.broken(f"the reply is not JSON-RPC: {error}") from None

    def broken(self, message: str) -> ProtocolError:
        """Make the error for a response that cannot be understood."""
        return ProtocolError(message, server_id=self._server_id, delivery="unknown", retryable=True)

    def oversize(self, size: int) -> ProtocolError:
        """Make the error for a response longer than the limit."""
        return ProtocolError(
            f"the reply has {size} bytes or more, max_response_bytes is {self._limit}",
            server_id=self._server_id,
            delivery="unknown",
            hint="raise max_response_bytes for this server if such replies are expected",
        )

    def unanswered(self, detail: str = "") -> CallError:
        """Make the error for an event stream that ended without the reply."""
        return ConnectionLostError(
            f"the event stream ended before the reply{detail}", server_id=self._server_id, delivery="unknown"
        )

    def _take_standing(self, exchange: Exchange, data: bytes) -> None:
        """Take an event of a stream that has no reply to wait for: what is wrong with it ends nothing."""
        try:
            messages = scan_replies(data)
        except FrameError as error:
            self._sink.on_fault("an event that is not JSON-RPC", str(error))
            return
        # For whoever keeps the stream open: it was worth it.
        exchange.answered = True
        for message in messages:
            self._sink.on_message(message)

    def _own(self, messages: list[Message], request_id: int) -> Message:
        reply = messages[0]
        if len(messages) == 1 and reply.method is None and reply.id == request_id:
            return reply
        found: Message | None = None
        for message in messages:
            if found is None and message.method is None and message.id == request_id:
                found = message
            else:
                self._sink.on_message(message)
        if found is not None:
            return found
        if reply.error is not None and reply.id is None:
            refusal = ProtocolError(
                f"the server refused the message: {error_text(reply.error)}",
                server_id=self._server_id,
                delivery="rejected",
            )
            refusal.rpc_code = reply.error_code
            raise refusal
        raise self.broken(f"the reply does not carry the request's id {request_id}")

    def _read_success(self, reply: WireReply, exchange: Exchange) -> Message:
        if reply.status != 200:
            raise self.broken(f"the server accepted the request with HTTP {reply.status} and gave no reply")
        if reply.is_json:
            return self._own(self.scan(reply.body), exchange.request_id)
        return self._read_unusual(reply, exchange)

    def _read_unusual(self, reply: WireReply, exchange: Exchange) -> Message:
        """Read a 200 that is compressed, though nothing but identity was asked for, or no JSON."""
        encoding = (reply.header("content-encoding") or "identity").lower()
        content_type = (reply.header("content-type") or "").partition(";")[0].strip().lower()
        if content_type not in ("application/json", "text/event-stream"):
            raise self.broken(f"the reply has content type {content_type[:60]!r}, not JSON or an event stream")
        body = reply.body if encoding == "identity" else self._decompressed(reply.body, encoding)
        if content_type == "application/json":
            return self._own(self.scan(body), exchange.request_id)
        found: Message | None = None
        try:
            for event in SseParser(max_line=self._limit, max_event=self._limit).feed(body):
                if event.event == "message" and event.data:
                    found = self.take_event(exchange, event.data) or found
        except SseLimitError as error:
            raise self.broken(str(error)) from None
        if found is None:
            raise self.unanswered()
        return found

    def _decompressed(self, body: bytes, encoding: str) -> bytes:
        window = _WINDOWS.get(encoding)
        if window is None:
            raise self.broken(f"the reply is compressed ({encoding[:20]!r}) although identity was asked for")
        inflater = zlib.decompressobj(window)
        try:
            inflated = inflater.decompress(body, self._limit + 1)
        except zlib.error:
            raise self.broken(f"the reply is no valid {encoding}") from None
        if len(inflated) > self._limit:
            raise self.oversize(len(inflated))
        if not inflater.eof:
            raise self.broken(f"the reply ends in the middle of its {encoding}")
        return inflated

    def _refusals(self, reply: WireReply) -> list[Message]:
        """Return the JSON-RPC errors in the body of a 4xx or 5xx."""
        if not reply.is_json:
            return []
        try:
            return [message for message in self.scan(reply.body) if message.error is not None]
        except ProtocolError:
            return []
