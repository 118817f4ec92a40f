"""Arguments of a tool from words of the command line (``key=value``), typed by the tool's input schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_manager.cli.source import suggestion
from mcp_manager.errors import InvalidRequestError

__all__ = ["is_pair", "tool_arguments"]

_PAIR: Final = re.compile(r"([^=:]+|[^=]+?)(:=|=)(.*)", re.DOTALL)
_INTEGER: Final = re.compile(r"[+-]?\d+")
_LARGEST_FILE: Final = 64 * 1024 * 1024
# References in a schema may lead in a circle.
_DEEPEST: Final = 16
_NAMED: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a JSON array",
    "object": "a JSON object",
}


class _Mistake(ValueError):
    """One thing that is wrong with the words."""


def is_pair(word: str) -> bool:
    """Tell whether a word has the form ``key=value`` or ``key:=JSON``."""
    return _PAIR.fullmatch(word) is not None and not word.startswith(("{", "["))


def tool_arguments(words: Sequence[str], schema: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """Return the arguments that the words give.

    ``key=value`` is typed by the schema, ``key=@FILE`` likewise from a file. ``key:=JSON`` and ``key:=@FILE`` are JSON.
    A key that is repeated makes a list. One JSON object in place of all pairs is taken as it is.

    Parameters
    ----------
    words
        The words of the command line.
    schema
        The tool's input schema.
    tool
        The tool's name, for errors.

    Raises
    ------
    InvalidRequestError
        A word is malformed, a value does not fit the schema, an argument is unknown or a required one is missing. The
        message names all such arguments.
    """
    properties = _object(schema.get("properties"))
    mistakes: list[str] = []
    found: dict[str, Any] = {}
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            found = _decoded(words[0], "what is given")
        except _Mistake as mistake:
            mistakes.append(str(mistake))
    else:
        for word in words:
            try:
                _take(word, properties, schema, found)
            except _Mistake as mistake:
                mistakes.append(str(mistake))
    required = schema.get("required")
    missing = [name for name in required if name not in found] if isinstance(required, list) else []
    # One that was given with a mistake is not missing.
    missing = [name for name in missing if not any(word.startswith((f"{name}=", f"{name}:=")) for word in words)]
    if missing and not (mistakes and len(words) == 1 and not is_pair(words[0])):
        wanted = ", ".join(f"{name} ({_wanted(_object(properties.get(name)), schema)})" for name in map(str, missing))
        mistakes.append(f"missing: {wanted}")
    if mistakes:
        raise InvalidRequestError(
            f"the arguments of {tool} do not fit: {'; '.join(mistakes)}", hint=_usage(properties, schema)
        )
    return found


def _take(word: str, properties: Mapping[str, Any], schema: Mapping[str, Any], found: dict[str, Any]) -> None:
    pair = _PAIR.fullmatch(word)
    if pair is None:
        raise _Mistake(f"{word[:60]!r} is not key=value")
    key, sign, text = pair[1], pair[2], pair[3]
    if properties and key not in properties:
        near = suggestion(key, properties)
        if near or schema.get("additionalProperties") is False:
            raise _Mistake(f"no argument {key!r}{f' ({near.strip()})' if near else ''}")
    if text.startswith("@"):
        text = _content(text[1:], key)
    own = _object(properties.get(key))
    if sign == ":=":
        found[key] = _decoded(text, key)
        return
    if key not in found:
        found[key] = _typed(text, key, own, schema)
    elif not own or "array" in _types(own, schema):
        before = found[key] if isinstance(found[key], list) else [found[key]]
        found[key] = [*before, *(_typed_list(text, key, own, schema) if own else [_typed(text, key, own, schema)])]
    else:
        raise _Mistake(f"{key} is given twice")


def _typed(text: str, key: str, own: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return a value as the first type of the schema that it has the form of; text comes last."""
    types = _types(own, root)
    if "array" in types and not text.lstrip().startswith("["):
        return _typed_list(text, key, own, root)
    if not types:
        # Nothing is said of the type: what is JSON is meant as JSON.
        types = {"null", "boolean", "number", "array", "object", "string"}
    for name in ("null", "boolean", "integer", "number", "array", "object"):
        if name in types and (value := _READERS[name](text)) is not None:
            return value[0]
    choices = _choices(own, root)
    if "string" in types and (not choices or text in choices):
        return text
    raise _Mistake(f"{key} must be {_wanted(own, root)}, not {text[:60]!r}")


def _typed_list(text: str, key: str, own: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    items = next((_object(each["items"]) for each in _variants(own, root) if "items" in each), {})
    return [_typed(text, key, items, root)]


def _json_of(kind: type) -> Callable[[str], tuple[Any] | None]:
    def read(text: str) -> tuple[Any] | None:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            return None
        return (value,) if isinstance(value, kind) else None

    return read


def _integer(text: str) -> tuple[int] | None:
    return (int(text),) if len(text) < 4000 and _INTEGER.fullmatch(text) and text.isascii() else None


def _number(text: str) -> tuple[int | float] | None:
    whole = _integer(text)
    if whole is not None:
        return whole
    try:
        value = float(text)
    except ValueError:
        return None
    return (value,) if math.isfinite(value) and "_" not in text else None


_READERS: Final[dict[str, Callable[[str], tuple[Any] | None]]] = {
    "null": lambda text: (None,) if text == "null" else None,
    "boolean": lambda text: {"true": (True,), "false": (False,)}.get(text.lower()),
    "integer": _integer,
    "number": _number,
    "array": _json_of(list),
    "object": _json_of(dict),
}


def _variants(own: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all that it refers to or combines."""
    if depth > _DEEPEST:
        return
    yield own
    reference = own.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        place: Any = root
        for step in reference[2:].split("/"):
            place = _object(place).get(step.replace("~1", "/").replace("~0", "~"))
        yield from _variants(_object(place), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        each = own.get(name)
        for variant in each if isinstance(each, list) else ():
            yield from _variants(_object(variant), root, depth + 1)


def _types(own: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema allows; none if it does not say."""
    types: set[str] = set()
    for each in _variants(own, root):
        named = each.get("type")
        types.update(name for name in (named if isinstance(named, list) else [named]) if name in _NAMED)
    if not types:
        types = {_type_of(choice) for choice in _all_choices(own, root)}
    return types


def _choices(own: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    """Return the texts that a schema allows; none if it allows all."""
    return [choice for choice in _all_choices(own, root) if isinstance(choice, str)]


def _all_choices(own: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for each in _variants(own, root):
        listed = each.get("enum")
        found += listed if isinstance(listed, list) else []
        found += [each["const"]] if "const" in each else []
    return found


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "string"


def _wanted(own: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    choices = _choices(own, root)
    if choices:
        shown = ", ".join(choices[:8])
        return f"one of {shown}{', …' if len(choices) > 8 else ''}"
    types = _types(own, root)
    return " or ".join(text for name, text in _NAMED.items() if name in types) or "any value"


def _usage(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    required = schema.get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    shown = [name if name in needed else f"[{name}]" for name in list(properties)[:20]]
    more = ", …" if len(properties) > 20 else ""
    return f"its arguments: {', '.join(shown)}{more}" if shown else "it takes no arguments"


def _content(name: str, key: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise _Mistake(f"{key}: {name} is larger than 64 MiB")
        return data.decode()
    except UnicodeDecodeError:
        raise _Mistake(f"{key}: {name} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        if isinstance(error, _Mistake):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _Mistake(f"{key}: {name} cannot be read: {reason}") from None


def _decoded(text: str, key: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise _Mistake(f"{key} is not JSON: {error}") from None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
