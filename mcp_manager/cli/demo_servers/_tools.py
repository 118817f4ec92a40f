"""The answers of both demo servers, independent of the transport: handshake, ping and three tools."""

from __future__ import annotations

import math
from typing import Any, Final, TypeGuard

__all__ = ["REVISIONS", "answer", "error_reply", "is_request", "sleep_seconds"]

REVISIONS: Final = ("2025-11-25", "2025-06-18")
"""The supported revisions, newest first; the rules used here are the same in both (2025-03-26 still had batches)."""

_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_LONGEST_SLEEP_S: Final = 300.0


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "inputSchema": {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in properties.items()},
            "required": list(properties),
        },
    }


_TOOLS: Final = [
    _tool("echo", "Return the text.", text="string"),
    _tool("add", "Add two numbers.", a="number", b="number"),
    _tool("sleep", "Answer after the given seconds, at most 300.", seconds="number"),
]


def is_request(message: dict[str, Any]) -> bool:
    """Tell whether a message is a request, and not a notification or a response."""
    return "method" in message and "id" in message


def sleep_seconds(message: dict[str, Any]) -> float:
    """Return the seconds to wait before answering a message."""
    params = message.get("params")
    if message.get("method") != "tools/call" or not isinstance(params, dict) or params.get("name") != "sleep":
        return 0.0
    arguments = params.get("arguments")
    seconds = arguments.get("seconds") if isinstance(arguments, dict) else None
    return min(max(float(seconds), 0.0), _LONGEST_SLEEP_S) if _is_number(seconds) else 0.0


def answer(message: dict[str, Any], server_name: str) -> dict[str, Any] | None:
    """Answer one JSON-RPC message; ``None`` for a message that gets no answer."""
    if not is_request(message):
        return None
    request_id, method, params = message["id"], message["method"], message.get("params", {})
    if isinstance(request_id, bool) or not isinstance(request_id, str | int) or not isinstance(method, str):
        return error_reply(None, _INVALID_REQUEST, "Invalid request: method is a string, id a string or an integer")
    if not isinstance(params, dict):
        return error_reply(request_id, _INVALID_PARAMS, "Invalid params: expected an object")
    if method == "initialize":
        result = _initialize(params, server_name)
    elif method == "ping":
        result = {}
    elif method == "tools/list":
        result = {"tools": _TOOLS}
    elif method == "tools/call":
        called = _call(params)
        if called is None:
            return error_reply(request_id, _INVALID_PARAMS, f"Unknown tool: {params.get('name')}")
        result = called
    else:
        return error_reply(request_id, _METHOD_NOT_FOUND, f"Method not found: {method}")
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_reply(request_id: str | int | None, code: int, text: str) -> dict[str, Any]:
    """Build a JSON-RPC error response."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}}


def _initialize(params: dict[str, Any], server_name: str) -> dict[str, Any]:
    asked = params.get("protocolVersion")
    return {
        # An unsupported revision is answered with the newest supported one (2025-11-25, basic/lifecycle).
        "protocolVersion": asked if asked in REVISIONS else REVISIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": server_name, "version": "1"},
    }


def _call(params: dict[str, Any]) -> dict[str, Any] | None:
    """Run a tool; ``None`` if there is no such tool. Bad arguments give a tool error, not a JSON-RPC error."""
    arguments = params.get("arguments", {})
    given = arguments if isinstance(arguments, dict) else {}
    match params.get("name"):
        case "echo":
            text = given.get("text")
            return _text(text) if isinstance(text, str) else _text("echo needs text, a string", failed=True)
        case "add":
            a, b = given.get("a"), given.get("b")
            if not (_is_number(a) and _is_number(b)):
                return _text("add needs a and b, two numbers", failed=True)
            return _text(str(a + b))
        case "sleep":
            seconds = given.get("seconds")
            if not _is_number(seconds):
                return _text("sleep needs seconds, a number", failed=True)
            return _text(f"slept {sleep_seconds({'method': 'tools/call', 'params': params}):g} s")
    return None


def _text(text: str, *, failed: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer too large for a float is refused like an infinity: its digits alone could fill a reply.
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**1023
