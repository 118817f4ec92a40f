"""Reading of requests to the admin API, and responses with JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from mcp_manager.gateway.admin.problems import NO_STORE, refused

__all__ = ["count", "flag", "json_response", "one_of", "read_object", "seconds", "take_query"]

_JSON: Final = "application/json"
_LONGEST_WAIT_S: Final = 3_600.0
_MOST: Final = 10_000
_DEEPEST: Final = 100

Reader = Callable[[str, str], Any]
"""``reader(text, name)`` returns the value of a parameter, or raises :class:`Refusal`."""


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response with a value as JSON."""
    fields = {**NO_STORE, **(headers or {}), "Content-Type": _JSON}
    return web.Response(status=status, body=msgspec.json.encode(value), headers=fields)


def take_query(request: web.Request, **readers: Reader) -> dict[str, Any]:
    """Return the parameters that a request has in its URL.

    An unknown one is refused: a misspelt ``dry_run`` would change what it was only to look at.

    Parameters
    ----------
    request
        The request.
    readers
        Reads each parameter that there may be.
    """
    found: dict[str, Any] = {}
    for name, text in request.query.items():
        if name not in readers:
            known = f"the parameters are {', '.join(readers)}" if readers else "this resource has no parameters"
            raise refused(400, f"Unknown parameter {name[:64]!a}", hint=known, field=name[:64])
        if name in found:
            raise refused(400, f"The parameter {name} is given twice", field=name)
        found[name] = readers[name](text, name)
    return found


def flag(text: str, name: str) -> bool:
    """Read ``true`` or ``false``."""
    if text not in ("true", "false"):
        raise refused(400, f"{name} must be true or false", field=name)
    return text == "true"


def seconds(text: str, name: str) -> float:
    """Read a number of seconds, from 0 to an hour."""
    try:
        value = float(text) if text.isascii() and len(text) < 32 else -1.0
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= _LONGEST_WAIT_S:
        raise refused(400, f"{name} must be a number of seconds from 0 to {_LONGEST_WAIT_S:g}", field=name)
    return value


def count(text: str, name: str, most: int = _MOST) -> int:
    """Read a number of things, from 1 to 10,000 or another number of at most five digits."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= value <= most:
        raise refused(400, f"{name} must be an integer from 1 to {most}", field=name)
    return value


def one_of(*words: str) -> Reader:
    """Return what reads one of several words."""

    def read(text: str, name: str) -> str:
        if text not in words:
            raise refused(400, f"{name} must be {' or '.join(words)}", field=name)
        return text

    return read


async def read_object(request: web.Request, kinds: tuple[str, ...] = (_JSON,)) -> dict[str, Any]:
    """Return the object that the body of a request is, as JSON.

    Parameters
    ----------
    request
        The request.
    kinds
        The media types that are accepted.
    """
    if request.content_type not in kinds or "Content-Type" not in request.headers:
        accept = ", ".join(kinds)
        raise refused(
            415, f"The body must be {' or '.join(kinds)}", hint=f"send Content-Type: {kinds[0]}", Accept=accept
        )
    body = await request.read()
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).removeprefix("JSON is malformed: ")[:200]
        raise refused(400, f"The body is not JSON: {why}" if body else "The body is empty") from None
    if not isinstance(value, dict):
        raise refused(400, "The body must be a JSON object")
    if _depth(value) > _DEEPEST:
        raise refused(400, f"The body is nested deeper than {_DEEPEST} levels")
    return value


def _depth(value: Any) -> int:
    """Return how deep a value is nested, as far as it matters: what looks at it later calls itself for each level."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth
