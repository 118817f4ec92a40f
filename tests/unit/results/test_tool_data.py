"""What a tool returned, in the type that the caller wants: every source of types, every place that data may be in."""

from __future__ import annotations

import base64
import copy
import dataclasses
import enum
import json
import pickle
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager import (
    AudioContent,
    CallToolResult,
    ImageContent,
    InvalidRequestError,
    ProtocolError,
    ReadResourceResult,
    ResourceContents,
    TextContent,
    ToolError,
)
from mcp_manager.results import decode_result
from mcp_manager.results.targets import Misfit, target_of
from mcp_manager.results.tools import ToolCall


@dataclasses.dataclass
class Item:
    name: str
    at: datetime
    count: int = 0


class ItemDict(TypedDict):
    name: str
    at: datetime
    count: NotRequired[int]


class ItemTuple(NamedTuple):
    name: str
    at: datetime


class ItemStruct(msgspec.Struct):
    name: str
    at: datetime
    count: int = 0


@attrs.define
class ItemAttrs:
    name: str
    at: datetime
    count: int = 0


class ItemModel(pydantic.BaseModel):
    name: str
    at: datetime
    count: int = 0


@dataclasses.dataclass
class Box:
    items: list[ItemModel]


@dataclasses.dataclass
class Other:
    size: int


class OtherModel(pydantic.BaseModel):
    size: int


class Color(enum.Enum):
    RED = "red"


class Opaque:
    pass


AT = datetime(2026, 1, 2, tzinfo=UTC)
SENT = {"name": "a", "at": "2026-01-02T00:00:00Z", "count": 3}


CALL = ToolCall("s", "t")


def called(into: Any, call: ToolCall = CALL, **members: Any) -> CallToolResult[Any]:
    """A result that came as the answer to a call with this ``into``."""
    result = decode_result("s", json.dumps({"content": [], **members}).encode(), CallToolResult)
    result._came_of(call._replace(into=into), None if into is None else target_of(into))
    return result


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": each} for each in texts]


@pytest.mark.parametrize("kind", [Item, ItemStruct, ItemAttrs, ItemModel])
def test_objects_of_every_library(kind: Any) -> None:
    wanted = kind(name="a", at=AT, count=3)
    assert called(kind, structuredContent=SENT).data == wanted
    assert called(list[kind], content=text(json.dumps([SENT]))).data == [wanted]
    assert called(dict[str, kind], structuredContent={"x": SENT}).data == {"x": wanted}
    assert called(kind | None, structuredContent=None).data is None


def test_types_of_the_standard_library() -> None:
    assert called(ItemDict, structuredContent=SENT).data == {"name": "a", "at": AT, "count": 3}
    assert called(ItemTuple, content=text('["a", "2026-01-02T00:00:00Z"]')).data == ItemTuple("a", AT)
    assert called(set[int], structuredContent={"result": [1, 2, 2]}).data == {1, 2}
    assert called(Color, content=text("red")).data is Color.RED
    assert called(UUID, content=text("00000000-0000-0000-0000-000000000001")).data == UUID(int=1)
    assert called(Literal["a", "b"], content=text("b")).data == "b"
    assert called(Any, structuredContent=SENT).data == SENT


def test_unions_also_of_classes_that_only_their_fields_tell_apart() -> None:
    assert called(Item | Other, structuredContent={"size": 3}).data == Other(3)
    assert called(OtherModel | ItemModel, structuredContent=SENT).data == ItemModel(name="a", at=AT, count=3)
    assert called(int | str, content=text("3")).data == 3
    assert called(int | str, content=text("three")).data == "three"
    with pytest.raises(Misfit, match=r"not Item: .*`name`.*; not Other: .*`size`"):
        called(Item | Other, structuredContent={"sizes": 3})


@dataclasses.dataclass
class Wide:
    name: str
    size: int = 0


class Recursive(pydantic.BaseModel):
    inner: Recursive | None = None


class Unfinished(pydantic.BaseModel):
    inner: Missing  # type: ignore[name-defined]  # noqa: F821


def test_the_first_type_of_a_union_that_fits_is_taken_whatever_was_asked_for_before() -> None:
    sent = {"structuredContent": {"name": "a"}}

    @dataclasses.dataclass
    class Narrow:
        name: str

    assert called(Narrow | Wide, **sent).data == Narrow("a")
    assert called(Wide | Narrow, **sent).data == Wide("a")
    assert called(None | Wide | Narrow, **sent).data == Wide("a")
    assert target_of(Narrow | Wide) is target_of(Narrow | Wide)


