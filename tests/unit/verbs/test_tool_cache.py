"""What the cache of listed tools keeps, for how long, and what becomes of a listing that fails."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_manager.errors import ConnectionLostError, ToolNotFoundError
from mcp_manager.results import Tool
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.verbs import tool_catalog
from mcp_manager.verbs.tool_cache import ToolCache

MINUTE_NS = 60 * 10**9


class Fleet:
    """One server whose list comes from the test, and a clock."""

    def __init__(self, listing: Callable[[], Awaitable[list[Tool]]]) -> None:
        self.now = 0
        self.asked = 0
        self.listing = listing
        self.cache = ToolCache(self._fetch, lambda server_id: (server_id,), lambda: self.now, patience_s=1e9)

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
    assert await cache.route("one__t5999", lambda: ["one"], None) == ("one", "t5999")
    assert namers != [threading.current_thread()]
    with pytest.raises(ToolNotFoundError, match="one__t5998"):
        await cache.route("one__t599 8", lambda: ["one"], None)


# Servers that do not answer


class Servers:
    """Several servers, of which some answer at once and the others when the test says, in virtual time."""

    def __init__(self, *hanging: str, patience_s: float = 5.0) -> None:
        self.hanging = {each: asyncio.Event() for each in hanging}
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.timeouts: list[float | None] = []
        self.stamps: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        self.cache = ToolCache(self._fetch, self._stamp, lambda: round(loop.time() * 1e9), patience_s)

    def _stamp(self, server_id: str) -> tuple[object, ...]:
        return server_id, self.stamps.get(server_id, 0)

    async def _fetch(self, server_id: str, timeout: float | None) -> list[Tool]:
        self.asked.append(server_id)
        self.timeouts.append(timeout)
        if server_id in self.hanging:
            await self.hanging[server_id].wait()
            if self.failure is not None:
                raise self.failure
        return [Tool(name="echo"), Tool(name="read")]

    async def names(self, *server_ids: str, timeout: float | None = None) -> tuple[set[str], float]:
        """Return the servers that are in a catalogue, and the seconds that it took."""
        began = asyncio.get_running_loop().time()
        catalog = await self.cache.catalog(server_ids, timeout)
        assert {tool.server_id for tool in catalog.tools} | set(catalog.missing) == set(server_ids)
        return {tool.server_id for tool in catalog.tools}, asyncio.get_running_loop().time() - began


def test_a_server_that_hangs_is_waited_for_once() -> None:
    async def work() -> None:
        servers = Servers("hangs")
        assert await servers.names("good", "hangs") == ({"good"}, pytest.approx(5.0))
        assert servers.timeouts == [None, None]
        for timeout in (None, 2.0, 5.0):
            assert await servers.names("good", "hangs", timeout=timeout) == ({"good"}, 0.0)
        # Who has more time than the others waits for the rest of it.
        assert await servers.names("good", "hangs", timeout=7.0) == ({"good"}, pytest.approx(2.0))
        assert sorted(servers.asked) == ["good", "hangs"]
        servers.hanging["hangs"].set()
        await asyncio.sleep(0.01)
        assert await servers.names("good", "hangs") == ({"good", "hangs"}, 0.0)
        assert sorted(servers.asked) == ["good", "hangs"]

    run_in_virtual_time(work())


def test_a_listing_that_failed_late_is_repeated_after_a_pause() -> None:
    async def work() -> None:
        servers = Servers("hangs")
        servers.failure = ConnectionLostError("gone", server_id="hangs", delivery="unknown")
        await servers.names("hangs")
        await asyncio.sleep(25.0)
        servers.hanging["hangs"].set()
        await asyncio.sleep(0.01)
        # It took thirty seconds to fail.
        for _ in range(29):
            catalog = await servers.cache.catalog(["hangs"], None)
            assert "gone" in catalog.missing["hangs"] and "asked again" in catalog.missing["hangs"]
            await asyncio.sleep(1.0)
        assert servers.asked == ["hangs"]
        servers.failure = None
        await asyncio.sleep(1.5)
        assert await servers.names("hangs") == ({"hangs"}, 0.0)
        assert servers.asked == ["hangs"] * 2

    run_in_virtual_time(work())


@pytest.mark.parametrize("news", ["a new session", "a change of the list", "a new server"])
def test_news_of_a_server_end_the_pause(news: str) -> None:
    async def work() -> None:
        servers = Servers("hangs")
        servers.failure = ConnectionLostError("gone", server_id="hangs", delivery="unknown")
        await servers.names("hangs")
        servers.hanging["hangs"].set()
        await asyncio.sleep(0.01)
        assert await servers.names("hangs") == (set(), 0.0)
        servers.failure = None
        match news:
            case "a new session":
                servers.stamps["hangs"] = 1
            case "a change of the list":
                servers.cache.drop("hangs")
            case _:
                servers.cache.forget("hangs")
        assert await servers.names("hangs") == ({"hangs"}, 0.0)

    run_in_virtual_time(work())


def test_a_listing_that_fails_soon_is_repeated_at_once() -> None:
    async def work() -> None:
        servers = Servers("down")
        servers.failure = ConnectionLostError("gone", server_id="down", delivery="unknown")
        servers.hanging["down"].set()
        for _ in range(3):
            assert await servers.names("down") == (set(), 0.0)
        assert servers.asked == ["down"] * 3

    run_in_virtual_time(work())


def test_many_servers_that_hang_do_not_use_up_the_places() -> None:
    async def work() -> None:
        hanging = [f"hangs-{number}" for number in range(200)]
        servers = Servers(*hanging)
        assert await servers.names(*hanging, "good") == ({"good"}, pytest.approx(5.0))
        # Every place was given back once, and once only.
        for each in hanging:
            servers.hanging[each].set()
        await asyncio.sleep(0.01)
        assert servers.cache._slots._value == 64
        assert (await servers.names(*hanging, "good"))[1] == 0.0

    run_in_virtual_time(work())


def test_a_name_asks_only_the_server_that_may_have_it() -> None:
    async def work() -> None:
        servers = Servers("hangs", "my_server")
        everyone = ["hangs", "good", "my_server", "my.server"]
        assert await servers.cache.route("good__echo", lambda: everyone, None) == ("good", "echo")
        assert servers.asked == ["good"]
        with pytest.raises(ToolNotFoundError, match="not found") as nobody:
            await servers.cache.route("other__echo", lambda: everyone, None)
        with pytest.raises(ToolNotFoundError, match="did you mean good__echo") as near:
            await servers.cache.route("good__ecko", lambda: everyone, None)
        with pytest.raises(ToolNotFoundError, match=r"the tools of hangs could not be listed: .*within 3.0 s") as late:
            await servers.cache.route("hangs__echo", lambda: everyone, 3.0)
        assert servers.asked == ["good", "hangs"]
        # Two servers may have names with a hash that begin alike; neither's tools are suggested for the other's.
        with pytest.raises(ToolNotFoundError, match="my_server could not be listed") as both:
            await servers.cache.route("my_server__echo_00000000", lambda: everyone, 3.0)
        assert "did you mean" not in f"{nobody.value} {late.value} {both.value}"
        assert str(near.value).count("good") == 2
        catalog = await servers.cache.catalog(["my.server"], None)
        for name in [each.name for each in catalog.tools]:
            assert (await servers.cache.route(name, lambda: everyone, 3.0))[0] == "my.server"

    run_in_virtual_time(work())


def test_a_search_for_a_tool_does_not_wait_for_all_if_it_finds_some() -> None:
    async def work() -> None:
        servers = Servers("hangs")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await servers.cache.holders("echo", ["hangs", "good"], 5.0) == (["good"], False)
        assert loop.time() - began == pytest.approx(1.0)
        assert await servers.cache.holders("other", ["hangs", "good"], 5.0) == ([], False)
        assert loop.time() - began == pytest.approx(5.0)
        servers.hanging["hangs"].set()
        await asyncio.sleep(0.01)
        assert await servers.cache.holders("echo", ["hangs", "good"], 5.0) == (["hangs", "good"], True)

    run_in_virtual_time(work())
