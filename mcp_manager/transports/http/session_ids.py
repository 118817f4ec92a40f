"""The session ids that a server assigns over HTTP, including those of stray sessions that have to be deleted."""

from __future__ import annotations

import re
from typing import Final

from mcp_manager._core.http_message import WireReply
from mcp_manager._core.jsonrpc import Message

__all__ = ["SESSION_HEADER", "is_session_id", "session_id_in", "with_stray"]

SESSION_HEADER: Final = "Mcp-Session-Id"
# 2025-11-25, session management: visible ASCII.
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,4096}")
# A server may make a session for every request that it refuses, so the number kept is bounded.
_MAX_STRAYS: Final = 4


def is_session_id(text: str) -> bool:
    """Return whether a text is a valid session id."""
    return _SESSION_ID.fullmatch(text) is not None


def session_id_in(head: WireReply | Message) -> str | None:
    """Return the session id in the head of a response, ``None`` if there is none."""
    return head.header("mcp-session-id") if type(head) is WireReply else None


def with_stray(strays: tuple[str, ...], session_id: str | None, kept: str | None) -> tuple[str, ...]:
    """Add the id of an unused session to those to delete.

    Parameters
    ----------
    strays
        The ids so far; at most the newest four are kept.
    session_id
        The id to add; ignored if it is ``None`` or malformed.
    kept
        The id of the session in use, which is never added.
    """
    if session_id is None or session_id == kept or session_id in strays or not is_session_id(session_id):
        return strays
    return (*strays, session_id)[-_MAX_STRAYS:]
