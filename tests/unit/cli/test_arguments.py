"""Arguments of tools from words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_manager import InvalidRequestError
from mcp_manager.cli.arguments import is_pair, tool_arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "nothing": {"type": ["integer", "null"]},
        "list": {"type": "array", "items": {"type": "integer"}},
        "object": {"$ref": "#/$defs/inner"},
        "colour": {"enum": ["red", "green"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"type": ["string", "integer"]},
        "any": {},
        "loop": {"$ref": "#/$defs/loop"},
    },
    "$defs": {"inner": {"type": "object"}, "loop": {"$ref": "#/$defs/loop"}},
}


def typed(*words: str, **more: Any) -> dict[str, Any]:
    return tool_arguments(words, {**SCHEMA, **more}, "the tool")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=5", "5"),
        ("text=", ""),
        ("text=a=b:=c", "a=b:=c"),
        ("text=null", "null"),
        ("text:=5", 5),
        ('text:={"a": [1]}', {"a": [1]}),
        ("whole=-7", -7),
        ("whole=12345678901234567890123", 12345678901234567890123),
        ("number=7", 7),
        ("number=1e-3", 0.001),
        ("flag=true", True),
        ("flag=False", False),
        ("nothing=null", None),
        ("nothing=3", 3),
        ("list=[1, 2]", [1, 2]),
        ("list=3", [3]),
        ('object={"a": 1}', {"a": 1}),
        ("colour=red", "red"),
        ("maybe=null", None),
        ("maybe=5", 5),
        ("either=5", 5),
        ("either=five", "five"),
        ("any=5", 5),
        ("any=[1]", [1]),
        ("any=five", "five"),
        ("loop=five", "five"),
        ("new=5", 5),
        ("new=five", "five"),
        ("a:b=x", "x"),
    ],
)
def test_a_value_gets_the_type_of_the_schema(word: str, value: object) -> None:
    (found,) = typed(word).values()
    assert found == value
    assert type(found) is type(value)


def test_a_repeated_key_makes_a_list() -> None:
    assert typed("list=1", "list=2", "list=3") == {"list": [1, 2, 3]}
    assert typed("list=[1, 2]", "list=3") == {"list": [1, 2, 3]}
    assert typed("new=1", "new=b", "new=c") == {"new": [1, "b", "c"]}


def test_an_object_stands_for_all_arguments() -> None:
    assert typed('{"text": "a", "whole": "unchecked"}') == {"text": "a", "whole": "unchecked"}
    assert typed() == {}


def test_a_value_can_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("[1, 2]\n", encoding="utf-8")
    assert typed(f"text=@{path}") == {"text": "[1, 2]\n"}
    assert typed(f"list=@{path}") == {"list": [1, 2]}
    assert typed(f"list:=@{path}") == {"list": [1, 2]}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("whole=x", "whole must be a whole number, not 'x'"),
        ("whole=1.5", "whole must be a whole number"),
        ("whole=1_000", "whole must be a whole number"),
        ("number=nan", "number must be a number"),
        ("flag=yes", "flag must be true or false"),
        ("list=x", "list must be a whole number"),
        ("list=[", "list must be a JSON array"),
        ("object=[1]", "object must be a JSON object"),
        ("colour=blue", "colour must be one of red, green, not 'blue'"),
        ("text:=", "text is not JSON"),
        ("text:=[" + "[" * 100_000, "text is not JSON"),
        ("txt=5", r"no argument 'txt' \(did you mean text\?\)"),
        ("text", "'text' is not key=value"),
        ("=5", "'=5' is not key=value"),
        ("{", "what is given is not JSON"),
        ("text=@/no/such/file", "text: /no/such/file cannot be read: No such file"),
        ("text=@/", "text: / cannot be read"),
        ("text:=\udcff", "text is not JSON"),
    ],
)
def test_a_mistake_is_named(word: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"the arguments of the tool do not fit: {said}"):
        typed(word)


def test_binary_files_and_repeated_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequestError, match="is not UTF-8 text"):
        typed(f"text=@{path}")
    with pytest.raises(InvalidRequestError, match="text is given twice"):
        typed("text=1", "text=2")


def test_all_mistakes_are_named_at_once_with_what_is_missing() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        typed("whole=x", "flag=y", required=["text", "whole", "colour"])
    assert caught.value.message == (
        "the arguments of the tool do not fit: whole must be a whole number, not 'x'; flag must be true or false, not 'y'; "
        "missing: text (text), colour (one of red, green)"
    )
    assert caught.value.hint.startswith("its arguments: text, whole, [number], [flag], ")


def test_an_unknown_argument_is_refused_where_the_schema_does_so() -> None:
    with pytest.raises(InvalidRequestError, match="no argument 'entirely_different'"):
        typed("entirely_different=5", additionalProperties=False)


@pytest.mark.parametrize(
    "schema", [{}, {"properties": 5, "required": 5}, {"properties": {"a": 5}}, {"required": ["a"]}]
)
def test_a_schema_that_says_nothing_is_no_hindrance(schema: dict[str, Any]) -> None:
    assert tool_arguments(["a=x"], schema, "t") == {"a": "x"}


@pytest.mark.parametrize(("word", "pair"), [("a=1", True), ("a:=1", True), ('{"a": "b=c"}', False), ("a", False)])
def test_what_a_pair_is(word: str, pair: bool) -> None:
    assert is_pair(word) is pair
