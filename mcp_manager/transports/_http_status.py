"""What an HTTP status without a usable reply means for a call."""

from __future__ import annotations

import datetime
import email.utils
import os
import socket
import time
from typing import Final, NoReturn

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import WireReply
from mcp_manager.errors import AuthError, CallError, ConnectionLostError, OverloadedError, ProtocolError

__all__ = [
    "carries_answer",
    "origin",
    "parse_retry_after",
    "raise_for_status",
    "reason_of",
    "redirect_target",
    "retry_after_of",
]

_MAX_RETRY_AFTER_S: Final = 60.0


def carries_answer(status: int) -> bool:
    """Tell whether a JSON-RPC error in the body of this status answers the call: these speak of its admission."""
    return status not in (401, 403, 429, 503)


def raise_for_status(
    reply: WireReply, server_id: str, endpoint: URL, *, has_session: bool, detail: str = "", code: int | None = None
) -> NoReturn:
    """Raise the error that a status without a usable reply stands for.

    Parameters
    ----------
    has_session
        Whether the request carried a session id: then the endpoint has been right before.
    detail, code
        Text and code of the JSON-RPC error in the body.
    """
    try:
        _raise_meaning(reply, server_id, endpoint, has_session=has_session, detail=detail)
    except CallError as error:
        error.http_status, error.rpc_code = reply.status, code
        if isinstance(error, AuthError):
            error.is_challenged = reply.header("www-authenticate") is not None
        raise


def _raise_meaning(reply: WireReply, server_id: str, endpoint: URL, *, has_session: bool, detail: str) -> NoReturn:
    status = reply.status
    said = f": {detail}" if detail else ""
    if status in (401, 403):
        raise AuthError(
            f"the server refused the credentials with HTTP {status}{said}",
            server_id=server_id,
            hint="check auth and headers in the server's configuration",
        )
    retry_after_s = retry_after_of(reply)
    if status == 429:
        raise OverloadedError(
            f"the server is limiting requests (HTTP 429){said}", server_id=server_id, retry_after_s=retry_after_s
        )
    if status == 503:
        raise OverloadedError(
            f"the server is not available (HTTP 503){said}",
            server_id=server_id,
            delivery="unknown",
            retry_after_s=retry_after_s,
        )
    if status in (502, 504):
        raise ConnectionLostError(
            f"a gateway lost the server (HTTP {status}){said}", server_id=server_id, delivery="unknown"
        )
    if 300 <= status < 400:
        raise ProtocolError(
            f"the endpoint redirects (HTTP {status}) to {_shown(redirect_target(reply, endpoint))}; "
            "only 307 and 308 to the same origin are followed",
            server_id=server_id,
            delivery="rejected",
            hint="configure the final url",
        )
    if 400 <= status < 500:
        raise ProtocolError(
            f"the server refused the request with HTTP {status}{said}",
            server_id=server_id,
            delivery="rejected",
            hint="check that url is the MCP endpoint" if status in (404, 405) and not has_session else "",
        )
    raise ProtocolError(
        f"the server failed with HTTP {status}{said}",
        server_id=server_id,
        delivery="unknown",
        # What it does not implement now (RFC 9110, section 15.6.2) it will not the next time.
        retryable=status != 501,
    )


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Read ``Retry-After`` as seconds from now, at most 60 (RFC 9110, section 10.2.3); ``None`` if absent or malformed."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # An absurd number of digits is a long wait, not a reason to fail.
        return _MAX_RETRY_AFTER_S if len(text) > 6 else min(float(text), _MAX_RETRY_AFTER_S)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return min(max(when.timestamp() - now_s, 0.0), _MAX_RETRY_AFTER_S)


def retry_after_of(reply: WireReply) -> float | None:
    """Return the seconds that a response asks to wait; see :func:`parse_retry_after`."""
    return parse_retry_after(reply.header("retry-after"), time.time())


def origin(url: URL) -> str:
    """Return scheme, host and port: what of a URL may stand in a message."""
    return str(url.origin())


def reason_of(error: BaseException) -> str:
    """Say in a few words why a connection failed, without the URL that aiohttp's own texts quote."""
    if isinstance(error, TimeoutError):
        return "no connection within connect_timeout_s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed it"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its TLS certificate was refused ({error.certificate_error.__class__.__name__})"
    os_error = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(os_error, OSError):
        if isinstance(os_error, socket.gaierror):
            return f"its name cannot be resolved ({os_error.strerror})"
        # asyncio's own texts repeat the address; the plain reason is what is missing.
        return os.strerror(os_error.errno) if os_error.errno else str(os_error) or type(os_error).__name__
    return type(error).__name__


def redirect_target(reply: WireReply, endpoint: URL) -> URL | None:
    """Return where a response redirects to (RFC 9110, section 10.2.2), ``None`` if nowhere that makes sense."""
    try:
        return endpoint.join(URL(reply.header("location") or "")).with_fragment(None)
    except ValueError:
        return None


def _shown(target: URL | None) -> str:
    try:
        return "an invalid location" if target is None else str(target.origin())
    except ValueError:
        return "an invalid location"
