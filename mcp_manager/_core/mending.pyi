"""JSON of servers beside the ordinary path: what is a little wrong in it written right, and what records would forget."""

from collections.abc import Container

def mended_response(
    id_raw: bytes | None, result: bytes | memoryview | None, error: bytes | None, code: int | None
) -> bytes | None:
    """Write a JSON-RPC 2.0 response from parts that are valid JSON; a missing id becomes null.

    The error object is written anew unless ``code`` was found in it; ``None`` if that cannot be done.
    """

def mended_error(error: bytes) -> bytes | None:
    """Write an error object with an integer ``code`` and a ``message``, from one that may have them in another form.

    A code may be the text of an integer, or a fraction without any; a message that is missing is empty, one that is no
    string is quoted. ``None`` if there is no code.
    """

def error_members(data: bytes, longest: int) -> dict[str, bytes]:
    """Return ``code``, ``message`` and ``data`` of an error object as they were written, the first ``longest`` bytes of each.

    Of an object that is longer itself, nothing is read beyond code and message.
    """

def without_lone_surrogates(data: bytes | memoryview) -> bytes | memoryview:
    """Return JSON text in which every escape of half a surrogate pair stands for U+FFFD; the very same text if none does."""

def without_constants(data: bytes) -> bytes:
    """Return JSON text with null for ``NaN`` and ``1e999`` for ``Infinity``, outside strings; the very same text if it has neither."""

def says_default(data: bytes, names: Container[bytes]) -> bool:
    """Tell whether JSON text has a member of one of these names that is null, false or empty, wherever in it that is.

    It may say so of a text that has it only within a string, or a name in escapes, never the other way round.
    """
