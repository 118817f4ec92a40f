"""Records give back what was read into them, and lists are drained whatever their cursors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager import CallToolResult, ProtocolError, ReadResourceResult, RpcError, Tool
from mcp_manager.results import decode_result, drain_pages

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
# Members that no record has, those of other records among them.
FOREIGN = st.dictionaries(
    st.sampled_from(["extra", "x-vendor", "toolResult", "ttl", "", "Name", "é"]), JSON, max_size=3
)


def record(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda mine, foreign: {**foreign, **mine}, known, FOREIGN)


ANNOTATIONS = record({}, {"audience": st.lists(st.text(max_size=4), max_size=2), "priority": st.integers(0, 1)})
META = {"_meta": st.dictionaries(st.text(max_size=4), JSON, max_size=2)}
CONTENTS = record({"uri": st.text(min_size=1)}, {"text": st.text(), "mimeType": st.text(), **META})
BLOCK = st.one_of(
    record({"type": st.just("text"), "text": st.text()}, {"annotations": ANNOTATIONS, **META}),
    record({"type": st.just("image"), "data": st.text(), "mimeType": st.text(min_size=1)}, META),
    record({"type": st.just("resource"), "resource": CONTENTS}, {"annotations": ANNOTATIONS}),
    record({"type": st.just("resource_link"), "uri": st.text()}, {"name": st.text(min_size=1), "title": st.text()}),
    record({"type": st.sampled_from(["video", "unknown", "text ", ""])}, {"text": JSON, "annotations": JSON}),
)
RESULT = record(
    {"content": st.lists(BLOCK, max_size=3)},
    {"isError": st.just(True), "structuredContent": JSON.filter(lambda value: value is not None), **META},
)
ICON = record({"src": st.text()}, {"sizes": st.lists(st.text(max_size=3), max_size=2)})
TOOL = record(
    {"name": st.text(), "inputSchema": st.dictionaries(st.text(max_size=5), JSON, max_size=3)},
    {
        "title": JSON.filter(lambda value: value is not None),
        "annotations": record({}, {"readOnlyHint": st.booleans()}),
        "icons": st.lists(ICON, max_size=2),
        **META,
    },
)


@given(RESULT)
def test_a_tool_result_gives_back_what_it_was_read_from(sent: dict[str, Any]) -> None:
    result = decode_result("s", json.dumps(sent).encode(), CallToolResult)
    assert result.to_dict() == sent
    assert decode_result("s", result.to_json(), CallToolResult) == result


@given(TOOL)
def test_a_tool_gives_back_what_it_was_read_from(sent: dict[str, Any]) -> None:
    assert decode_result("s", json.dumps(sent).encode(), Tool).to_dict() == sent


@given(record({"contents": st.lists(CONTENTS, max_size=3)}, {"ttlMs": st.integers(), "cacheScope": st.text()}))
def test_what_was_read_gives_back_what_it_was_read_from(sent: dict[str, Any]) -> None:
    assert decode_result("s", json.dumps(sent).encode(), ReadResourceResult).to_dict() == sent


@given(JSON)
def test_any_json_is_a_result_or_a_typed_error(sent: Any) -> None:
    for kind in (CallToolResult, Tool, ReadResourceResult):
        try:
            decode_result("s", json.dumps(sent).encode(), kind)
        except ProtocolError as error:
            assert error.delivery == "answered"


class Lists:
    """A server's list, whose pages lead where ``cursors`` says, and that forgets its cursors ``changes`` times."""

    def __init__(self, cursors: list[str | None], changes: int, change_at: int) -> None:
        self.cursors = cursors
        self.changes = changes
        self.change_at = change_at
        self.asked: list[str | None] = []

    async def fetch(self, cursor: str | None) -> bytes:
        self.asked.append(cursor)
        page = 0 if cursor is None else self.cursors.index(cursor) + 1
        if page and page == self.change_at and self.changes:
            self.changes -= 1
            raise RpcError(-32602, "Invalid cursor")
        following = self.cursors[page] if page < len(self.cursors) else None
        more = {} if following is None else {"nextCursor": following}
        return json.dumps({"tools": [{"name": str(page)}], **more}).encode()


@given(st.lists(st.text(max_size=2), max_size=6, unique=True), st.integers(0, 2), st.integers(1, 6))
async def test_a_list_is_complete_whatever_its_cursors_and_starts_again_once(
    cursors: list[str], changes: int, change_at: int
) -> None:
    lists = Lists(list(cursors), changes, change_at)
    pages = [str(page) for page in range(len(cursors) + 1)]
    hits = changes if change_at <= len(cursors) else 0
    if hits == 2:
        with pytest.raises(RpcError, match="Invalid cursor"):
            await drain_pages("s", "tools", Tool, lists.fetch)
    else:
        assert [tool.name for tool in await drain_pages("s", "tools", Tool, lists.fetch)] == pages
    assert lists.asked.count(None) == 1 + min(hits, 1)


@given(st.lists(st.text(max_size=2), min_size=1, max_size=6, unique=True), st.data())
async def test_a_cursor_that_comes_back_is_caught_at_once(cursors: list[str], data: st.DataObject) -> None:
    back = data.draw(st.sampled_from(cursors))
    lists = Lists([*cursors, back], 0, 0)
    with pytest.raises(ProtocolError, match="never end"):
        await drain_pages("s", "tools", Tool, lists.fetch)
    assert len(lists.asked) == len(cursors) + 1


async def test_a_first_page_that_is_refused_is_refused() -> None:
    asked: list[str | None] = []

    async def fetch(cursor: str | None) -> bytes:
        asked.append(cursor)
        raise RpcError(-32602, "no")

    with pytest.raises(RpcError):
        await drain_pages("s", "tools", Tool, fetch)
    assert asked == [None]
