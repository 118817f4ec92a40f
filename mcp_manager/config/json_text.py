"""JSON text: comments and trailing commas, its tokens, and places in it as lines and columns."""

from __future__ import annotations

import bisect
import json
import re
from typing import Final

__all__ = ["TOKEN", "Place", "line_starts", "place_at", "repeated_key", "text_of", "without_comments"]

Place = tuple[int, int]
"""A line and a column, counted from 1."""

TOKEN: Final = re.compile(r'[{}\[\]:,]|"(?:[^"\\]|\\.)*+"|[^\s{}\[\]:,"]++', re.DOTALL)
_STRING: Final = r'"(?:[^"\\\n]|\\.)*+"'
_COMMENT: Final = re.compile(rf"({_STRING})|//[^\n]*+|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA: Final = re.compile(rf"({_STRING})|,(?=\s*+[}}\]])")
_NOT_BLANK: Final = re.compile(r"[^\n]")


def without_comments(text: str) -> str:
    """Return JSON text with comments and trailing commas replaced by blanks, so that every position stays the same."""
    if "//" in text or "/*" in text:
        text = _COMMENT.sub(lambda found: found[1] or _NOT_BLANK.sub(" ", found[0]), text)
    return _TRAILING_COMMA.sub(lambda found: found[1] or ("," if _is_first(found) else " "), text)


def repeated_key(text: str) -> Place | None:
    """Return the place of the first key that a JSON object has twice."""
    frames: list[set[str] | None] = []
    previous = ""
    pending: tuple[str, int] | None = None
    for token in TOKEN.finditer(without_comments(text)):
        mark = token[0]
        if mark in "{[":
            frames.append(set() if mark == "{" else None)
        elif mark in "}]" and frames:
            frames.pop()
        elif mark == ":" and pending is not None and frames and frames[-1] is not None:
            name, offset = pending
            if name in frames[-1]:
                return place_at(offset, line_starts(text))
            frames[-1].add(name)
        pending = (text_of(mark), token.start()) if mark.startswith('"') and previous in ("{", ",") else None
        previous = mark
    return None


def text_of(token: str) -> str:
    """Return the text of a string token."""
    try:
        return str(json.loads(token, strict=False))
    except json.JSONDecodeError:
        return token


def line_starts(text: str) -> list[int]:
    """Return where the lines of a text start."""
    return [0, *(found.end() for found in re.finditer("\n", text))]


def place_at(offset: int, starts: list[int]) -> Place:
    """Return the place of an offset."""
    line = bisect.bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1


def _is_first(comma: re.Match[str]) -> bool:
    """Tell whether nothing stands before a comma that could end with it."""
    at = comma.start() - 1
    while at >= 0 and comma.string[at].isspace():
        at -= 1
    return at < 0 or comma.string[at] in "{[,:"
