"""Signed tokens of the client: DPoP proofs (RFC 9449) and client assertions (RFC 7523). All of JOSE is joserfc's."""

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

_EXTRA: Final = "install it with: pip install 'pymcp-manager[oauth]'"
_ASSERTION_LIFE_S: Final = 120


def require_jose(what: str) -> None:
    """Raise :class:`ConfigError` unless the library that signs is installed; ``what`` needs it."""
    try:
        import joserfc  # noqa: F401, PLC0415 - an extra, and slow to import
    except ImportError:
        raise ConfigError(f"{what} needs the package joserfc", hint=_EXTRA) from None


class DpopKey:
    """The key that tokens are bound to, and the proofs that it is ours.

    Parameters
    ----------
    private
        A private key as a JWK, kept from before; ``None`` makes a new one.
    """

    def __init__(self, private: dict[str, Any] | None = None) -> None:
        from joserfc.jwk import ECKey  # noqa: PLC0415 - an extra, and slow to import

        self._key = ECKey.generate_key("P-256") if private is None else ECKey.import_key(private)
        self._public = self._key.as_dict(private=False)

    def private(self) -> dict[str, Any]:
        """Return the private key as a JWK, a secret."""
        return dict(self._key.as_dict(private=True))

    def proof(self, verb: str, url: str, *, token: str = "", nonce: str = "") -> str:
        """Make a proof for one request (RFC 9449, section 4.2).

        Parameters
        ----------
        verb, url
            The request's; query and fragment are left out.
        token
            The access token that goes with it, "" at a token endpoint.
        nonce
            What the server gave, if anything.
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
    """Make the assertion by which a client says who it is (RFC 7523, section 3).

    Parameters
    ----------
    private_key
        PEM, of the kind that ``algorithm`` takes.
    audience
        The issuer identifier of the authorization server.

    Raises
    ------
    ConfigError
        The key does not go with the algorithm.
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
        # Its overloads are by literal kinds; which one it is, the algorithm says.
        return _signed(header, claims, import_key(private_key, kind))  # type: ignore[call-overload]
    except (JoseError, ValueError, TypeError):
        # Its own text may quote the key.
        pass
    raise ConfigError(f"auth.private_key is no key for {algorithm}", hint="give a PEM private key")


def _signed(header: dict[str, Any], claims: dict[str, Any], key: Key) -> str:
    from joserfc import jwt  # noqa: PLC0415 - an extra, and slow to import

    return jwt.encode(header, claims, key, algorithms=[header["alg"]])
