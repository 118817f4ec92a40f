"""The tools and the protocol that both demo servers share: 2025-11-25 and its forerunners, nothing optional."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["TOOLS", "answer", "sleep_seconds"]

_REVISIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    schema = {key: {"type": kind} for key, kind in properties.items()}
    return {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": schema, "required": sorted(schema)},
    }


TOOLS: Final = [
    _tool("echo", "Return the text", text="string"),
    _tool("add", "Add two numbers", a="number", b="number"),
    _tool("sleep", "Answer after so many seconds", seconds="number"),
]


def sleep_seconds(message: dict[str, Any]) -> float:
    """Return how long this message wants its answer delayed."""
    params = message.get("params") or {}
    if message.get("method") != "tools/call" or params.get("name") != "sleep":
        return 0.0
    seconds = params.get("arguments", {}).get("seconds", 0)
    return min(max(float(seconds), 0.0), 300.0) if isinstance(seconds, int | float) else 0.0


def answer(message: dict[str, Any], server_name: str) -> dict[str, Any] | None:
    """Answer a request; ``None`` for what gets no answer."""
    if "id" not in message or "method" not in message:
        return None
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        asked = params.get("protocolVersion")
        result: dict[str, Any] = {
            "protocolVersion": asked if asked in _REVISIONS else _REVISIONS[0],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": server_name, "version": "1"},
        }
    elif method == "ping":
        result = {}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call":
        try:
            result = _call(params.get("name"), params.get("arguments") or {})
        except (KeyError, TypeError) as error:
            return _error(message["id"], _INVALID_PARAMS, f"Invalid arguments: {error}")
    else:
        return _error(message["id"], _METHOD_NOT_FOUND, f"Method not found: {method}")
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def _call(name: object, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "echo":
        text = str(arguments["text"])
    elif name == "add":
        text = json.dumps(arguments["a"] + arguments["b"])
    elif name == "sleep":
        text = f"slept {arguments['seconds']} s"
    else:
        return {"content": [{"type": "text", "text": f"Unknown tool: {name}"}], "isError": True}
    return {"content": [{"type": "text", "text": text}], "isError": False}


def _error(request_id: object, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}}
