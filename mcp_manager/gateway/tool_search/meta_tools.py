"""The tools that an endpoint lists in place of all others: they find, describe and call those."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["CALL", "DEFAULT_LIMIT", "DESCRIBE", "META_TOOLS", "MOST_DESCRIBED", "MOST_FOUND", "SEARCH"]

SEARCH: Final = "search_tools"
DESCRIBE: Final = "describe_tools"
CALL: Final = "call_tool"
DEFAULT_LIMIT: Final = 8
MOST_FOUND: Final = 50
MOST_DESCRIBED: Final = 20

_READS: Final = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
_MAY_DO_ANYTHING: Final = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}

_DEFINITIONS: Final[list[dict[str, Any]]] = [
    {
        "name": SEARCH,
        "title": "Search tools",
        "description": (
            "Find tools by what they do. There are many more tools here than are listed, so search before you say that "
            "something cannot be done. The best matches come first, each with its name, its server, the first line of "
            f"its description and its parameters. Call what you find with {CALL}; if its parameters are not obvious, "
            f"read its definition with {DESCRIBE} first. If nothing fits, search again with other words. An empty query "
            "returns the servers, and what each of them is for."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "description": "A few words that say what the tool does, such as: create calendar event",
                },
                "limit": {
                    "type": "integer",
                    "description": "How many tools to return at most",
                    "minimum": 1,
                    "maximum": MOST_FOUND,
                    "default": DEFAULT_LIMIT,
                },
            },
            "required": ["query"],
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "tools": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": _TEXT,
                            "server": _TEXT,
                            "description": _TEXT,
                            "parameters": _TEXTS,
                            "required": _TEXTS,
                        },
                        "required": ["name", "server", "description", "parameters", "required"],
                    },
                },
                "servers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": _TEXT, "description": _TEXT, "tools": {"type": "integer"}},
                        "required": ["name", "description", "tools"],
                    },
                },
                "total": {"type": "integer", "description": "How many tools there are"},
                "missing": {**_TEXTS, "description": "Servers whose tools are not known at present"},
            },
            "required": ["total"],
        },
        "annotations": {"title": "Search tools", **_READS},
    },
    {
        "name": DESCRIBE,
        "title": "Describe tools",
        "description": (
            f"Return the full definitions of tools that {SEARCH} has found: description, input schema, output schema "
            f"and annotations. Read it before you use {CALL} with parameters that are not obvious."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "names": {
                    "type": "array",
                    "items": _TEXT,
                    "minItems": 1,
                    "maxItems": MOST_DESCRIBED,
                    "description": f"The names of the tools, as {SEARCH} returned them",
                }
            },
            "required": ["names"],
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "tools": {"type": "array", "items": {"type": "object"}},
                "unknown": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": _TEXT, "near": _TEXTS},
                        "required": ["name", "near"],
                    },
                },
            },
            "required": ["tools", "unknown"],
        },
        "annotations": {"title": "Describe tools", **_READS},
    },
    {
        "name": CALL,
        "title": "Call a tool",
        "description": f"Call a tool that {SEARCH} has found. Returns what that tool returns.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": f"The name of the tool, as {SEARCH} returned it"},
                "arguments": {
                    "type": "object",
                    "description": "The arguments of that tool, as its parameters say",
                    "additionalProperties": True,
                },
            },
            "required": ["name", "arguments"],
        },
        "annotations": {"title": "Call a tool", **_MAY_DO_ANYTHING},
        # Whether a call may become a task, the tool that is called says.
        "execution": {"taskSupport": "optional"},
    },
]

META_TOOLS: Final[dict[str, bytes]] = {each["name"]: msgspec.json.encode(each) for each in _DEFINITIONS}
"""The definitions by name, as clients get them."""
