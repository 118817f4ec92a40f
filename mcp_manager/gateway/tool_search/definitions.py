"""What is read in the definitions of tools, to find and to describe them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

__all__ = ["Definition", "definition_in", "one_line"]

_DEEPEST: Final = 4
_MOST_PARAMETERS: Final = 200
_LONGEST_LINE: Final = 200
# A description may be of any length; what comes late in it says little of what a tool is for.
_LONGEST_INDEXED: Final = 4_000


class _Tool(msgspec.Struct, rename="camel"):
    title: Any = None
    description: Any = None
    annotations: Any = None
    input_schema: Any = None


_tool_decoder = msgspec.json.Decoder(_Tool)


class Definition(msgspec.Struct, frozen=True):
    """The parts of a tool's definition that say what it is for.

    Parameters
    ----------
    title, description
        As its server wrote them, "" without any.
    parameters
        The names of its parameters.
    required
        Those that a call must have.
    details
        The names of parameters within parameters, and the descriptions of all of them, as one text.
    """

    title: str = ""
    description: str = ""
    parameters: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    details: str = ""

    @property
    def line(self) -> str:
        """The first line of the description, or its beginning."""
        return one_line(self.description or self.title)


def definition_in(raw: bytes) -> Definition:
    """Read a definition; whatever is malformed in it is left out."""
    try:
        tool = _tool_decoder.decode(raw)
    except (ValueError, RecursionError):
        return Definition()
    schema = tool.input_schema if isinstance(tool.input_schema, dict) else {}
    properties = schema.get("properties")
    names = tuple(properties)[:_MOST_PARAMETERS] if isinstance(properties, dict) else ()
    required = schema.get("required")
    needed = {each for each in required if isinstance(each, str)} if isinstance(required, list) else set()
    title = _text(tool.title)
    if not title and isinstance(tool.annotations, dict):
        title = _text(tool.annotations.get("title"))
    return Definition(
        title,
        _text(tool.description),
        names,
        tuple(each for each in names if each in needed),
        " ".join(_details(schema, _DEEPEST))[:_LONGEST_INDEXED],
    )


def one_line(text: str) -> str:
    """Return the first line of a text; of a long one, its first sentence or its beginning."""
    line = " ".join(text.strip().partition("\n")[0].split())
    if len(line) <= _LONGEST_LINE:
        return line
    sentence = line[:_LONGEST_LINE].rpartition(". ")[0]
    return f"{sentence}." if sentence else f"{line[: _LONGEST_LINE - 1].rstrip()}\u2026"


def _text(value: Any) -> str:
    return value[:_LONGEST_INDEXED] if isinstance(value, str) else ""


def _details(schema: dict[str, Any], depth: int) -> Iterator[str]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    for name, value in list(properties.items())[:_MOST_PARAMETERS]:
        if depth < _DEEPEST:
            yield name
        if isinstance(value, dict):
            yield _text(value.get("description"))
            if depth > 1:
                items = value.get("items")
                yield from _details(items if isinstance(items, dict) else value, depth - 1)
