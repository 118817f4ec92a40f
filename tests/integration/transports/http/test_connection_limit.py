"""A limit of connections over all servers: never exceeded, first come first served, and no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, text_of

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.connections.clients import Clients

pytestmark = pytest.mark.both_loops

# Less than an idle connection is kept for: whoever waits for one must not depend on that.
SOON_S = 1.5
PASSES = 16


@pytest.fixture
def one() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def two() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager(
    request: pytest.FixtureRequest, one: ScriptedServer, two: ScriptedServer
) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(max_connections=getattr(request, "param", 1))) as manager:
        await manager.deploy("one", {"url": one.url, **CALM})
        await manager.deploy("two", {"url": two.url, **CALM})
        yield manager


async def call(manager: McpManager, server_id: str, text: str, timeout: float = SOON_S) -> str:
    return text_of(await manager.execute_raw(server_id, echo(text), timeout=timeout))


async def call_and_cancel(manager: McpManager, victims: list[asyncio.Task[str]]) -> str:
    """Call, and cancel in the very step that takes the reply: before anybody can take what became free with it."""
    text = await call(manager, "one", "first")
    for victim in victims[:1]:
        victim.cancel()
    return text


async def passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("manager", [1, 3], indirect=True)
async def test_the_limit_holds_under_load(
    manager: McpManager, one: ScriptedServer, request: pytest.FixtureRequest
) -> None:
    limit = request.node.callspec.params["manager"]
    texts = [str(number) for number in range(300)]
    assert await asyncio.gather(*(call(manager, "one", text, 20) for text in texts)) == texts
    assert one.peak_connections <= limit
    assert sorted(one.executed) == sorted(texts)


@pytest.mark.parametrize("answer", [faults.Answer(), faults.LastAnswer()], ids=["reused", "closed"])
async def test_who_waits_longest_is_served_first(
    manager: McpManager, one: ScriptedServer, answer: faults.Answer | faults.LastAnswer
) -> None:
    hold = faults.Hold()
    one.script("tools/call", hold)
    one.script_always("tools/call", answer)
    texts = [str(number) for number in range(10)]
    calls = []
    for text in texts:
        calls.append(asyncio.create_task(call(manager, "one", text)))
        await passes(PASSES)
    await one.wait_for("tools/call")
    hold.release()
    assert await asyncio.gather(*calls) == texts
    assert one.executed == texts


async def test_a_connection_is_given_up_for_another_server(
    manager: McpManager, one: ScriptedServer, two: ScriptedServer
) -> None:
    for number in range(5):
        assert await call(manager, "one", f"one {number}") == f"one {number}"
        assert await call(manager, "two", f"two {number}") == f"two {number}"
    names = ["one", "two"] * 20
    texts = [f"{name} {number}" for number, name in enumerate(names)]
    replies = await asyncio.gather(*(call(manager, name, text, 20) for name, text in zip(names, texts, strict=True)))
    assert replies == texts
    assert len(one.executed) == len(two.executed) == 25
    assert all(text.startswith("one ") for text in one.executed)
    assert all(text.startswith("two ") for text in two.executed)
    assert one.peak_connections == two.peak_connections == 1


@pytest.mark.parametrize("target", ["one", "two"])
async def test_cancelling_in_the_moment_a_connection_is_handed_over(
    manager: McpManager, one: ScriptedServer, target: str
) -> None:
    for after in range(PASSES):
        hold = faults.Hold()
        one.script("tools/call", hold)
        waiting: list[asyncio.Task[str]] = []
        first = asyncio.create_task(call_and_cancel(manager, waiting if after == 0 else []))
        await passes(PASSES)
        waiting += [asyncio.create_task(call(manager, target, f"waiting {number}")) for number in range(3)]
        await passes(PASSES)
        hold.release()
        assert await first == "first"
        await passes(after)
        waiting[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await waiting[0] == "waiting 0"
        assert await asyncio.gather(*waiting[1:]) == ["waiting 1", "waiting 2"]
        assert await call(manager, "one", "next") == "next"


async def test_deadlines_while_waiting_lose_no_place(manager: McpManager, one: ScriptedServer) -> None:
    hold = faults.Hold()
    one.script("tools/call", hold)
    first = asyncio.create_task(call(manager, "one", "first", 20))
    await one.wait_for("tools/call")
    outcomes = await asyncio.gather(
        *(call(manager, name, "late", 0.05) for name in ["one", "two"] * 10), return_exceptions=True
    )
    assert all(isinstance(outcome, CallError) and outcome.delivery == "not_sent" for outcome in outcomes)
    hold.release()
    assert await first == "first"
    assert await call(manager, "two", "two") == "two"
    assert await call(manager, "one", "one") == "one"
    assert "late" not in one.executed


@pytest.mark.slow
@pytest.mark.parametrize("manager", [2], indirect=True)
async def test_connections_that_fail_give_their_place_back(manager: McpManager, one: ScriptedServer) -> None:
    for _ in range(6):
        one.script("tools/call", faults.Reset())
        with pytest.raises(CallError):
            await call(manager, "one", "reset")
    one.refuse_connections()
    for _ in range(6):
        with pytest.raises(CallError):
            await call(manager, "one", "refused")
    one.listen()
    one.script_always("tools/call", faults.SseNeverEnds(with_reply=True))
    for number in range(6):
        assert await call(manager, "one", str(number), 20) == str(number)
    one.script_always("tools/call", None)
    assert await call(manager, "two", "two", 20) == "two"


@pytest.mark.parametrize(
    "fault", [faults.Close(), faults.Reset(), faults.Bytes(b"HTTP/1.1 408 Late\r\n\r\n")], ids=repr
)
async def test_a_connection_that_is_dead_at_once_gives_its_place_back(
    manager: McpManager, one: ScriptedServer, fault: faults.Close | faults.Reset | faults.Bytes
) -> None:
    for number in range(8):
        one.script("tools/call", faults.LastAnswer())
        assert await call(manager, "one", str(number)) == str(number)
        # It is sometimes seen before anything is sent, and sometimes after that.
        one.script_connections(fault)
        with pytest.raises(CallError):
            await call(manager, "one", "dead")
    assert await call(manager, "two", "two") == "two"


async def test_a_redirect_does_not_wait_for_the_connection_it_came_on(manager: McpManager, one: ScriptedServer) -> None:
    one.script("tools/call", faults.Redirect("/elsewhere"))
    assert await call(manager, "one", "moved") == "moved"
    assert await call(manager, "two", "two") == "two"
    assert await call(manager, "one", "again") == "again"


async def test_a_call_that_is_given_up_while_it_connects_keeps_its_place_until_the_socket_is_closed(
    one: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, most = 0, 0
    open_socket = Clients._open_socket

    def counted(clients: Clients, address: Any) -> socket.socket:
        nonlocal opened, most
        made = open_socket(clients, address)
        opened, most = opened + 1, max(most, clients.open_connections("one"))
        return made

    monkeypatch.setattr(Clients, "_open_socket", counted)
    # Each call needs a new connection.
    one.script_always("tools/call", faults.LastAnswer())
    async with McpManager(ManagerConfig(max_connections=1)) as manager:
        await manager.deploy("one", {"url": one.url, **CALM})
        for pause, turns in itertools.product(range(3), range(PASSES)):
            given_up = asyncio.create_task(call(manager, "one", "given up"))
            await passes(turns)
            given_up.cancel()
            await passes(pause)
            assert await call(manager, "one", "next") == "next"
            with contextlib.suppress(asyncio.CancelledError):
                await given_up
    assert opened > 3 * PASSES
    assert most == 1


async def test_the_end_of_a_manager_with_callers_waiting(one: ScriptedServer) -> None:
    manager = McpManager(ManagerConfig(max_connections=1))
    await manager.start()
    await manager.deploy("one", {"url": one.url, **CALM, "shutdown_grace_s": 0.1})
    one.script_always("tools/call", faults.Hold())
    calls = [asyncio.create_task(call(manager, "one", "x", 30)) for _ in range(5)]
    await one.wait_for("tools/call")
    async with asyncio.timeout(5):
        await manager.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    await one.wait_until(lambda: one.open_connections == 0)
