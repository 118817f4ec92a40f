"""The checks of ``serve.auth``: each type has the fields it needs and none that it ignores."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from mcp_manager.config._problem import FieldProblem, at
from mcp_manager.config._url import check_url
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.config.issuers import IssuerConfig

__all__ = ["ACCEPTABLE_ALGORITHMS", "CLIENT_AUTH_TYPES", "check_client_auth_values", "client_auth_problems"]

CLIENT_AUTH_TYPES: Final = ("none", "api_key", "jwt", "introspection")
ACCEPTABLE_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""The signature algorithms that a gateway can accept."""
_TOKENS: Final = ("jwt", "introspection")
_BELONGS: Final[Mapping[str, tuple[str, ...]]] = {
    "keys_file": ("api_key", *_TOKENS),
    "issuer": _TOKENS,
    "issuers": ("jwt",),
    "ca_file": _TOKENS,
    "audience": _TOKENS,
    "resource": _TOKENS,
    "leeway_s": _TOKENS,
    "principal_claim": _TOKENS,
    "scopes": _TOKENS,
    "jwks_url": ("jwt",),
    "algorithms": ("jwt",),
    "introspection_endpoint": ("introspection",),
    "client_id": ("introspection",),
    "client_secret": ("introspection",),
    "cache_s": ("introspection",),
}
"""The types that each field belongs to."""
_URLS: Final = ("issuer", "jwks_url", "introspection_endpoint", "resource")
_URLS_OF_ISSUERS: Final = ("issuer", "jwks_url")
_NOT_EMPTY: Final = ("keys_file", "principal_claim", "client_id", "client_secret", "ca_file")
_SECRET: Final = ("HS256", "HS384", "HS512")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749, section 3.3."""
_DEFAULTS: Final = ClientAuthConfig()


def check_client_auth_values(auth: ClientAuthConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first value that can never work."""
    _check_values(auth, _URLS, path)
    for index, issuer in enumerate(auth.issuers):
        _check_values(issuer, _URLS_OF_ISSUERS, at(path, f"issuers[{index}]"))
    for index, scope in enumerate(auth.scopes):
        if _SCOPE.fullmatch(scope) is None:
            raise FieldProblem(at(path, f"scopes[{index}]"), "is not a scope", "give one scope per entry")


def _check_values(settings: ClientAuthConfig | IssuerConfig, urls: Collection[str], path: str) -> None:
    for name in urls:
        value = getattr(settings, name)
        if value is not None:
            _check_url(value, at(path, name))
    for index, algorithm in enumerate(settings.algorithms):
        where = at(path, f"algorithms[{index}]")
        if algorithm in _SECRET or algorithm.lower() == "none":
            is_none = algorithm not in _SECRET
            text = "is not accepted: " + (
                "anybody could forge such a token" if is_none else "whoever can verify such a token could forge one"
            )
            raise FieldProblem(where, text, "use RS256, ES256 or EdDSA")
        if algorithm not in ACCEPTABLE_ALGORITHMS:
            raise FieldProblem(where, f"is not one of {', '.join(ACCEPTABLE_ALGORITHMS)}")
    for name in _NOT_EMPTY:
        if getattr(settings, name, None) == "":
            raise FieldProblem(at(path, name), "must not be empty")


def client_auth_problems(auth: ClientAuthConfig, path: str) -> Iterator[FieldProblem]:
    """Yield what does not fit together, or is missing; each value was checked by itself."""
    for name in msgspec.structs.asdict(auth):
        types = _BELONGS.get(name)
        if types is not None and auth.type not in types and getattr(auth, name) != getattr(_DEFAULTS, name):
            way_out = f"set type to {types[0]!r}, or drop it"
            yield FieldProblem(at(path, name), f"cannot be combined with type {auth.type!r}", way_out)
    if auth.type == "api_key" and auth.keys_file is None:
        way_out = "make a key with mcp-manager key new NAME --file FILE, and give FILE here"
        yield FieldProblem(at(path, "keys_file"), "missing", way_out)
    if auth.type == "jwt":
        if auth.issuer is None and not auth.issuers:
            yield FieldProblem(
                at(path, "issuer"), "missing", "give the issuer of the tokens, as their claim iss has it"
            )
        yield from _issuer_problems(auth, path)
        has_own = all(each.audience for each in auth.issuers) and auth.issuer is None and bool(auth.issuers)
        if not auth.audience and auth.resource is None and not has_own:
            way_out = "give the public URL of the gateway as resource, or audience; else it would accept tokens for other services"
            yield FieldProblem(at(path, "audience"), "missing", way_out)
        if not auth.algorithms:
            yield FieldProblem(at(path, "algorithms"), "must not be empty", "drop it to accept the usual ones")
    if auth.type == "introspection":
        if auth.issuer is None and auth.introspection_endpoint is None:
            yield FieldProblem(at(path, "introspection_endpoint"), "missing", "give it, or issuer")
        for name in ("client_id", "client_secret"):
            if getattr(auth, name) is None:
                yield FieldProblem(
                    at(path, name), "missing", "the gateway authenticates with it at the introspection endpoint"
                )


def _issuer_problems(auth: ClientAuthConfig, path: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with issuers together: each needs a name, and no two have the same."""
    seen = [] if auth.issuer is None else [auth.issuer]
    for index, each in enumerate(auth.issuers):
        where = at(path, f"issuers[{index}].issuer")
        if each.issuer is None:
            yield FieldProblem(where, "missing", "give the issuer that its tokens name in iss")
            continue
        if any(each.issuer.rstrip("/") == other.rstrip("/") for other in seen):
            yield FieldProblem(where, "duplicate issuer", "remove one of them")
        seen.append(each.issuer)


def _check_url(url: str, path: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise FieldProblem(path, "is not a URL", "begin it with https://, as in https://idp.example.com")
    check_url(url, path)
    parts = urlsplit(url)
    if parts.query:
        raise FieldProblem(path, "has a query", "give the URL without the part from '?' on")
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise FieldProblem(path, "must begin with https://", "http:// is accepted for loopback addresses only")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
