"""Staying told of changes by servers that are processes: over stdio through their restarts, and the official SDK's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.processes import PROGRAMS, HttpServerProcess, StdioCommand

from mcp_manager import McpManager
from mcp_manager.errors import ServerExitedError

TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
SOON: dict[str, Any] = {**CALM, "connect_timeout_s": 20.0, "restart": {"initial_s": 0.01, "max_s": 0.02}}


class News:
    """Counts what the handlers were told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str | None]] = []
        self._arrived = asyncio.Event()

    def handler(self, method: str) -> Callable[[str, Any], Any]:
        async def take(server_id: str, params: Any) -> None:
            self.all.append((method, params.get("uri")))
            self._arrived.set()

        return take

    async def wait_for(self, method: str, uri: str | None = None, count: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.all.count((method, uri)) < count:
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
async def manager(news: News) -> AsyncIterator[McpManager]:
    async with McpManager(handlers={method: news.handler(method) for method in (TOOLS, UPDATED)}) as running:
        yield running


@pytest.fixture
def program() -> dict[str, Any]:
    return dict(StdioCommand(sys.executable, str(PROGRAMS / "stateless_stdio.py")).config(**SOON))


async def received(manager: McpManager, method: str) -> list[Any]:
    messages = json.loads((await manager.call_tool("a", "received")).text)
    return [each for each in messages if each["method"] == method]


async def test_a_program_tells_over_its_pipe(program: dict[str, Any], manager: McpManager, news: News) -> None:
    await manager.deploy("a", program)
    await manager.subscribe("a", "x")
    await manager.call_tool("a", "tell", {"method": UPDATED, "params": {"uri": "x"}})
    await manager.call_tool("a", "tell", {"method": TOOLS})
    await news.wait_for(UPDATED, "x")
    await news.wait_for(TOOLS)
    await manager.unsubscribe("a", "x")

    async def listens() -> list[Any]:
        return [each["params"]["notifications"] for each in await received(manager, "subscriptions/listen")]

    while len(asked := await listens()) < 3:
        await asyncio.sleep(0)
    assert asked == [
        {"toolsListChanged": True},
        {"toolsListChanged": True, "resourceSubscriptions": ["x"]},
        {"toolsListChanged": True},
    ]
    # The two that were replaced are closed in the way of stdio.
    while len(cancelled := await received(manager, "notifications/cancelled")) < 2:
        await asyncio.sleep(0)
    ids = [each["id"] for each in await received(manager, "subscriptions/listen")]
    assert [each["params"]["requestId"] for each in cancelled] == ids[:2]


async def test_a_restarted_program_is_listened_to_again(
    program: dict[str, Any], manager: McpManager, news: News
) -> None:
    await manager.deploy("a", program)
    await manager.subscribe("a", "x")
    pid = manager._servers["a"].instances[0].pid
    with pytest.raises(ServerExitedError):
        await manager.call_tool("a", "crash")
    while True:
        with contextlib.suppress(ServerExitedError):
            await manager.ping("a")
            break
        await asyncio.sleep(0.01)
    assert manager._servers["a"].instances[0].pid != pid
    await news.wait_for(TOOLS)
    await news.wait_for(UPDATED, "x")
    (listen,) = await received(manager, "subscriptions/listen")
    assert listen["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["x"]}
    assert (await received(manager, "notifications/cancelled")) == []


@pytest.mark.parametrize("end", ["end", "cancel"])
async def test_a_program_may_end_a_subscription(
    program: dict[str, Any], manager: McpManager, news: News, end: str
) -> None:
    await manager.deploy("a", program)
    await manager.subscribe("a", "x")
    await manager.call_tool("a", end)
    await news.wait_for(UPDATED, "x")
    last = (await received(manager, "subscriptions/listen"))[-1]["id"]
    cancelled = {each["params"]["requestId"] for each in await received(manager, "notifications/cancelled")}
    listened = [each["id"] for each in await received(manager, "subscriptions/listen")]
    # One was replaced; the one that the server ended is not given up once more.
    assert cancelled == {listened[0]}
    assert last not in cancelled


@contextlib.contextmanager
def sdk(kind: str) -> Iterator[dict[str, Any]]:
    if kind == "stdio":
        yield dict(StdioCommand(sys.executable, str(PROGRAMS / "sdk_changing.py"), "--stdio").config(**SOON))
    else:
        with HttpServerProcess("sdk_changing.py") as process:
            yield {"url": process.url, **SOON}


@pytest.mark.parametrize("kind", ["http", "stdio"])
async def test_the_official_sdk(kind: str, manager: McpManager, news: News) -> None:
    with sdk(kind) as config:
        await manager.deploy("a", config)
        await manager.subscribe("a", "test://text")
        cache = manager._servers["a"].template.knowledge.cache
        for _ in range(2):
            assert (await manager.read_resource("a", "test://text")).contents[0].text == "first"
        names = {tool.name for tool in await manager.list_tools("a")}
        assert names == {"change"}
        assert len(cache) == 2

        await manager.call_tool("a", "change", {"to": "second"})
        await news.wait_for(UPDATED, "test://text")
        assert (await manager.read_resource("a", "test://text")).contents[0].text == "second"
        await news.wait_for(TOOLS)
        await eventually(lambda: cache.fresh_until("tools/list") == 0, "the list was forgotten")
        assert {tool.name for tool in await manager.list_tools("a")} == {"change", "second"}
        await manager.undeploy("a")
