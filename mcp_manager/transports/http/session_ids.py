"""The ids of sessions that a server gives out over HTTP: also of those that nobody asked for and somebody has to end."""

from __future__ import annotations

import re
from typing import Final

from mcp_manager._core.http_message import WireReply
from mcp_manager._core.jsonrpc import Message

__all__ = ["SESSION_HEADER", "is_session_id", "session_id_in", "with_stray"]

SESSION_HEADER: Final = "Mcp-Session-Id"
# 2025-11-25, session management: visible ASCII.
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,4096}")
# A server may make one for every request that it refuses: more are not worth their memory.
_MAX_STRAYS: Final = 4


def is_session_id(text: str) -> bool:
    """Tell whether a text may be the id of a session."""
    return _SESSION_ID.fullmatch(text) is not None


def session_id_in(head: WireReply | Message) -> str | None:
    """Return the session id in the head of a response, ``None`` if there is none."""
    return head.header("mcp-session-id") if type(head) is WireReply else None


def with_stray(strays: tuple[str, ...], session_id: str | None, kept: str | None) -> tuple[str, ...]:
    """Add the id of a session that is not used to those that are to be ended, unless it is ``kept``, or no id."""
    if session_id is None or session_id == kept or session_id in strays or not is_session_id(session_id):
        return strays
    return (*strays, session_id)[-_MAX_STRAYS:]
