"""``SignedTokens``: JWT access tokens (RFC 7519, RFC 9068), examined with joserfc."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mcp_manager.auth.oauth.jose import require_jose
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.issuer import Issuer
from mcp_manager.gateway.security.issuer_keys import ALGORITHMS, IssuerKeys
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.token_claims import ClaimRules
from mcp_manager.gateway.security.verdicts import Rejected, Verdict

if TYPE_CHECKING:
    from joserfc.jwk import Key
    from joserfc.jws import JWSRegistry

__all__ = ["SignedTokens", "claims_of"]

_LONGEST_HEADER: Final = 4_096
_LONGEST_PAYLOAD: Final = 16_384
_LONGEST_ID: Final = 256
# The issuer may withdraw the key of a token long before that expires.
_EXAMINED_EVERY_S: Final = 60.0
_TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})
"""RFC 9068, section 4, and what servers send that do not follow it."""
_ACCESS_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
_OF_ID_TOKENS: Final = ("at_hash", "c_hash", "s_hash")
"""Claims of OpenID Connect Core 1.0, sections 3.1.3.6 and 3.3.2.11."""
_OTHER_KINDS: Final = frozenset({"id", "refresh", "offline", "logout"})

_MALFORMED: Final = Rejected("invalid_token", "the token is not a signed JWT")
_OTHER_ALGORITHM: Final = Rejected("invalid_token", "the signature algorithm of the token is not accepted")
_CRITICAL: Final = Rejected("invalid_token", "the token has unknown critical header parameters")
_NO_ACCESS_TOKEN: Final = Rejected("invalid_token", "the token is not an access token")
_BAD_SIGNATURE: Final = Rejected("invalid_token", "the signature of the token is invalid")

_object: Final = msgspec.json.Decoder(dict[str, Any])


class SignedTokens:
    """Examine JWT access tokens: all that is cheap first, and the signature last.

    Parameters
    ----------
    config
        How clients authenticate.

    Raises
    ------
    ConfigError
        The package joserfc is missing.
    """

    def __init__(self, config: ClientAuthConfig) -> None:
        require_jose("serve.auth.type jwt", "serve")
        self._algorithms = frozenset(config.algorithms) & ALGORITHMS.keys()
        self._registries = {name: _registry(name) for name in self._algorithms}
        self._rules = ClaimRules(config, needs_all=True)
        self._issuer = Issuer(config)
        self._keys = IssuerKeys(self._issuer)

    def latest(self, principal: Principal) -> Principal | None:
        """Return the principal of a token; ``None`` if the issuer does not have its key any more."""
        if principal.credential is None:
            return principal
        header = _part(principal.credential.partition(".")[0], _LONGEST_HEADER)
        has_key = header is not None and self._keys.find(header.get("kid"), header["alg"]) is not None
        return principal if has_key else None

    async def start(self) -> None:
        """Fetch the keys, without waiting for them."""
        self._keys.begin()

    async def probe(self) -> str:
        """Fetch the keys; return why that failed, "" if it did not."""
        await self._keys.fetch()
        return self._keys.problem

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        await self._keys.aclose()
        await self._issuer.aclose()

    def verify(self, token: str) -> Verdict | Awaitable[Verdict]:
        """Examine a token: at once unless its key must be fetched."""
        parts = token.split(".")
        header = _part(parts[0], _LONGEST_HEADER) if len(parts) == 3 else None
        claims = None if header is None else claims_of(token)
        if header is None or claims is None:
            return _MALFORMED
        problem = self._problem_of(header, claims) or self._rules.rejected(claims, time.time())
        if problem is not None:
            return problem
        key_id, algorithm = header.get("kid"), header["alg"]
        key = self._keys.find(key_id, algorithm)
        if key is not None:
            return self._verdict(token, claims, key, algorithm)
        if not self._keys.may_fetch:
            return self._keys.why_unknown()
        return self._with_new_keys(token, claims, key_id, algorithm)

    async def _with_new_keys(self, token: str, claims: dict[str, Any], key_id: str | None, algorithm: str) -> Verdict:
        await self._keys.fetch()
        key = self._keys.find(key_id, algorithm)
        return self._keys.why_unknown() if key is None else self._verdict(token, claims, key, algorithm)

    def _problem_of(self, header: dict[str, Any], claims: dict[str, Any]) -> Rejected | None:
        if not isinstance(header.get("alg"), str) or header["alg"] not in self._algorithms:
            return _OTHER_ALGORITHM
        if "crit" in header or "b64" in header:
            return _CRITICAL
        key_id = header.get("kid")
        if key_id is not None and (not isinstance(key_id, str) or len(key_id) > _LONGEST_ID):
            return _MALFORMED
        kind = header.get("typ", "JWT")
        kind = kind.lower() if isinstance(kind, str) else ""
        if kind not in _TYPES:
            return _NO_ACCESS_TOKEN
        return None if kind in _ACCESS_TYPES or not _is_another_kind(claims) else _NO_ACCESS_TOKEN

    def _verdict(self, token: str, claims: dict[str, Any], key: Key, algorithm: str) -> Verdict:
        from joserfc.errors import JoseError  # noqa: PLC0415 - an extra, and slow to import
        from joserfc.jws import deserialize_compact  # noqa: PLC0415 - see above

        try:
            deserialize_compact(token, key, registry=self._registries[algorithm])
        except (JoseError, ValueError, TypeError):
            # Its text may quote the token.
            return _BAD_SIGNATURE
        return self._rules.verdict(claims, token, time.time() + _EXAMINED_EVERY_S)


def claims_of(token: str) -> dict[str, Any] | None:
    """Return what a token claims, before anybody has examined it; ``None`` if it is no JWT."""
    parts = token.split(".", 3)
    return _part(parts[1], _LONGEST_PAYLOAD) if len(parts) == 3 else None


def _registry(algorithm: str) -> JWSRegistry:
    """Return a registry that has one algorithm only."""
    from joserfc.errors import UnsupportedAlgorithmError  # noqa: PLC0415 - an extra, and slow to import
    from joserfc.jws import JWSRegistry  # noqa: PLC0415 - see above

    class OneAlgorithm(JWSRegistry):
        max_header_length = _LONGEST_HEADER * 2
        max_payload_length = _LONGEST_PAYLOAD * 2

        def get_alg(self, name: str) -> Any:
            # Without the warning that EdDSA has a new name: many issuers use the old one.
            if name != algorithm:
                raise UnsupportedAlgorithmError(f"not {algorithm}")
            return self.algorithms[name]

    return OneAlgorithm(algorithms=[algorithm], strict_check_header=False)


def _is_another_kind(claims: dict[str, Any]) -> bool:
    """Tell whether claims are those of an ID token, a refresh token or a security event, where that can be told."""
    if any(name in claims for name in _OF_ID_TOKENS) or "events" in claims:
        return True
    # Keycloak and Amazon Cognito name the kind.
    return any(_lower(claims.get(name)) in _OTHER_KINDS for name in ("typ", "token_use"))


def _lower(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _part(text: str, longest: int) -> dict[str, Any] | None:
    """Return a part of a token as an object; ``None`` if it is none, or too long."""
    if not text or len(text) * 3 // 4 > longest or "=" in text:
        return None
    try:
        return _object.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        return None
