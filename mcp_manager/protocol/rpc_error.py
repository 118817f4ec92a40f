"""The error object of JSON-RPC 2.0, section 5.1, as a server sent it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["ErrorObject", "error_text", "read_error"]

_QUOTE: Final = 200


class ErrorObject(msgspec.Struct, frozen=True):
    """A decoded error object."""

    code: int = 0
    message: str = ""
    data: Any = None


_decoder = msgspec.json.Decoder(ErrorObject)


def read_error(error: bytes) -> ErrorObject:
    """Decode an error object; one that cannot be decoded becomes code 0 and says so."""
    try:
        return _decoder.decode(error)
    except (msgspec.DecodeError, RecursionError):
        return ErrorObject(message="a malformed error object")


def error_text(error: bytes) -> str:
    """Quote code and message of an error object, bounded and free of control characters."""
    decoded = read_error(error)
    message = "".join(char if char.isprintable() else " " for char in decoded.message[:_QUOTE])
    return f"{message} (JSON-RPC error {decoded.code})"
