"""Names and texts of others in messages: bounded, and harmless to logs and terminals."""

from __future__ import annotations

from typing import Final

__all__ = ["beginning_of", "clipped"]

_LONGEST_NAME: Final = 256
_LONGEST_TEXT: Final = 2000


def clipped(name: str) -> str:
    """Cut a name off after 256 characters, more than any valid name has."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def beginning_of(text: str) -> str:
    """Return the first 2,000 characters of a server's own text, with blanks in place of control characters."""
    shown = "".join(char if char.isprintable() else " " for char in text[:_LONGEST_TEXT])
    return f"{shown}…" if len(text) > _LONGEST_TEXT else shown
