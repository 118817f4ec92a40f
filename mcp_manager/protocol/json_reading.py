"""JSON of servers, decoded: by the quick decoder, and once more where that refuses what the grammar allows."""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

import msgspec

from mcp_manager._core.json_weight import weigh
from mcp_manager._core.mending import without_lone_surrogates

__all__ = ["DEFAULT_LIMITS", "LONE_SURROGATES", "OUT_OF_RANGE", "DecodingLimits", "JsonDecoder", "TooMuchToDecodeError"]

T = TypeVar("T")

LONE_SURROGATES: Final = "text that is half a character"
"""What is counted where an emoji was cut in two: each half stands for U+FFFD then."""
OUT_OF_RANGE: Final = "a number that no float can hold"
"""What is counted where a number is read as infinite, as :func:`json.loads` does."""

_BEYOND: Final = "out of range"
# No text that is so short takes long, or much memory.
_SHORT: Final = 16 * 1024


class DecodingLimits(NamedTuple):
    """How much may be decoded at a time: values, as :func:`weigh` counts them, and bytes of a text with its strings."""

    values: int
    memory: int

    def check(self, data: bytes | memoryview) -> None:
        """Raise :class:`TooMuchToDecodeError` for JSON text that is more."""
        values, text = weigh(data, self.values)
        if values > self.values:
            raise TooMuchToDecodeError(f"more than {self.values} values", "max_response_values")
        if text + len(data) > self.memory:
            raise TooMuchToDecodeError(f"strings of {text} bytes in memory", "max_response_bytes")


DEFAULT_LIMITS: Final = DecodingLimits(300_000, 48 * 1024 * 1024)
"""What is decoded in some 50 milliseconds, in which nothing else can happen."""


class TooMuchToDecodeError(msgspec.DecodeError):
    """JSON text is so large, or so dense, that decoding it would hold up everything else.

    Parameters
    ----------
    excess
        What there is too much of.
    setting
        The setting of the server that bounds it.
    """

    def __init__(self, excess: str, setting: str) -> None:
        super().__init__(f"it has {excess}")
        self.excess = excess
        self.setting = setting


class JsonDecoder(Generic[T]):
    """Decode what a server sent, as ``msgspec.json.Decoder`` does.

    RFC 8259 allows escapes of half a surrogate pair and numbers of any size (sections 6 and 8.2); servers that cut text
    by UTF-16 units, and those that compute, send both. Where the quick decoder refuses a text for that, it is decoded
    again: halves become U+FFFD, and numbers beyond every float infinite where any number may stand.

    Parameters
    ----------
    kind
        What it is decoded as.

    Servers choose how much work their text is: text beyond the limits is not decoded at all.
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
        mended
            Is given what had to be overlooked: :data:`LONE_SURROGATES`, :data:`OUT_OF_RANGE`.
        limits
            How much it may be; ``None`` where that is known already, or where a few members are taken out of whatever else
            there is, which makes nothing of the rest.

        Raises
        ------
        TooMuchToDecodeError
            It is more than the limits allow.
        msgspec.DecodeError
            The data is no JSON, or has another shape; the message says what is wrong with the server's own text.
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
            # An exception's traceback holds this frame.
            del error
