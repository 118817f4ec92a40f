"""What a search of tools finds, in any language and with any query, and which indexes are kept."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.config.gateway_tables import META_TOOL_NAMES
from mcp_manager.gateway.tool_search import tool_index, tool_indexes
from mcp_manager.gateway.tool_search.definitions import definition_in, one_line
from mcp_manager.gateway.tool_search.meta_tools import META_TOOLS
from mcp_manager.gateway.tool_search.tool_index import IndexedTool, ToolIndex
from mcp_manager.gateway.tool_search.tool_indexes import ToolIndexes
from mcp_manager.gateway.tool_search.words import terms_of


def tool(name: str, **members: Any) -> IndexedTool:
    return IndexedTool(name, "srv", json.dumps({"name": name, "inputSchema": {"type": "object"}, **members}).encode())


WORLD = ToolIndex(
    [
        tool("wiki__edit_page", description="Change a page."),
        tool("crm__createIssue"),
        tool("de", description="Stra\u00dfe und Gr\u00f6\u00dfe"),
        tool("fr", description="na\u00efve r\u00e9sum\u00e9"),
        tool("ru", description="\u043d\u0430\u0439\u0442\u0438 \u041a\u043b\u0438\u0435\u043d\u0442\u0430"),
        tool("ja", description="\u9867\u5ba2\u3092\u691c\u7d22\u3059\u308b"),
        tool("ko", description="\uace0\uac1d\uc744 \uac80\uc0c9\ud569\ub2c8\ub2e4"),
        tool("hi", description="\u0917\u094d\u0930\u093e\u0939\u0915 \u0916\u094b\u091c\u0947\u0902"),
        tool("th", description="\u0e04\u0e49\u0e19\u0e2b\u0e32\u0e25\u0e39\u0e01\u0e04\u0e49\u0e32"),
        tool("nul", description="one\u0000two"),
        tool("half", description="\ufffd half"),
    ]
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("EDIT", "wiki__edit_page"),
        ("editing pages", "wiki__edit_page"),
        ("e\u0301dit", "wiki__edit_page"),
        ("\uff45\uff44\uff49\uff54", "wiki__edit_page"),
        ("wiki__edit_page", "wiki__edit_page"),
        ("create an issue", "crm__createIssue"),
        ("CreateIssue", "crm__createIssue"),
        ("Stra\u00dfe", "de"),
        ("grosse Gr\u00f6\u00dfe", "de"),
        ("naive resume", "fr"),
        ("nai\u0308ve", "fr"),
        ("\u041a\u041b\u0418\u0415\u041d\u0422", "ru"),
        ("\u691c\u7d22", "ja"),
        ("\uace0\uac1d", "ko"),
        ("\u0917\u094d\u0930\u093e\u0939\u0915", "hi"),
        ("\u0e25\u0e39\u0e01\u0e04\u0e49\u0e32", "th"),
        ("two", "nul"),
        ('" OR name:two NEAR(', "nul"),
    ],
)
def test_words_are_found_in_any_script_and_form(query: str, found: str) -> None:
    assert [each.name for each in WORLD.search(query, 1)] == [found]


@pytest.mark.parametrize(
    "query", ["", " ", "!!!", '"', '""', "*", "^", "(", "-", "\u0000", "\ud800", "\U0001f600" * 9_999]
)
def test_what_has_no_words_finds_nothing(query: str) -> None:
    assert terms_of(query) == [] and WORLD.search(query, 5) == []


@given(
    st.text()
    | st.text('"*^()-+:{}\x00 ANDORNEAR', max_size=40)
    | st.text(st.characters(categories=["L", "M", "N", "Cs"]))
)
def test_no_query_is_an_error(query: str) -> None:
    assert len(WORLD.search(query, 3)) <= 3
    assert len(terms_of(query * 50)) <= 32


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["properties", "items", "required", "description", "a"]), inner, max_size=4
            )
        ),
    )
)
def test_malformed_definitions_are_read_as_far_as_they_can_be(schema: Any) -> None:
    raw = json.dumps(
        {"name": "t", "title": schema, "description": "Say.", "annotations": schema, "inputSchema": schema}
    )
    assert definition_in(raw.encode()).line == "Say."


def test_lines_are_short() -> None:
    assert one_line("  One.\nTwo.") == "One."
    assert one_line(f"{'word ' * 20}. {'more ' * 90}") == f"{'word ' * 20}."
    assert len(one_line("x" * 1_000)) == 200
    assert definition_in(b'{"description":"\\ud800"}').line == definition_in(b"[" * 9_999).line == ""


def test_names_that_views_may_not_give_are_those_of_the_tools_for_a_search() -> None:
    assert set(META_TOOLS) == META_TOOL_NAMES


def some(count: int) -> list[IndexedTool]:
    return [tool(f"t{number}") for number in range(count)]


async def test_an_index_is_made_once_for_all_who_search_at_the_same_time() -> None:
    indexes, begun, go_on, made = ToolIndexes(), asyncio.Event(), threading.Event(), 0
    loop = asyncio.get_running_loop()

    def tools() -> list[IndexedTool]:
        nonlocal made
        made += 1
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        return some(400)

    searching = [asyncio.create_task(indexes.search(b"a", tools, "t7", 5)) for _ in range(3)]
    await begun.wait()
    # Whoever goes takes nothing away from the others.
    searching[0].cancel()
    await asyncio.gather(searching[0], return_exceptions=True)
    go_on.set()
    assert [[each.name for each in found] for found in await asyncio.gather(*searching[1:])] == [["t7"]] * 2
    assert searching[0].cancelled() and made == 1 and len(indexes) == 1
    await indexes.aclose()
    assert len(indexes) == 0


async def test_making_an_index_ends_with_the_gateway_or_with_a_failure() -> None:
    indexes, begun, go_on = ToolIndexes(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def tools() -> list[IndexedTool]:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        return some(1)

    searching = asyncio.create_task(indexes.search(b"a", tools, "t", 5))
    await begun.wait()
    searching.cancel()
    await indexes.aclose()
    go_on.set()
    await asyncio.gather(searching, return_exceptions=True)
    assert searching.cancelled() and len(indexes) == 0
    # A failure reaches who waits, and the next one tries again.
    with pytest.raises(ZeroDivisionError):
        await indexes.search(b"b", lambda: [1 // 0], "t", 5)  # type: ignore[list-item]
    assert [each.name for each in await indexes.search(b"b", partial(some, 2), "t1", 5)] == ["t1"]
    await indexes.aclose()


async def test_indexes_that_are_used_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_indexes, "_MOST_KEPT", 350)
    indexes = ToolIndexes()
    for digest in (b"a", b"b", b"c", b"a", b"d"):
        await indexes.search(digest, partial(some, 10), "t1", 5)
    assert list(indexes._kept) == [b"c", b"a", b"d"]
    # A large one alone is kept, whatever it takes.
    await indexes.search(b"e", partial(some, 500), "t1", 5)
    assert list(indexes._kept) == [b"e"]
    await indexes.aclose()


def test_what_need_not_be_ranked_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools with frequent words alone are left out of the ranking only if they are not among the best."""
    draw = random.Random(7)
    words = [f"word{number}" for number in range(40)]
    weights = [1 / (rank + 1) for rank in range(40)]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, weights, k=length))

    index = ToolIndex([tool(f"{text(1)}_{number}", description=text(draw.randint(1, 12))) for number in range(400)])
    queries = [" ".join(draw.sample(words, draw.randint(1, 6))) for _ in range(150)]
    shortened: list[bool] = []
    best = ToolIndex._best

    def noted(self: ToolIndex, counts: dict[str, int], limit: int) -> Any:
        found = best(self, counts, limit)
        shortened.append(found is not None)
        return found

    # Whatever is expected of the frequent words: what is found is looked at.
    monkeypatch.setattr(tool_index, "_USUAL_OF_TERM", 100.0)
    monkeypatch.setattr(ToolIndex, "_best", noted)
    found = [[each.name for each in index.search(query, limit)] for query in queries for limit in (1, 5, 20)]
    assert shortened.count(True) > 50 and shortened.count(False) > 50
    monkeypatch.setattr(ToolIndex, "_best", lambda *_: None)
    assert found == [[each.name for each in index.search(query, limit)] for query in queries for limit in (1, 5, 20)]
