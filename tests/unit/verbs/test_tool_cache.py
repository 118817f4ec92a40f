"""What the cache of listed tools keeps, for how long, and what becomes of a listing that fails."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.virtual_time import run_in_virtual_time

from mcp_manager.errors import ConnectionLostError, ToolNotFoundError
from mcp_manager.results import Tool
from mcp_manager.verbs import fleet_tools
from mcp_manager.verbs.fleet_tools import ToolCache

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


@pytest.mark.parametrize("takes_s", [0.1, 1.0, 10.0])
def test_a_list_that_changes_all_the_time_is_listed_half_of_the_time_at_most(takes_s: float) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        began: list[float] = []
        ended: list[float] = []

        async def slow() -> list[Tool]:
            assert len(began) == len(ended), "two listings at a time"
            began.append(loop.time())
            await asyncio.sleep(takes_s)
            ended.append(loop.time())
            return [Tool(name="echo")]

        fleet = Fleet(slow)
        callers: list[asyncio.Task[Any]] = []
        for _ in range(240):
            fleet.cache.drop("one")
            callers.append(asyncio.create_task(fleet.cache.catalog(["one"], None)))
            await asyncio.sleep(0.25)
        catalogs = await asyncio.gather(*callers)
        assert all(len(catalog.tools) == 1 for catalog in catalogs)
        assert len(began) >= 3
        for first_began, first_ended, next_began in zip(began, ended, began[1:], strict=False):
            assert next_began - first_ended >= 0.99 * (first_ended - first_began)
        assert 240 * 0.25 + 4 * takes_s >= ended[-1] - began[0]

    run_in_virtual_time(work())


def test_what_has_changed_during_a_listing_is_listed_again_for_those_who_ask_then() -> None:
    async def work() -> None:
        listed = iter("abc")

        async def slow() -> list[Tool]:
            tools = [Tool(name=next(listed))]
            await asyncio.sleep(1.0)
            return tools

        fleet = Fleet(slow)
        before = asyncio.create_task(fleet.cache.catalog(["one"], None))
        await asyncio.sleep(0.5)
        fleet.cache.drop("one")
        after = [asyncio.create_task(fleet.cache.catalog(["one"], None)) for _ in range(3)]
        # Before it is asked again there is nothing that a change could make old.
        await asyncio.sleep(1.0)
        fleet.cache.drop("one")
        names = [[each.tool.name for each in catalog.tools] for catalog in await asyncio.gather(before, *after)]
        assert names == [["a"], ["b"], ["b"], ["b"]]
        assert [each.tool.name for each in (await fleet.cache.catalog(["one"], None)).tools] == ["b"]

    run_in_virtual_time(work())


def test_a_server_that_is_deployed_anew_does_not_wait_for_the_one_before_it() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        fleet = Fleet(lambda: asyncio.sleep(5.0, [Tool(name="echo")]))
        before = asyncio.create_task(fleet.cache.catalog(["one"], None))
        await asyncio.sleep(1.0)
        fleet.cache.forget("one")
        begun = loop.time()
        await fleet.cache.catalog(["one"], None)
        assert loop.time() - begun < 5.5
        await before

    run_in_virtual_time(work())


async def test_a_long_catalogue_is_put_together_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    namers: list[threading.Thread] = []
    names = fleet_tools.fleet_names

    def name(*args: Any) -> Any:
        namers.append(threading.current_thread())
        return names(*args)

    monkeypatch.setattr(fleet_tools, "fleet_names", name)

    async def many() -> list[Tool]:
        return [Tool(name=f"t{number}") for number in range(6_000)]

    cache = Fleet(many).cache
    catalog = await cache.catalog(["one"], None)
    assert len(catalog.tools) == 6_000
    assert await cache.route("one__t5999", ["one"], None) == ("one", "t5999")
    assert namers != [threading.current_thread()]
    with pytest.raises(ToolNotFoundError, match="one__t5998"):
        await cache.route("one__t599 8", ["one"], None)
