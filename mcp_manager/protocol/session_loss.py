"""The rules for detecting a lost session from how a server refuses messages."""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_manager.protocol.error_codes import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    URL_ELICITATION_REQUIRED,
)

__all__ = [
    "UNANSWERED",
    "UNASKED",
    "Refusal",
    "confirms_loss",
    "may_mean_loss",
    "needs_second_opinion",
    "proves_unexecuted",
]

# 2025-11-25, session management.
_SPECIFIED: Final = 404
# Statuses about permissions, timing, or the size of one message (RFC 9110, section 15.5; RFC 6585).
_OTHER_MEANING: Final = frozenset({403, 408, 413, 425, 429})
_RESERVED: Final = range(-32768, -31999)
# Errors with a specific meaning: a server that sends one has processed the request in a session.
_ANSWERS: Final = frozenset({METHOD_NOT_FOUND, URL_ELICITATION_REQUIRED})
# JSON-RPC 2.0, section 5.1: these are detected before anything is executed.
_BEFORE_EXECUTION: Final = frozenset({PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS})
_SERVER_ERRORS: Final = range(-32099, -31999)
_NAMES_OF_A_SESSION: Final = ("session", "initializ", "initialis")


class Refusal(NamedTuple):
    """How a server refused a message.

    ``status`` is the HTTP status, 0 if the refusal came on a stream; ``code`` is that of the JSON-RPC error, ``None``
    without one; ``text`` is its bounded text. ``is_of_ping`` tells whether the message was a caller's ping.
    """

    status: int
    code: int | None = None
    text: str = ""
    is_of_ping: bool = False

    @property
    def is_status(self) -> bool:
        """Whether the refusal is an HTTP status (4xx)."""
        return 400 <= self.status < 500


UNANSWERED: Final = Refusal(0)
"""A ping without an answer."""

UNASKED: Final = Refusal(-1)
"""A ping that this side could not send, which says nothing about the server."""


def may_mean_loss(refusal: Refusal, *, challenged: bool = False) -> bool:
    """Tell whether a refusal may mean that the server no longer knows the session.

    2025-11-25, session management, specifies 404 for this. Servers also use other 4xx statuses, JSON-RPC errors in a
    200 or on a stream, and bodies that are not replies. A 5xx is a failure of the server, not a refusal.

    Parameters
    ----------
    refusal
        How the server refused a message.
    challenged
        Whether a 401 is about credentials: it came with a challenge, or the credentials are obtained by OAuth.
    """
    if refusal.code in _ANSWERS:
        return False
    if refusal.is_status:
        return refusal.status not in _OTHER_MEANING and not (refusal.status == 401 and challenged)
    if refusal.status >= 300:
        return False
    return refusal.code in _RESERVED if refusal.code is not None else refusal.status != 0


def needs_second_opinion(ping: Refusal, refusal: Refusal) -> bool:
    """Tell whether the server may refuse only pings, on a session that has never answered one.

    It does not if it refused another message with the same JSON-RPC error, or both with the specified status.
    """
    if refusal.is_of_ping:
        return True
    is_same = ping == refusal and refusal.code is not None
    return not is_same and not (ping.status == refusal.status == _SPECIFIED)


def confirms_loss(ping: Refusal, refusal: Refusal, *, is_of_request: bool = True) -> bool:
    """Tell whether the outcome of a ping confirms that the session is lost.

    A server that has lost a session refuses every message for it in the same way. A server that refuses a call because
    of its arguments, and pings for another reason, does not. 404 is the specified form, so it counts unless the ping is
    answered.

    Parameters
    ----------
    ping
        How the ping was refused; :func:`may_mean_loss` is true for it, or it is :data:`UNANSWERED` or :data:`UNASKED`.
    refusal
        How the message before it was refused.
    is_of_request
        Whether that message was a request, which a JSON-RPC error can answer.
    """
    if ping == UNASKED:
        return False
    if ping == UNANSWERED:
        return refusal.status == _SPECIFIED
    if not is_of_request or (ping.is_status and refusal.is_status):
        return True
    return ping.is_status == refusal.is_status and ping.code == refusal.code


def proves_unexecuted(refusal: Refusal) -> bool:
    """Tell whether a refusal on a lost session proves that the request was not executed.

    A 4xx does, and so do errors that are detected before anything is executed. The codes -32000 to -32099 have no fixed
    meaning: a gateway also uses them for a request in flight when it lost the server behind it. For these, only a text
    that names the session is proof.
    """
    if refusal.is_status or refusal.code in _BEFORE_EXECUTION:
        return True
    text = refusal.text.lower()
    return refusal.code in _SERVER_ERRORS and any(name in text for name in _NAMES_OF_A_SESSION)
