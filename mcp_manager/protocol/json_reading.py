"""JSON of servers, decoded: by the quick decoder, and once more where that refuses what the grammar allows."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from mcp_manager._core.mending import without_lone_surrogates

__all__ = ["LONE_SURROGATES", "OUT_OF_RANGE", "JsonDecoder"]

T = TypeVar("T")

LONE_SURROGATES: Final = "text that is half a character"
"""What is counted where an emoji was cut in two: each half stands for U+FFFD then."""
OUT_OF_RANGE: Final = "a number that no float can hold"
"""What is counted where a number is read as infinite, as :func:`json.loads` does."""

_BEYOND: Final = "out of range"


class JsonDecoder(Generic[T]):
    """Decode what a server sent, as ``msgspec.json.Decoder`` does.

    RFC 8259 allows escapes of half a surrogate pair and numbers of any size (sections 6 and 8.2); servers that cut text
    by UTF-16 units, and those that compute, send both. Where the quick decoder refuses a text for that, it is decoded
    again: halves become U+FFFD, and numbers beyond every float infinite where any number may stand.

    Parameters
    ----------
    kind
        What it is decoded as.
    """

    __slots__ = ("_decoder", "_kind", "_patient")

    @overload
    def __init__(self, kind: type[T]) -> None: ...

    @overload
    def __init__(self: JsonDecoder[Any], kind: Any) -> None: ...

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._patient: msgspec.json.Decoder[T] | None = None

    def decode(self, data: bytes | memoryview | msgspec.Raw, mended: list[str] | None = None) -> T:
        """Return the decoded value.

        Parameters
        ----------
        mended
            Is given what had to be overlooked: :data:`LONE_SURROGATES`, :data:`OUT_OF_RANGE`.

        Raises
        ------
        msgspec.DecodeError
            The data is no JSON, or has another shape; the message says what is wrong with the server's own text.
        RecursionError
            It is nested too deeply.
        """
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError as error:
            return self._decode_again(bytes(data), error, mended)

    def _decode_again(self, data: bytes, error: msgspec.DecodeError, mended: list[str] | None) -> T:
        decoder = self._decoder
        found: list[str] = []
        while True:
            if isinstance(error, msgspec.ValidationError):
                if _BEYOND not in str(error) or OUT_OF_RANGE in found:
                    break
                decoder = self._patient = self._patient or msgspec.json.Decoder(self._kind, float_hook=float)
                found.append(OUT_OF_RANGE)
            else:
                whole = without_lone_surrogates(data)
                if whole is data:
                    break
                data = whole
                found.append(LONE_SURROGATES)
            try:
                value = decoder.decode(data)
            except msgspec.DecodeError as another:
                error = another
                continue
            if mended is not None:
                mended += found
            return value
        try:
            raise error
        finally:
            # An exception's traceback holds this frame.
            del error
