"""API keys: how they look, and what is kept of them.

A key is 256 random bits, so there is nothing to guess and no dictionary to try: one SHA-256 hides it as well as a slow
hash of passwords would, and costs a microsecond per request instead of a tenth of a second.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from mcp_manager.gateway.client import ANONYMOUS

__all__ = ["PREFIX", "ApiKey", "key_hash", "looks_like_key", "made_key"]

PREFIX: Final = "mcpm_"
"""How every key begins: scanners for secrets find it, and it is told from a token of an authorization server."""
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH: Final = 43
"""62 to the power of 43 is just above 2 to the power of 256."""
_CHECK_LENGTH: Final = 6
_LENGTH: Final = len(PREFIX) + _RANDOM_LENGTH + _CHECK_LENGTH
_NAME: Final = rf"^(?!{ANONYMOUS}\Z)[A-Za-z0-9](?:[A-Za-z0-9._@-]{{0,62}}[A-Za-z0-9])?\Z"
_HASH: Final = r"^sha256:[0-9a-f]{64}\Z"
_ID_LENGTH: Final = 12

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Value = Annotated[str, Meta(max_length=512)]


class ApiKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept of a key: a line of the file, as JSON.

    Parameters
    ----------
    name
        The principal that it stands for; several keys may have the same, as while one replaces another.
    hash
        ``sha256:`` and the hash of the key in hexadecimal digits.
    created, expires
        When it was made, and until when it is valid.
    scopes, claims
        What the principal is granted, and what is said of it, for ``[[serve.allow]]``.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    hash: Annotated[str, Meta(pattern=_HASH)]
    created: Annotated[datetime, Meta(tz=True)] | None = None
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    scopes: Annotated[tuple[_Text, ...], Meta(max_length=100)] = ()
    claims: Annotated[dict[_Text, _Value | tuple[_Value, ...]], Meta(max_length=100)] = {}

    @property
    def id(self) -> str:
        """The beginning of its hash, which tells keys of the same name apart."""
        return self.hash.removeprefix("sha256:")[:_ID_LENGTH]


def made_key(name: str, **more: Any) -> tuple[str, ApiKey]:
    """Make a key.

    Parameters
    ----------
    name
        The principal that it stands for.
    more
        ``expires``, ``scopes`` and ``claims`` of :class:`ApiKey`.

    Returns
    -------
    The key, a secret that is shown once, and what is kept of it.

    Raises
    ------
    ValueError
        The name or something else cannot be used.
    """
    drawn = _in_digits(secrets.randbits(256), _RANDOM_LENGTH)
    key = f"{PREFIX}{drawn}{_check_of(drawn)}"
    now = datetime.now(UTC).replace(microsecond=0)
    kept = {"name": name, "hash": key_hash(key.encode()), "created": now, **more}
    # What is written must be read again.
    return key, msgspec.convert(msgspec.to_builtins(kept), ApiKey)


def key_hash(key: bytes) -> str:
    """Return what is kept of a key."""
    return f"sha256:{hashlib.sha256(key).hexdigest()}"


def looks_like_key(text: str) -> bool:
    """Tell whether a text may be a key: its beginning, its length and its checksum say so."""
    if len(text) != _LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return False
    drawn = text[len(PREFIX) : -_CHECK_LENGTH]
    return text[-_CHECK_LENGTH:] == _check_of(drawn)


def _check_of(drawn: str) -> str:
    return _in_digits(zlib.crc32(drawn.encode()), _CHECK_LENGTH)


def _in_digits(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits))
