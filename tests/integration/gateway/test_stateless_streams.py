"""``subscriptions/listen`` and tasks of clients of 2026-07-28, on endpoints of one and of several servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import mcp
import pytest
from support.calls import CALM, eventually
from support.catalog_server import CatalogServer, tool
from support.questioning import StatelessClient
from support.stateless_server import StatelessServer, Task, task_result

from mcp_manager.gateway import Gateway
from mcp_manager.testing import faults

SERVE = {"listen": "127.0.0.1:0", "keepalive_s": 30.0, "list_changed_delay_s": 0.01}
ID = "io.modelcontextprotocol/subscriptionId"
LISTS = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}, "resources": {"subscribe": True}}
TASKS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def catalog() -> Iterator[CatalogServer]:
    resources = [{"uri": "r://1", "name": "one"}]
    with CatalogServer({"tools": [tool("a")], "resources": resources}, capabilities=LISTS) as server:
        yield server


@pytest.fixture
def tasks() -> Iterator[StatelessServer]:
    results = {
        "tools/list": {"resultType": "complete", "tools": [tool("slow")]},
        "tools/call": task_result("t/1", {"status": "working"}, "task"),
    }
    with StatelessServer(results=results) as server:
        done = {"content": [{"type": "text", "text": "done"}]}
        server.tasks["t/1"] = Task([{"status": "working"}, {"status": "completed", "result": done}])
        yield server


@pytest.fixture
async def gateway(catalog: CatalogServer, tasks: StatelessServer) -> AsyncIterator[Gateway]:
    servers = {"catalog": {"url": catalog.url, **CALM}, "tasks": {"url": tasks.url, **CALM}}
    async with Gateway({"servers": servers}, serve=SERVE) as gateway:
        await gateway.manager.wait_ready()
        yield gateway


class Events:
    """The messages of an event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> dict[str, Any]:
        while True:
            line = await self._response.content.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: "):
                message: dict[str, Any] = json.loads(line[6:])
                return message


async def say(gateway: Gateway, server: CatalogServer, *methods: str, **params: Any) -> None:
    """Let a server send notifications."""
    messages = tuple({"jsonrpc": "2.0", "method": method, "params": params} for method in methods)
    server.script("ping", faults.SseEvents(before=messages))
    await gateway.manager.ping("catalog")


@pytest.mark.parametrize("path", ["/servers/catalog/mcp", "/mcp"])
async def test_a_stream_tells_what_its_client_asked_for(
    gateway: Gateway, session: aiohttp.ClientSession, catalog: CatalogServer, path: str
) -> None:
    client = StatelessClient(session, gateway.url + path)
    wanted = {"toolsListChanged": True, "resourcesListChanged": True}
    async with client.post("subscriptions/listen", {"notifications": wanted}) as response:
        events = Events(response)
        first = await events.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        # Resources have no notifications of changed lists here.
        assert first["params"]["notifications"]["toolsListChanged"] is True
        assert first["params"]["_meta"] == {ID: 1}
        changed = ("notifications/prompts/list_changed", "notifications/tools/list_changed")
        await say(gateway, catalog, *changed)
        told = await events.next()
        assert told == {"jsonrpc": "2.0", "method": changed[1], "params": {"_meta": {ID: 1}}}


async def test_updates_of_resources_are_told_until_the_client_goes(
    gateway: Gateway, session: aiohttp.ClientSession, catalog: CatalogServer
) -> None:
    client = StatelessClient(session, f"{gateway.url}/servers/catalog/mcp")
    wanted = {"resourceSubscriptions": ["r://1", "r://1"]}
    async with client.post("subscriptions/listen", {"notifications": wanted}) as response:
        events = Events(response)
        assert (await events.next())["params"]["notifications"] == {"resourceSubscriptions": ["r://1"]}
        await say(gateway, catalog, "notifications/resources/updated", uri="r://1")
        assert (await events.next())["params"] == {"_meta": {ID: 1}, "uri": "r://1"}
    await catalog.wait_for("resources/unsubscribe")


async def test_streams_end_with_their_result_when_the_gateway_drains(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    client = StatelessClient(session, f"{gateway.url}/mcp")
    async with client.post("subscriptions/listen", {"notifications": {}}) as response:
        events = Events(response)
        await events.next()
        assert gateway._reception.under_way == 0, "an idle stream has a task"
        assert await gateway.drain(5.0)
        end = await events.next()
        assert (end["id"], end["result"]) == (1, {"resultType": "complete", "_meta": {ID: 1}})
        assert (await response.content.read()).strip() == b""


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        ({}, {}, 400),
        ({"notifications": {"toolsListChanged": 1}}, {}, 400),
        ({"notifications": {"resourceSubscriptions": [f"r://{n}" for n in range(1_001)]}}, {}, 400),
        ({"notifications": {}}, {"Accept": "application/json"}, 400),
    ],
)
async def test_a_stream_that_cannot_be_served_is_refused(
    gateway: Gateway, session: aiohttp.ClientSession, params: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    refused = await StatelessClient(session, f"{gateway.url}/mcp").send("subscriptions/listen", params, headers)
    assert (refused.status, refused.error["data"]["source"]) == (status, "gateway")


@pytest.mark.parametrize("path", ["/servers/tasks/mcp", "/mcp"])
async def test_tasks_go_to_the_server_that_has_them(
    gateway: Gateway, session: aiohttp.ClientSession, tasks: StatelessServer, path: str
) -> None:
    name = "slow" if path.startswith("/servers") else "tasks__slow"
    client = StatelessClient(session, gateway.url + path, **TASKS)
    made = await client.call(name)
    assert made.result["resultType"] == "task"
    found = await client.send("tasks/get", {"taskId": made.result["taskId"]})
    assert (found.result["taskId"], found.result["status"]) == (made.result["taskId"], "working")
    unknown = await client.send("tasks/get", {"taskId": "unknown"})
    assert unknown.error["code"] == -32602


async def test_a_client_without_tasks_gets_their_results(
    gateway: Gateway, session: aiohttp.ClientSession, tasks: StatelessServer
) -> None:
    plain = await StatelessClient(session, f"{gateway.url}/servers/tasks/mcp").call("slow")
    assert (plain.result["resultType"], plain.result["content"][0]["text"]) == ("complete", "done")
    assert tasks.tasks["t/1"].polls == 2


async def test_a_task_that_nobody_waits_for_is_cancelled(
    gateway: Gateway, session: aiohttp.ClientSession, tasks: StatelessServer
) -> None:
    client = StatelessClient(session, f"{gateway.url}/servers/tasks/mcp")
    tasks.tasks["t/1"] = Task([{"status": "working"}])
    request = asyncio.ensure_future(client.call("slow"))
    await eventually(lambda: tasks.tasks["t/1"].polls > 0, "the task is followed")
    request.cancel()
    await asyncio.wait({request})
    await eventually(lambda: tasks.tasks["t/1"].cancelled, "the task is cancelled")
    # Nor can this client give it input.
    tasks.tasks["t/1"] = Task([{"status": "working"}], asked={"x": {"method": "roots/list", "params": {}}})
    assert "needs input" in (await client.call("slow")).error["message"]
    await eventually(lambda: tasks.tasks["t/1"].cancelled, "the task is cancelled")


async def test_the_client_of_the_official_package_is_served(gateway: Gateway) -> None:
    async with mcp.Client(f"{gateway.url}/mcp") as client:
        listed = await client.list_tools()
        assert "catalog__a" in [each.name for each in listed.tools]
        result = await client.call_tool("catalog__a", {})
        assert not result.is_error
