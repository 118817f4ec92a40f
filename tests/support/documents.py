"""The documentation that users read, taken apart: its code blocks, and the programs among them.

``python -m support.documents DIRECTORY`` (with ``tests`` in the path) writes the programs into files, for a type checker.
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
"""What users read, by a short name."""

_CONFIGURATIONS: Final = ("toml", "json")


class Block(NamedTuple):
    """One code block, and the heading of the section that it is in."""

    language: str
    text: str
    section: str


class Example(NamedTuple):
    """One program: ``output`` is what it prints, ``files`` are the configurations that its section shows before it."""

    name: str
    code: str
    output: str
    files: dict[str, str]


def blocks_of(path: Path) -> list[Block]:
    """Return the code blocks of a document, in their order."""
    found = []
    for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
            found.append(Block(language, text, section))
    return found


def examples_of(name: str) -> list[Example]:
    """Return the programs of a document: a Python block each, with the text block that follows it as its output."""
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
