"""The manual, which is shipped with the package: its topics, and each of them as plain text for terminals."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Final, NamedTuple

from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, error_object, print_json, width
from mcp_manager.cli.table import render

__all__ = ["Topic", "nearest_topics", "plain_text", "show", "table_of", "topics"]

_MISUSED: Final = 2
_NARROWEST, _WIDEST = 40, 100
_INDENT: Final = "    "
_NEAREST: Final = 3
_SHORTEST_BEGINNING: Final = 3
# Longer than any topic: a longer argument is a mistake, and comparing it takes time.
_LONGEST_NAME: Final = 64
_ITEM: Final = re.compile(r"(?:-|\d+\.) +")
_EMPHASIS: Final = re.compile(r"\*(\w[^*]*)\*")
_OTHER_NAMES: Final = {"serve": "gateway"}
"""Commands that are explained under another title."""
_LINK: Final = re.compile(r"\[([^]]*)\]\(([^)]*)\)")


class Topic(NamedTuple):
    """One section of the manual; ``text`` is Markdown, without the heading, and begins with ``summary``."""

    slug: str
    title: str
    summary: str
    text: str


async def show(options: Options) -> int:
    """List the topics, or print the one that ``options.topic`` names or begins; 2 if there is no such topic."""
    found = topics()
    if options.topic is None:
        if options.json:
            print_json([{"topic": each.slug, "title": each.title, "about": each.summary} for each in found.values()])
        else:
            print(render(("topic", "about"), [(each.slug, each.summary) for each in found.values()], prose=("about",)))
            print("\nmcp-manager help TOPIC prints one of them.")
        return 0
    topic = _named(options.topic, found)
    if topic is None:
        near = nearest_topics(options.topic, found)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        said = f"no topic {options.topic[:_LONGEST_NAME]!r} ({hint}mcp-manager help lists the topics)"
        if options.json:
            print_json(error_object(said, "UsageError"))
        else:
            complain(said)
        return _MISUSED
    if options.json:
        print_json({"topic": topic.slug, "title": topic.title, "about": topic.summary, "text": topic.text})
        return 0
    columns = max(_NARROWEST, min(width(), _WIDEST))
    print(f"{topic.title}\n{'=' * len(topic.title)}\n\n{plain_text(topic.text, columns)}")
    return 0


def topics() -> dict[str, Topic]:
    """Return the topics of the shipped manual by their slugs, in their order."""
    manual = files("mcp_manager").joinpath("README.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^## ", manual, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        text = text.strip()
        topic = Topic(_slug(title), title, " ".join(text.partition("\n\n")[0].split()), text)
        found[topic.slug] = topic
    return found


def _named(wanted: str, among: Mapping[str, Topic]) -> Topic | None:
    """Return the topic with this name, or the only one whose name begins so."""
    slug = _slug(wanted)
    slug = _OTHER_NAMES.get(slug, slug)
    if slug in among or len(slug) < _SHORTEST_BEGINNING:
        return among.get(slug)
    beginning = [topic for each, topic in among.items() if each.startswith(slug)]
    return beginning[0] if len(beginning) == 1 else None


def nearest_topics(wanted: str, among: Mapping[str, Topic]) -> list[str]:
    """Return the slugs of at most three topics.

    First come those with ``wanted`` in their names, then those named much like it, then those that mention it most.
    """
    import difflib  # noqa: PLC0415 - for those who mistype

    name = wanted[:_LONGEST_NAME].strip()
    if not name:
        return []
    containing = [slug for slug in among if _slug(name) in slug] if len(name) >= _SHORTEST_BEGINNING else []
    alike = difflib.get_close_matches(_slug(name), among, n=_NEAREST, cutoff=0.6)
    word = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", re.IGNORECASE)
    mentions = {slug: len(word.findall(topic.text)) for slug, topic in among.items()}
    telling = sorted(filter(mentions.__getitem__, mentions), key=lambda slug: -mentions[slug])
    return list(dict.fromkeys([*containing, *alike, *telling]))[:_NEAREST]


def plain_text(markdown: str, width: int = _WIDEST) -> str:
    """Return Markdown as plain text: prose wrapped to ``width`` columns, code as it is, wide tables as lists."""
    parts: list[str] = []
    for kind, lines in _parts(markdown):
        if kind == "code":
            parts.append("\n".join(f"{_INDENT}{line}".rstrip() for line in lines))
        elif kind == "heading":
            heading = _inline(lines[0].lstrip("# "))
            parts.append(f"{heading}\n{'-' * len(heading)}")
        elif kind == "table":
            parts.append(_table(lines, width))
        else:
            parts.append("\n".join(_wrapped(_inline(each), width) for each in _paragraphs(lines)))
    return "\n\n".join(parts)


def table_of(lines: Iterable[str]) -> list[list[str]]:
    """Return the cells of a Markdown table, row by row, its header first."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def _slug(title: str) -> str:
    return re.sub(r"[\s_]+", "-", title.strip().lower())


