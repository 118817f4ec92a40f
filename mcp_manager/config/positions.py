"""Where in a file its fields are, as line and column; computed only for what is wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any, Final

from mcp_manager.config.json_text import TOKEN, Place, line_starts, place_at, text_of, without_comments
from mcp_manager.config.reading import Document

__all__ = ["Segments", "places_of", "segments_of"]

Segments = tuple[str | int, ...]
"""The names and indexes that lead to a value."""
_SEGMENT: Final = re.compile(r"""\.?([A-Za-z0-9_$@/-]+)|\[(\d+)\]|\[('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\]""")
_TOML_TOKEN: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*+"|\'[^\'\n]*+\'|\#[^\n]*+|[\[\]{}=\n]|[^"\'\#\[\]{}=\n]++',
    re.DOTALL,
)


def segments_of(path: str) -> Segments:
    """Split the path of a field, as errors show it, into its names and indexes, up to the first that is not shown."""
    found: list[str | int] = []
    at = 0
    while at < len(path):
        segment = _SEGMENT.match(path, at)
        if segment is None:
            break
        if segment[1] is not None:
            found.append(segment[1])
        else:
            found.append(int(segment[2]) if segment[2] is not None else str(ast.literal_eval(segment[3])))
        at = segment.end()
    return tuple(found)


def places_of(document: Document, wanted: Iterable[Segments]) -> dict[Segments, Place]:
    """Return the places of fields. A field that is not in the file has the place of the object that should have it."""
    fields = list(wanted)
    tree: dict[str | int, Any] = {}
    for segments in fields:
        branch = tree
        for each in segments:
            branch = branch.setdefault(each, {})
    try:
        offsets = _FINDERS[document.kind](document.text, tree)
    except RecursionError:
        offsets = {}
    starts = line_starts(document.text)
    found = {}
    for segments in fields:
        known = next((segments[:n] for n in range(len(segments), 0, -1) if segments[:n] in offsets), None)
        if known is not None:
            found[segments] = place_at(offsets[known], starts)
    return found


def _json_offsets(text: str, tree: dict[str | int, Any]) -> dict[Segments, int]:
    """Walk the tokens, and keep the offsets of the wanted members: of a member's name, of an item's value."""
    found: dict[Segments, int] = {}
    # For each open container: the wanted part below it (None: nothing), its path, and its index if it is an array.
    frames: list[tuple[dict[str | int, Any] | None, Segments, list[int] | None]] = []
    below: dict[str | int, Any] | None = tree
    path: Segments = ()
    name: str | None = None
    for token in TOKEN.finditer(without_comments(text)):
        mark = token[0]
        wanted, outer, index = frames[-1] if frames else (None, (), None)
        if mark == ",":
            if index is not None:
                index[0] += 1
            name = None
            continue
        if mark in "}]":
            if frames:
                frames.pop()
            continue
        if mark == ":":
            continue
        if index is None and frames and name is None:
            name = text_of(mark) if wanted is not None else ""
            below = wanted.get(name) if wanted is not None else None
            path = (*outer, name) if below is not None else ()
            if below is not None:
                found[path] = token.start()
            continue
        if index is not None:
            below = wanted.get(index[0]) if wanted is not None else None
            path = (*outer, index[0]) if below is not None else ()
            if below is not None:
                found[path] = token.start()
        if mark in "{[":
            frames.append((below, path, [0] if mark == "[" else None))
            name = None
    return found


def _yaml_offsets(text: str, tree: dict[str | int, Any]) -> dict[Segments, int]:
    from mcp_manager.config.yaml_reading import compose  # noqa: PLC0415 - an extra, and heavy

    found: dict[Segments, int] = {}

    def visit(node: Any, below: dict[str | int, Any], path: Segments) -> None:
        if isinstance(node.value, str):
            return
        for index, each in enumerate(node.value):
            key, value = each if isinstance(each, tuple) else (each, each)
            segment = key.value if key is not value else index
            if isinstance(segment, str | int) and segment in below:
                found[(*path, segment)] = key.start_mark.index
                visit(value, below[segment], (*path, segment))

    root = compose(text)
    if root is not None:
        visit(root, tree, ())
    return found


def _toml_offsets(text: str, tree: dict[str | int, Any]) -> dict[Segments, int]:
    """Find the headers of tables and the keys before ``=``; members of inline values have the place of their key."""
    found: dict[Segments, int] = {}
    counts: dict[Segments, int] = {}
    table: Segments = ()
    start, depth, key_end = 0, 0, -1
    for token in _TOML_TOKEN.finditer(text + "\n"):
        mark = token[0]
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        elif mark == "=" and depth == 0 and key_end < 0:
            key_end = token.start()
        elif mark == "\n" and depth <= 0:
            line = text[start : token.start()]
            offset = start + len(line) - len(line.lstrip())
            if key_end >= 0:
                _note(found, (*table, *_toml_names(f"{text[start:key_end]} = 0")), offset, tree)
            elif line.lstrip().startswith("["):
                table = _toml_names(line)
                if line.lstrip().startswith("[["):
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                _note(found, table, offset, tree)
            start, depth, key_end = token.end(), 0, -1
    return found


def _note(found: dict[Segments, int], path: Segments, offset: int, tree: dict[str | int, Any]) -> None:
    below = tree
    for count, segment in enumerate(path, start=1):
        if segment not in below:
            return
        below = below[segment]
        found.setdefault(path[:count], offset)
    found[path] = offset


def _toml_names(statement: str) -> Segments:
    """Return the names in the header of a table, or before the ``=`` of a statement."""
    import tomllib  # noqa: PLC0415 - for files that are wrong

    try:
        value: Any = tomllib.loads(statement.strip())
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()
    names: list[str | int] = []
    while isinstance(value, dict) and value:
        (name,) = value
        names.append(name)
        value = value[name][0] if isinstance(value[name], list) else value[name]
    return tuple(names)


_FINDERS: Final = {"json": _json_offsets, "toml": _toml_offsets, "yaml": _yaml_offsets}
