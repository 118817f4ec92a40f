"""Decides whether a request is sent again after its connection closed before the first byte of the response.

Either side may close an idle connection at any time (RFC 9112, section 9.5). A request that is sent in that moment is
lost although nothing is wrong with the server.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import msgspec

from mcp_manager._core.http_message import LOST, Exchange, WireError
from mcp_manager.protocol import methods
from mcp_manager.protocol.safety import safety_of

__all__ = ["is_unsent", "may_resend", "method_of"]

_HANDSHAKE: Final = frozenset({methods.INITIALIZE, methods.DISCOVER, methods.INITIALIZED})
_HARMLESS: Final = frozenset({methods.CANCELLED, methods.PROGRESS, methods.ROOTS_CHANGED})


class _Named(msgspec.Struct):
    method: str | None = None


_decoder = msgspec.json.Decoder(_Named)


def method_of(frame: bytes) -> str | None:
    """Return the method of a message, ``None`` for a reply."""
    try:
        return _decoder.decode(frame).method if frame else None
    except (msgspec.DecodeError, RecursionError):
        return None


def is_unsent(error: BaseException) -> bool:
    """Return whether a failure proves that the request was not sent completely, and so was not executed."""
    cause = error.__cause__ if isinstance(error, WireError) else error
    # EPIPE: the system took no bytes for a closed connection. A reset proves nothing: it may follow bytes that arrived.
    return isinstance(cause, BrokenPipeError)


def may_resend(error: BaseException, exchange: Exchange, verb: str) -> bool:
    """Return whether a request may be sent again, on a new connection.

    It may if it was not sent completely, if it is part of the handshake, or if its connection had carried a request
    before and the request is safe to repeat. A request is sent again once at the most.

    Parameters
    ----------
    error
        What the first attempt raised.
    exchange
        The request.
    verb
        The HTTP method.
    """
    if exchange.resent or not exchange.sent or exchange.head is not None:
        return False
    if isinstance(error, WireError):
        if error.kind != LOST or not error.unread:
            return False
        reused = error.reused
    elif isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        reused = exchange.reused
    else:
        return False
    if is_unsent(error):
        return True
    if verb != "POST":
        return reused
    method = method_of(exchange.frame)
    if method in _HANDSHAKE:
        return True
    return reused and (method is None or method in _HARMLESS or safety_of(method) == "safe")
