"""``Authentication``: who sends a request, as its credentials say."""

from __future__ import annotations

import string
from collections.abc import Awaitable
from time import time
from typing import Final, Protocol

import msgspec

from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.security.api_keys import PREFIX
from mcp_manager.gateway.security.challenges import Challenges, Denial
from mcp_manager.gateway.security.introspection import Introspection
from mcp_manager.gateway.security.keys_file import KeysFile
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.gateway.security.protected_resource import ResourceMetadata
from mcp_manager.gateway.security.signed_tokens import SignedTokens
from mcp_manager.gateway.security.token_issuers import TokenIssuers, configs_of_issuers
from mcp_manager.gateway.security.verdicts import Rejected, Verdict, Verified

__all__ = ["Authentication", "Denial"]

_MOST_KNOWN: Final = 10_000
_LONGEST: Final = 16_384
_TOKEN: Final = (string.ascii_letters + string.digits + "-._~+/=").encode()
"""The characters of a token (RFC 6750, section 2.1)."""
_REPEATED: Final = Rejected("invalid_request", "the request has several tokens")
_EMPTY: Final = Rejected("invalid_request", "the request has no token after Bearer")
_GARBAGE: Final = Rejected("invalid_token", "the token has characters that are not allowed in a token")
_TOO_LONG: Final = Rejected("invalid_token", "the token is too long")
_ELSEWHERE: Final = Rejected("invalid_token", "the token is meant for another endpoint of this gateway")
_ONLY_KEYS: Final = Rejected("invalid_token", "this gateway accepts only API keys, which begin with " + PREFIX)
_NO_KEYS: Final = Rejected("invalid_token", "this gateway does not accept API keys")
_HINTS: Final = {
    "api_key": "send an API key as Authorization: Bearer KEY or X-API-Key: KEY",
    "jwt": "send Authorization: Bearer TOKEN; WWW-Authenticate says where to get one",
    "introspection": "send Authorization: Bearer TOKEN; WWW-Authenticate says where to get one",
    "none": "",
}


class _Tokens(Protocol):
    """Examines the tokens of an authorization server."""

    def verify(self, token: str) -> Verdict | Awaitable[Verdict]:
        """Examine a token: at once if nothing must be fetched for it."""

    def latest(self, principal: Principal) -> Principal | None:
        """Return the principal of a token as it is known now; ``None`` if the token was revoked."""

    async def start(self) -> None:
        """Prepare, without waiting for the authorization server."""

    async def probe(self) -> str:
        """Try to examine tokens; return why that is not possible, "" if it is."""

    async def aclose(self) -> None:
        """End what is under way."""


def _tokens_of(config: ClientAuthConfig) -> _Tokens | None:
    if config.type == "jwt":
        configs = configs_of_issuers(config)
        if len(configs) == 1:
            return SignedTokens(configs[0])
        return TokenIssuers(configs)
    return Introspection(config) if config.type == "introspection" else None


class _Known(msgspec.Struct, frozen=True, eq=False):
    field: bytes
    verified: Verified

    def __repr__(self) -> str:
        # The field is a secret.
        return f"_Known({self.verified!r})"


