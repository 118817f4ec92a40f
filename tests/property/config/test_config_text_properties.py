"""Comments, trailing commas and places: held against the decoders of Python and PyYAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.config._problem import join
from mcp_manager.config.json_text import without_comments
from mcp_manager.config.positions import places_of, segments_of
from mcp_manager.config.reading import Document
from mcp_manager.config.yaml_reading import decode_yaml

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\x85\u2028\u2029"), max_size=8)
NAMES = st.text("ab./-[]'\"\\ é{},:#", min_size=1, max_size=6)
PLAIN = st.recursive(
    st.booleans() | st.integers(-999, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(NAMES, PLAIN, min_size=1, max_size=4)
BLANKS = st.sampled_from(["", " ", "\n", '// , } " ]\n', '/* , } " */', "/**/"])


def paths_in(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for name, each in value.items():
            found += paths_in(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            found += paths_in(each, (*path, index))
    return found


@given(DOCUMENTS, st.data())
def test_comments_and_trailing_commas_change_nothing(document: dict[str, Any], data: st.DataObject) -> None:
    def written(value: Any) -> str:
        blank = data.draw(BLANKS)
        if isinstance(value, list | dict):
            marks = "[]" if isinstance(value, list) else "{}"
            inner = (
                [written(each) for each in value]
                if isinstance(value, list)
                else [f"{json.dumps(name)}{data.draw(BLANKS)}:{written(each)}" for name, each in value.items()]
            )
            comma = "," if inner and data.draw(st.booleans()) else ""
            return f"{blank}{marks[0]}{','.join(inner)}{data.draw(BLANKS)}{comma}{data.draw(BLANKS)}{marks[1]}{data.draw(BLANKS)}"
        return f"{blank}{json.dumps(value)}{data.draw(BLANKS)}"

    text = written(document)
    plain = without_comments(text)
    assert len(plain) == len(text)
    assert [at for at, each in enumerate(plain) if each == "\n"] == [at for at, each in enumerate(text) if each == "\n"]
    assert json.loads(plain) == document


@given(DOCUMENTS, st.sampled_from([None, 1, 2]))
def test_the_place_of_a_json_member_is_that_of_its_name(document: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    wanted = paths_in(document)
    places = places_of(Document(Path("x.json"), "json", text, document), wanted)
    lines = text.split("\n")
    for path in wanted:
        line, column = places[path]
        rest = lines[line - 1][column - 1 :]
        value: Any = document
        for segment in path:
            value = value[segment]
        start = json.dumps(path[-1]) if isinstance(path[-1], str) else json.dumps(value)[:1]
        assert rest.startswith(start), (path, rest)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers() | TEXTS, max_size=3), min_size=1, max_size=4))
def test_the_place_of_a_toml_key_is_that_of_its_line(document: dict[str, Any]) -> None:
    text = tomli_w.dumps(document)
    places = places_of(Document(Path("x.toml"), "toml", text, document), paths_in(document))
    lines = text.split("\n")
    for path, (line, column) in places.items():
        assert column == 1
        start = lines[line - 1]
        assert start.startswith("[") if len(path) == 1 else "=" in start, (path, start)
    assert set(places) == set(paths_in(document))


@given(DOCUMENTS)
def test_yaml_is_read_as_it_was_written(document: dict[str, Any]) -> None:
    # Every text in quotes, so that both dialects of YAML agree on it.
    text = yaml.safe_dump(document, default_style='"', allow_unicode=True)
    quoted = json.loads(json.dumps(document), parse_int=str)
    found = decode_yaml(text)
    assert yaml.safe_load(text) == document
    assert _as_text(found) == _as_text(quoted)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_the_path_of_a_field_can_be_split_again(names: list[str]) -> None:
    path = ""
    for name in names:
        path = join(path, name)
    assert segments_of(path) == tuple(names)


def _as_text(value: Any) -> Any:
    """Return a value with its numbers and booleans as text, since the quotes made them text in YAML 1.2."""
    if isinstance(value, dict):
        return {name: _as_text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return value.lower() if isinstance(value, str) else str(value).lower()
