"""Maps an HTTP status without a usable reply to the error of the call."""

from __future__ import annotations

import datetime
import email.utils
import enum
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from yarl import URL

from mcp_manager._core.http_message import WireReply
from mcp_manager.config import redact_url
from mcp_manager.errors import AuthError, CallError, ConnectionLostError, OverloadedError, ProtocolError
from mcp_manager.transports.http.status_hints import (
    about_forbidden,
    about_gateway,
    about_other,
    about_unavailable,
    later,
    no_endpoint_at,
)
from mcp_manager.transports.http.urls import resolve

__all__ = [
    "Credentials",
    "RefusedRequest",
    "Said",
    "carries_answer",
    "origin",
    "parse_retry_after",
    "raise_for_status",
    "redirect_target",
    "retry_after_of",
]

_MAX_RETRY_AFTER_S: Final = 60.0
_MAX_LOCATION_BYTES: Final = 4096
_MAX_SHOWN: Final = 200
# RFC 9110, section 15.4: the other 3xx do not redirect.
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# What Cloudflare answers if it cannot reach the server, or got no valid response of it.
_OF_A_PROXY: Final = frozenset(range(520, 531))


def carries_answer(status: int) -> bool:
    """Return whether a JSON-RPC error with this status answers the call; these four refuse admission instead."""
    return status not in (401, 403, 429, 503)


class Credentials(enum.Enum):
    """The kind of credentials a request was sent with, which decides what a 401 or 403 may mean."""

    NONE = "none"
    FIXED = "fixed"
    OBTAINED = "obtained"


class RefusedRequest(NamedTuple):
    """What is known of a refused request.

    ``endpoint`` is its URL, ``has_session`` says whether it carried a session id (then the URL was right before), and
    ``credentials`` is the kind of its credentials.
    """

    endpoint: URL
    has_session: bool
    credentials: Credentials


class Said(NamedTuple):
    """The server's explanation of a refusal.

    ``detail`` is its text, bounded and masked; ``code`` is the code of a JSON-RPC error, ``None`` without one;
    ``masked`` masks the server's credentials in other texts.
    """

    detail: str
    code: int | None
    masked: Callable[[str], str]


def raise_for_status(reply: WireReply, server_id: str, request: RefusedRequest, said: Said) -> NoReturn:
    """Raise the error for a status without a usable reply.

    Parameters
    ----------
    reply
        The response.
    server_id
        Names the server in the error.
    request
        The request that it refuses.
    said
        The server's explanation.
    """
    try:
        _raise_meaning(reply, server_id, request, said)
    except CallError as error:
        error.http_status, error.rpc_code = reply.status, said.code
        if isinstance(error, AuthError):
            error.is_challenged = reply.header("www-authenticate") is not None
        raise


def _raise_meaning(reply: WireReply, server_id: str, request: RefusedRequest, words: Said) -> NoReturn:
    status, endpoint = reply.status, request.endpoint
    said = f": {words.detail}" if words.detail else ""
    if status in (401, 403):
        what, hint = _about_credentials(reply, request.credentials, words.detail)
        raise AuthError(f"the server {what} (HTTP {status}){said}", server_id=server_id, hint=hint)
    retry_after_s = retry_after_of(reply)
    if status == 429:
        raise OverloadedError(
            f"the server is limiting requests (HTTP 429){said}",
            server_id=server_id,
            retry_after_s=retry_after_s,
            hint="; ".join(filter(None, (later(retry_after_s), "set limits.rate so that calls wait here instead"))),
        )
    if status == 503:
        raise OverloadedError(
            f"the server is not available (HTTP 503){said}",
            server_id=server_id,
            delivery="unknown",
            retry_after_s=retry_after_s,
            hint=about_unavailable(retry_after_s),
        )
    if status in (502, 504) or status in _OF_A_PROXY:
        raise ConnectionLostError(
            f"a gateway could not reach the server, or lost it (HTTP {status}){said}",
            server_id=server_id,
            delivery="unknown",
            hint=about_gateway(status),
        )
    if status in _REDIRECTS:
        _raise_redirected(reply, server_id, endpoint, words)
    if 300 <= status < 400:
        raise ProtocolError(
            f"the server answered with HTTP {status}, which is not a reply to a request{said}",
            server_id=server_id,
            delivery="unknown",
            hint="a cache may have answered: check that url is the MCP endpoint" if status == 304 else "",
        )
    if 400 <= status < 500:
        raise ProtocolError(
            f"the server refused the request (HTTP {status}){said}",
            server_id=server_id,
            # A server may also answer 408 after it has begun to execute the request.
            delivery="unknown" if status == 408 else "rejected",
            retryable=status in (408, 425),
            hint=_way_out(reply, request, words),
        )
    raise ProtocolError(
        f"the server failed with HTTP {status}{said}",
        server_id=server_id,
        delivery="unknown",
        # 501: the server does not implement it (RFC 9110, section 15.6.2), so repeating is useless.
        retryable=status != 501,
        hint=_way_out(reply, request, words),
    )


