"""Where what was obtained is kept: tokens, registrations and keys, as opaque records."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec

__all__ = ["FileTokenStore", "Grant", "MemoryTokenStore", "Registration", "TokenStore"]


class Registration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client as one authorization server knows it; ``issuer`` says which, ``scopes`` what it may ask for."""

    issuer: str
    client_id: str
    secret: str = ""
    auth_method: str = "none"
    secret_expires_at: float = 0.0
    configured: str = ""
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Registration(issuer={self.issuer!r})"


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one authorization gave: all of it is bound to the issuer and to the resource.

    ``expires_at`` is a time of :func:`time.time`, 0 if it is not known.
    """

    resource: str
    issuer: str
    registration: Registration
    access_token: str
    refresh_token: str = ""
    expires_at: float = 0.0
    scopes: tuple[str, ...] = ()
    dpop_key: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Grant(resource={self.resource!r}, issuer={self.issuer!r})"


class TokenStore(Protocol):
    """Keep records from one run to the next. A record is a secret: it must not be logged, nor readable by others."""

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key, ``None`` if there is none."""

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key as a whole; ``None`` removes it."""


class MemoryTokenStore:
    """Keep records as long as the process lives."""

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key."""
        return self._records.get(key)

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key."""
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record


class FileTokenStore:
    """Keep each record in a file of its own that only this user can read.

    Parameters
    ----------
    directory
        Made if it is missing; given mode 0700 in any case. Files have mode 0600 and are replaced atomically.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key; raises :class:`OSError` if it cannot be read."""
        return await asyncio.to_thread(self._load, key)

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key; raises :class:`OSError` if it cannot be written."""
        await asyncio.to_thread(self._save, key, record)

    def _path(self, key: str) -> Path:
        import hashlib  # noqa: PLC0415 - an import of the package does without

        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def _load(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def _save(self, key: str, record: bytes | None) -> None:
        path = self._path(key)
        if record is None:
            path.unlink(missing_ok=True)
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        import tempfile  # noqa: PLC0415 - for those who keep tokens in files

        # mkstemp makes it with mode 0600.

        handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
