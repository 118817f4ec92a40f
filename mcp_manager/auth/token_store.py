"""Where what was obtained is kept: tokens, registrations and keys, as opaque records."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

__all__ = ["FileTokenStore", "Grant", "MemoryTokenStore", "Registration", "TokenStore"]

_log = logging.getLogger(__name__)

_LARGEST: Final = 1 << 20
# Not every system has them.
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


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

    What is not such a file is not used, and told in a warning: a link, a pipe, somebody else's file, one that others can
    write to, one of more than 1 MiB. The next record replaces it.

    Parameters
    ----------
    directory
        Made with mode 0700 if it is missing, and left as it is if not. Files have mode 0600 and are replaced atomically.
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
        path = self._path(key)
        record, problem = _read_own(path)
        if problem:
            _log.warning("the kept authorization in %s is not used: %s", path, problem)
        return record

    def _save(self, key: str, record: bytes | None) -> None:
        path = self._path(key)
        if record is None:
            path.unlink(missing_ok=True)
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def _read_own(path: Path) -> tuple[bytes | None, str]:
    """Return what a file holds, or why it is not used, which is "" where there is none; raises :class:`OSError`."""
    try:
        # Neither through a link nor waiting for somebody to write into a pipe.
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT | _CLOSE_ON_EXEC)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None, "it is no plain file"
        raise
    with os.fdopen(descriptor, "rb") as file:
        problem = _problem_of(os.fstat(descriptor))
        record = b"" if problem else file.read(_LARGEST + 1)
    if len(record) > _LARGEST:
        problem = "it is too large"
    return (None, problem) if problem else (record, "")


def _problem_of(found: os.stat_result) -> str:
    """Say why a file's content may be somebody else's, "" if it is this user's own."""
    if not stat.S_ISREG(found.st_mode):
        return "it is no plain file"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return "it belongs to another user"
    if os.name == "posix" and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others can write to it"
    return "it is too large" if found.st_size > _LARGEST else ""
