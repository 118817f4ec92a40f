"""What a server wrote a little wrong, written right: off every ordinary path, and only once it was found to be wrong."""

def mended_response(id_raw: bytes | None, result: bytes | None, error: bytes | None, code: int | None) -> bytes | None:
    """Write a JSON-RPC 2.0 response from parts that are valid JSON; a missing id becomes null.

    The error object is written anew unless ``code`` was found in it; ``None`` if that cannot be done.
    """

def mended_error(error: bytes) -> bytes | None:
    """Write an error object with an integer ``code`` and a ``message``, from one that may have them in another form.

    A code may be the text of an integer, or a fraction without any; a message that is missing is empty, one that is no
    string is quoted. ``None`` if there is no code.
    """

def without_lone_surrogates(data: bytes) -> bytes:
    """Return JSON text in which every escape of half a surrogate pair stands for U+FFFD; the very same text if none does."""

def without_constants(data: bytes) -> bytes:
    """Return JSON text with null for ``NaN`` and ``1e999`` for ``Infinity``, outside strings; the very same text if it has neither."""
