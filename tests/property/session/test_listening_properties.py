"""Keeping a ``subscriptions/listen`` stream open against a server that does anything, in any order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import session_template

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import Message, scan_reply
from mcp_manager.config import RestartConfig
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError
from mcp_manager.protocol.subscriptions import Interest
from mcp_manager.session.listening import Listening

TOOLS = "notifications/tools/list_changed"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
PASSES = 30
RESTART = RestartConfig(initial_s=1e-9, max_s=1e-9, jitter=0.0)


class Peer:
    """The server's side: every open stream and its end."""

    def __init__(self, offered: frozenset[str] = frozenset({TOOLS}), restart: RestartConfig = RESTART) -> None:
        self.open: dict[int, tuple[dict[str, Any], asyncio.Future[Message]]] = {}
        self.agreed: set[int] = set()
        self.most = 0
        self.caught_up: list[Interest] = []
        self.began: list[str] = []
        template = session_template(
            listened={TOOLS},
            began=lambda _, kind: self.began.append(kind),
            restart={"initial_s": restart.initial_s, "max_s": restart.max_s, "jitter": restart.jitter},
            connect_timeout_s=60.0,
        )
        self.subscriptions = template.knowledge.subscriptions
        self.tasks: list[asyncio.Task[None]] = []
        self.listening = Listening(template, 0, offered, RequestIds(1), self.send, self.caught_up.append)

    def start(self) -> None:
        def spawn(work: Any) -> asyncio.Task[None]:
            self.tasks.append(asyncio.get_running_loop().create_task(work))
            return self.tasks[-1]

        self.listening.start(spawn)

    async def stop(self) -> None:
        self.listening.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def send(self, params: bytes, request_id: int) -> Message:
        end: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.open[request_id] = json.loads(params)["notifications"], end
        self.most = max(self.most, len(self.open))
        try:
            return await end
        finally:
            del self.open[request_id]
            self.agreed.discard(request_id)

    # What the server does

    def agree(self, *, honour: bool = True) -> None:
        for request_id, (wanted, _) in self.open.items():
            self.agreed.add(request_id)
            meta = {"io.modelcontextprotocol/subscriptionId": request_id}
            notifications = wanted if honour else {"toolsListChanged": True}
            self.listening.take(ACKNOWLEDGED, json.dumps({"_meta": meta, "notifications": notifications}).encode())

    def finish(self) -> None:
        for _, end in self.open.values():
            if not end.done():
                end.set_result(scan_reply(b'{"jsonrpc":"2.0","id":1,"result":{}}'))

    def refuse(self, code: int) -> None:
        for request_id, (_, end) in self.open.items():
            if not end.done() and request_id not in self.agreed:
                error = b'{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":""}}' % code
                end.set_result(scan_reply(error))

    def lose(self) -> None:
        for _, end in self.open.values():
            if not end.done():
                end.set_exception(ConnectionLostError("lost"))

    def cancel(self) -> None:
        for request_id in list(self.open):
            self.listening.take("notifications/cancelled", json.dumps({"requestId": request_id}).encode())

    def babble(self) -> None:
        for params in (
            None,
            b"{",
            b'{"_meta":{"io.modelcontextprotocol/subscriptionId":"x"}}',
            b"[]",
            b'{"requestId":{}}',
        ):
            for method in (ACKNOWLEDGED, "notifications/cancelled", TOOLS):
                if (
                    self.open
                    and method == ACKNOWLEDGED
                    and params != b'{"_meta":{"io.modelcontextprotocol/subscriptionId":"x"}}'
                ):
                    # Without an id it belongs to the only stream that waits for an acknowledgement.
                    continue
                self.listening.take(method, params)


async def settle() -> None:
    for _ in range(PASSES):
        await asyncio.sleep(0)


ACTIONS = st.one_of(
    st.sampled_from(["agree", "dishonour", "finish", "refuse", "forbid", "lose", "cancel", "babble", "wait"]),
    st.tuples(st.sampled_from(["subscribe", "unsubscribe", "give up"]), st.sampled_from("abc")),
)


@given(actions=st.lists(ACTIONS, max_size=25))
def test_in_the_end_what_is_wanted_is_listened_for_and_nobody_waits(actions: list[Any]) -> None:
    asyncio.run(play(actions))


