"""Reading of token endpoint replies: tokens, refusals, and temporary failures."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import msgspec

from mcp_manager.auth.oauth.documents import lifetime, reason_of
from mcp_manager.auth.oauth.http import JsonReply, OAuthHttp
from mcp_manager.errors import AuthError

__all__ = ["TokenRefused", "Tokens", "has_token", "read_tokens", "refusal_of"]

# RFC 6750, section 2.1: the characters that a header field can carry.
_TOKEN: Final = re.compile(r"[!-~]{1,65536}")
# RFC 6749, appendix A.17.
_REFRESH_TOKEN: Final = re.compile(r"[ -~]{1,65536}")
# RFC 6749, section 5.2, and what GitHub and Slack use instead. They are final with status 500 too, with which some
# servers refuse everything; the other 5xx come from gateways.
_FINAL_CODES: Final = frozenset(
    {
        "bad_refresh_token",
        "invalid_client",
        "invalid_grant",
        "invalid_refresh_token",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
# Temporary whatever the status: RFC 6749, section 4.1.2.1, RFC 8628, section 3.5, and other spellings.
_TRANSIENT_CODES: Final = frozenset(
    {
        "internal_error",
        "over_request_rate_limit",
        "rate_limit_exceeded",
        "rate_limited",
        "ratelimited",
        "server_error",
        "service_unavailable",
        "slow_down",
        "temporarily_unavailable",
        "too_many_requests",
    }
)
# Tokens of these types need a proof, or are no access tokens at all (RFC 8693, section 2.2.1).
_BOUND_TYPES: Final = frozenset({"dpop", "mac", "n_a", "pop"})
_HINTS: Final = {
    "invalid_client": "check auth.client_id and auth.client_secret or auth.private_key; auth.client_auth sets how a "
    "secret is sent",
    "invalid_scope": "check auth.scopes",
    "invalid_target": "the authorization server does not know this resource; set auth.send_resource = false to omit "
    "the parameter",
    "unauthorized_client": "the client may not use this grant: check its registration and auth.grant",
    "unsupported_grant_type": "the authorization server does not support this grant: check auth.grant",
}


class TokenRefused(AuthError):
    """The token endpoint refused the grant; ``code`` is its error code, or ""."""

    code = ""


class Tokens(msgspec.Struct, frozen=True):
    """The tokens from a token endpoint.

    ``refresh`` is "" without one; ``expires_at`` is in seconds since the epoch, 0 if not known.
    """

    access: str
    refresh: str
    expires_at: float

    def __repr__(self) -> str:
        return "Tokens(***)"


def has_token(reply: JsonReply) -> bool:
    """Tell whether a reply is a success: its status alone does not decide that."""
    access = reply.body.get("access_token")
    return 200 <= reply.status < 300 and isinstance(access, str) and _TOKEN.fullmatch(access) is not None


def refusal_of(http: OAuthHttp, where: str, reply: JsonReply, secrets: Collection[str]) -> AuthError:
    """Return the error for a reply without a token: :class:`TokenRefused`, or a retryable one for a temporary failure.

    Servers refuse with any status: GitHub and Slack with 200, gateways with a login page or a redirect to one.

    Parameters
    ----------
    where
        The endpoint, for errors.
    secrets
        The secrets that were sent, to be masked if the reply quotes them.
    """
    code, words = reason_of(reply.body, secrets)
    is_final = reply.status == 500 and code in _FINAL_CODES
    said = ", ".join(filter(None, (f"HTTP {reply.status}", code, words)))
    if code.lower() in _TRANSIENT_CODES or (reply.is_transient and not is_final):
        return http.error(f"{where} is not available ({said})", retryable=True)
    if reply.is_redirect:
        said += f", it redirects to {http.shown(reply.location)}, which is not followed" if reply.location else ""
    elif not code and not words:
        said += f", {reply.content_type or 'no type'} without a usable token" if reply.status < 300 else ", no reason"
    made = http.error(f"{where} refused the grant ({said})", hint=_HINTS.get(code, ""))
    refused = TokenRefused(made.message, server_id=made.server_id, hint=made.hint, retryable=False)
    refused.code = code
    return refused


def read_tokens(http: OAuthHttp, where: str, reply: JsonReply, now_s: float, *, bound: bool) -> Tokens:
    """Read the tokens of a successful reply.

    Parameters
    ----------
    where
        The endpoint, for errors.
    now_s
        When the reply arrived, in seconds since the epoch.
    bound
        Whether a token bound to a key was requested (RFC 9449).

    Raises
    ------
    AuthError
        The token is of a type that cannot be used.
    """
    body = reply.body
    kind, refresh = body.get("token_type"), body.get("refresh_token")
    named = kind.lower() if isinstance(kind, str) else ""
    if bound and named != "dpop":
        raise http.error(
            f"{where} returned a token of another type than dpop",
            hint="the authorization server does not support DPoP: drop auth.dpop",
        )
    # RFC 6749, section 7.1, requires a type, but some servers omit it or use their own name (Slack: "user").
    if not bound and named in _BOUND_TYPES:
        raise http.error(
            f"{where} returned a token of type {named} instead of a bearer token",
            hint="set auth.dpop" if named == "dpop" else "",
        )
    life_s = lifetime(body.get("expires_in"))
    return Tokens(
        body["access_token"],
        refresh if isinstance(refresh, str) and _REFRESH_TOKEN.fullmatch(refresh) else "",
        now_s + life_s if life_s else 0.0,
    )
