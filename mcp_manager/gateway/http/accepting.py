"""What a client accepts and sends, from its header fields ``Accept`` and ``Content-Type`` (RFC 9110, 12.5.1 and 8.3)."""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

__all__ = ["Accepted", "accepted", "is_json"]

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_KEPT: Final = 256
_LONGEST: Final = 1_024


class Accepted(NamedTuple):
    """Which of the two kinds of response a client accepts."""

    json: bool
    events: bool


# A client that says nothing is a script that reads JSON.
_BY_DEFAULT: Final = Accepted(True, False)


def accepted(field: bytes | None) -> Accepted:
    """Return what a client accepts, by its header field ``Accept``."""
    if field is None:
        return _BY_DEFAULT
    return _read(field) if len(field) <= _LONGEST else _parsed(field)


def is_json(field: bytes | None) -> bool:
    """Tell whether a body is JSON, by the header field ``Content-Type``."""
    if field == b"application/json":
        return True
    return field is not None and field.partition(b";")[0].strip().lower() == b"application/json"


def _parsed(field: bytes) -> Accepted:
    json = events = False
    for each in field.decode("latin-1").lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if any(_is_zero(parameter) for parameter in parameters):
            continue
        json = json or kind in (_JSON, "application/*", "*/*")
        events = events or kind in (_EVENTS, "text/*", "*/*")
    return Accepted(json, events)


_read = functools.lru_cache(maxsize=_KEPT)(_parsed)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().strip("0.") == "" and value.strip() != ""
