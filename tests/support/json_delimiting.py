"""A model of how the scanner finds the end of an object or array: a regular expression and a stack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mcp_manager._core.jsonrpc import FrameError, scan_reply, use_vector_path, vector_path, vector_paths

TOKEN = re.compile(
    rb"""(?P<string>"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*")|[\[{]|(?P<closing>[\]}])|[\t\n\r ,:+\-.E0-9aeflnrstu]""",
    re.DOTALL,
)


def delimited(value: bytes, max_depth: int = 511) -> int | None:
    """Return where the object or array at the beginning of a text ends, ``None`` if it is malformed."""
    at, levels = 0, b""
    while found := TOKEN.match(value, at):
        token = found.group()
        if found["string"]:
            try:
                token.decode("utf-8")
            except UnicodeDecodeError:
                return None
        elif found["closing"]:
            if levels[-1:] + token not in (b"[]", b"{}"):
                return None
            levels = levels[:-1]
            if not levels:
                return found.end()
        elif token in b"[{":
            levels += token
            if len(levels) > max_depth:
                return None
        at = found.end()
    return None


class Refused(NamedTuple):
    """The reason and the offset of a :class:`FrameError`."""

    reason: str
    offset: int


@contextmanager
def scanning_by(path: str) -> Iterator[None]:
    """Make the scanner use one of its vector paths until the end of the ``with`` block."""
    before = vector_path()
    use_vector_path(path)
    try:
        yield
    finally:
        use_vector_path(before)


def read_result(data: bytes, max_depth: int = 512) -> bytes | Refused | None:
    """Return the result of a reply, or why it was refused; assert that all vector paths of this machine agree."""
    outcomes: dict[str, bytes | Refused | None] = {}
    for path in vector_paths():
        with scanning_by(path):
            try:
                outcomes[path] = scan_reply(data, max_depth=max_depth).result
            except FrameError as error:
                outcomes[path] = Refused(error.reason, error.offset)
    outcome = outcomes.pop("portable")
    for path, other in outcomes.items():
        assert other == outcome, (path, data)
    return outcome
