"""Refusals of HTTP requests, before they are a message of the protocol: JSON-RPC errors without an id."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager.protocol.error_codes import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR

__all__ = [
    "ALLOWED",
    "BAD_HOST",
    "BAD_ORIGIN",
    "NOT_ACCEPTABLE",
    "NOT_FOUND",
    "NO_METHOD",
    "NO_OPERATOR",
    "NO_SESSIONS",
    "OTHER_PRINCIPAL",
    "TOO_LARGE",
    "UNKNOWN_REVISION",
    "UNSUPPORTED_MEDIA",
    "cancelled",
    "internal_error",
    "malformed",
    "refusal",
]

ALLOWED: Final = "GET, POST, DELETE, OPTIONS"
"""The methods of an endpoint."""


def refusal(code: int, message: str, hint: str = "") -> bytes:
    """Return a JSON-RPC error response without an id, as JSON."""
    data = {"source": "gateway", **({"hint": hint} if hint else {})}
    return msgspec.json.encode({"jsonrpc": "2.0", "error": {"code": code, "message": message, "data": data}})


BAD_HOST: Final = refusal(
    INVALID_REQUEST, "This gateway does not serve the host of the header Host", "add the host to serve.allowed_hosts"
)
BAD_ORIGIN: Final = refusal(
    INVALID_REQUEST, "Web pages of this origin may not use this gateway", "add the origin to serve.allowed_origins"
)
NOT_FOUND: Final = refusal(
    INVALID_REQUEST, "There is no endpoint at this path that you may use", "GET / lists those that you may use"
)
NO_METHOD: Final = refusal(INVALID_REQUEST, f"This endpoint accepts only {ALLOWED}", "send messages with POST")
NO_SESSIONS: Final = refusal(
    INVALID_REQUEST,
    "The protocol revision of MCP-Protocol-Version has no sessions and no GET stream",
    "POST subscriptions/listen to receive notifications",
)
NO_OPERATOR: Final = refusal(
    INVALID_REQUEST, "Only operators may read this page", "an administrator adds you to serve.auth.operators"
)
OTHER_PRINCIPAL: Final = refusal(
    INVALID_REQUEST,
    "The workers of the gateway do not agree on whose credentials these are",
    "send the request again",
)
NOT_ACCEPTABLE: Final = refusal(
    INVALID_REQUEST,
    "The client must accept application/json or text/event-stream",
    "send Accept: application/json, text/event-stream",
)
UNKNOWN_REVISION: Final = refusal(
    INVALID_REQUEST,
    "The header MCP-Protocol-Version does not name a protocol revision that has sessions",
    "send the protocolVersion that initialize returned",
)
UNSUPPORTED_MEDIA: Final = refusal(INVALID_REQUEST, "The body must be JSON", "send Content-Type: application/json")
TOO_LARGE: Final = refusal(
    INVALID_REQUEST, "The body is longer than this gateway accepts", "the limit is serve.max_request_bytes"
)


def malformed(body: bytes, message: str) -> bytes:
    """Return the refusal of a body that is no message: it is no JSON, or it is JSON of another kind."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return refusal(PARSE_ERROR, f"The body is not JSON: {message}")
    return refusal(INVALID_REQUEST, f"The body is not a JSON-RPC message: {message}")


def internal_error(id_raw: bytes | None) -> bytes:
    """Return the error response for a fault of the gateway itself."""
    id_member = b"" if id_raw is None else b'"id":%b,' % id_raw
    error = (
        b'{"code":%d,"message":"Internal error of the gateway; its log has the reason","data":{"source":"gateway"}}'
        % INTERNAL_ERROR
    )
    return b'{"jsonrpc":"2.0",%b"error":%b}' % (id_member, error)


def cancelled(id_raw: bytes) -> bytes:
    """Return the error response to a request that the end of the gateway has cancelled."""
    data = b'{"source":"gateway","delivery":"unknown"}'
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32000,"message":"The gateway is shutting down","data":%b}}' % (
        id_raw,
        data,
    )
