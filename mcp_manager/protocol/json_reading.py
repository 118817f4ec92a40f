"""Lenient decoding of servers' JSON, within limits on its cost."""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

import msgspec

from mcp_manager._core.json_weight import weigh
from mcp_manager._core.mending import without_lone_surrogates

__all__ = ["DEFAULT_LIMITS", "LONE_SURROGATES", "OUT_OF_RANGE", "DecodingLimits", "JsonDecoder", "TooMuchToDecodeError"]

T = TypeVar("T")

LONE_SURROGATES: Final = "text with half a surrogate pair"
"""The fault counted when an emoji was cut in two; each half becomes U+FFFD."""
OUT_OF_RANGE: Final = "a number too large for a float"
"""The fault counted when a number is read as infinite, as :func:`json.loads` does."""

_BEYOND: Final = "out of range"
# Shorter texts never take long or much memory.
_SHORT: Final = 16 * 1024


class DecodingLimits(NamedTuple):
    """How much JSON may be decoded at once: values as :func:`weigh` counts them, and bytes of text and strings."""

    values: int
    memory: int

    def check(self, data: bytes | memoryview) -> None:
        """Raise :class:`TooMuchToDecodeError` for JSON text beyond the limits."""
        values, text = weigh(data, self.values)
        if values > self.values:
            raise TooMuchToDecodeError(f"more than {self.values} values", "max_response_values")
        if text + len(data) > self.memory:
            raise TooMuchToDecodeError(f"strings of {text} bytes in memory", "max_response_bytes")


DEFAULT_LIMITS: Final = DecodingLimits(300_000, 48 * 1024 * 1024)
"""The default: decoding this much blocks the event loop for some 50 milliseconds."""


class TooMuchToDecodeError(msgspec.DecodeError):
    """Decoding this JSON text would block the event loop for too long.

    Parameters
    ----------
    excess
        What exceeds the limit.
    setting
        The field of the server's configuration that sets the limit.
    """

    def __init__(self, excess: str, setting: str) -> None:
        super().__init__(f"it has {excess}")
        self.excess = excess
        self.setting = setting


class JsonDecoder(Generic[T]):
    """Decode a server's JSON as ``msgspec.json.Decoder`` does, but accept what RFC 8259 allows.

    RFC 8259 allows escapes of half a surrogate pair and numbers of any size (sections 6 and 8.2), and servers send
    both. If the fast decoder refuses a text because of them, it is decoded again: halves become U+FFFD, and numbers too
    large for a float become infinite where any number is allowed. Text beyond the limits is not decoded at all.

    Parameters
    ----------
    kind
        The type to decode to.
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

    def decode(
        self,
        data: bytes | memoryview | msgspec.Raw,
        mended: list[str] | None = None,
        limits: DecodingLimits | None = DEFAULT_LIMITS,
    ) -> T:
        """Return the decoded value.

        Parameters
        ----------
        data
            The JSON text.
        mended
            Receives the faults that were tolerated: :data:`LONE_SURROGATES`, :data:`OUT_OF_RANGE`.
        limits
            The limits on its size; ``None`` if the size is known to be small, or if ``kind`` takes only a few members,
            so that the rest is skipped.

        Raises
        ------
        TooMuchToDecodeError
            The text exceeds the limits.
        msgspec.DecodeError
            The text is not JSON, or does not fit ``kind``; the message refers to the server's original text.
        RecursionError
            It is nested too deeply.
        """
        text = memoryview(data) if isinstance(data, msgspec.Raw) else data
        if limits is not None and len(text) > _SHORT:
            limits.check(text)
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError as error:
            return self._decode_again(text, error, mended)

    def _decode_again(self, data: bytes | memoryview, error: msgspec.DecodeError, mended: list[str] | None) -> T:
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
            # Break the reference cycle: the traceback refers to this frame.
            del error
