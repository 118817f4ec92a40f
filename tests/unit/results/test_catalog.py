"""Typed results and the draining of pages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.json_reading import DecodingLimits
from mcp_manager.results import CallToolResult, ResourceTemplate, Tool, decode_result, drain_pages


async def test_pages_are_drained_and_an_empty_cursor_is_not_the_end() -> None:
    pages = {
        None: {"tools": [{"name": "a", "inputSchema": {"type": "object"}}], "nextCursor": ""},
        "": {"tools": [{"name": "b"}], "nextCursor": "x"},
        "x": {"tools": []},
    }
    asked: list[str | None] = []

    async def fetch(cursor: str | None) -> bytes:
        asked.append(cursor)
        return json.dumps(pages[cursor]).encode()

    tools = await drain_pages("s", "tools", Tool, fetch)
    assert [tool.name for tool in tools] == ["a", "b"]
    assert tools[0].input_schema == {"type": "object"}
    assert tools[0].output_schema is None
    assert asked == [None, "", "x"]


async def test_cursors_in_a_circle_are_caught() -> None:
    async def fetch(cursor: str | None) -> bytes:
        return json.dumps({"tools": [], "nextCursor": "b" if cursor == "a" else "a"}).encode()

    with pytest.raises(ProtocolError, match="never end") as caught:
        await drain_pages("s", "tools", Tool, fetch)
    assert caught.value.delivery == "answered"


@pytest.mark.parametrize(
    ("meta", "setting"),
    [("x" * 900, "max_response_bytes"), ([[]] * 45, "max_response_values")],
    ids=["long pages", "dense pages"],
)
async def test_pages_that_fit_one_by_one_are_bounded_together(meta: Any, setting: str) -> None:
    """Otherwise a server could fill the memory within the deadline of one call, page by page."""
    asked = 0

    async def fetch(_: str | None) -> bytes:
        nonlocal asked
        asked += 1
        return json.dumps({"tools": [{"name": "a", "_meta": {"more": meta}}], "nextCursor": str(asked)}).encode()

    with pytest.raises(ProtocolError, match="too large together") as caught:
        await drain_pages("s", "tools", Tool, fetch, limits=DecodingLimits(100, 3 * 1024))
    # No more than four pages of the greatest size, and the one that shows it.
    assert 4 <= asked <= 5
    assert setting in caught.value.hint
    assert caught.value.delivery == "answered"


async def test_a_member_of_two_words_is_found_by_its_name_on_the_wire() -> None:
    async def fetch(_: str | None) -> bytes:
        return b'{"resourceTemplates":[{"uriTemplate":"file:///{path}","name":"n"}]}'

    (template,) = await drain_pages("s", "resource_templates", ResourceTemplate, fetch)
    assert template.uri_template == "file:///{path}"


def test_a_tool_result_keeps_its_blocks_and_its_text() -> None:
    result = decode_result(
        "s",
        b'{"content":[{"type":"text","text":"a"},{"type":"image","data":""},{"type":"text","text":"b"}],"isError":true}',
        CallToolResult,
    )
    assert (result.text, result.is_error, len(result.content)) == ("a\nb", True, 3)


@pytest.mark.parametrize("body", [b"[]", b'{"content":3}', b'{"content":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_a_result_of_another_shape_is_a_typed_error(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_result("s", body, CallToolResult)
    assert caught.value.server_id == "s"


async def test_schemas_are_decoded_when_they_are_looked_at() -> None:
    listed = (
        b'{"tools":[{"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}},'
        b'{"name":"b","inputSchema":[1],"outputSchema":null}]}'
    )

    async def fetch(_: str | None) -> memoryview:
        return memoryview(listed)

    good, bad = await drain_pages("s", "tools", Tool, fetch)
    assert (good.input_schema, good.output_schema) == ({"type": "object"}, {"type": "array"})
    assert bad.output_schema is None
    with pytest.raises(ProtocolError, match="a schema of tool 'b' is malformed"):
        _ = bad.input_schema
