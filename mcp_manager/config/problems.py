"""Everything that is wrong in one file: collected, located, put in order and told without secrets."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.json_text import Place
from mcp_manager.config.positions import Segments, places_of, segments_of
from mcp_manager.config.reading import Document
from mcp_manager.config.redaction import masked
from mcp_manager.errors import ConfigError, ConfigProblem

__all__ = ["FileProblems"]

_MOST: Final = 1_000
_MOST_SHOWN: Final = 50
_TOLD_PLACE: Final = re.compile(r"line (\d+)(?:, column (\d+))?")


class _Located(NamedTuple):
    """A problem, and whether it is of one server alone."""

    problem: FieldProblem
    is_of_server: bool


class FileProblems:
    """The problems of one file.

    Parameters
    ----------
    path
        The file, as its user named it.
    """

    def __init__(self, path: str | bytes) -> None:
        self._path = path if isinstance(path, str) else path.decode(errors="backslashreplace")
        self._found: list[_Located] = []
        self._left_out = 0
        self.document: Document | None = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, problem: FieldProblem, *, is_of_server: bool = False) -> None:
        """Add a problem; beyond the first thousand, they are counted."""
        if len(self._found) < _MOST:
            # A traceback would keep what was read alive.
            self._found.append(_Located(problem.with_traceback(None), is_of_server))
        else:
            self._left_out += 1

    def concern_only_servers(self, *, lenient: bool) -> bool:
        """Tell whether the file can be used: without problems or, if ``lenient``, with problems of servers alone."""
        return all(each.is_of_server for each in self._found) if lenient else not self._found

    def told(self, secrets: Collection[str]) -> tuple[ConfigProblem, ...]:
        """Return the problems in the order of the file."""
        places = self._places()
        problems = []
        for problem, _ in self._found:
            line, column = places.get(_segments(problem)) or self._told_place(problem) or (None, None)
            problems.append(ConfigProblem(self._path, line, column, masked(str(problem), secrets)))
        return tuple(sorted(problems, key=lambda each: (each.line or 0, each.column or 0)))

    def error(self, secrets: Collection[str]) -> ConfigError:
        """Return the error to raise."""
        problems = self.told(secrets)
        prefix = f"Invalid config file {self._path}"
        if len(problems) == 1:
            problem = self._found[0].problem
            error = problem.error(prefix)
            error.message, error.hint = masked(error.message, secrets), masked(error.hint, secrets)
            error.args = (error.message,)
        else:
            total = len(problems) + self._left_out
            lines = [str(each) for each in problems[:_MOST_SHOWN]]
            if total > len(lines):
                lines.append(f"and {total - len(lines)} more")
            error = ConfigError("\n".join([f"{prefix}: {total} problems", *lines]))
        error.problems = problems
        return error

    def _places(self) -> dict[Segments, Place]:
        if self.document is None:
            return {}
        return places_of(self.document, {_segments(each.problem) for each in self._found})

    def _told_place(self, problem: FieldProblem) -> Place | None:
        """Return the place that a problem names itself."""
        told = _TOLD_PLACE.search(problem.text) if "malformed" in problem.text else None
        return (int(told[1]), int(told[2] or 1)) if told else None


def _segments(problem: FieldProblem) -> Segments:
    segments = segments_of(problem.path)
    return (*segments, problem.member) if problem.member is not None else segments
