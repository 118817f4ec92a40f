"""Which requests do no harm when they are executed twice."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from mcp_manager.protocol import methods

__all__ = ["Safety", "safety_of", "tool_of"]

Safety = Literal["safe", "conditional", "never"]
"""``safe`` to repeat, ``conditional`` on what is known of the tool, or ``never`` repeated by itself."""

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
    """Tell whether a request of this method may be executed twice: those that read, or set what they set anew.

    ``tasks/update`` hands over answers, and of methods that MCP does not have nothing is known.
    """
    if method in _SAFE:
        return "safe"
    return "conditional" if method == methods.CALL_TOOL else "never"


def tool_of(params: bytes | None) -> str | None:
    """Return the name of the tool that the params of a ``tools/call`` are for, ``None`` if they have none."""
    try:
        return _decoder.decode(params or b"{}").name
    except (msgspec.DecodeError, RecursionError):
        return None
