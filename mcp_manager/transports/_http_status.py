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
from mcp_manager.config import redact_url
from mcp_manager.errors import AuthError, ConnectionLostError, OverloadedError, ProtocolError, SessionLostError
from mcp_manager.transports.urls import resolve

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
_MAX_LOCATION_BYTES: Final = 4096
_MAX_SHOWN: Final = 200


def carries_answer(status: int, has_session: bool) -> bool:
    """Tell whether a JSON-RPC error in the body of this status answers the call.

    404 with a session id means that the session is gone whatever the body says (2025-11-25, session management), and
    401, 403, 429 and 503 speak of the request's admission.
    """
    return status not in (401, 403, 429, 503) and not (status == 404 and has_session)


def raise_for_status(
    reply: WireReply, server_id: str, endpoint: URL, *, has_session: bool, detail: str = ""
) -> NoReturn:
    """Raise the error that a status without a usable reply stands for."""
    status = reply.status
    said = f": {detail}" if detail else ""
    if has_session and (status == 404 or (status == 400 and "session" in detail.lower())):
        # The 400 form is what several servers send in place of the specified 404.
        raise SessionLostError(f"the server no longer knows the session (HTTP {status})", server_id=server_id)
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
        _raise_redirected(reply, server_id, endpoint)
    if 400 <= status < 500:
        error = ProtocolError(
            f"the server refused the request with HTTP {status}{said}",
            server_id=server_id,
            delivery="rejected",
            hint="check that url is the MCP endpoint" if status in (404, 405) else "",
        )
    else:
        error = ProtocolError(
            f"the server failed with HTTP {status}{said}",
            server_id=server_id,
            delivery="unknown",
            # What it does not implement now (RFC 9110, section 15.6.2) it will not the next time.
            retryable=status != 501,
        )
    error.http_status = status
    raise error


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
    location = (reply.header("location") or "").encode("latin-1")
    if not location or len(location) > _MAX_LOCATION_BYTES:
        return None
    try:
        target = resolve(endpoint, location)
    except ValueError:
        return None
    # Whoever may choose a user and a password may choose the Authorization that is sent.
    return target if target.raw_user is None and target.raw_password is None else None


def _raise_redirected(reply: WireReply, server_id: str, endpoint: URL) -> NoReturn:
    """Say where to, as far as that may be shown, and what to do about it."""
    status = reply.status
    target = redirect_target(reply, endpoint)
    if target is None:
        where, hint = "nowhere that can be followed", "check that url is the MCP endpoint"
    else:
        where = redact_url(str(target))
        if len(where) > _MAX_SHOWN:
            where = f"{where[:_MAX_SHOWN]}…"
        if target.origin() == endpoint.origin() and status in (307, 308):
            hint = "it redirects too often: configure the final url"
        elif status == 303 or (status == 302 and target.raw_path != f"{endpoint.raw_path}/"):
            hint = f"if the MCP endpoint is there, set url to {where}; if it is a page to log in, set auth"
        elif target.query_string:
            hint = "set url to that place, with its query"
        else:
            hint = f"set url to {where}"
    raise ProtocolError(
        f"the endpoint redirects (HTTP {status}) to {where}; only 307 and 308 to the same origin are followed",
        server_id=server_id,
        delivery="rejected",
        hint=hint,
    )
