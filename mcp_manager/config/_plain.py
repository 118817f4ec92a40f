"""Reduction of a decoded configuration to plain JSON values: finite, bounded, and valid Unicode."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.config._problem import FieldProblem, entry

__all__ = ["describe", "kind_of", "plain"]

_DEEPEST: Final = 32
_LARGEST: Final = 2**63 - 1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def plain(value: object, path: str, depth: int = 0) -> Any:
    """Return a copy of ``value`` made of dict, list, str, int, float, bool and None only.

    Raises
    ------
    FieldProblem
        It contains something else but structs, a lone surrogate, a number that is not finite or exceeds 64 bits, a name that is
        not a string, or more than 32 levels.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise FieldProblem(path, "the number is out of range")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FieldProblem(path, f"expected a finite number, got {float(value)}")
        return float(value)
    if depth >= _DEEPEST:
        raise FieldProblem(path, f"nested deeper than {_DEEPEST} levels")
    if isinstance(value, Mapping):
        return {
            (name := _plain_name(key, path)): plain(item, entry(path, name), depth + 1) for key, item in value.items()
        }
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value), path, depth)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise FieldProblem(path, f"expected a JSON value, got {describe(value)}")


def _plain_text(text: str, path: str) -> str:
    if _SURROGATE.search(text):
        raise FieldProblem(path, "contains a lone surrogate, which is not Unicode text")
    return str.__str__(text)


def _plain_name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise FieldProblem(path, f"expected names to be strings, got {describe(name)}")
    return _plain_text(name, path)


def kind_of(value: object) -> str:
    """Name the kind of a value without quoting it: in place of a string, even a number may be a secret."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else describe(value)


def describe(value: object) -> str:
    """Name the kind of a value; only a number or boolean is quoted, because text may be a secret."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value)) if abs(value) <= _LARGEST else "a number out of range"
        case float():
            return repr(float(value))
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "an array"
        case _:
            return f"a Python {type(value).__name__}"
