"""What the claims of a token must say, whether they are in the token or an authorization server tells them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from mcp_manager.auth.oauth.issuers import same_issuer
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.verdicts import Rejected, Verdict, Verified

__all__ = ["OTHER_ISSUER", "ClaimRules"]

_LONGEST_NAME: Final = 512
_MOST_AUDIENCES: Final = 100
_LATEST: Final = 1e12

_EXPIRED: Final = Rejected("invalid_token", "the token has expired")
_TOO_EARLY: Final = Rejected("invalid_token", "the token is not valid yet")
_ISSUED_LATER: Final = Rejected("invalid_token", "the token was issued in the future")
_NO_EXPIRY: Final = Rejected("invalid_token", "the token has no expiry time (exp)")
_BAD_TIME: Final = Rejected("invalid_token", "the token has a time that is not a number")
OTHER_ISSUER: Final = Rejected("invalid_token", "the issuer of the token is not accepted")
_OTHER_AUDIENCE: Final = Rejected("invalid_token", "the token is for another audience than this gateway")
_BOUND: Final = Rejected(
    "invalid_token", "the token is bound to a key of the client, which this gateway does not support"
)


class Audiences(msgspec.Struct, frozen=True):
    """For what a token is meant: the whole gateway, or the endpoints with these paths."""

    paths: frozenset[str] | None = None


class ClaimRules:
    """Check claims (RFC 7519, section 4.1; RFC 9068, section 4), and make principals of them.

    Parameters
    ----------
    config
        How clients authenticate.
    needs_all
        Whether issuer and expiry must be there, as in a signed token; otherwise they are checked if they are.
    """

    def __init__(self, config: ClientAuthConfig, *, needs_all: bool) -> None:
        self._needs_all = needs_all
        self._issuer = config.issuer
        self._origin = config.issuer or _origin_of(config.introspection_endpoint)
        self._leeway_s = config.leeway_s
        self._claim = config.principal_claim
        self._scopes = frozenset(config.scopes)
        self._insufficient = Rejected(
            "insufficient_scope", f"the token needs the scopes {', '.join(sorted(config.scopes))}"
        )
        resource = None if config.resource is None else config.resource.rstrip("/")
        self._audiences = frozenset(map(_plain, config.audience or ((resource,) if resource is not None else ())))
        self._resource = resource if not config.audience else None

    def rejected(self, claims: Mapping[str, Any], now: float) -> Rejected | None:
        """Return what speaks against claims at this time, in seconds since the epoch; ``None`` if nothing does."""
        problem = self._problem_of_times(claims, now)
        if problem is not None:
            return problem
        issuer = claims.get("iss")
        if self._issuer is not None and (issuer is not None or self._needs_all):
            if not isinstance(issuer, str) or not same_issuer(issuer, self._issuer):
                return OTHER_ISSUER
        if self._audiences and self._audiences_of(claims) is None:
            return _OTHER_AUDIENCE
        # RFC 9449, section 7.2: such a token must not be accepted without its proof.
        return _BOUND if claims.get("cnf") is not None else None

    def verdict(self, claims: Mapping[str, Any], token: str, longest_until: float = _LATEST) -> Verdict:
        """Return the principal that accepted claims speak of, unless it has no name or too few scopes."""
        name = claims.get(self._claim)
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            return Rejected("invalid_token", f"the token has no usable claim {self._claim}, which names the principal")
        scopes = _words(claims["scope"] if "scope" in claims else claims.get("scp"))
        if not self._scopes <= scopes:
            return self._insufficient
        expiry = claims.get("exp")
        expires_at = _LATEST if expiry is None else expiry + self._leeway_s
        found = self._audiences_of(claims) if self._audiences else None
        # '#' separates, so that no name of one issuer is a name of another, nor of an API key.
        whole = f"{self._origin}#{name.replace('%', '%25').replace('#', '%23')}"
        principal = Principal(whole, claims, scopes, expires_at, token)
        return Verified(principal, min(expires_at, longest_until), None if found is None else found.paths)

    def _problem_of_times(self, claims: Mapping[str, Any], now: float) -> Rejected | None:
        times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
        for value in times.values():
            if value is not None and not _is_time(value):
                return _BAD_TIME
        expiry, begin, issued = times.values()
        if expiry is None and self._needs_all:
            return _NO_EXPIRY
        if expiry is not None and expiry + self._leeway_s <= now:
            return _EXPIRED
        if begin is not None and begin - self._leeway_s > now:
            return _TOO_EARLY
        return _ISSUED_LATER if issued is not None and issued - self._leeway_s > now else None

    def _audiences_of(self, claims: Mapping[str, Any]) -> Audiences | None:
        """Return for what claims are meant; ``None`` if for nothing here (RFC 8707, section 2; RFC 9068, section 4)."""
        value = claims.get("aud")
        named = [value] if isinstance(value, str) else value
        if not isinstance(named, list) or len(named) > _MOST_AUDIENCES:
            return None
        texts = [_plain(each) for each in named if isinstance(each, str)]
        if not self._audiences.isdisjoint(texts):
            return Audiences()
        above = self._resource
        if above is None:
            return None
        paths = frozenset(each.removeprefix(above).rstrip("/") for each in texts if each.startswith(f"{above}/"))
        if any(path.startswith("/sse") or path.endswith("/sse") for path in paths):
            # What answers on such a stream is sent there (2024-11-05, transports, HTTP with SSE).
            paths |= {"/messages"}
        return Audiences(paths) if paths else None


def _is_time(value: object) -> bool:
    """Tell whether a value is seconds since the epoch; milliseconds would be too late."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LATEST < value < _LATEST


def _origin_of(url: str | None) -> str:
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}"


def _plain(audience: str) -> str:
    """Return an audience without the slash that URL libraries add to a mere origin."""
    return audience.removesuffix("/") if audience.count("/") == 3 else audience


def _words(value: object) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split(" ")) - {""}
    listed: Collection[object] = value if isinstance(value, list) else ()
    return frozenset(each for each in listed if isinstance(each, str))
