"""``IssuerKeys``: the public keys that an issuer signs with, as its JWK Set says (RFC 7517)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mcp_manager.auth.oauth.documents import kind_of
from mcp_manager.errors import AuthError
from mcp_manager.gateway.security.issuer import Issuer
from mcp_manager.gateway.security.verdicts import Rejected
from mcp_manager.runtime.background import background_task, bare_context

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["ALGORITHMS", "IssuerKeys"]

_log = logging.getLogger(__name__)

ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    **{name: ("RSA", "") for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""The algorithms that can be accepted, with the type and the curve of their keys; "" for any."""
_MOST_KEYS: Final = 100
_LONGEST_ID: Final = 256
_MODULUS: Final = range(342, 1366)
"""The digits in base64 of an RSA modulus of 2,048 to 8,192 bits."""
_FETCH_EVERY_S: Final = 30.0
_RETRY_AFTER_S: Final = 5.0
_FRESH_FOR_S: Final = 600.0
_UNKNOWN: Final = Rejected("invalid_token", "the token is signed with a key that the issuer does not publish")


class _Usable(msgspec.Struct, frozen=True, eq=False):
    key: Any
    kind: str
    curve: str
    algorithm: str | None

    def is_for(self, algorithm: str) -> bool:
        kind, curve = ALGORITHMS[algorithm]
        return self.kind == kind and curve in ("", self.curve) and self.algorithm in (None, algorithm)


class IssuerKeys:
    """Keep the keys of an issuer: fetched on demand, once for all who wait, and kept while the issuer is down.

    An unknown key is looked for at most once in 30 seconds, so that made-up tokens cause no traffic.

    Parameters
    ----------
    issuer
        Fetches them.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._by_id: dict[str | None, list[_Usable]] = {}
        self.problem: str = ""
        """Why they could not be fetched the last time; "" if they were."""
        self._next_at = 0.0
        self._stale_at = 0.0
        self._fetching: asyncio.Task[None] | None = None

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """Return the key of a token; ``None`` if it is not known. Without an id, the only key of the algorithm."""
        if self._by_id and time.monotonic() >= self._stale_at and self.may_fetch:
            # What the issuer has withdrawn must go, without anybody waiting for it.
            self._fetch()
        if key_id is not None:
            fitting = [each for each in self._by_id.get(key_id, ()) if each.is_for(algorithm)]
        else:
            fitting = [each for those in self._by_id.values() for each in those if each.is_for(algorithm)]
            if len(fitting) > 1:
                return None
        return fitting[0].key if fitting else None

    @property
    def may_fetch(self) -> bool:
        """Whether the keys are being fetched, or may be."""
        return self._fetching is not None or time.monotonic() >= self._next_at

    async def fetch(self) -> None:
        """Fetch the keys, or wait for whoever does; failures are logged. Cancellation ends the wait only."""
        await asyncio.wait({self._fetch()})

    def why_unknown(self) -> Rejected:
        """Return why a token with an unknown key is not accepted: the issuer cannot be asked, or does not know it."""
        if self.problem or not self._by_id:
            wait_s = max(1, math.ceil(self._next_at - time.monotonic()))
            return Rejected("unavailable", "the signing keys of the authorization server are not available", wait_s)
        return _UNKNOWN

    def begin(self) -> None:
        """Fetch the keys, and do not wait for them."""
        self._fetch()

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = background_task(self._load(), "fetch the keys of the issuer", context=bare_context())
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _load(self) -> None:
        problem = ""
        found: dict[str | None, list[_Usable]] = {}
        # Whatever happens, the next request does not begin anew.
        self._next_at = time.monotonic() + _RETRY_AFTER_S
        try:
            reply = await self._issuer.get("jwks_uri", "the JWK Set of the issuer")
            if reply.status == 200:
                found = _usable(reply.body.get("keys"))
                problem = "" if found else "it has no key that can be used"
            else:
                problem = f"HTTP {reply.status}"
        except TimeoutError:
            problem = "it did not answer in time"
        except AuthError as error:
            problem = str(error)
        now = time.monotonic()
        self.problem = problem
        if problem:
            self._issuer.forget_metadata()
            kept = "; those that are known stay" if self._by_id else ""
            _log.warning("cannot fetch the signing keys of the issuer: %s%s", problem, kept)
        else:
            self._by_id = found
            self._stale_at = now + _FRESH_FOR_S
        self._next_at = now + (_RETRY_AFTER_S if problem else _FETCH_EVERY_S)


def _usable(keys: object) -> dict[str | None, list[_Usable]]:
    """Return the keys for signatures that can be used, by their ids; others are left out (RFC 7517, section 5)."""
    found: dict[str | None, list[_Usable]] = {}
    for each in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        made = _made(each) if isinstance(each, dict) else None
        if made is not None:
            found.setdefault(each.get("kid"), []).append(made)
    return found


def _made(jwk: dict[str, Any]) -> _Usable | None:
    from joserfc.jwk import import_key  # noqa: PLC0415 - an extra, and slow to import

    kind, curve, key_id, algorithm = (jwk.get(name) for name in ("kty", "crv", "kid", "alg"))
    is_right = (kind, curve if kind != "RSA" else "") in ALGORITHMS.values()
    is_right = is_right and (key_id is None or (isinstance(key_id, str) and len(key_id) <= _LONGEST_ID))
    is_right = is_right and jwk.get("use") in (None, "sig") and _may_verify(jwk.get("key_ops"))
    if kind == "RSA":
        modulus = jwk.get("n")
        is_right = is_right and isinstance(modulus, str) and len(modulus.rstrip("=")) in _MODULUS
    if not is_right:
        return None
    public: dict[str, Any] = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in jwk}
    try:
        key = import_key(public)
        # Some libraries look at a key on its first use only.
        key.get_op_key("verify")
    except Exception as error:
        # The libraries raise many kinds; the text may quote the key.
        _log.warning("cannot use a signing key of the issuer: %s", kind_of(error))
        return None
    return _Usable(key, str(kind), str(curve or ""), algorithm if isinstance(algorithm, str) else None)


def _may_verify(operations: object) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)
