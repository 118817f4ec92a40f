"""The data of a tool's result: its structured content, or what its text says, in the type that the caller wants."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.json_reading import JsonDecoder, TooMuchToDecodeError
from mcp_manager.results.targets import Misfit, Target

__all__ = ["data_in"]

_WRAPPER: Final = "result"
_NOTHING: Final = "the tool returned no structured content and no single block of text"

_decoder: JsonDecoder[Any] = JsonDecoder(Any)


def data_in(structured: Any, text: str | None, target: Target | None, *, is_wrapped: bool) -> Any:
    """Return the data of a result.

    Parameters
    ----------
    structured
        The structured content, ``None`` without any.
    text
        The text of the only block of content; ``None`` if there is another number of blocks, or if it is no text.
    target
        The type that is wanted, ``None`` for any.
    is_wrapped
        Whether the server says that it has put the data into an object, as its only member ``result``.

    Raises
    ------
    Misfit
        The data is not of the type.
    ProtocolError
        The text is JSON that is too large to decode.
    """
    if structured is None:
        return _data_of_text(text, target)
    if is_wrapped and isinstance(structured, dict) and _WRAPPER in structured:
        value = structured[_WRAPPER]
        return value if target is None else _read(target, value, f"$.{_WRAPPER}")
    if target is None:
        return structured
    if not isinstance(structured, dict) or structured.keys() != {_WRAPPER}:
        return _read(target, structured, "$")
    # The official SDK wraps what is no object, too, but does not say so.
    try:
        return target.read(structured)
    except Misfit:
        return _read(target, structured[_WRAPPER], f"$.{_WRAPPER}")


def _read(target: Target, value: Any, place: str) -> Any:
    try:
        return target.read(value)
    except Misfit as misfit:
        raise Misfit(misfit.reason, place + misfit.place.removeprefix("$")) from None


def _data_of_text(text: str | None, target: Target | None) -> Any:
    if target is None:
        # A number or a word in quotes is more often meant as text.
        if text is None or not text.lstrip().startswith(("{", "[")):
            return text
        try:
            return _decoded(text)
        except msgspec.DecodeError:
            return text
    if text is None:
        try:
            return target.read(None)
        except Misfit:
            raise Misfit(_NOTHING) from None
    if target.is_text:
        return target.read(text)
    try:
        value = _decoded(text)
    except msgspec.DecodeError:
        return target.read(text)
    try:
        return target.read(value)
    except Misfit as misfit:
        try:
            return target.read(text)
        except Misfit:
            raise misfit from None


def _decoded(text: str) -> Any:
    try:
        return _decoder.decode(text.encode("utf-8", "replace"))
    except TooMuchToDecodeError as error:
        raise ProtocolError(f"the text of the tool is too large to decode: {error}", delivery="answered") from None
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deeply") from None