class Authentication:
    """Find out who sends a request.

    Credentials come in the header alone, never in the URL (2026-07-28, authorization, token handling): a token or an
    API key as ``Authorization: Bearer``, or a key as ``X-API-Key``, which counts if there is no bearer token.

    Parameters
    ----------
    config
        How clients authenticate.
    is_tls
        Whether the gateway speaks TLS itself.

    Attributes
    ----------
    metadata
        The documents that say where clients get tokens.

    Raises
    ------
    ConfigError
        The file of API keys, or that of certificate authorities, cannot be used, or a package is missing.
    """

    def __init__(self, config: ClientAuthConfig, *, is_tls: bool = False) -> None:
        self.config: ClientAuthConfig = config
        self.metadata: ResourceMetadata = ResourceMetadata(config, is_tls=is_tls)
        self._challenges = Challenges(self.metadata, config.scopes, _HINTS[config.type])
        self._is_open = config.type == "none"
        self._keys = None if self._is_open or config.keys_file is None else KeysFile(config.keys_file)
        self._tokens: _Tokens | None = _tokens_of(config)
        self._known: dict[int, _Known] = {}
        """What was verified, by a keyed hash of the header field: no key of it shows a token."""

    @property
    def is_open(self) -> bool:
        """Whether clients need not authenticate."""
        return self._is_open

    async def start(self) -> None:
        """Prepare; it does not wait for an authorization server, which may be down."""
        if self._tokens is not None:
            await self._tokens.start()

    async def probe(self) -> str:
        """Ask the authorization server for what is needed of it; return why that failed, "" if it did not."""
        return "" if self._tokens is None else await self._tokens.probe()

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        self._known.clear()
        if self._tokens is not None:
            await self._tokens.aclose()

    def of(self, incoming: Incoming) -> Principal | Denial | Awaitable[Principal | Denial]:
        """Return who sends a request, or the response to whoever may not.

        Returns
        -------
        The principal, the same object for each request with the same credential while it does not change; a denial;
        or, if something must be fetched first, an awaitable of either, which must be awaited.
        """
        if self._is_open:
            return EVERYBODY
        field = incoming.header(b"authorization")
        if field is not None:
            known = self._known.get(hash(field))
            if known is not None and known.field == field:
                verified = known.verified
                if verified.until > time() and (verified.paths is None or incoming.path in verified.paths):
                    return verified.principal
        return self._examined(incoming, field)

    def is_current(self, principal: Principal) -> bool:
        """Tell whether a principal is still one: its credentials have neither expired, nor were they revoked."""
        return self.latest(principal) is not None

    def latest(self, principal: Principal) -> Principal | None:
        """Return a principal as its credentials say now; ``None`` if they have expired, or were revoked.

        What the authorization server says of a token is asked again when its answer holds no longer; the new answer
        counts from then on.
        """
        if principal.expires_at <= time():
            return None
        credential = principal.credential
        if credential is None:
            return principal
        if credential.startswith(PREFIX):
            return principal if self._keys is None or self._keys.is_current(principal) else None
        return principal if self._tokens is None else self._tokens.latest(principal)

    def reread_keys(self) -> None:
        """Read the file of API keys now if it has changed, as on SIGHUP."""
        if self._keys is not None:
            self._keys.look(now=True)
            self._known.clear()

    def _examined(self, incoming: Incoming, field: bytes | None) -> Principal | Denial | Awaitable[Principal | Denial]:
        token = _bearer_token(field)
        if token is None:
            field = None
            key = incoming.header(b"x-api-key")
            if key is None:
                return self._challenges.missing(incoming)
            token = _checked(key.strip())
        if isinstance(token, Rejected):
            return self._challenges.rejected(incoming, token)
        is_key = token.startswith(PREFIX)
        if is_key or field is None or self._tokens is None:
            if self._keys is None:
                found: Verdict = _NO_KEYS
            else:
                found = self._keys.verify(token) if is_key else _ONLY_KEYS
            return self._concluded(incoming, field, found)
        examined = self._tokens.verify(token)
        if isinstance(examined, Verified | Rejected):
            return self._concluded(incoming, field, examined)
        return self._later(incoming, field, examined)

    async def _later(self, incoming: Incoming, field: bytes | None, examined: Awaitable[Verdict]) -> Principal | Denial:
        return self._concluded(incoming, field, await examined)

    def _concluded(self, incoming: Incoming, field: bytes | None, found: Verdict) -> Principal | Denial:
        if isinstance(found, Rejected):
            return self._challenges.rejected(incoming, found)
        if field is not None:
            found = self._kept(field, found)
        if found.paths is not None and incoming.path not in found.paths:
            return self._challenges.rejected(incoming, _ELSEWHERE)
        return found.principal

    def _kept(self, field: bytes, found: Verified) -> Verified:
        """Keep what was verified; return it, with the principal of before if it says the same as now."""
        key = hash(field)
        before = self._known.pop(key, None)
        if before is not None and before.field == field and _is_same(before.verified.principal, found.principal):
            found = Verified(before.verified.principal, found.until, found.paths)
        now = time()
        if found.until > now:
            if len(self._known) >= _MOST_KNOWN:
                self._known = {each: known for each, known in self._known.items() if known.verified.until > now}
                while len(self._known) >= _MOST_KNOWN:
                    del self._known[next(iter(self._known))]
            self._known[key] = _Known(field, found)
        return found


def _is_same(one: Principal, other: Principal) -> bool:
    return (one.name, one.claims, one.scopes, one.expires_at) == (
        other.name,
        other.claims,
        other.scopes,
        other.expires_at,
    )


def _bearer_token(field: bytes | None) -> str | Rejected | None:
    """Return the token of an ``Authorization`` header field; ``None`` if it is of another scheme."""
    if field is None:
        return None
    scheme, _, rest = field.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    token = rest.strip()
    return _checked(token) if token else _EMPTY


def _checked(token: bytes) -> str | Rejected:
    if len(token) > _LONGEST:
        return _TOO_LONG
    if b"," in token:
        # Several header fields of the same name are joined so.
        return _REPEATED
    if not token or token.translate(None, _TOKEN):
        return _GARBAGE
    return token.decode("ascii")