async def play(actions: list[Any]) -> None:
    peer = Peer()
    peer.start()
    calls: list[tuple[str, asyncio.Task[bytes | None]]] = []
    # By URI, the calls that no later "unsubscribe" concerns.
    standing: dict[str, list[asyncio.Task[bytes | None]]] = {}
    for action in actions:
        match action:
            case "agree":
                peer.agree()
            case "dishonour":
                peer.agree(honour=False)
            case "refuse":
                peer.refuse(-32603)
            case "forbid":
                peer.refuse(-32601)
            case "finish" | "lose" | "cancel" | "babble":
                getattr(peer, action)()
            case "wait":
                await settle()
            case ("subscribe", uri):
                calls.append((uri, asyncio.ensure_future(peer.listening.subscribe(uri, 0))))
                standing.setdefault(uri, []).append(calls[-1][1])
            case ("unsubscribe", uri):
                peer.listening.unsubscribe(uri)
                standing.pop(uri, None)
            case ("give up", uri):
                for each, call in calls:
                    if each == uri:
                        call.cancel()
        await asyncio.sleep(0)
        # The new stream, and the one that it replaces.
        assert peer.most <= 2
    # The server behaves from now on: whatever happened before, one more subscription restores everything.
    peer.subscriptions.add("last")
    for _ in range(20):
        peer.agree()
        await settle()
    wanted = peer.subscriptions.wanted
    assert [asked for asked, _ in peer.open.values()] == [
        {"toolsListChanged": True, "resourceSubscriptions": sorted(wanted.uris)}
    ]
    assert all(call.done() for _, call in calls), "somebody waits for what was agreed or ended long ago"
    for uri, subscribed in standing.items():
        agreed = [call for call in subscribed if not call.cancelled() and not call.exception() and not call.result()]
        assert not agreed or uri in wanted.uris, "what was agreed with somebody went with somebody else"
    await peer.stop()
    assert peer.open == {}
    for _, call in calls:
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        assert outcome is None or isinstance(outcome, bytes | CallError | asyncio.CancelledError)
    assert len(asyncio.all_tasks()) == 1


async def test_a_subscriber_that_gives_up_takes_nothing_from_another() -> None:
    peer = Peer()
    peer.start()
    await settle()
    peer.agree()
    first, second = (asyncio.ensure_future(peer.listening.subscribe("a", 0)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    peer.agree()
    assert await second is None
    assert peer.subscriptions.wanted.uris == {"a"}
    await peer.stop()


async def test_a_subscription_that_is_ended_before_it_is_agreed_keeps_nobody_waiting() -> None:
    peer = Peer()
    peer.start()
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    peer.listening.unsubscribe("a")
    assert b"Unsubscribed before" in (await asyncio.wait_for(subscribing, 10) or b"")
    again = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    peer.agree()
    await settle()
    peer.agree()
    assert await again is None
    assert peer.subscriptions.wanted.uris == {"a"}
    await peer.stop()


async def test_the_end_of_the_session_ends_the_wait_though_nothing_was_begun() -> None:
    peer = Peer(offered=frozenset())
    peer.start()
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await asyncio.sleep(0)
    await peer.stop()
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(subscribing, 10)
    assert not peer.subscriptions.wanted.uris


async def test_a_subscriber_hears_why_it_failed() -> None:
    peer = Peer()
    peer.start()
    await settle()
    peer.agree()
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    list(peer.open.values())[-1][1].set_exception(ConnectError("no way"))
    with pytest.raises(ConnectError, match="no way"):
        await subscribing
    assert not peer.subscriptions.wanted.uris
    await peer.stop()
    with pytest.raises(ConnectionLostError):
        await peer.listening.subscribe("a", 0)
    assert not peer.subscriptions.wanted.uris


async def test_only_what_was_told_before_is_caught_up_with() -> None:
    peer = Peer()
    peer.start()
    await settle()
    peer.agree()
    await settle()
    assert (peer.began, peer.caught_up) == ([TOOLS], [])
    peer.lose()
    await settle()
    while not peer.open:
        await settle()
    peer.subscriptions.add("new")
    await settle()
    while not peer.caught_up:
        peer.agree()
        await settle()
    assert peer.caught_up == [Interest(frozenset({TOOLS}))]
    await peer.stop()


async def test_what_the_server_does_not_announce_is_not_asked_for() -> None:
    peer = Peer(offered=frozenset())
    peer.start()
    await settle()
    assert peer.open == {}
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    assert [asked for asked, _ in peer.open.values()] == [{"resourceSubscriptions": ["a"]}]
    peer.agree()
    assert await subscribing is None
    await peer.stop()


async def test_a_refusal_for_good_is_final_until_something_else_is_wanted() -> None:
    peer = Peer()
    peer.start()
    await settle()
    peer.refuse(-32601)
    for _ in range(10):
        await settle()
        assert peer.open == {}
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    peer.refuse(-32601)
    assert await subscribing == b'{"code":-32601,"message":""}'
    await peer.stop()


async def test_a_stream_that_ended_is_not_opened_again_at_once() -> None:
    peer = Peer(restart=RestartConfig(initial_s=1000.0, max_s=1000.0, jitter=0.0))
    peer.start()
    await settle()
    peer.agree()
    await settle()
    peer.finish()
    for _ in range(10):
        await settle()
        assert peer.open == {}
    # A new subscription does not wait for the backoff delay.
    subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
    await settle()
    peer.agree()
    assert await subscribing is None
    await peer.stop()


async def test_what_is_listened_to_already_is_agreed_at_once() -> None:
    peer = Peer()
    peer.start()
    await settle()
    peer.agree()
    await settle()
    for _ in range(2):
        subscribing = asyncio.ensure_future(peer.listening.subscribe("a", 0))
        await settle()
        peer.agree()
        assert await subscribing is None
    assert len(peer.open) == 1
    await peer.stop()
