"""The client's capabilities, derived from its handlers, and what a server's mean (2025-11-25, basic/lifecycle; 2026-07-28, basic, ``_meta``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from mcp_manager.protocol.methods import ELICIT, LIST_ROOTS, SAMPLE

__all__ = [
    "TASKS_EXTENSION",
    "elicitation_modes",
    "handshake_capabilities",
    "offered_list",
    "offers",
    "stateless_capabilities",
    "undeclared",
]

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"

# One for all sessions: bytes that an encoder made may take a whole page of memory.
_LISTS: Final = {kind: f'"{kind}/list"'.encode() for kind in ("tools", "resources", "prompts")}


def handshake_capabilities(handled: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the capabilities that a handshake declares.

    Parameters
    ----------
    handled
        The methods that have a handler.
    given
        Capabilities that the user declares in addition, or instead: an empty mapping for ``elicitation`` declares forms
        only.
    """
    capabilities: dict[str, Any] = {}
    if SAMPLE in handled:
        capabilities["sampling"] = {}
    if ELICIT in handled:
        capabilities["elicitation"] = {"form": {}, "url": {}}
    if LIST_ROOTS in handled:
        capabilities["roots"] = {"listChanged": True}
    return {**capabilities, **given}


def stateless_capabilities(handled: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the capabilities that stateless requests declare; parameters as for :func:`handshake_capabilities`."""
    capabilities = handshake_capabilities(handled, given)
    if LIST_ROOTS in handled and "roots" not in given:
        # Without listChanged: clients of a stateless revision send no notifications.
        capabilities["roots"] = {}
    extensions = capabilities.get("extensions", {})
    capabilities["extensions"] = {TASKS_EXTENSION: {}, **extensions}
    return capabilities


def undeclared(method: str, params: Mapping[str, Any], declared: Mapping[str, Any]) -> str:
    """Name what a server's request needs and the client did not declare, "" if nothing.

    Such a request is refused with an invalid-params error (2025-11-25, client/elicitation, error handling;
    client/sampling, tools in sampling).

    Parameters
    ----------
    method, params
        The server's request.
    declared
        The client's capabilities, of either era.
    """
    if method == ELICIT:
        mode = params.get("mode", "form")
        if mode not in elicitation_modes(declared):
            return f"elicitation in mode {mode!r:.40}"
    if method == SAMPLE and (params.get("tools") is not None or params.get("toolChoice") is not None):
        sampling = declared.get("sampling")
        if not isinstance(sampling, Mapping) or "tools" not in sampling:
            return "tools in sampling"
    return ""


def elicitation_modes(declared: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modes of elicitation that capabilities declare; an empty capability means forms."""
    elicitation = declared.get("elicitation")
    if not isinstance(elicitation, Mapping):
        return ()
    return tuple(mode for mode in ("form", "url") if mode in elicitation) or ("form",)


def offered_list(capabilities: Mapping[str, Any]) -> bytes | None:
    """Return the method of a list that a server offers, as JSON; ``None`` if it offers none."""
    return next((method_raw for kind, method_raw in _LISTS.items() if kind in capabilities), None)


def offers(capability: object, *names: str) -> bool:
    """Tell whether a capability has members within members of these names; the innermost may have any value."""
    for name in names:
        if not isinstance(capability, dict) or name not in capability:
            return False
        capability = capability[name]
    return True
