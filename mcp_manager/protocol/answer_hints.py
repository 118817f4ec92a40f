"""What helps against errors that servers tell in words of their own."""

from __future__ import annotations

import re
from typing import Final

from mcp_manager.protocol.methods import ELICIT, LIST_ROOTS, SAMPLE

__all__ = ["handlers_hint", "hint_for", "no_handler"]

# The fields of Handlers.
_FIELDS: Final = {ELICIT: "elicitation", SAMPLE: "sampling", LIST_ROOTS: "roots"}
_NO_HANDLER: Final = "the client has no handler for"
# How far into a text to look.
_BEGINNING: Final = 1000

# What the official SDK for Python and fastmcp say on 2026-07-28, and in every revision if they keep no sessions.
_NO_WAY: Final = re.compile(r"back-channel|via server-initiated requests")
_NO_WAY_HINT: Final = (
    'set protocol_version = "handshake" in the server\'s configuration and give handlers to the manager; '
    "a server that runs without sessions (stateless_http, json_response) cannot ask in any revision"
)
# What servers quote of our refusal; and what the official SDK for TypeScript says, which looks at the capabilities.
_UNHANDLED: Final = re.compile(
    rf"{_NO_HANDLER} (?P<method>{'|'.join(map(re.escape, _FIELDS))})"
    r"|client does not support (?:(?:form|url|listing) )?(?P<feature>elicitation|sampling|roots)",
    re.IGNORECASE,
)
# What the official SDKs and fastmcp say of the name in a call.
_NO_TOOL: Final = re.compile(r"^(?:.{0,40}: )?(?:unknown tool\b|tool \S{1,256} not found)", re.IGNORECASE)


def no_handler(method: str) -> str:
    """Say to a server why its request is refused; the answer to the caller's request often quotes it."""
    return f"Method not found: {_NO_HANDLER} {method}" if method in _FIELDS else "Method not found"


def handlers_hint(method: str) -> str:
    """Return the hint for a question without a handler."""
    field = _FIELDS.get(method)
    return f"give the manager handlers=Handlers({field}=…)" if field is not None else "give the manager handlers"


def hint_for(text: str) -> str:
    """Return what helps against a server's error.

    Its text may say that the server cannot ask the client something, or does not know the tool; "" for all else.
    """
    beginning = text[:_BEGINNING]
    if _NO_TOOL.search(beginning) is not None:
        return "list_tools(server_id) names the tools of the server"
    if _NO_WAY.search(beginning) is not None:
        return _NO_WAY_HINT
    found = _UNHANDLED.search(beginning)
    if found is None:
        return ""
    feature = (found["feature"] or "").lower()
    by_feature = {field: method for method, field in _FIELDS.items()}
    return handlers_hint(found["method"] or by_feature[feature])