def test_what_restricts_a_type_for_pydantic_is_not_ignored() -> None:
    for kind in (Annotated[int, pydantic.Field(gt=0)], pydantic.PositiveInt, pydantic.conint(gt=0)):
        assert called(list[kind], structuredContent={"result": [1, 2]}).data == [1, 2]
        with pytest.raises(Misfit, match=r"greater than 0 - at `\$\.result\[1\]`"):
            called(list[kind], structuredContent={"result": [1, -2]})


def test_data_that_is_nested_too_deeply_does_not_fit() -> None:
    sent: dict[str, Any] = {}
    for _ in range(100_000):
        sent = {"inner": sent}
    with pytest.raises(Misfit, match="nested too deeply"):
        target_of(Recursive).read(sent)


@pytest.mark.parametrize(
    ("into", "members", "place"),
    [
        (Item, {"structuredContent": {**SENT, "count": "3"}}, "$.count"),
        (Item, {"structuredContent": {"name": "a"}}, "$"),
        (ItemModel, {"structuredContent": {**SENT, "count": "x"}}, "$.count"),
        (Box, {"structuredContent": {"items": [SENT, {**SENT, "at": 3.5, "count": []}]}}, "$.items[1].count"),
        (list[Item], {"structuredContent": {"result": [{**SENT, "at": "soon"}]}}, "$.result[0].at"),
        (int, {"structuredContent": {"result": "x"}}, "$.result"),
        (int, {"content": text("x")}, "$"),
        (list[int], {"content": text('[1, "x"]')}, "$[1]"),
        (int, {"content": []}, "$"),
        (int, {"content": text("1", "2")}, "$"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(into: Any, members: dict[str, Any], place: str) -> None:
    with pytest.raises(Misfit) as caught:
        called(into, **members)
    assert caught.value.place == place
    assert str(caught.value).endswith(f"- at `{place}`")


@pytest.mark.parametrize(
    "into",
    [
        Opaque,
        list[Opaque],
        object,
        3,
        "Item",
        list["Missing"],  # type: ignore[name-defined]  # noqa: F821
        dict[int, Opaque],
        ItemModel | Opaque,
        Unfinished,
        list[Item | Other] | None,
    ],
)
def test_a_type_that_nothing_can_be_decoded_into_is_refused_at_once(into: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot be decoded into|must be a type") as caught:
        target_of(into)
    assert caught.value.delivery == "not_sent"
    assert len(re.findall("cannot be decoded into|must be a type", str(caught.value))) == 1


def test_wrapped_data_is_unwrapped_as_the_servers_mean_it() -> None:
    wrapped = {"structuredContent": {"result": 3}}
    mark = {"_meta": {"fastmcp": {"wrap_result": True}}}
    assert called(None, **wrapped).data == {"result": 3}
    assert called(None, **wrapped, **mark).data == 3
    assert called(None, ToolCall(is_wrapped=True), **wrapped).data == 3
    assert called(int, **wrapped).data == called(int, **wrapped, **mark).data == 3
    # What fits as it stands is not unwrapped, unless the server says so.
    assert called(dict[str, Any], **wrapped).data == {"result": 3}
    assert called(dict[str, Any], structuredContent={"result": {"result": 1}}, **mark).data == {"result": 1}
    assert called(None, structuredContent={"other": 3}, **mark).data == {"other": 3}
    assert called(None, structuredContent={"result": 3}, _meta={"fastmcp": "yes"}).data == {"result": 3}


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (text('{"a": [1]}'), {"a": [1]}),
        (text(" [1, 2]"), [1, 2]),
        (text("{not json"), "{not json"),
        (text("42"), "42"),
        (text("plain"), "plain"),
        (text('{"a": "\\ud83d"}'), {"a": "�"}),
        (text("[" * 5000), "[" * 5000),
        (text("a", "b"), None),
        ([{"type": "image", "data": "AA=="}], None),
        ([], None),
    ],
)
def test_data_of_any_type_without_structured_content(content: list[dict[str, Any]], data: Any) -> None:
    result = called(None, content=content)
    assert result.data == data
    assert result.data is result.data


def test_text_stays_text_for_those_who_want_it() -> None:
    assert called(str, content=text('{"a": 1}')).data == '{"a": 1}'
    assert called(str, content=text("42")).data == "42"
    assert called(str, content=text('"quoted"')).data == '"quoted"'
    assert called(str | None, content=text("42")).data == "42"
    assert called(int, content=text("42")).data == 42


def test_text_that_takes_long_to_decode_is_refused() -> None:
    result = CallToolResult(content=[TextContent(text=f"[{'1,' * 300_000}1]")])
    with pytest.raises(ProtocolError, match="too large to decode") as caught:
        _ = result.data
    assert caught.value.delivery == "answered"


def test_a_failed_tool_is_an_error_when_asked_for() -> None:
    assert (fine := called(None)).raise_for_error() is fine
    failed = called(Item, ToolCall("s", "t", "masked ***"), isError=True, content=text("secret"), structuredContent={})
    assert failed.is_error
    with pytest.raises(ToolError) as caught:
        failed.raise_for_error()
    error = caught.value
    assert (error.message, error.server_id, error.tool, error.result) == ("masked ***", "s", "t", failed)
    assert (error.delivery, error.retryable) == ("answered", False)
    assert str(error) == "Tool 't' on server 's' failed: masked ***"
    with pytest.raises(ToolError):
        _ = failed.data
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.result, twin.result.text) == (str(error), failed, "secret")
    with pytest.raises(ToolError, match=r"^Tool 't' on server 's' failed: masked \*\*\*$"):
        twin.result.raise_for_error()


def test_a_failed_tool_without_a_call_or_a_text() -> None:
    with pytest.raises(ToolError, match=r"^A tool failed: it gave no text$"):
        CallToolResult(is_error=True).raise_for_error()
    with pytest.raises(ToolError, match=r"^A tool failed: a b$"):
        CallToolResult(is_error=True, content=[TextContent(text="a\nb")]).raise_for_error()
    with pytest.raises(ToolError) as caught:
        CallToolResult(is_error=True, content=[TextContent(text="x" * 20_000)]).raise_for_error()
    assert len(caught.value.message) == 16_384
    assert len(str(caught.value)) < 2_100


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_have_the_same_data(way: Any) -> None:
    result = called(Item, structuredContent=SENT, cost=1)
    twin = way(result)
    assert (twin, twin.data, twin.to_dict()) == (result, Item("a", AT, 3), result.to_dict())
    assert twin == called(None, structuredContent=SENT, cost=1)


@given(st.lists(st.builds(Item, st.text(), st.datetimes(timezones=st.just(UTC)), st.integers(-(2**53), 2**53))))
def test_what_is_encoded_comes_back(items: list[Item]) -> None:
    sent = msgspec.to_builtins(items)
    assert called(list[Item], structuredContent={"result": sent}).data == items
    assert called(list[Item], content=text(json.dumps(sent))).data == items
    models = [ItemModel(**msgspec.structs.asdict(ItemStruct(each.name, each.at, each.count))) for each in items]
    assert called(list[ItemModel], structuredContent={"result": sent}).data == models


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_data_is_what_was_sent(value: Any) -> None:
    if value is not None:
        assert called(None, structuredContent=value).data == value
    assert called(Any, content=text(json.dumps(value))).data == value


@given(st.binary())
def test_bytes_come_back_from_base64(data: bytes) -> None:
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"="), base64.encodebytes(data)):
        plain = encoded.decode()
        assert ImageContent(data=plain).to_bytes() == AudioContent(data=plain).to_bytes() == data
        assert ResourceContents(blob=plain).to_bytes() == data


@pytest.mark.parametrize("data", ["é", "A", "A===B", "%%%%", "AA=A"])
def test_what_is_no_base64_says_so(data: str) -> None:
    with pytest.raises(ProtocolError, match="the data of an image block is not base64") as caught:
        ImageContent(data=data).to_bytes()
    assert caught.value.delivery == "answered"


def test_texts_of_resources() -> None:
    parts = [ResourceContents(text="é"), ResourceContents(blob="AA=="), ResourceContents(text="b"), ResourceContents()]
    assert ReadResourceResult(contents=parts).text == "é\nb"
    assert [part.to_bytes() for part in parts] == ["é".encode(), b"\0", b"b", b""]
