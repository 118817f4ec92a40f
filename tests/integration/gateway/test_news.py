"""What servers say without being asked reaches those who listen, and each subscription is made once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM
from support.catalog_server import CatalogServer, tool

from mcp_manager import McpManager, RpcError
from mcp_manager.auth.caller import Caller
from mcp_manager.gateway.callers import principal_of
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.single import SingleServer
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.news import News
from mcp_manager.protocol.revisions import Era
from mcp_manager.testing import faults

ANA = Client(Era.HANDSHAKE, "2025-11-25", session="ana")
BEN = Client(Era.HANDSHAKE, "2025-11-25", session="ben")
ALL = frozenset(LIST_CHANGES)
TOOLS_CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class Inbox:
    """Keeps what is delivered, and wakes who waits for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._came = asyncio.Event()

    def __call__(self, method: str, params: bytes) -> None:
        self.messages.append((method, params))
        self._came.set()

    async def wait_for(self, count: int) -> list[tuple[str, bytes]]:
        while len(self.messages) < count:
            self._came.clear()
            await self._came.wait()
        return self.messages


def updated(uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}


@pytest.fixture
def server() -> Iterator[CatalogServer]:
    with CatalogServer({"tools": [tool("a")], "resources": [{"uri": "r://1", "name": "one"}]}) as server:
        yield server


@pytest.fixture
async def news() -> AsyncIterator[News]:
    news = News(0.01)
    yield news
    await news.aclose()


@pytest.fixture
async def manager(news: News, server: CatalogServer) -> AsyncIterator[McpManager]:
    async with McpManager(handlers=news.handlers()) as manager:
        news.start(manager)
        await manager.deploy("one", {"url": server.url, **CALM})
        yield manager


async def say(manager: McpManager, server: CatalogServer, *messages: dict[str, Any]) -> None:
    server.script("ping", faults.SseEvents(before=messages))
    await manager.ping("one")


async def test_a_change_reaches_every_listener_that_wants_it(
    manager: McpManager, news: News, server: CatalogServer
) -> None:
    inboxes = [Inbox(), Inbox()]
    endpoint = SingleServer(manager, "one")
    with_all = news.listen(endpoint, inboxes[0], ALL)
    with_none = news.listen(endpoint, inboxes[1], frozenset())
    await say(manager, server, TOOLS_CHANGED)
    assert await inboxes[0].wait_for(1) == [("notifications/tools/list_changed", b"{}")]
    assert inboxes[1].messages == []
    with_all.close()
    with_none.close()


async def test_subscriptions_of_all_clients_are_one_at_the_server(
    manager: McpManager, news: News, server: CatalogServer
) -> None:
    endpoint, inboxes = SingleServer(manager, "one"), [Inbox(), Inbox()]
    first, second = (news.listen(endpoint, each, ALL) for each in inboxes)
    await asyncio.gather(first.subscribe("r://1", ANA), second.subscribe("r://1", BEN))
    await first.subscribe("r://1", ANA)
    assert len(server.requests_of("resources/subscribe")) == 1
    await say(manager, server, updated("r://1"))
    for inbox in inboxes:
        assert await inbox.wait_for(1) == [("notifications/resources/updated", b'{"uri":"r://1"}')]
    await first.unsubscribe("r://1")
    assert server.requests_of("resources/unsubscribe") == []
    second.close()
    await server.wait_for("resources/unsubscribe")
    first.close()


async def test_a_part_of_what_is_subscribed_to_is_told(manager: McpManager, news: News, server: CatalogServer) -> None:
    inbox = Inbox()
    listening = news.listen(SingleServer(manager, "one"), inbox, ALL)
    await listening.subscribe("r://1", ANA)
    await say(manager, server, updated("r://12"), updated("r://1/2"), updated("r://1"))
    assert [params for _, params in await inbox.wait_for(2)] == [b'{"uri":"r://1/2"}', b'{"uri":"r://1"}']
    # Also while another client is subscribed to that part alone, and once to each.
    other = Inbox()
    exact = news.listen(SingleServer(manager, "one"), other, ALL)
    await exact.subscribe("r://1/2", BEN)
    await exact.subscribe("r://1", BEN)
    await say(manager, server, updated("r://1/2"), updated("r://1"))
    expected = [b'{"uri":"r://1/2"}', b'{"uri":"r://1"}']
    assert [params for _, params in await inbox.wait_for(4)] == expected * 2
    assert [params for _, params in await other.wait_for(2)] == expected
    exact.close()
    listening.close()


