"""The file with the hashes of API keys: read, followed while it changes, and written."""

from __future__ import annotations

import hmac
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from mcp_manager.errors import ConfigError
from mcp_manager.gateway.security.api_keys import ApiKey, key_hash, looks_like_key
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.replaced_file import replace_file
from mcp_manager.gateway.security.verdicts import Rejected, Verdict, Verified

__all__ = ["KeysFile", "changing_keys", "read_keys", "write_keys"]

_log = logging.getLogger(__name__)

_LARGEST: Final = 8 * 1024 * 1024
_MOST_KEYS: Final = 20_000
_LOOK_EVERY_S: Final = 1.0
_UNKNOWN: Final = Rejected("invalid_token", "the API key is unknown or revoked")
_EXPIRED: Final = Rejected("invalid_token", "the API key has expired")
_MISTYPED: Final = Rejected("invalid_token", "this is not an API key of this gateway, or it was not copied completely")
_decoder: Final = msgspec.json.Decoder(ApiKey)

_State = tuple[int, int, int] | None


def read_keys(path: str) -> list[ApiKey]:
    """Read the keys of a file: a JSON object per line; empty lines and lines that begin with ``#`` are left out.

    Raises
    ------
    ConfigError
        The file cannot be read, or a line of it cannot be used.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            # A relative path would not say in which directory it is missing.
            f"the file of API keys {os.path.abspath(path)!r} cannot be read: {reason}",
            hint=f"make a key with: mcp-manager key new NAME --file {path}",
        ) from None
    lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip() and line[:1] != b"#"]
    if len(text) > _LARGEST or len(lines) > _MOST_KEYS:
        raise ConfigError(f"the file of API keys {path!r} is too large: at most {_MOST_KEYS} keys, {_LARGEST} bytes")
    keys: dict[str, ApiKey] = {}
    for number, line in lines:
        try:
            key = _decoder.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            # It quotes fields, never values.
            problem = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
            if "regex" in problem:
                problem = f"{problem.rpartition('$.')[2].strip('`')} is not as mcp-manager key writes it"
            raise ConfigError(f"the file of API keys {path!r}, line {number}: {problem}") from None
        if key.hash in keys:
            raise ConfigError(f"the file of API keys {path!r}, line {number}: repeats a key", hint="remove the line")
        keys[key.hash] = key
    return list(keys.values())


@contextmanager
def changing_keys(path: str, *, must_exist: bool = False) -> Iterator[list[ApiKey]]:
    """Let the block change the keys of a file, which is written at the end of it; others who do so wait.

    Parameters
    ----------
    path
        The file.
    must_exist
        Whether it must be there already.

    Raises
    ------
    ConfigError
        It cannot be read or written.
    """
    # A link stays one: what it points to is replaced.
    path = os.path.realpath(path)
    with _locked(os.path.dirname(path), path):
        keys = read_keys(path) if must_exist or os.path.exists(path) else []
        before = list(keys)
        yield keys
        if keys != before:
            write_keys(path, keys)


@contextmanager
def _locked(folder: str, path: str) -> Iterator[None]:
    """Lock a folder against others who change keys in it: the file itself is replaced."""
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"the file of API keys {path!r} cannot be written: {reason}") from None
    try:
        yield
    finally:
        os.close(handle)


def write_keys(path: str, keys: Iterable[ApiKey]) -> None:
    """Write a file of keys, at once. A new one is only for its owner to read; another keeps its owner and mode.

    Raises
    ------
    ConfigError
        It cannot be written.
    """
    text = b"".join(msgspec.json.encode(each) + b"\n" for each in keys)
    try:
        replace_file(path, text, mode=0o600)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"the file of API keys {path!r} cannot be written: {reason}") from None


class KeysFile:
    """Examine API keys by a file, which is read again within a second of a change.

    A file that cannot be used any more changes nothing: an error in the log says why.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ConfigError
        It cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.expanduser(path)
        self._look_at = 0.0
        self._state = _state_of(self._path)
        self._by_hash = _by_hash(read_keys(self._path))
        self.generation: int = 0
        """Counts how often the keys were replaced."""

    def verify(self, token: str) -> Verdict:
        """Examine a key."""
        self.look()
        if not looks_like_key(token):
            return _MISTYPED
        hashed = key_hash(token.encode())
        found = self._by_hash.get(hashed)
        # The time of the look-up depends on hashes alone, which a client cannot choose.
        if found is None or not hmac.compare_digest(found[0].hash, hashed):
            return _UNKNOWN
        principal = found[1]
        now = time.time()
        if principal.expires_at <= now:
            return _EXPIRED
        if principal.credential is None:
            principal = msgspec.structs.replace(principal, credential=token)
            self._by_hash[hashed] = (found[0], principal)
        return Verified(principal, min(principal.expires_at, now + _LOOK_EVERY_S))

    def is_current(self, principal: Principal) -> bool:
        """Tell whether the key of a principal is still there."""
        self.look()
        key = "" if principal.credential is None else key_hash(principal.credential.encode())
        return key in self._by_hash

    def look(self, *, now: bool = False) -> None:
        """Read the file again if it has changed: at most once in a second, unless it must be ``now``."""
        at = time.monotonic()
        if at < self._look_at and not now:
            return
        self._look_at = at + _LOOK_EVERY_S
        state = _state_of(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            keys = read_keys(self._path)
        except ConfigError as error:
            _log.error("the file of API keys was not read again, the old keys stay valid: %s", error)
            return
        self._by_hash = _by_hash(keys, self._by_hash)
        self.generation += 1
        _log.info("read %d API keys", len(keys))


_Keys = dict[str, tuple[ApiKey, Principal]]


def _by_hash(keys: Iterable[ApiKey], before: _Keys | None = None) -> _Keys:
    """Return the keys with their principals: the same object for a key that has not changed."""
    made = {}
    for key in keys:
        known = None if before is None else before.get(key.hash)
        made[key.hash] = known if known is not None and known[0] == key else (key, _principal_of(key))
    return made


def _principal_of(key: ApiKey) -> Principal:
    expires_at = math.inf if key.expires is None else key.expires.timestamp()
    return Principal(key.name, dict(key.claims), frozenset(key.scopes), expires_at)


def _state_of(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