def _parts(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """Cut a text into its code blocks, headings, tables and prose."""
    pieces = re.split(r"^```.*\n((?:.*\n)*?)```$", markdown, flags=re.MULTILINE)
    for index, piece in enumerate(pieces):
        if index % 2:
            yield "code", piece.splitlines()
            continue
        for kind, lines in groupby(piece.splitlines(), _kind_of):
            if kind != "blank":
                yield kind, list(lines)


def _kind_of(line: str) -> str:
    if not line.strip():
        return "blank"
    return {"#": "heading", "|": "table"}.get(line[0], "prose")


def _paragraphs(lines: Iterable[str]) -> list[str]:
    """Join the lines of a paragraph, or of each item of a list."""
    found: list[str] = []
    for line in lines:
        if not found or _ITEM.match(line):
            found.append(line)
        else:
            found[-1] = f"{found[-1]} {line.strip()}"
    return found


def _wrapped(text: str, width: int, first: str = "", then: str = "") -> str:
    item = _ITEM.match(text)
    if item is not None:
        then = " " * item.end()
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _inline(text: str) -> str:
    """Take out of a line what only Markdown needs; what is between backticks stays as it is."""
    pieces = text.split("`")
    pieces[::2] = [_EMPHASIS.sub(r"\1", piece.replace("**", "")) for piece in pieces[::2]]
    return _LINK.sub(lambda link: f"{link[1]} ({link[2]})" if "://" in link[2] else link[1], "".join(pieces))


def _table(lines: Sequence[str], width: int) -> str:
    header, *rows = [[_inline(cell) for cell in row] for row in table_of(lines)]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        rule = ["-" * each for each in widths]
        return "\n".join(
            "  ".join(cell.ljust(each) for cell, each in zip(row, widths, strict=True)).rstrip()
            for row in (header, rule, *rows)
        )
    return "\n".join(_listed(header, row, width) for row in rows)


def _listed(header: Sequence[str], row: Sequence[str], width: int) -> str:
    """Show a row that is too wide as its first cell with the others below it."""
    name, *others = row
    labelled = [(label, cell) for label, cell in zip(header[1:], others, strict=True) if cell]
    if header[-1] == "Meaning" or len(header) == 2:
        # The last cell needs no label, and what is between fits beside the name.
        meaning = others[-1]
        beside = "; ".join(
            cell if label == "Type" else f"{label.lower()}: {cell}" for label, cell in labelled if cell is not meaning
        )
        head = f"{name} ({beside})" if beside else name
        below = [meaning] if meaning else []
    else:
        head, below = name, [f"{label}: {cell}" for label, cell in labelled]
    shown = [_wrapped(head, width, then=_INDENT * 2)]
    return "\n".join([*shown, *(_wrapped(each, width, _INDENT, _INDENT) for each in below)])
