"""Texts that the gateway gives to clients and takes back: encrypted, and impossible to forge."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
else:
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        AESGCM = None

__all__ = ["Sealer"]

_EXTRA: Final = "install it with: pip install 'pymcp-manager[serve]'"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LEAST_KEY_CHARACTERS: Final = 32


class Sealer:
    """Seal and open texts with AES-256-GCM (NIST SP 800-38D), each for one purpose.

    Parameters
    ----------
    keys
        Secrets of at least 32 characters. The first one seals, all of them open: put a new one in front to rotate them.
        Without any, a random key is made: what it seals is worthless to other processes, and after a restart.

    Raises
    ------
    ConfigError
        A key is too short, or the package ``cryptography`` is missing.
    """

    __slots__ = ("_ciphers", "_nonce_key")

    def __init__(self, keys: Sequence[str] = ()) -> None:
        if AESGCM is None:
            raise ConfigError("The gateway needs the package cryptography, which is not installed", hint=_EXTRA)
        if any(len(key) < _LEAST_KEY_CHARACTERS for key in keys):
            raise ConfigError(
                f"A session key is too short: it needs at least {_LEAST_KEY_CHARACTERS} characters",
                hint="make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        secrets = [_derived(key) for key in keys] or [os.urandom(32)]
        self._ciphers = [AESGCM(secret) for secret in secrets]
        self._nonce_key = hashlib.blake2b(secrets[0], digest_size=32, person=b"mcp-manager same").digest()

    def seal(self, purpose: bytes, plain: bytes) -> str:
        """Return a text in the alphabet of base64url, which only :meth:`open` with the same purpose reads."""
        return self._sealed(os.urandom(_NONCE_BYTES), purpose, plain)

    def seal_name(self, purpose: bytes, plain: bytes) -> str:
        """Return what :meth:`seal` does, and the same text whenever the same is sealed for the same purpose.

        So the text can name something: clients compare it. The nonce depends on what is sealed, as in RFC 5297: no two
        contents have the same one.
        """
        digest = hashlib.blake2b(b"%d:%b" % (len(purpose), purpose), digest_size=_NONCE_BYTES, key=self._nonce_key)
        digest.update(plain)
        return self._sealed(digest.digest(), purpose, plain)

    def _sealed(self, nonce: bytes, purpose: bytes, plain: bytes) -> str:
        sealed = nonce + self._ciphers[0].encrypt(nonce, plain, purpose)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")

    def open(self, purpose: bytes, sealed: str) -> bytes | None:
        """Return what was sealed; ``None`` if no key of this gateway has sealed it for this purpose."""
        if "=" in sealed:
            # None is ever given out with it, and Python's versions differ in how much of it they accept.
            return None
        try:
            data = base64.b64decode(sealed.encode("ascii") + b"=" * (-len(sealed) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        if len(data) < _NONCE_BYTES + _TAG_BYTES:
            return None
        nonce, content = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, content, purpose)
            except InvalidTag:
                continue
        return None


def _derived(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=32, person=b"mcp-manager seal").digest()
