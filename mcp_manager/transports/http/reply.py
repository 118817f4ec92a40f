"""Finds the JSON-RPC reply to a request in an HTTP response or an event stream."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn

from yarl import URL

from mcp_manager._core.http_message import STANDING, Exchange, WireReply
from mcp_manager._core.jsonrpc import FrameError, Message, scan_replies
from mcp_manager._core.sse import SseEvent, SseLimitError, SseParser
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError, ConnectionLostError, ProtocolError
from mcp_manager.protocol.envelope import has_envelope
from mcp_manager.protocol.error_codes import STATELESS_ERRORS
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.runtime.read_budget import FLOOD, FLOOD_DETAIL
from mcp_manager.transports.base import MessageTaker, StreamListener
from mcp_manager.transports.http import status as http_status
from mcp_manager.transports.http.refusal_text import refusal_text
from mcp_manager.transports.received import MAX_BATCH, broken_reply_to, read_messages

__all__ = ["ReplyReader"]

# zlib's window size for each coding: gzip with a gzip header, deflate with a zlib header (RFC 9110, section 8.4.1).
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_QUOTED: Final = 200
_LABEL: Final = 60
_PIECE: Final = 64 * 1024
_WEB_PAGE: Final = "that is a web page: check that url is the MCP endpoint, most often /mcp"
_NO_MESSAGE: Final = "an event that is not JSON-RPC"


class ReplyReader:
    """Read responses for one session.

    Parameters
    ----------
    server_id
        Names the server in errors.
    sink
        Takes the messages that are not the reply.
    limit
        ``max_response_bytes``, also for the decompressed size of a reply.
    secrets
        Masks the server's credentials in quotations.
    credentials
        The kind of credentials that requests are sent with.

    ``listener`` is the owner of the stream that stays open, if there is one; ``may_batch`` says whether the negotiated
    revision has batches; ``on_cookies`` takes the values of ``Set-Cookie`` fields.
    """

    def __init__(
        self, server_id: str, sink: MessageTaker, limit: int, secrets: Secrets, credentials: http_status.Credentials
    ) -> None:
        self._server_id = server_id
        self._sink = sink
        self._limit = limit
        self._secrets = secrets
        self._credentials = credentials
        self.listener: StreamListener | None = None
        self.may_batch = True
        self.on_cookies: Callable[[Sequence[bytes]], None] | None = None

    def read(self, reply: WireReply, exchange: Exchange, endpoint: URL, *, has_session: bool) -> Message:
        """Return the reply to a request in a complete response.

        Raises
        ------
        CallError
            The response has no reply: the status is an error, or the body is malformed.
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
            # A server that refuses a request before parsing it does not know the id; the response belongs to this
            # request.
            is_stateless = has_envelope(exchange.fields) or message.error_code in STATELESS_ERRORS
            named = message.id == exchange.request_id or (message.id is None and is_stateless)
            if named and http_status.carries_answer(status):
                return message
        self.refuse(reply, endpoint, has_session=has_session)

    def refuse(self, reply: WireReply, endpoint: URL, *, has_session: bool) -> NoReturn:
        """Raise the error for an error status, with the explanation in its body."""
        detail, code = "", None
        for message in self._refusals(reply):
            detail, code = self._error_text(message), message.error_code
        try:
            request = http_status.RefusedRequest(endpoint, has_session, self._credentials)
            said = http_status.Said(detail or self._said(reply), code, self._secrets.masked)
            http_status.raise_for_status(reply, self._server_id, request, said)
        except CallError as error:
            # The error may quote more of the server's text, such as a redirect's target.
            self._secrets.hide_in(error)
            raise

    def is_json_rpc(self, refusal: WireReply) -> bool:
        """Tell whether a refusal has a JSON-RPC error, so that a server of MCP is behind it."""
        return bool(self._refusals(refusal))

    def take_event(self, exchange: Exchange, data: bytes) -> Message | None:
        """Return the reply to the exchange if an event has it; pass all other messages to the sink."""
        if exchange.request_id == STANDING:
            self._take_standing(exchange, data)
            return None
        reply: Message | None = None
        try:
            messages = read_messages(data, self._sink.on_fault, may_batch=self.may_batch)
        except FrameError as error:
            if not exchange.answered and broken_reply_to(data, exchange.request_id.__eq__) is not None:
                raise self._not_json_rpc(error, data) from None
            self._sink.on_fault(_NO_MESSAGE, str(error))
            return None
        for message in messages:
            if not exchange.answered and message.method is None and message.id == exchange.request_id:
                reply = message
                exchange.answered = True
            else:
                self._sink.on_message(message, exchange.listener)
        return reply

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take an event that is not a message, of the stream that stays open."""
        if self.listener is not None:
            self.listener.take_named_event(name, data)

    def stream_opened(self, exchange: Exchange) -> None:
        """Note that a stream that stays open has started."""
        if exchange.wire is not None:
            exchange.wire.stand()
        if self.listener is not None:
            self.listener.stream_opened()

    def flooded(self) -> None:
        """Count a flood: the server sends more than the read budget allows."""
        self._sink.on_fault(FLOOD, FLOOD_DETAIL)

    def take_cookies(self, values: Sequence[bytes]) -> None:
        """Take the values of a response's ``Set-Cookie`` fields."""
        if self.on_cookies is not None:
            self.on_cookies(values)

    def broken(self, message: str) -> ProtocolError:
        """Make the error for a malformed response."""
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
        """Take an event of a stream without a reply; a malformed event does not end the stream."""
        try:
            messages = read_messages(data, self._sink.on_fault, may_batch=self.may_batch)
        except FrameError as error:
            self._sink.on_fault(_NO_MESSAGE, str(error))
            return
        # Tells the owner of the stream that it brought something.
        exchange.answered = True
        for message in messages:
            self._sink.on_message(message)

    def _own(self, messages: list[Message], exchange: Exchange) -> Message:
        reply, request_id = messages[0], exchange.request_id
        if len(messages) == 1 and reply.method is None and reply.id == request_id:
            return reply
        found: Message | None = None
        for message in messages:
            if found is None and message.method is None and message.id == request_id:
                found = message
            else:
                self._sink.on_message(message, exchange.listener)
        if found is not None:
            return found
        if reply.error is not None and reply.id is None:
            refusal = ProtocolError(
                f"the server refused the message: {self._error_text(reply)}",
                server_id=self._server_id,
                delivery="rejected",
            )
            refusal.rpc_code = reply.error_code
            try:
                raise refusal
            finally:
                # Its traceback holds this frame.
                del refusal
        raise self.broken(f"the reply does not carry the request's id {request_id}")

    def _read_success(self, reply: WireReply, exchange: Exchange) -> Message:
        if reply.status != 200:
            raise self.broken(f"the server accepted the request with HTTP {reply.status} but sent no reply")
        if reply.is_json:
            return self._own(self._scan(reply, reply.body), exchange)
        return self._read_unusual(reply, exchange)

    def _read_unusual(self, reply: WireReply, exchange: Exchange) -> Message:
        """Read a 200 that is not plain JSON: another content type, or compressed although identity was requested."""
        content_type = (reply.header("content-type") or "").partition(";")[0].strip().lower()
        if content_type not in ("application/json", "text/event-stream"):
            return self._own(self._scan_mislabelled(reply), exchange)
        body = self._plain_body(reply)
        if content_type == "application/json":
            return self._own(self._scan(reply, body), exchange)
        found: Message | None = None
        try:
            for event in self._events_of(body):
                if event.event == "message" and event.data:
                    found = self.take_event(exchange, event.data) or found
        except SseLimitError as error:
            raise self.broken(str(error)) from None
        if found is None:
            raise self.unanswered()
        return found

    def _events_of(self, body: bytes) -> Iterator[SseEvent]:
        """Yield the events of a complete body; raise beyond :data:`MAX_BATCH` of them."""
        parser = SseParser(max_line=self._limit, max_event=self._limit)
        count = 0
        for at in range(0, len(body), _PIECE):
            for event in parser.feed(body[at : at + _PIECE]):
                count += 1
                if count > MAX_BATCH:
                    raise self.broken(f"the compressed event stream has more than {MAX_BATCH} events")
                yield event

    def _scan(self, reply: WireReply, body: bytes) -> list[Message]:
        """Parse a message or a batch."""
        try:
            return read_messages(body, self._sink.on_fault, _charset_of(reply), may_batch=self.may_batch)
        except FrameError as error:
            raise self._not_json_rpc(error, body) from None

    def _scan_mislabelled(self, reply: WireReply) -> list[Message]:
        """Parse a body that may be JSON despite another content type."""
        label = self._secrets.quoted((reply.header("content-type") or "").partition(";")[0], _LABEL)
        try:
            body = self._plain_body(reply)
            messages = read_messages(body, self._sink.on_fault, _charset_of(reply), may_batch=self.may_batch)
        except (FrameError, CallError):
            said = self._said(reply)
            error = self.broken(
                f"the reply has content type {label!r}, not JSON or an event stream{f': {said}' if said else ''}"
            )
            error.hint = _WEB_PAGE if label == "text/html" else ""
            try:
                raise error from None
            finally:
                # Its traceback holds this frame.
                del error
        self._sink.on_fault("JSON of another content type", label or "none")
        return messages

    def _not_json_rpc(self, error: FrameError, body: bytes) -> ProtocolError:
        return self.broken(f"the reply is not JSON-RPC: {error}{self._quoted(body)}")

    def _quoted(self, body: bytes) -> str:
        said = self._secrets.quoted(refusal_text(body), _QUOTED)
        return f": {said}" if said else ""

    def _said(self, reply: WireReply) -> str:
        """Return the explanation in a refusal's body, bounded and masked."""
        try:
            body = self._plain_body(reply)
        except CallError:
            return ""
        return self._secrets.quoted(refusal_text(body), _QUOTED)

    def _error_text(self, message: Message) -> str:
        return error_text(message.error or b"", self._secrets)

    def _plain_body(self, reply: WireReply) -> bytes:
        encoding = reply.header("content-encoding") or "identity"
        return reply.body if encoding.lower() == "identity" else self._decompressed(reply.body, encoding)

    def _decompressed(self, body: bytes, encoding: str) -> bytes:
        window = _WINDOWS.get(encoding.lower())
        if window is None:
            label = self._secrets.quoted(encoding, _LABEL)
            raise self.broken(f"the reply is compressed ({label!r}) although identity was requested")
        inflater = zlib.decompressobj(window)
        try:
            inflated = inflater.decompress(body, self._limit + 1)
        except zlib.error:
            raise self.broken(f"the reply is not valid {encoding}") from None
        if len(inflated) > self._limit:
            raise self.oversize(len(inflated))
        if not inflater.eof:
            raise self.broken(f"the reply is truncated: its {encoding} data is incomplete")
        return inflated

    def _refusals(self, reply: WireReply) -> list[Message]:
        """Return the JSON-RPC errors in the body of a 4xx or 5xx."""
        try:
            messages = scan_replies(self._plain_body(reply))
        except (FrameError, CallError):
            return []
        # A gateway's {"error": {"code": 403, "message": …}} is not JSON-RPC: it has neither an id nor "jsonrpc".
        return [each for each in messages if each.error is not None and (each.oddity is None or each.id is not None)]


def _charset_of(reply: WireReply) -> str:
    """Return the charset that a response declares, "" if none."""
    for parameter in (reply.header("content-type") or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip(" \t\"'")[:40]
    return ""
