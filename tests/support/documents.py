"""A parser of the user documentation: it extracts code blocks and example programs.

``python -m support.documents DIRECTORY`` (with ``tests`` in the path) writes the programs to files for a type checker.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["DOCUMENTS", "Block", "Example", "blocks_of", "examples_of"]

_ROOT: Final = Path(__file__).resolve().parents[2]

DOCUMENTS: Final = {
    "readme": _ROOT / "README.md",
    "manual": _ROOT / "mcp_manager" / "README.md",
    "recipes": _ROOT / "examples" / "README.md",
}
"""The documents by a short name."""

_CONFIGURATIONS: Final = ("toml", "json")


class Block(NamedTuple):
    """A code block, and the heading of its section."""

    language: str
    text: str
    section: str


class Example(NamedTuple):
    """An example program: ``output`` is what it must print, ``files`` the configurations above it in its section."""

    name: str
    code: str
    output: str
    files: dict[str, str]

    @property
    def is_suite(self) -> bool:
        """Whether it is a test-suite, which pytest runs, and which prints nothing of its own."""
        return re.search(r"^(async )?def test_", self.code, re.MULTILINE) is not None


def blocks_of(path: Path) -> list[Block]:
    """Return the code blocks of a document in order."""
    found = []
    for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
            found.append(Block(language, text, section))
    return found


def examples_of(name: str) -> list[Example]:
    """Return the programs of a document: each Python block, with a text block after it as its output."""
    blocks = blocks_of(DOCUMENTS[name])
    examples: list[Example] = []
    for index, block in enumerate(blocks):
        if block.language != "python":
            continue
        after = blocks[index + 1] if index + 1 < len(blocks) else None
        output = after.text if after is not None and (after.language, after.section) == ("text", block.section) else ""
        files = {
            f"fleet.{each.language}": each.text
            for each in blocks[:index]
            if each.section == block.section and each.language in _CONFIGURATIONS
        }
        words = re.findall(r"[a-z0-9]+", block.section.lower())
        examples.append(Example(f"{name}_{'_'.join(words)}_{len(examples) + 1}", block.text, output, files))
    return examples


def _main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in DOCUMENTS:
        for example in examples_of(name):
            (directory / f"{example.name}.py").write_text(example.code, encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
