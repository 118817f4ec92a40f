"""The classification of requests by whether they are safe to repeat."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from mcp_manager.protocol import methods

__all__ = ["CONTENT", "LISTS", "Safety", "safety_of", "tool_of"]

CONTENT: Final = frozenset({methods.CALL_TOOL, "prompts/get", "resources/read", "completion/complete"})
"""Requests for content: tool calls, prompts, resources and completions."""
LISTS: Final = frozenset(
    {methods.LIST_TOOLS, methods.DISCOVER, "prompts/list", "resources/list", "resources/templates/list"}
)
"""Requests for what a server offers: lists and discovery."""

Safety = Literal["safe", "conditional", "never"]
"""``safe``: repeat it; ``conditional``: the tool decides; ``never``: do not repeat it automatically."""

_SAFE: Final = frozenset(
    {
        methods.PING,
        methods.DISCOVER,
        methods.LIST_TOOLS,
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        methods.SUBSCRIBE,
        methods.UNSUBSCRIBE,
        "completion/complete",
        methods.SET_LOG_LEVEL,
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/cancel",
    }
)


class _Named(msgspec.Struct):
    name: str


_decoder = msgspec.json.Decoder(_Named)


def safety_of(method: str) -> Safety:
    """Tell whether requests of a method are safe to repeat: those that only read, or are idempotent.

    ``tasks/update`` is not, because it delivers answers; methods unknown to MCP are not either.
    """
    if method in _SAFE:
        return "safe"
    return "conditional" if method == methods.CALL_TOOL else "never"


def tool_of(params: bytes | None) -> str | None:
    """Return the tool that the params of a ``tools/call`` name, ``None`` if they name none."""
    try:
        return _decoder.decode(params or b"{}").name
    except (msgspec.DecodeError, RecursionError):
        return None
