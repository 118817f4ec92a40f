"""JSON-RPC messages of the gateway's own, as bytes."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["NO_ID", "error", "event", "notification", "request", "response"]

NO_ID = b"null"


def response(id_raw: bytes, result: bytes) -> bytes:
    """Return the response to a request, from its id and the result, both as JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_raw, result)


def error(id_raw: bytes, code: int, message: str, data: Any = None) -> bytes:
    """Return the error response to a request; ``data`` is left out if it is ``None``."""
    content: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        content["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_raw, msgspec.json.encode(content))


def request(id_raw: bytes, method: str, params: bytes) -> bytes:
    """Return a request to a client; ``params`` is JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (id_raw, msgspec.json.encode(method), params)


def notification(method: str, params: bytes) -> bytes:
    """Return a notification to a client; ``params`` is JSON."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (msgspec.json.encode(method), params)


def event(message: bytes, event_id: bytes | None = None) -> bytes:
    """Return a server-sent event that carries a message; line breaks outside of its strings are kept."""
    if b"\n" in message or b"\r" in message:
        message = b"\ndata: ".join(message.splitlines())
    if event_id is None:
        return b"event: message\ndata: %b\n\n" % message
    return b"event: message\nid: %b\ndata: %b\n\n" % (event_id, message)