async def test_a_refusal_reaches_all_who_wait_for_it(manager: McpManager, news: News, server: CatalogServer) -> None:
    listening = [news.listen(SingleServer(manager, "one"), Inbox(), ALL) for _ in range(2)]
    server.script("resources/subscribe", faults.RpcErrorReply(-32602, "no such resource"))
    found = await asyncio.gather(*(each.subscribe("r://1", ANA) for each in listening), return_exceptions=True)
    assert [type(each) for each in found] == [RpcError, RpcError]
    assert len(news.subscriptions) == 0
    await listening[0].subscribe("r://1", ANA)
    for each in listening:
        each.close()


async def test_a_subscriber_that_gives_up_leaves_nothing(
    manager: McpManager, news: News, server: CatalogServer
) -> None:
    listening = news.listen(SingleServer(manager, "one"), Inbox(), ALL)
    server.script("resources/subscribe", faults.SseNeverEnds())
    subscribing = asyncio.create_task(listening.subscribe("r://1", ANA))
    await server.wait_for("resources/subscribe")
    subscribing.cancel()
    await asyncio.gather(subscribing, return_exceptions=True)
    assert listening.uris == []
    listening.close()


async def test_a_redeployed_server_is_asked_again(manager: McpManager, news: News, server: CatalogServer) -> None:
    listening = news.listen(SingleServer(manager, "one"), Inbox(), ALL)
    await listening.subscribe("r://1", ANA)
    server.forget()
    await manager.undeploy("one")
    await manager.deploy("one", {"url": server.url, **CALM})
    await server.wait_for("resources/subscribe")
    listening.close()


async def test_a_fleet_that_changes_is_news(manager: McpManager, news: News, server: CatalogServer) -> None:
    inbox = Inbox()
    listening = news.listen(SingleServer(manager, "two"), inbox, ALL)
    await manager.deploy("two", {"url": server.url, **CALM})
    assert {method for method, _ in await inbox.wait_for(3)} == ALL
    listening.close()


async def test_a_listener_that_fails_keeps_nobody_from_the_news(
    manager: McpManager, news: News, server: CatalogServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()

    def broken(method: str, params: bytes) -> None:
        raise ValueError(method)

    endpoint = SingleServer(manager, "one")
    listening = [news.listen(endpoint, each, ALL) for each in (broken, inbox)]
    await say(manager, server, TOOLS_CHANGED)
    await inbox.wait_for(1)
    assert "could not be told" in caplog.text
    for each in listening:
        each.close()


async def test_what_a_server_says_in_the_session_of_one_client_reaches_that_client_alone(
    manager: McpManager, news: News, server: CatalogServer
) -> None:
    endpoint, ana, ben, nobody = SingleServer(manager, "one"), Inbox(), Inbox(), Inbox()
    listening = [
        news.listen(endpoint, ana, ALL, ANA),
        news.listen(endpoint, ben, ALL, BEN),
        news.listen(endpoint, nobody, ALL),
    ]
    await listening[0].subscribe("r://1", ANA)
    await listening[1].subscribe("r://1", BEN)
    server.script("ping", faults.SseEvents(before=(TOOLS_CHANGED, updated("r://1"))))
    caller = Caller(principal_of(ANA), capabilities={"elicitation": {}})
    await manager.exchange("one", b'{"id":1,"method":"ping"}', caller=caller)
    assert {method for method, _ in await ana.wait_for(2)} == {TOOLS_CHANGED["method"], updated("")["method"]}
    # What all are told comes after it.
    await say(manager, server, updated("r://1"))
    assert await ben.wait_for(1) == [("notifications/resources/updated", b'{"uri":"r://1"}')]
    assert nobody.messages == []
    for each in listening:
        each.close()
