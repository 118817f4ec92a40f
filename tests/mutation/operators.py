"""Small changes to Python and Cython source, each of which a test should notice.

Both languages are cut into the same tokens, so that one set of operators serves both.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Mutant", "mutants_of"]

_SWAPPED: Final = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "+": "-",
    "-": "+",
    "+=": "-=",
    "-=": "+=",
    "*": "+",
    "//": "*",
    "and": "or",
    "or": "and",
    "True": "False",
    "False": "True",
    "min": "max",
    "max": "min",
    "continue": "break",
    "break": "continue",
}
_DECLARATIONS: Final = (
    "import",
    "from",
    "cimport",
    "cdef extern",
    "ctypedef",
    "@",
    "__slots__",
    "__all__",
    "class ",
    "def ",
)


@dataclass(frozen=True)
class Mutant:
    """One change: ``old`` is replaced by ``new`` where it stands for the ``nth`` time (from 0) in a file of the package."""

    path: str
    old: str
    new: str
    nth: int = 0

    @property
    def name(self) -> str:
        return f"{self.path}: {self.old.strip()!r} -> {self.new.strip()!r}" + (f" ({self.nth})" if self.nth else "")

    def place(self, package: Path) -> str:
        """Return the file, the line and the change, for whoever looks it up."""
        source = (package / self.path).read_text(encoding="utf-8")
        line = source.count("\n", 0, self.begin(source)) + 1
        return f"{self.path}:{line}: {self.old.strip()!r} -> {self.new.strip()!r}"

    def begin(self, source: str) -> int:
        """Return where the change begins; raises ``ValueError`` if there is nothing to change."""
        at = -1
        for _ in range(self.nth + 1):
            at = source.index(self.old, at + 1)
        return at

    def applied(self, source: str) -> str:
        """Return the changed source; raises ``ValueError`` if there is nothing to change."""
        at = self.begin(source)
        return source[:at] + self.new + source[at + len(self.old) :]


def mutants_of(path: str, file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file: one changed token, one statement left out, or one condition turned round."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    seen: dict[str, int] = {}
    numbers = [seen_before(line, seen) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (row, begin), (end_row, end) = token.start, token.end
        line = lines[row - 1] if row <= len(lines) else ""
        if row != end_row or token.type not in (tokenize.OP, tokenize.NAME, tokenize.NUMBER) or is_declaration(line):
            continue
        new = _SWAPPED.get(token.string)
        if token.string == "not" and not line[:begin].endswith("is ") and not line[end:].startswith(" in "):
            new, end = "", end + 1
        if token.type == tokenize.NUMBER and token.string.isdigit():
            new = str(int(token.string) + 1)
        if token.string in ("*", "-", "+") and not is_binary(line[:begin]):
            new = None
        if token.string in ("<", ">") and not (line[:begin].endswith(" ") and line[end:].startswith(" ")):
            new = None  # the brackets of a cast
        if new is not None:
            yield Mutant(path, line, line[:begin] + new + line[end:], numbers[row - 1])
    for line, nth in zip(lines, numbers, strict=True):
        yield from of_statement(path, line, nth)


def seen_before(line: str, seen: dict[str, int]) -> int:
    """Count how often a line stood in the file before; :meth:`Mutant.applied` finds a line by its text."""
    seen[line] = seen.get(line, -1) + 1
    return seen[line]


def is_declaration(line: str) -> bool:
    text = line.strip()
    return text.startswith(_DECLARATIONS) or (text.startswith("cdef") and text.endswith((":", "nogil"))) or not text


def is_binary(before: str) -> bool:
    """Tell whether an operator stands between two values, and is no sign, star or pointer."""
    text = before.rstrip()
    last = re.split(r"\W", text)[-1]
    return before.endswith(" ") and (text.endswith((")", "]")) or (bool(last) and not keyword.iskeyword(last)))


def of_statement(path: str, line: str, nth: int) -> Iterator[Mutant]:
    text = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    if not indent or is_declaration(line):
        return
    is_whole = (
        text.count("(") == text.count(")") and text.count("[") == text.count("]") and not text.endswith((",", "("))
    )
    if is_whole and (text.endswith(")") or " = " in text or " += " in text or " -= " in text) and is_plain(text):
        yield Mutant(path, line, f"{indent}pass\n", nth)
    for opening in ("if ", "while ", "elif "):
        if text.startswith(opening) and text.endswith(":"):
            yield Mutant(path, line, f"{indent}{opening}not ({text[len(opening) : -1]}):\n", nth)


def is_plain(text: str) -> bool:
    """Tell whether a line is one statement that may be left out."""
    starts = (
        "return",
        "raise",
        "if ",
        "elif ",
        "while ",
        "for ",
        "with ",
        "assert",
        "cdef",
        "yield",
        "await",
        "except",
        "and",
        "or",
    )
    return not text.startswith((*starts, "#", '"', ")", "else", "not ", "async"))
