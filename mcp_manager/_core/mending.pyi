"""Repairs JSON that servers write slightly wrong, and finds in it what decoding into records would lose."""

from collections.abc import Container

def mended_response(
    id_raw: bytes | None, result: bytes | memoryview | None, error: bytes | None, code: int | None
) -> bytes | None:
    """Write a JSON-RPC 2.0 response from parts that are valid JSON; a missing id becomes null.

    Unless ``code`` was found in the error object, that is rewritten; ``None`` if this is impossible.
    """

def mended_error(error: bytes) -> bytes | None:
    """Rewrite an error object that lacks an integer ``code`` or a ``message`` that is a string.

    The code may be the text of an integer, or a float with an integer value. A missing message becomes empty, and one
    that is not a string is quoted. ``None`` if there is no such code.
    """

def error_members(data: bytes, longest: int) -> dict[str, bytes]:
    """Return ``code``, ``message`` and ``data`` of an error object as written, cut to ``longest`` bytes each.

    If the object itself is longer than that, reading ends once code and message are found.
    """

def without_lone_surrogates(data: bytes | memoryview) -> bytes | memoryview:
    """Return JSON text with U+FFFD for every escaped lone surrogate; the same object if there is none."""

def without_constants(data: bytes) -> bytes:
    """Return JSON text with null for ``NaN`` and ``1e999`` for ``Infinity``; the same object if there is neither."""

def says_default(data: bytes, names: Container[bytes]) -> bool:
    """Return whether JSON text has, at any depth, a member of one of these names that is null, false or empty.

    It may err for a match inside a string or a name with escapes, but only towards true.
    """
