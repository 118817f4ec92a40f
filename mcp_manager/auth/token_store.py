"""The storage of tokens, registrations and keys, as opaque records."""

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
# Flags that not every system has.
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Registration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The registration of the client with one authorization server.

    Parameters
    ----------
    issuer
        The issuer identifier of the authorization server.
    client_id, secret
        The client's credentials; ``secret`` is "" if it has none.
    auth_method
        How the client authenticates at the token endpoint (RFC 7591, section 2).
    secret_expires_at
        When ``secret`` expires, as a time of :func:`time.time`; 0 for never.
    configured
        "yes" if the credentials come from the configuration, else "".
    scopes
        The scopes that the client is registered for.
    """

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
    """The tokens of one authorization, bound to an issuer and a resource.

    Parameters
    ----------
    resource
        The resource that the tokens are for (RFC 8707).
    issuer
        The issuer identifier of the authorization server.
    registration
        The client that obtained them.
    access_token, refresh_token
        The tokens; ``refresh_token`` is "" without one.
    expires_at
        When the access token expires, as a time of :func:`time.time`; 0 if not known.
    scopes
        The scopes that were requested.
    dpop_key
        The private key that the tokens are bound to, as a JWK; ``None`` for bearer tokens.
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
    """Store records across runs.

    A record is a secret: do not log it, and do not let others read it.
    """

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key, ``None`` if there is none."""

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key; ``None`` removes it."""


class MemoryTokenStore:
    """Store records in memory, until the process ends."""

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key, ``None`` if there is none."""
        return self._records.get(key)

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key; ``None`` removes it."""
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record


class FileTokenStore:
    """Store each record in its own file, readable only by this user.

    Files have mode 0600 and are replaced atomically. A file that could hold someone else's data is ignored with a
    warning, and replaced by the next record: a symbolic link, a pipe, a file of another user, one that others can write
    to, or one of more than 1 MiB.

    Parameters
    ----------
    directory
        Where the files are. It is created with mode 0700 if it is missing; the mode of an existing one is not changed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    async def load(self, key: str) -> bytes | None:
        """Return the record of a key, ``None`` if there is none; raises :class:`OSError` if it cannot be read."""
        return await asyncio.to_thread(self._load, key)

    async def save(self, key: str, record: bytes | None) -> None:
        """Replace the record of a key, ``None`` removes it; raises :class:`OSError` if it cannot be written."""
        await asyncio.to_thread(self._save, key, record)

    def _path(self, key: str) -> Path:
        import hashlib  # noqa: PLC0415 - importing the package must not load it

        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def _load(self, key: str) -> bytes | None:
        path = self._path(key)
        record, problem = _read_own(path)
        if problem:
            _log.warning("the stored authorization in %s is not used: %s", path, problem)
        return record

    def _save(self, key: str, record: bytes | None) -> None:
        path = self._path(key)
        if record is None:
            path.unlink(missing_ok=True)
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        import tempfile  # noqa: PLC0415 - only a file store needs it

        # mkstemp creates the file with mode 0600.

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
    """Return a file's content and "", or ``None`` and why it is not used ("" if missing); raises :class:`OSError`."""
    try:
        # Do not follow a symbolic link, and do not wait for a writer if it is a pipe.
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT | _CLOSE_ON_EXEC)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None, "it is not a regular file"
        raise
    with os.fdopen(descriptor, "rb") as file:
        problem = _problem_of(os.fstat(descriptor))
        record = b"" if problem else file.read(_LARGEST + 1)
    if len(record) > _LARGEST:
        problem = "it is too large"
    return (None, problem) if problem else (record, "")


def _problem_of(found: os.stat_result) -> str:
    """Return why a file cannot be trusted, "" if it can."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return "it belongs to another user"
    if os.name == "posix" and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others can write to it"
    return "it is too large" if found.st_size > _LARGEST else ""
