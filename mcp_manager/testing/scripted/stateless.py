"""What a server of 2026-07-28 checks in a request before it executes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from mcp_manager.testing.scripted.connection import Request

__all__ = ["HANDSHAKE", "META", "STATELESS", "decoded_header", "header_fault", "meta_of", "refusal"]

STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
META: Final = "io.modelcontextprotocol/"
"""The prefix of the protocol's own keys in ``_meta``."""

_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def meta_of(params: object) -> dict[str, Any] | None:
    """Return the ``_meta`` of a stateless request; ``None`` for the params of any other request."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta if isinstance(meta, dict) and f"{META}protocolVersion" in meta else None


def header_fault(request: Request, meta: Mapping[str, Any]) -> str | None:
    """Return the header field that does not say what the body does, ``None`` if all agree."""
    headers = request.headers
    params = request.params if isinstance(request.params, dict) else {}
    if headers.get("mcp-protocol-version") != meta.get(f"{META}protocolVersion"):
        return f"MCP-Protocol-Version: {headers.get('mcp-protocol-version')}"
    if headers.get("mcp-method") != request.method:
        return f"Mcp-Method: {headers.get('mcp-method')}"
    member = _NAMED.get(request.method or "")
    if member is not None and decoded_header(headers.get("mcp-name")) != params.get(member):
        return f"Mcp-Name: {headers.get('mcp-name')}"
    return None


def decoded_header(value: str | None) -> str | None:
    """Decode a header value as servers must (2026-07-28, streamable HTTP, value encoding)."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    return base64.b64decode(value[9:-2], validate=True).decode()


def refusal(request_id: object, code: int, data: object = None, message: str = "scripted") -> dict[str, Any]:
    """Make a JSON-RPC error."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}
