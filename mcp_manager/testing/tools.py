"""The tools of a faulty server, and its correct answers, apart from how they are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from mcp_manager.testing.ledger import Ledger
from mcp_manager.testing.scripted.stateless import HANDSHAKE, META, STATELESS, refusal

__all__ = ["Answers", "Era", "Tool"]

Era = Literal["handshake", "stateless"]
"""How a server is spoken to: after a handshake (2025-11-25), or by requests that stand alone (2026-07-28)."""

_SPOKEN_BY_HANDSHAKE: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
_INFO: Final = {"name": "mcp-manager-fault-server", "version": "1"}
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of a faulty server.

    Parameters
    ----------
    effect
        ``"ledger"``: each execution is an entry of the server's ledger. ``"none"``: it leaves no trace.
    description, input_schema
        As clients read them.
    result
        The text that it returns; ``None`` for the argument ``text`` if there is one, else all arguments as JSON.
    structured
        Its structured content; ``None`` for none.
    is_error
        Whether its result says that it failed.
    annotations
        Its hints, such as ``{"readOnlyHint": True}``.
    """

    effect: Literal["ledger", "none"] = "ledger"
    description: str = ""
    input_schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object"})
    result: str | None = None
    structured: dict[str, Any] | None = None
    is_error: bool = False
    annotations: dict[str, Any] = msgspec.field(default_factory=dict)


class Answers:
    """The correct answers of a server with tools.

    Parameters
    ----------
    era
        How it is spoken to.
    tools
        Its tools by name; may be changed.
    ledger
        Where executed calls are entered.
    """

    def __init__(self, era: Era, tools: Mapping[str, Tool], ledger: Ledger) -> None:
        if era not in get_args(Era):
            raise ValueError(f"era is {' or '.join(map(repr, get_args(Era)))}, not {era!r}")
        if not isinstance(tools, Mapping) or not all(isinstance(tool, Tool) for tool in tools.values()):
            raise ValueError('tools is a mapping of Tool objects by name, as in {"book": Tool()}')
        self.era = era
        self.tools: dict[str, Tool] = dict(tools)
        self.ledger = ledger

    def reply(self, message: Mapping[str, Any], pid: int | None = None) -> dict[str, Any]:
        """Execute a request, and return its reply; ``pid`` is the process that is said to have executed it."""
        request_id = message.get("id")
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        result: dict[str, Any]
        match message.get("method"):
            case "initialize" if self.era == "handshake":
                result = _initialized(params.get("protocolVersion"))
            case "server/discover" if self.era == "stateless":
                result = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}}, **_UNCACHED}
                result["_meta"] = {f"{META}serverInfo": _INFO}
            case "ping" if self.era == "handshake":
                result = {}
            case "tools/list":
                result = {"tools": [_listed(name, tool) for name, tool in self.tools.items()]}
                result |= _UNCACHED if self.era == "stateless" else {}
            case "tools/call":
                name = params.get("name")
                tool = self.tools.get(name) if isinstance(name, str) else None
                if tool is None:
                    return refusal(request_id, _INVALID_PARAMS, message=f"Unknown tool: {name}")
                assert isinstance(name, str)
                result = self._execute(name, tool, params.get("arguments") or {}, request_id, pid)
            case method:
                return refusal(request_id, _METHOD_NOT_FOUND, message=f"Method not found: {method}")
        if self.era == "stateless":
            result = {"resultType": "complete", **result}
        return {"jsonrpc": "2.0", "id": request_id, "result": result}

    def describe(self, name: str, description: str) -> None:
        """Change the description of a tool; raises ``ValueError`` if there is no such tool."""
        if name not in self.tools:
            raise ValueError(f"there is no tool {name!r}: the tools are {', '.join(self.tools) or 'none'}")
        self.tools[name] = msgspec.structs.replace(self.tools[name], description=description)

    def _execute(
        self, name: str, tool: Tool, arguments: dict[str, Any], request_id: Any, pid: int | None
    ) -> dict[str, Any]:
        if tool.effect == "ledger":
            self.ledger.record(name, arguments, request_id, pid)
        text = tool.result
        if text is None:
            text = arguments["text"] if isinstance(arguments.get("text"), str) else json.dumps(arguments)
        result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": tool.is_error}
        if tool.structured is not None:
            result["structuredContent"] = tool.structured
        return result


_UNCACHED: Final = {"ttlMs": 0, "cacheScope": "private"}


def _initialized(offered: object) -> dict[str, Any]:
    return {
        "protocolVersion": offered if offered in _SPOKEN_BY_HANDSHAKE else HANDSHAKE,
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": _INFO,
    }


def _listed(name: str, tool: Tool) -> dict[str, Any]:
    listed: dict[str, Any] = {"name": name, "description": tool.description, "inputSchema": tool.input_schema}
    return {**listed, "annotations": tool.annotations} if tool.annotations else listed
