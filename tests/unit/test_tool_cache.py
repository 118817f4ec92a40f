"""What the cache of listed tools keeps, for how long, and what becomes of a listing that fails."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_manager import tool_catalog
from mcp_manager.catalog import Tool
from mcp_manager.errors import ConnectionLostError, ToolNotFoundError
from mcp_manager.tool_catalog import ToolCache

MINUTE_NS = 60 * 10**9


class Fleet:
    """One server whose list comes from the test, and a clock."""

    def __init__(self, listing: Callable[[], Awaitable[list[Tool]]]) -> None:
        self.now = 0
        self.asked = 0
        self.listing = listing
        self.cache = ToolCache(self._fetch, lambda server_id: (server_id,), lambda: self.now)

    async def _fetch(self, server_id: str, timeout: float | None) -> list[Tool]:
        self.asked += 1
        return await self.listing()


async def test_of_a_name_that_is_listed_twice_the_first_counts() -> None:
    async def twice() -> list[Tool]:
        return [Tool(name="echo", description="first"), Tool(name="echo", description="second")]

    catalog = await Fleet(twice).cache.catalog(["one"], None)
    assert [(tool.name, tool.tool.description) for tool in catalog.tools] == [("one__echo", "first")]


async def test_a_list_is_kept_for_five_minutes() -> None:
    async def one() -> list[Tool]:
        return [Tool(name="echo")]

    fleet = Fleet(one)
    for minutes, asked in [(0, 1), (4.99, 1), (5, 2), (9.99, 2), (10, 3)]:
        fleet.now = round(minutes * MINUTE_NS)
        await fleet.cache.catalog(["one"], None)
        assert fleet.asked == asked, minutes


async def test_a_listing_may_fail_after_all_who_asked_have_left() -> None:
    failing = asyncio.Event()

    async def late_failure() -> list[Tool]:
        await failing.wait()
        raise ConnectionLostError("gone", server_id="one", delivery="unknown")

    fleet = Fleet(late_failure)
    asking = asyncio.create_task(fleet.cache.catalog(["one"], None))
    while not fleet.asked:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    failing.set()
    # Nobody asks what became of it, and still the loop is not told of an exception that nobody saw.
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    gc.collect()
    fleet.listing = lambda: asyncio.sleep(0, [Tool(name="echo")])
    assert len((await fleet.cache.catalog(["one"], None)).tools) == 1


async def test_a_long_catalogue_is_put_together_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    namers: list[threading.Thread] = []
    names = tool_catalog.fleet_names

    def name(*args: Any) -> Any:
        namers.append(threading.current_thread())
        return names(*args)

    monkeypatch.setattr(tool_catalog, "fleet_names", name)

    async def many() -> list[Tool]:
        return [Tool(name=f"t{number}") for number in range(6_000)]

    cache = Fleet(many).cache
    catalog = await cache.catalog(["one"], None)
    assert len(catalog.tools) == 6_000
    assert await cache.route("one__t5999", ["one"], None) == ("one", "t5999")
    assert namers != [threading.current_thread()]
    with pytest.raises(ToolNotFoundError, match="one__t5998"):
        await cache.route("one__t599 8", ["one"], None)
