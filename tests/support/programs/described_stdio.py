"""A stdio MCP server whose texts are hostile to terminals, with tools of every kind of argument and of content.

``--slow SECONDS`` answers the handshake that much later; ``--bare`` has nothing but one tool.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J bell\x07 back\b\r tab\t line\nbreak"
RTL = "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u200bzero"
WIDE = (
    "\u65e5\u672c\u8a9e\u306e\u8aac\u660e\u6587\u304c\u3053\u3053\u306b\u3042\u308a\u307e\u3059 \U0001f680\U0001f680 "
    * 3
)
LONG = "w" * 190
MARKUP = "[bold red]not markup[/] [link=http://evil] :smile: [/nothing]"

VALUES = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "nothing": {"type": ["string", "null"]},
        "list": {"type": "array", "items": {"type": "integer"}},
        "object": {"$ref": "#/$defs/inner"},
        "colour": {"enum": ["red", "green"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "any": {},
    },
    "required": ["text"],
    "$defs": {"inner": {"type": "object"}},
}
TOOLS = [
    {"name": "values", "description": "Return the arguments as JSON.", "inputSchema": VALUES},
    {"name": "blocks", "description": ESCAPES, "inputSchema": {"type": "object"}},
    {"name": "structured", "description": MARKUP, "inputSchema": {"type": "object"}},
    {"name": "failing", "description": WIDE, "inputSchema": {"type": "object"}},
    {"name": "hostile", "description": LONG, "inputSchema": {"type": "object"}},
    {"name": "slow", "description": "Report progress.", "inputSchema": {"type": "object"}},
    {"name": "\u5de5\u5177\U0001f680", "description": RTL, "inputSchema": {"type": "object"}},
]
BLOCKS = [
    {"type": "text", "text": "first line\nsecond line"},
    {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
    {"type": "audio", "data": "!", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "file:///a", "name": "a"},
    {"type": "resource", "resource": {"uri": "file:///b", "text": "embedded"}},
    {"type": "resource", "resource": {"uri": "file:///c", "blob": "aGVsbG8="}},
    {"type": "new_kind", "what": 1},
]


def called(params: dict[str, Any]) -> dict[str, Any]:
    match params["name"]:
        case "values":
            return {"content": [{"type": "text", "text": json.dumps(params.get("arguments"))}]}
        case "blocks":
            return {"content": BLOCKS}
        case "structured":
            return {"content": [], "structuredContent": {"answer": 42}}
        case "hostile":
            return {"content": [{"type": "text", "text": f"{ESCAPES} {RTL} {MARKUP}"}]}
        case "failing":
            return {"content": [{"type": "text", "text": "it went wrong"}], "isError": True}
    return {"content": []}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    bare = "--bare" in sys.argv
    match method:
        case "initialize":
            capabilities: dict[str, Any] = {"tools": {}} if bare else {"tools": {}, "resources": {}, "prompts": {}}
            info = {"name": "described", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": TOOLS[:1] if bare else TOOLS}
        case "tools/call":
            return called(params)
        case "resources/list" if not bare:
            return {"resources": [{"uri": f"file:///{LONG}", "name": "r", "description": ESCAPES, "mimeType": "a/b"}]}
        case "resources/templates/list" if not bare:
            return {"resourceTemplates": [{"uriTemplate": "file:///{path}", "name": "t", "description": MARKUP}]}
        case "prompts/list" if not bare:
            arguments = [{"name": "topic", "required": True}, {"name": "style"}]
            return {"prompts": [{"name": "write", "description": WIDE, "arguments": arguments}]}
    return None


def report(params: dict[str, Any]) -> None:
    """Report progress once, and go on a second later."""
    told = {"progressToken": params["_meta"]["progressToken"], "progress": 1, "total": 2, "message": f"half {ESCAPES}"}
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": told}), flush=True)
    time.sleep(1.0)


def main() -> None:
    print("\x1b[31mstderr of the program\x1b[0m", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        if message["method"] == "tools/call" and message["params"]["name"] == "slow":
            report(message["params"])
        if message["method"] == "initialize" and "--slow" in sys.argv:
            time.sleep(float(sys.argv[sys.argv.index("--slow") + 1]))
        found = result_of(message["method"], message.get("params", {}))
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        reply |= {"result": found} if found is not None else {"error": {"code": -32601, "message": f"no {ESCAPES}"}}
        print(json.dumps(reply), flush=True)


main()
