"""Signed tokens of the client: DPoP proofs (RFC 9449) and client assertions (RFC 7523), made with joserfc."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["DpopKey", "client_assertion", "require_jose"]

_ASSERTION_LIFE_S: Final = 120


def require_jose(what: str, extra: str = "oauth") -> None:
    """Raise :class:`ConfigError` unless joserfc is installed; ``what`` names the setting that needs it."""
    try:
        import joserfc  # noqa: F401, PLC0415 - an extra, and slow to import
    except ImportError:
        hint = f"install it with: pip install 'pymcp-manager[{extra}]'"
        raise ConfigError(f"{what} needs the package joserfc", hint=hint) from None


class DpopKey:
    """The key that tokens are bound to; it makes the proofs of possession.

    Parameters
    ----------
    private
        A stored private key as a JWK; ``None`` makes a new one.
    """

    def __init__(self, private: dict[str, Any] | None = None) -> None:
        from joserfc.jwk import ECKey  # noqa: PLC0415 - an extra, and slow to import

        self._key = ECKey.generate_key("P-256") if private is None else ECKey.import_key(private)
        self._public = self._key.as_dict(private=False)

    def private(self) -> dict[str, Any]:
        """Return the private key as a JWK; it is a secret."""
        return dict(self._key.as_dict(private=True))

    def proof(self, verb: str, url: str, *, token: str = "", nonce: str = "") -> str:
        """Make a proof for one request (RFC 9449, section 4.2).

        Parameters
        ----------
        verb, url
            Those of the request; query and fragment are left out of the proof.
        token
            The access token that the request carries, "" at a token endpoint.
        nonce
            The nonce from the server, or "".
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": verb,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(time.time()),
        }
        if token:
            digest = hashlib.sha256(token.encode("ascii")).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if nonce:
            claims["nonce"] = nonce
        return _signed({"alg": "ES256", "typ": "dpop+jwt", "jwk": self._public}, claims, self._key)


def client_assertion(private_key: str, algorithm: str, key_id: str, client_id: str, audience: str) -> str:
    """Make the assertion that authenticates a client (RFC 7523, section 3).

    Parameters
    ----------
    private_key
        PEM, of the kind that ``algorithm`` needs.
    algorithm
        The JOSE name of the signing algorithm.
    key_id
        The id of the key, or "".
    client_id
        The client's id: issuer and subject of the assertion.
    audience
        The issuer identifier of the authorization server.

    Raises
    ------
    ConfigError
        The key does not fit the algorithm.
    """
    from joserfc.errors import JoseError  # noqa: PLC0415 - an extra, and slow to import
    from joserfc.jwk import import_key  # noqa: PLC0415 - see above

    kind = {"E": "EC", "R": "RSA", "P": "RSA"}[algorithm[0]] if algorithm != "EdDSA" else "OKP"
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + _ASSERTION_LIFE_S,
    }
    header = {"alg": algorithm, "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    try:
        # The overloads of import_key want a literal kind; here it depends on the algorithm.
        return _signed(header, claims, import_key(private_key, kind))  # type: ignore[call-overload]
    except (JoseError, ValueError, TypeError):
        # The error may quote the key, so it is dropped.
        pass
    raise ConfigError(f"auth.private_key is not a key for {algorithm}", hint="give a PEM private key")


def _signed(header: dict[str, Any], claims: dict[str, Any], key: Key) -> str:
    from joserfc import jwt  # noqa: PLC0415 - an extra, and slow to import

    return jwt.encode(header, claims, key, algorithms=[header["alg"]])
