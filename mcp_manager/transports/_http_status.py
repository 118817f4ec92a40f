"""What an HTTP status without a usable reply means for a call."""

from __future__ import annotations

import datetime
import email.utils
import enum
import os
import socket
import time
from typing import Final, NoReturn

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import WireReply
from mcp_manager.errors import AuthError, ConnectionLostError, OverloadedError, ProtocolError, SessionLostError

__all__ = [
    "Credentials",
    "carries_answer",
    "origin",
    "parse_retry_after",
    "raise_for_status",
    "reason_of",
    "redirect_target",
    "retry_after_of",
]

_MAX_RETRY_AFTER_S: Final = 60.0


def carries_answer(status: int, has_session: bool) -> bool:
    """Tell whether a JSON-RPC error in the body of this status answers the call.

    404 with a session id means that the session is gone whatever the body says (2025-11-25, session management), and
    401, 403, 429 and 503 speak of the request's admission.
    """
    return status not in (401, 403, 429, 503) and not (status == 404 and has_session)


class Credentials(enum.Enum):
    """What a request was sent with: that decides what a refusal may be about."""

    NONE = "none"
    FIXED = "fixed"
    OAUTH = "oauth"


def raise_for_status(
    reply: WireReply,
    server_id: str,
    endpoint: URL,
    *,
    has_session: bool,
    detail: str = "",
    credentials: Credentials = Credentials.FIXED,
) -> NoReturn:
    """Raise the error that a status without a usable reply stands for; ``detail`` is what the server says of it."""
    status = reply.status
    said = f": {detail}" if detail else ""
    if has_session and (status == 404 or (status == 400 and "session" in detail.lower())):
        # The 400 form is what several servers send in place of the specified 404.
        raise SessionLostError(f"the server no longer knows the session (HTTP {status})", server_id=server_id)
    if status in (401, 403):
        what, hint = _about_credentials(reply, credentials)
        raise AuthError(f"the server {what} HTTP {status}{said}", server_id=server_id, hint=hint)
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


def _about_credentials(reply: WireReply, credentials: Credentials) -> tuple[str, str]:
    """Say what a 401 or 403 does, and what may help: many a 403 is about something else than credentials."""
    challenge = ", ".join(reply.header_values("www-authenticate"))
    if credentials is not Credentials.OAUTH and "resource_metadata" in challenge.lower():
        return "wants an OAuth token, with", 'set auth.type = "oauth" in the server\'s configuration'
    if credentials is Credentials.NONE:
        if reply.status == 401 or challenge:
            return "wants credentials, with", "set auth, or headers, in the server's configuration"
        return "refused the request with", ""
    if reply.status == 401:
        return "refused the credentials with", "check auth and headers in the server's configuration"
    return "refused the request with", "check auth and headers in the server's configuration, if it is about them"


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
