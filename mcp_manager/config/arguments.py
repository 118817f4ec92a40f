"""The checks of arguments that callers pass to public methods, such as timeouts and server ids."""

from __future__ import annotations

import math
import numbers
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from mcp_manager.errors import ConfigError, InvalidRequestError, ServerNotFoundError

__all__ = [
    "as_callback",
    "as_flag",
    "as_object",
    "as_path",
    "as_seconds",
    "as_server_ids",
    "as_settings",
    "as_text",
    "check_count",
    "check_key",
    "check_server_id",
    "check_timeout",
    "end_of",
    "shown",
    "timeout_in_ns",
    "wrong_call",
]

F = TypeVar("F", bound=Callable[..., Any])

# A century: nanoseconds of a longer timeout, added to the monotonic clock, could exceed 64 bits.
_LONGEST_S: Final = 100 * 365.25 * 86400
_LONGEST_SHOWN: Final = 60
# PATH_MAX of Linux.
_LONGEST_PATH: Final = 4096


def shown(value: object) -> str:
    """Describe a wrong value for an error: text and numbers are quoted, anything else is named by its type."""
    if value is None or isinstance(value, str | bytes | int | float):
        try:
            text = repr(value)
        except ValueError:
            # A number of thousands of digits.
            text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    return f"of type {type(value).__name__}"


def as_seconds(value: object, name: str) -> float:
    """Return a number of seconds, at most a century.

    Raises
    ------
    InvalidRequestError
        Not a number, or negative; nothing was sent.
    """
    seconds = value
    if not isinstance(seconds, int | float) and isinstance(value, numbers.Real):
        # Numbers of NumPy, and fractions.
        try:
            seconds = float(value)
        except OverflowError:
            seconds = -math.inf if value < 0 else math.inf
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise _wrong(name, "a number of seconds from 0", value)
    return min(seconds, _LONGEST_S)


def check_timeout(timeout: float | None) -> float | None:
    """Return a timeout in seconds, ``None`` for the default; raises as :func:`as_seconds`."""
    return None if timeout is None else as_seconds(timeout, "timeout")


def timeout_in_ns(timeout: float) -> int:
    """Return a timeout in seconds as nanoseconds; raises as :func:`as_seconds`."""
    return int(as_seconds(timeout, "timeout") * 1e9)


def check_key(key: object) -> None:
    """Raise :class:`InvalidRequestError` unless a key of calls is a string, or ``None``."""
    if key is not None and not isinstance(key, str):
        raise InvalidRequestError(f"Invalid request: key must be a string, not {type(key).__name__}")


def end_of(timeout: float | None) -> float | None:
    """Return when a timeout that begins now ends, in seconds of the monotonic clock; raises as :func:`as_seconds`."""
    return None if timeout is None else time.monotonic() + as_seconds(timeout, "timeout")


def check_count(value: object, name: str, *, least: int = 0) -> None:
    """Raise :class:`InvalidRequestError` unless the value is an integer from ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(name, f"an integer from {least}", value)


def as_callback(value: F | None, name: str) -> F | None:
    """Return a function unchanged, or ``None``; raises :class:`ConfigError` for anything else."""
    if value is not None and not callable(value):
        raise ConfigError(f"{name} must be a function, not {shown(value)}")
    return value


def as_text(value: object, name: str) -> str:
    """Return a string unchanged; raises :class:`InvalidRequestError` for anything else."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def as_flag(value: object, name: str) -> bool:
    """Return a boolean unchanged; raises :class:`InvalidRequestError` for anything else."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def as_object(value: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Return a copy of a mapping, empty for ``None``; raises :class:`InvalidRequestError` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(name, "a mapping", value)
    return dict(value)


def as_settings(value: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Return a copy of a mapping, empty for ``None``; raises :class:`ConfigError` for anything else."""
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a mapping, not {shown(value)}")
    return dict(value or {})


def as_path(path: object) -> str:
    """Return the path of a configuration file; raises :class:`ConfigError` for anything else."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ConfigError(f"the path of a configuration file must be text or a Path, not {shown(path)}")
    if len(text) > _LONGEST_PATH:
        raise ConfigError(f"the path of a configuration file must have at most {_LONGEST_PATH} characters")
    return text


def check_server_id(server_id: object) -> None:
    """Raise :class:`ServerNotFoundError` for a server id that is not a string."""
    if not isinstance(server_id, str):
        raise ServerNotFoundError(shown(server_id), hint="a server id is a string") from None


def as_server_ids(server_ids: Collection[str]) -> list[str]:
    """Return the ids in order, without repetitions; raises :class:`InvalidRequestError` if it is no collection."""
    if isinstance(server_ids, str | bytes | bytearray) or not isinstance(server_ids, Collection):
        raise _wrong("server_ids", "a collection of server ids", server_ids)
    for server_id in server_ids:
        check_server_id(server_id)
    return list(dict.fromkeys(server_ids))


def wrong_call(server_id: object, request: object) -> InvalidRequestError | ServerNotFoundError:
    """Return the error for the one of the two arguments that has a wrong type."""
    if isinstance(request, bytes) or not isinstance(server_id, str):
        return ServerNotFoundError(shown(server_id), hint="a server id is a string")
    return InvalidRequestError(
        f"Invalid request: it must be bytes, not {type(request).__name__}",
        hint="request(server_id, method, params) takes Python data",
    )


def _wrong(name: str, wanted: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid request: {name} must be {wanted}, not {shown(value)}")
