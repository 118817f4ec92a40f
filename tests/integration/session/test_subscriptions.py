"""Staying told of changes: listening streams of 2026-07-28 over HTTP, and resource subscriptions of both eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.stateless_server import Silence, StatelessServer

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError, DeadlineExceededError, RpcError
from mcp_manager.testing.faults import Close, Hold, RpcErrorReply, Status
from mcp_manager.testing.scripted import ScriptedServer

TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
UPDATED = "notifications/resources/updated"
SOON: dict[str, Any] = {**CALM, "restart": {"initial_s": 0.01, "max_s": 0.02}}


class News:
    """What the handlers were told, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Any]] = []
        self._arrived = asyncio.Event()
        self.busy = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def handler(self, method: str) -> Any:
        async def take(server_id: str, params: Any) -> None:
            self.busy += 1
            await self.gate.wait()
            self.busy -= 1
            params.pop("_meta", None)
            self.all.append((method, params))
            self._arrived.set()

        return take

    async def wait_for(self, method: str, params: Any, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.all.count((method, params)) < count:
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture
def server() -> Iterator[StatelessServer]:
    with StatelessServer() as running:
        yield running


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
async def manager(news: News) -> AsyncIterator[McpManager]:
    """A manager that listens to changes of tools and resources."""
    handlers = {method: news.handler(method) for method in (TOOLS, UPDATED)}
    async with McpManager(handlers=handlers) as running:
        yield running


def interest(server: StatelessServer) -> dict[str, Any]:
    """What the newest stream asks for."""
    return server.streams[-1].asked


async def test_only_what_is_offered_and_heard_is_listened_for(
    server: StatelessServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for_streams(1)
    assert interest(server) == {"toolsListChanged": True}

    server.tell(TOOLS)
    await news.wait_for(TOOLS, {})


async def test_nobody_listens_where_nobody_hears(server: StatelessServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"url": server.url, **SOON})
        await manager.request("a", "tools/call", {"name": "echo", "arguments": {"text": "x"}})
        assert server.streams == []
        await manager.list_all_tools()
        # What it lists is kept: now news of a change is wanted.
        await server.wait_for_streams(1)
        assert interest(server) == {"toolsListChanged": True}


async def test_a_server_that_announces_nothing_is_not_listened_to(manager: McpManager) -> None:
    with StatelessServer(capabilities={"tools": {}}) as server:
        await manager.deploy("a", {"url": server.url, **SOON})
        await manager.request("a", "tools/call", {"name": "echo", "arguments": {"text": "x"}})
        assert server.requests_of("subscriptions/listen") == []


async def test_a_subscription_is_agreed_before_subscribe_returns(
    server: StatelessServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await manager.subscribe("a", "file:///x")
    assert interest(server) == {"toolsListChanged": True, "resourceSubscriptions": ["file:///x"]}
    server.tell(UPDATED, {"uri": "file:///x"})
    await news.wait_for(UPDATED, {"uri": "file:///x"})

    await manager.unsubscribe("a", "file:///x")
    await server.wait_until(lambda: len(server.streams) == 1 and interest(server) == {"toolsListChanged": True})
    assert server.requests_of("resources/subscribe") == server.requests_of("resources/unsubscribe") == []


async def test_any_way_to_ask_for_a_subscription_is_the_same(server: StatelessServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    request = {"id": 7, "method": "resources/subscribe", "params": {"uri": "file:///raw"}}
    reply = json.loads(await manager.execute_raw("a", json.dumps(request).encode()))
    assert reply == {"jsonrpc": "2.0", "id": 7, "result": {}}
    assert await manager.request("a", "resources/subscribe", {"uri": "file:///typed"}) == {}
    assert interest(server)["resourceSubscriptions"] == ["file:///raw", "file:///typed"]
    with pytest.raises(RpcError, match="uri"):
        await manager.request("a", "resources/subscribe", {"name": "x"})


async def test_a_wider_stream_is_open_before_the_old_one_is_closed(
    server: StatelessServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for_streams(1)
    first = server.streams[0]
    await manager.subscribe("a", "file:///x")
    second = server.streams[-1]
    assert second is not first
    await server.wait_until(lambda: not first.open)
    assert [each.open for each in (first, second)] == [False, True]
    # Nothing was missed, so nothing is told.
    server.tell(UPDATED, {"uri": "file:///x"})
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    assert news.all == [(UPDATED, {"uri": "file:///x"})]


@pytest.mark.both_loops
@pytest.mark.parametrize("end", ["end_gracefully", "cancel", "drop"])
async def test_a_stream_that_ends_is_opened_again_and_what_was_missed_is_told(
    server: StatelessServer, manager: McpManager, news: News, end: str
) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await manager.subscribe("a", "file:///x")
    await server.wait_for_streams(1)
    old = server.streams[0]
    getattr(server, end)(old)
    await server.wait_until(lambda: len(server.streams) == 1 and server.streams[0] is not old)
    await news.wait_for(TOOLS, {})
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    assert interest(server) == {"toolsListChanged": True, "resourceSubscriptions": ["file:///x"]}
    await server.wait_until(lambda: not old.open)


async def test_much_that_was_missed_is_told_whole(server: StatelessServer, manager: McpManager, news: News) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    uris = {f"file:///{number}" for number in range(200)}
    await asyncio.gather(*(manager.subscribe("a", uri) for uri in uris))
    await server.wait_until(lambda: len(server.streams) == 1)
    news.gate.clear()
    server.drop()
    await eventually(lambda: news.busy > 0, "the first was told")
    for _ in range(100):
        await asyncio.sleep(0)
    # The handlers are slow: the rest waits for them.
    assert news.busy <= 20
    news.gate.set()
    for uri in uris:
        await news.wait_for(UPDATED, {"uri": uri})
    assert "too many notifications at once" not in manager.server("a").faults
    # They were asked for together, not one after another.
    assert len(server.requests_of("subscriptions/listen")) < 20


async def test_a_server_that_ends_every_stream_at_once_is_asked_with_growing_delays(manager: McpManager) -> None:
    with StatelessServer() as server:
        server.script_always("subscriptions/listen", Close())
        settings = {**CALM, "restart": {"initial_s": 0.02, "max_s": 30.0, "jitter": 0.0}}
        await manager.deploy("a", {"url": server.url, **settings})
        await server.wait_for("subscriptions/listen", 4)
        at = asyncio.get_running_loop().time()
        await server.wait_for("subscriptions/listen", 5)
        # The fifth comes 0.02 * 2**3 after the fourth.
        assert asyncio.get_running_loop().time() - at > 0.05


async def test_a_refusal_for_good_is_not_repeated(server: StatelessServer, manager: McpManager) -> None:
    server.script_always("subscriptions/listen", RpcErrorReply(-32601, "no such method", status=404))
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for("subscriptions/listen")
    with pytest.raises(RpcError, match="no such method"):
        await manager.subscribe("a", "file:///x", timeout=5)
    asked = len(server.requests_of("subscriptions/listen"))
    # It was asked for once more, and not again for what is left.
    assert asked <= 3
    for _ in range(3):
        await manager.ping("a")
    assert len(server.requests_of("subscriptions/listen")) <= 3
    assert manager.server("a").faults["subscriptions/listen was refused"] >= 1


async def test_what_the_server_does_not_honour_is_an_error_and_not_subscribed(manager: McpManager) -> None:
    with StatelessServer(honour=lambda asked: {"toolsListChanged": True}) as server:
        await manager.deploy("a", {"url": server.url, **SOON})
        for _ in range(2):
            with pytest.raises(RpcError) as caught:
                await manager.subscribe("a", "file:///x", timeout=5)
            assert caught.value.code == -32602
        await server.wait_until(lambda: len(server.streams) == 1 and interest(server) == {"toolsListChanged": True})


async def test_a_subscription_that_is_not_acknowledged_ends_with_its_deadline(
    server: StatelessServer, manager: McpManager
) -> None:
    server.script_always("subscriptions/listen", Silence())
    await manager.deploy("a", {"url": server.url, **SOON})
    with pytest.raises(DeadlineExceededError):
        await manager.subscribe("a", "file:///x", timeout=0.1)
    server.script_always("subscriptions/listen", None)


async def test_a_stream_that_is_never_acknowledged_is_given_up(server: StatelessServer, manager: McpManager) -> None:
    server.script("subscriptions/listen", Silence())
    await manager.deploy("a", {"url": server.url, **SOON, "connect_timeout_s": 0.2})
    await server.wait_for_streams(1)
    assert manager.server("a").faults["a subscription was not acknowledged"] == 1


async def test_a_caller_that_gives_up_a_subscription_leaves_none(server: StatelessServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for_streams(1)
    server.script("subscriptions/listen", Silence())
    subscribing = asyncio.ensure_future(manager.subscribe("a", "file:///x"))
    await server.wait_for("subscriptions/listen", 2)
    subscribing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await subscribing
    assert not manager._servers["a"].template.knowledge.subscriptions.wanted.uris


async def test_the_end_of_a_manager_closes_its_streams(server: StatelessServer, news: News) -> None:
    async with McpManager(handlers={TOOLS: news.handler(TOOLS)}) as manager:
        await manager.deploy("a", {"url": server.url, **SOON})
        await server.wait_for_streams(1)
        await manager.undeploy("a")
        await server.wait_for_streams(0)
        await manager.deploy("a", {"url": server.url, **SOON})
        await server.wait_for_streams(1)
    await server.wait_for_streams(0)


async def test_a_stream_is_no_call(server: StatelessServer, manager: McpManager) -> None:
    """Undeploying waits for calls, for as long as ``shutdown_grace_s``; a stream is none, and takes no place of theirs."""
    await manager.deploy("a", {"url": server.url, **SOON, "shutdown_grace_s": 60.0})
    await server.wait_for_streams(1)
    async with asyncio.timeout(10):
        await manager.undeploy("a")


@pytest.mark.parametrize("lanes", [True, False])
async def test_streams_leave_the_places_of_connections_to_calls(
    server: StatelessServer, news: News, lanes: bool
) -> None:
    config = ManagerConfig(max_connections=1, http_lanes=lanes)
    async with McpManager(config, handlers={TOOLS: news.handler(TOOLS)}) as manager:
        await manager.deploy("a", {"url": server.url, **SOON})
        await manager.deploy("b", {"url": server.url, **SOON})
        await server.wait_for_streams(2)
        for server_id in ("a", "b"):
            result = await manager.call_tool(server_id, "echo", {"text": "x"}, timeout=5)
            assert result.text == "x"


async def test_every_instance_listens(server: StatelessServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **SOON, "instances": 3})
    await server.wait_for_streams(3)
    await manager.subscribe("a", "file:///x")
    await server.wait_until(
        lambda: len(server.streams) == 3 and all("resourceSubscriptions" in each.asked for each in server.streams)
    )
    await manager.scale("a", 1)
    await server.wait_for_streams(1)


async def test_a_notification_before_the_acknowledgement_is_a_fault_and_counts(
    server: StatelessServer, manager: McpManager, news: News
) -> None:
    class TellsAtOnce:
        async def play(self, connection: Any, request: Any) -> None:
            message = {"jsonrpc": "2.0", "method": TOOLS, "params": {"_meta": {SUBSCRIPTION: request.id}}}
            await connection.open_stream()
            await connection.write_chunk(b"data: " + json.dumps(message).encode() + b"\n\n")
            await connection.hang()

    server.script("subscriptions/listen", TellsAtOnce())
    await manager.deploy("a", {"url": server.url, **SOON})
    await news.wait_for(TOOLS, {})
    assert manager.server("a").faults["a notification before its subscription was acknowledged"] == 1


SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


async def test_a_server_out_of_reach_fails_a_subscription_soon(server: StatelessServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for_streams(1)
    server.refuse_connections()
    with pytest.raises(CallError):
        await manager.subscribe("a", "file:///x", timeout=10)
    server.listen()
    await server.wait_for_streams(1)
    assert interest(server) == {"toolsListChanged": True}


async def test_a_refused_stream_is_asked_for_again(server: StatelessServer, manager: McpManager) -> None:
    server.script("subscriptions/listen", Status(503), Status(429), RpcErrorReply(-32603), Status(401))
    await manager.deploy("a", {"url": server.url, **SOON})
    await server.wait_for_streams(1)
    assert len(server.requests_of("subscriptions/listen")) == 5


class SubscribableServer(ScriptedServer):
    """A server of the handshake era whose resources can be subscribed to."""

    def _initialize(self, request: Any) -> Any:
        status, headers, reply = super()._initialize(request)
        reply["result"]["capabilities"] = {"resources": {"subscribe": True}}
        return status, headers, reply

    def _result(self, request: Any) -> dict[str, Any]:
        if request.method in ("resources/subscribe", "resources/unsubscribe"):
            if request.params["uri"] == "file:///none":
                return {"jsonrpc": "2.0", "id": request.id, "error": {"code": -32002, "message": "not found"}}
            return {"jsonrpc": "2.0", "id": request.id, "result": {}}
        return super()._result(request)


@pytest.fixture
def earlier() -> Iterator[SubscribableServer]:
    with SubscribableServer() as running:
        yield running


async def test_a_new_session_subscribes_again_and_tells(
    earlier: SubscribableServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    await manager.subscribe("a", "file:///x")
    await manager.subscribe("a", "file:///y")
    await manager.unsubscribe("a", "file:///y")
    assert len(earlier.requests_of("resources/subscribe")) == 2
    earlier.expire_sessions()
    await manager.ping("a")
    await earlier.wait_for("resources/subscribe", 3)
    assert earlier.requests_of("resources/subscribe")[-1].params["uri"] == "file:///x"
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    assert news.all == [(UPDATED, {"uri": "file:///x"})]
    assert earlier.requests_of("subscriptions/listen") == []


async def test_a_subscription_by_bytes_is_made_again_as_well(
    earlier: SubscribableServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    for method, uri in [("subscribe", "file:///x"), ("subscribe", "file:///y"), ("unsubscribe", "file:///y")]:
        request = {"id": 7, "method": f"resources/{method}", "params": {"uri": uri}}
        assert json.loads(await manager.execute_raw("a", json.dumps(request).encode()))["result"] == {}
    earlier.expire_sessions()
    await manager.ping("a")
    await earlier.wait_for("resources/subscribe", 3)
    assert earlier.requests_of("resources/subscribe")[-1].params["uri"] == "file:///x"
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    assert news.all == [(UPDATED, {"uri": "file:///x"})]


async def test_a_refused_subscription_is_not_made_again(earlier: SubscribableServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    with pytest.raises(RpcError, match="not found"):
        await manager.subscribe("a", "file:///none")
    await manager.subscribe("a", "file:///x")
    earlier.expire_sessions()
    await manager.ping("a")
    await earlier.wait_for("resources/subscribe", 3)
    await manager.ping("a")
    assert [each.params["uri"] for each in earlier.requests_of("resources/subscribe")[2:]] == ["file:///x"]


async def test_what_is_subscribed_while_a_session_is_brought_up_to_date_stays(
    earlier: SubscribableServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    await manager.subscribe("a", "file:///x")
    hold = Hold()
    earlier.script("resources/subscribe", hold)
    earlier.expire_sessions()
    await manager.ping("a")
    await earlier.wait_for("resources/subscribe", 2)
    await manager.subscribe("a", "file:///y")
    hold.release()
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    await manager.ping("a")
    assert earlier.requests_of("resources/unsubscribe") == []
    assert len(earlier.requests_of("resources/subscribe")) == 3


async def test_what_is_subscribed_anew_while_it_is_given_up_is_asked_for_again(
    earlier: SubscribableServer, manager: McpManager
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    await manager.subscribe("a", "file:///x")
    hold = Hold()
    earlier.script("resources/unsubscribe", hold)
    # As another instance of the server would have it.
    manager._servers["a"].template.knowledge.subscriptions.discard("file:///x")
    await earlier.wait_for("resources/unsubscribe")
    await manager.subscribe("a", "file:///x")
    hold.release()
    # In which order the server saw the two, nobody knows.
    await earlier.wait_for("resources/subscribe", 3)


@pytest.mark.parametrize("failure", [Status(503), Status(500), Close()])
async def test_a_passing_failure_keeps_no_subscription_from_being_made_again(
    earlier: SubscribableServer, manager: McpManager, news: News, failure: Any
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    await manager.subscribe("a", "file:///x")
    earlier.script("resources/subscribe", failure, failure)
    earlier.expire_sessions()
    await manager.ping("a")
    await news.wait_for(UPDATED, {"uri": "file:///x"})
    assert len(earlier.requests_of("resources/subscribe")) == 4


async def test_what_was_missed_is_told_though_the_next_session_was_lost_as_well(
    earlier: SubscribableServer, manager: McpManager, news: News
) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON})
    await manager.subscribe("a", "file:///x")
    earlier.script("resources/subscribe", Hold())
    for count in (2, 3):
        earlier.expire_sessions()
        await manager.ping("a")
        await earlier.wait_for("resources/subscribe", count)
    await news.wait_for(UPDATED, {"uri": "file:///x"})


async def test_a_subscription_holds_on_every_instance(earlier: SubscribableServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": earlier.url, **SOON, "instances": 3})
    await manager.subscribe("a", "file:///x")
    await earlier.wait_for("resources/subscribe", 3)
    sessions = {each.headers["mcp-session-id"] for each in earlier.requests_of("resources/subscribe")}
    assert len(sessions) == 3
    await manager.unsubscribe("a", "file:///x")
    await earlier.wait_for("resources/unsubscribe", 3)
    assert len({each.headers["mcp-session-id"] for each in earlier.requests_of("resources/unsubscribe")}) == 3


async def test_a_listed_tool_is_listed_anew_once_it_has_changed(server: StatelessServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"url": server.url, **SOON})
        await manager.list_all_tools()
        await server.wait_for_streams(1)
        # From the first acknowledgement on nothing is missed: what was listed before may have changed.
        await eventually(lambda: not manager._tools._listings, "the list from before the stream was dropped")
        await manager.list_all_tools()
        await manager.list_all_tools()
        assert len(server.requests_of("tools/list")) == 2
        server.tell(TOOLS)
        await eventually(lambda: not manager._tools._listings, "the changed list was dropped")
        await manager.list_all_tools()
        assert len(server.requests_of("tools/list")) == 3
