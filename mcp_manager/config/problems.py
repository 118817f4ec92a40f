"""Everything that is wrong in one file: collected, located, put in order and told without secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.json_text import Place
from mcp_manager.config.positions import Segments, places_of, segments_of
from mcp_manager.config.reading import Document
from mcp_manager.config.redaction import masked
from mcp_manager.errors import ConfigError, ConfigProblem

__all__ = ["FileProblems"]

_PREFIX: Final = "Invalid config file"
_OF_A_MAPPING: Final = "Invalid configuration"
_MOST: Final = 1_000
_MOST_SHOWN: Final = 50
_TOLD_PLACE: Final = re.compile(r"line (\d+)(?:, column (\d+))?")
# What a decoder says of the place; the file and the place come before the message already.
_OWN_PLACE: Final = re.compile(
    r"(malformed TOML: .*) \(at line \d+, column \d+\)|(malformed (?:JSON|YAML)) at line \d+(?:, column \d+)?"
)


class _Located(NamedTuple):
    """A problem, and whether it is of one server alone."""

    problem: FieldProblem
    is_of_server: bool


class FileProblems:
    """The problems of one file.

    Parameters
    ----------
    path
        The file, as its user named it; "" for a mapping.
    is_lenient
        Whether the file is used all the same if they are of single servers.
    """

    def __init__(self, path: str | bytes, *, is_lenient: bool = False) -> None:
        self.path: str = path if isinstance(path, str) else path.decode(errors="backslashreplace")
        self._found: list[_Located] = []
        self._is_lenient = is_lenient
        self.left_out: int = 0
        self.document: Document | None = None

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def name(self) -> str:
        """What is invalid, for messages."""
        return f"{_PREFIX} {self.path}" if self.path else _OF_A_MAPPING

    @property
    def is_full(self) -> bool:
        """Whether there are so many that nothing more needs to be looked at."""
        return not self._is_lenient and len(self._found) >= _MOST

    @property
    def are_bearable(self) -> bool:
        """Whether the file can be used: it has none, or it is used leniently and they are of servers alone."""
        return not self._found or (self._is_lenient and all(each.is_of_server for each in self._found))

    def add(self, problem: FieldProblem, *, is_of_server: bool = False) -> None:
        """Add a problem; beyond the first thousand, those of servers are only counted."""
        if len(self._found) >= _MOST and is_of_server:
            self.left_out += 1
            return
        # A traceback would keep what was read alive.
        self._found.append(_Located(problem.with_traceback(None), is_of_server))

    def add_all(self, problems: Iterable[FieldProblem]) -> None:
        """Add problems of the whole file, until there are enough."""
        for problem in problems:
            self.add(problem)
            if len(self._found) >= _MOST:
                break

    def told(self, secrets: Collection[str]) -> tuple[ConfigProblem, ...]:
        """Return the problems in the order of the file."""
        places = self._places()
        problems = []
        for problem, _ in self._found:
            line, column = places.get(_segments(problem)) or self._told_place(problem) or (None, None)
            message = _OWN_PLACE.sub(r"\1\2", str(problem)) if line is not None else str(problem)
            problems.append(ConfigProblem(self.path, line, column, masked(message, secrets)))
        return tuple(sorted(problems, key=lambda each: (each.line or 0, each.column or 0)))

    def error(self, secrets: Collection[str]) -> ConfigError:
        """Return the error to raise."""
        problems = self.told(secrets)
        if len(problems) == 1:
            problem = self._found[0].problem
            error = problem.error(f"{_PREFIX} {problems[0].place}" if self.path else _OF_A_MAPPING)
            message = error.message if problems[0].line is None else _OWN_PLACE.sub(r"\1\2", error.message)
            error.message, error.hint = masked(message, secrets), masked(error.hint, secrets)
            error.args, error.field = (error.message,), masked(error.field, secrets)
        else:
            lines = [str(each) for each in problems[:_MOST_SHOWN]]
            if len(problems) > len(lines):
                lines.append(f"and {len(problems) - len(lines)} more")
            total = f"{len(problems)} problems" if len(problems) < _MOST else f"at least {len(problems)} problems"
            error = ConfigError("\n".join([f"{self.name}: {total}", *lines]))
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
