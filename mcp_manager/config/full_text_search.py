"""Whether the SQLite of this Python can search texts."""

from __future__ import annotations

from functools import cache

__all__ = ["has_full_text_search"]


@cache
def has_full_text_search() -> bool:
    """Return whether the module ``sqlite3`` is there, and has FTS5."""
    try:
        import sqlite3  # noqa: PLC0415 - only those need it who search
    except ImportError:
        return False
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
    except sqlite3.Error:
        return False
    finally:
        connection.close()
    return True