def _way_out(reply: WireReply, request: RefusedRequest, said: Said) -> str:
    is_new = not request.has_session
    if is_new and reply.status in (404, 405) and said.code is None and (told := no_endpoint_at(request.endpoint)):
        return told
    return about_other(reply.status, request.endpoint, said.detail, reply.body, is_new=is_new)


def _about_credentials(reply: WireReply, credentials: Credentials, said: str) -> tuple[str, str]:
    """Return what a 401 or 403 means, and a hint; a 403 is often not about credentials."""
    challenge = ", ".join(reply.header_values("www-authenticate"))
    if credentials is not Credentials.OBTAINED and "resource_metadata" in challenge.lower():
        return "requires an OAuth token", 'set auth.type = "oauth" in the server\'s configuration'
    if credentials is Credentials.NONE:
        if reply.status == 401 or challenge:
            return "requires credentials", "set auth, or headers, in the server's configuration"
    elif reply.status == 401:
        return "refused the credentials", "check auth and headers in the server's configuration"
    return "refused the request", about_forbidden(
        said,
        has_credentials=credentials is not Credentials.NONE,
        is_obtained=credentials is Credentials.OBTAINED,
    )


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Parse ``Retry-After`` (RFC 9110, section 10.2.3).

    Parameters
    ----------
    value
        The field's value, ``None`` if it is absent.
    now_s
        The time of day in seconds.

    Returns
    -------
    float or None
        Seconds from now, 0 to 60; ``None`` if it is absent or malformed.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Any number of digits is valid; it is capped like every long wait.
        return _MAX_RETRY_AFTER_S if len(text) > 6 else min(float(text), _MAX_RETRY_AFTER_S)
    try:
        when = email.utils.parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        at_s = when.timestamp()
    except (ValueError, IndexError, OverflowError):
        return None
    return min(max(at_s - now_s, 0.0), _MAX_RETRY_AFTER_S)


def retry_after_of(reply: WireReply) -> float | None:
    """Return the ``Retry-After`` of a response in seconds; see :func:`parse_retry_after`."""
    return parse_retry_after(reply.header("retry-after"), time.time())


def origin(url: URL) -> str:
    """Return scheme, host and port, the part of a URL that error messages may quote."""
    return str(url.origin())


def redirect_target(reply: WireReply, endpoint: URL) -> URL | None:
    """Return the target of a redirect (RFC 9110, section 10.2.2), ``None`` if it has no usable one."""
    location = (reply.header("location") or "").encode("latin-1")
    if not location or len(location) > _MAX_LOCATION_BYTES:
        return None
    try:
        target = resolve(endpoint, location)
    except ValueError:
        return None
    # A target with a user and a password would replace the Authorization that is sent.
    return target if target.raw_user is None and target.raw_password is None else None


def _raise_redirected(reply: WireReply, server_id: str, endpoint: URL, said: Said) -> NoReturn:
    """Raise the error for a redirect that is not followed, with its masked target and a hint."""
    status = reply.status
    target = redirect_target(reply, endpoint)
    if target is None:
        where, hint = "no usable URL", "check that url is the MCP endpoint"
    else:
        # Masked before it is cut: half a secret would not be recognized.
        where = said.masked(redact_url(str(target)))
        if len(where) > _MAX_SHOWN:
            where = f"{where[:_MAX_SHOWN]}…"
        if target.origin() == endpoint.origin() and status in (307, 308):
            hint = "it redirects too often: set url to the final one"
        elif status == 303 or (status == 302 and target.raw_path != f"{endpoint.raw_path}/"):
            hint = f"if the MCP endpoint is there, set url to {where}; if it is a login page, set auth"
        elif target.query_string:
            hint = "set url to that URL, with its query"
        else:
            hint = f"set url to {where}"
    raise ProtocolError(
        f"the endpoint redirects (HTTP {status}) to {where}; only 307 and 308 to the same origin are followed",
        server_id=server_id,
        delivery="rejected",
        hint=hint,
    )
