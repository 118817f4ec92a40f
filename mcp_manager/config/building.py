"""Building of a server from the fields in a file, with everything that is wrong in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.parse import build_server
from mcp_manager.config.positions import Segments, segments_of

__all__ = ["build_with_all_problems"]

_MOST_PROBLEMS: Final = 16
_STAND_INS: Final = {"url": "http://localhost/", "command": "true"}
"""Values in place of wrong ones, so that the rest of a server can be checked."""


def build_with_all_problems(
    source: Mapping[str, Any], *, server_id: str, path: str = ""
) -> tuple[ServerConfig | None, list[FieldProblem]]:
    """Return a server and no problem, or ``None`` and what is wrong with it, as far as it can be told at once."""
    problems: list[FieldProblem] = []
    fields: Any = source
    while len(problems) < _MOST_PROBLEMS:
        try:
            config = build_server(fields, server_id=server_id, lenient=False, path=path)
        except FieldProblem as problem:
            if any(_follows(problem, each) for each in problems):
                break
            problems.append(problem)
            fields = _copied(source) if len(problems) == 1 else fields
            if not _take_out(fields, _within(problem, path)):
                break
        else:
            return (None if problems else config), problems
    return None, problems


def _copied(source: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the fields, but for a server in memory, which is itself."""
    return {name: value if name == "server" else copy.deepcopy(value) for name, value in source.items()}


def _follows(problem: FieldProblem, earlier: FieldProblem) -> bool:
    """Tell whether a problem is there only because what an earlier one is about was taken out."""
    if problem.path == earlier.path and problem.member == earlier.member:
        return True
    section, dot, field = earlier.path.rpartition(".")
    if dot and field == "type" and problem.path.startswith(f"{section}."):
        return True
    return problem.text == "missing" and earlier.member is not None and problem.path.startswith(earlier.path)


def _within(problem: FieldProblem, path: str) -> Segments:
    """Return where in the server the problem is."""
    segments = segments_of(problem.path.removeprefix(path).lstrip("."))
    return (*segments, problem.member) if problem.member is not None else segments


def _take_out(fields: dict[str, Any], segments: Segments) -> bool:
    """Remove what is wrong, or the field that it is in; tell whether there was something to remove."""
    if not segments:
        return False
    if segments[0] in _STAND_INS and segments[0] in fields:
        fields[str(segments[0])] = _STAND_INS[str(segments[0])]
        return True
    holder: Any = fields
    for segment in segments[:-1]:
        holder = holder.get(segment) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and segments[-1] in holder:
        del holder[segments[-1]]
        return True
    return fields.pop(str(segments[0]), None) is not None
