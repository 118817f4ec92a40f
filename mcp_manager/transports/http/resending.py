"""Whether a request is sent once more that a connection took along to its end before a byte of the reply had come.

Either side may close a connection that is idle, at any time and without a word (RFC 9112, section 9.5): a request that
is on its way just then is lost, and nothing is wrong with the server.
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
    """Tell whether a failure proves that the request did not leave whole, and so was not executed."""
    cause = error.__cause__ if isinstance(error, WireError) else error
    # The system refuses to take bytes for a connection that is closed. A reset says nothing: it may be an answer to them.
    return isinstance(cause, BrokenPipeError)


def may_resend(error: BaseException, exchange: Exchange, verb: str) -> bool:
    """Tell whether a request goes once more, on a fresh connection.

    It does if it did not leave whole; if it is part of the handshake; and, where the connection had carried another one
    before, if it does no harm when it is executed twice. ``verb`` is the HTTP method.
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
