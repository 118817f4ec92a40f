"""The kinds of values in clients' files: each is checked, and told from secrets, in one place."""

from __future__ import annotations

import re
from typing import Any

from mcp_manager.config._plain import describe, kind_of
from mcp_manager.config._problem import FieldProblem

__all__ = [
    "as_flag",
    "as_list",
    "as_number",
    "as_object",
    "as_text",
    "as_variable_name",
    "as_word",
    "members_of",
]


def members_of(value: Any, where: str, separator: str) -> list[tuple[str, Any]]:
    """Return the members of an object, or of a list of ``name=value`` texts or ``{name, value}`` objects."""
    if not isinstance(value, list):
        return list(as_object(value, where).items())
    members: list[tuple[str, Any]] = []
    for index, each in enumerate(value):
        if isinstance(each, dict):
            name, inner = each.get("name", each.get("key")), each.get("value")
        else:
            name, found, inner = each.partition(separator) if isinstance(each, str) else ("", "", "")
            name, inner = name.strip() if found else "", inner if separator == "=" else inner.strip()
        if not isinstance(name, str) or not name:
            raise FieldProblem(f"{where}[{index}]", f"is not name{separator}value")
        members.append((name, inner))
    return members


def as_word(value: Any, where: str) -> str:
    """Return text, or a number or boolean as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise FieldProblem(where, f"expected a string, got {describe(value)}")


def as_text(value: Any, where: str) -> str:
    """Return a text; raises :class:`FieldProblem` for anything else."""
    if not isinstance(value, str):
        raise FieldProblem(where, f"expected a string, got {kind_of(value)}")
    return value


def as_flag(value: Any, where: str) -> bool:
    """Return a boolean; raises :class:`FieldProblem` for anything else."""
    if not isinstance(value, bool):
        raise FieldProblem(where, f"expected true or false, got {describe(value)}")
    return value


def as_number(value: Any, where: str) -> float:
    """Return a number; raises :class:`FieldProblem` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise FieldProblem(where, f"expected a number, got {kind_of(value)}")
    return min(float(value), 1e12) if abs(value) < 1e300 else 1e12


def as_list(value: Any, where: str) -> list[Any]:
    """Return an array; raises :class:`FieldProblem` for anything else."""
    if not isinstance(value, list):
        raise FieldProblem(where, f"expected an array, got {kind_of(value)}")
    return value


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return an object; raises :class:`FieldProblem` for anything else."""
    if not isinstance(value, dict):
        raise FieldProblem(where, f"expected an object, got {kind_of(value)}")
    return value


def as_variable_name(value: Any, where: str) -> str:
    """Return the name of a variable; raises :class:`FieldProblem` for anything else."""
    name = as_text(value, where)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # Not quoted, because it may be the secret itself.
        raise FieldProblem(where, "is not the name of a variable", "give the name, not the value")
    return name
