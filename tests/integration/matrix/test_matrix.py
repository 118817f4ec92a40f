"""Real servers of both eras over every transport: listed, called, followed, given up, answered, forgotten and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.calls import CALM
from support.node import node_unavailable
from support.real_peers import ANSWERS, CASES, HANDSHAKE, PEERS, STATELESS, Call, Peer, Running

from mcp_manager import CallError, McpManager

PATIENCE_S = 20.0
SETTINGS = {
    **CALM,
    "connect_timeout_s": PATIENCE_S,
    "request_timeout_s": PATIENCE_S,
}
# What has ended is looked for again at once.
WATCHFUL = {
    "health": {"unhealthy_interval_s": 0.05, "unhealthy_interval_max_s": 0.1, "timeout_s": PATIENCE_S, "rise": 1},
    "restart": {"initial_s": 0.05, "max_s": 0.1},
}

Case = Callable[[McpManager, Peer, Running], Awaitable[None]]


async def list_tools(manager: McpManager, peer: Peer, _: Running) -> None:
    tools = {tool.name: tool for tool in await manager.list_tools("peer")}
    called = {call.tool for call in peer.calls.values()}
    assert called <= tools.keys()
    assert all(tools[name].input_schema["type"] == "object" for name in called)


async def call_tool(manager: McpManager, peer: Peer, _: Running) -> None:
    await expect(manager, peer.calls["call"])


async def follow_progress(manager: McpManager, peer: Peer, _: Running) -> None:
    call = peer.calls["progress"]
    seen: list[tuple[float, float | None]] = []
    result = await manager.call_tool(
        "peer", call.tool, call.arguments, on_progress=lambda progress, total, _: seen.append((progress, total))
    )
    assert call.expected in result.text
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def give_up(manager: McpManager, peer: Peer, _: Running) -> None:
    call = peer.calls["cancel"]
    begun = asyncio.Event()
    calling = asyncio.create_task(
        manager.call_tool("peer", call.tool, call.arguments, on_progress=lambda *_: begun.set())
    )
    if peer.ledger:
        notes = await noted(manager, "hold")
    else:
        await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    if peer.ledger:
        assert await noted(manager, "let go") == [*notes, "let go"]
    await expect(manager, peer.calls["call"])


def answer(case: str) -> Case:
    async def ask(manager: McpManager, peer: Peer, _: Running) -> None:
        call = peer.calls[case]
        async with asyncio.timeout(PATIENCE_S):
            # A server of files takes the roots when it likes.
            while call.expected not in (await manager.call_tool("peer", call.tool, call.arguments)).text:
                pass

    return ask


async def forget_session(manager: McpManager, peer: Peer, running: Running) -> None:
    call = peer.calls["expiry"]
    session_id = (await manager.call_tool("peer", call.tool)).text
    async with (
        aiohttp.ClientSession() as http,
        http.delete(running.config["url"], headers={"mcp-session-id": session_id}) as response,
    ):
        assert response.status in (200, 204)
    renewed = (await manager.call_tool("peer", call.tool)).text
    assert renewed not in ("", session_id)


async def restart(manager: McpManager, peer: Peer, running: Running) -> None:
    await expect(manager, peer.calls["call"])
    before = manager.server("peer").pids
    if running.process is not None:
        await asyncio.to_thread(running.process.restart)
    else:
        [pid] = before
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        # The first call may be what finds out; what it was refused for is over as soon as the server is ready.
        with contextlib.suppress(CallError):
            await expect(manager, peer.calls["call"])
        await manager.wait_ready()
        await expect(manager, peer.calls["call"])
    if before:
        assert set(manager.server("peer").pids).isdisjoint(before)


RUNS: dict[str, Case] = {
    "list": list_tools,
    "call": call_tool,
    "progress": follow_progress,
    "cancel": give_up,
    "sampling": answer("sampling"),
    "elicitation": answer("elicitation"),
    "roots": answer("roots"),
    "expiry": forget_session,
    "restart": restart,
}


async def expect(manager: McpManager, call: Call) -> None:
    result = await manager.call_tool("peer", call.tool, call.arguments)
    assert not result.is_error
    assert call.expected in result.text


async def noted(manager: McpManager, entry: str) -> list[str]:
    """Wait until the server has noted that, last; return the notes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            notes = (await manager.call_tool("peer", "ledger")).text.splitlines()
            if notes[-1:] == [entry]:
                return notes


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """The servers that the chosen tests share, each started once, by the name of the peer."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    peers = {peer.name: peer for params in chosen if isinstance(peer := params.get("peer"), Peer)}
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(peer.start(tmp_path_factory.mktemp("peer")))
            for name, peer in peers.items()
            if not (peer.needs_node and node_unavailable())
        }


@pytest.fixture
def running(servers: dict[str, Running], peer: Peer) -> Running:
    """A server that other tests use too."""
    if peer.name not in servers:
        pytest.skip(node_unavailable())
    return servers[peer.name]


@pytest.fixture
def mortal(peer: Peer, tmp_path: Path) -> Iterator[Running]:
    """A server of one test, which may end it."""
    if peer.needs_node and (reason := node_unavailable()):
        pytest.skip(reason)
    with peer.start(tmp_path) as running:
        yield running


@contextlib.asynccontextmanager
async def deployed(running: Running, revision: str, **settings: Any) -> AsyncIterator[McpManager]:
    def handler(method: str) -> Callable[[str, Any], Awaitable[Any]]:
        async def give(_: str, __: Any) -> Any:
            return ANSWERS[method]

        return give

    async with McpManager(handlers={method: handler(method) for method in ANSWERS}) as manager:
        await manager.deploy("peer", {**running.config, **SETTINGS, **settings, "protocol_version": revision})
        yield manager


def cells(*cases: str) -> list[Any]:
    return [
        pytest.param(peer, revision, case, id=f"{peer.name}-{revision}-{case}")
        for peer in PEERS
        for revision in peer.revisions
        for case in cases
        if peer.reason(case, revision) is None
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "revision", "case"), cells(*(case for case in CASES if case != "restart")))
async def test_a_real_server(peer: Peer, running: Running, revision: str, case: str) -> None:
    async with deployed(running, revision) as manager:
        assert manager.server("peer").protocol_version == revision
        await RUNS[case](manager, peer, running)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "revision", "case"), cells("restart"))
async def test_a_real_server_that_ends(peer: Peer, mortal: Running, revision: str, case: str) -> None:
    async with deployed(mortal, revision, **WATCHFUL) as manager:
        await RUNS[case](manager, peer, mortal)


@pytest.mark.slow
@pytest.mark.parametrize(
    "peer", [pytest.param(peer, id=peer.name) for peer in PEERS if not peer.reason("call", HANDSHAKE)]
)
async def test_what_it_speaks_is_found_out(peer: Peer, running: Running) -> None:
    async with deployed(running, "auto") as manager:
        newest = STATELESS if peer.name.startswith(("sdk", "fastmcp")) and peer.transport != "sse" else HANDSHAKE
        assert manager.server("peer").protocol_version == newest


def test_every_case_is_tried_in_both_eras_and_over_every_transport() -> None:
    tried = {
        (case, peer.transport, revision)
        for peer in PEERS
        for revision in peer.revisions
        for case in CASES
        if peer.reason(case, revision) is None
    }
    expected = {(case, "stdio", revision) for case in CASES if case != "expiry" for revision in (HANDSHAKE, STATELESS)}
    expected |= {(case, "http", revision) for case in CASES for revision in (HANDSHAKE, STATELESS)}
    expected |= {(case, "sse", HANDSHAKE) for case in CASES if case != "expiry"}
    expected -= {("expiry", "http", STATELESS)}
    assert expected <= tried


def test_what_is_left_out_names_what_there_is() -> None:
    for peer in PEERS:
        for key in peer.left_out:
            case, revision = key if isinstance(key, tuple) else (key, peer.revisions[0])
            assert (case in CASES, revision in peer.revisions) == (True, True)
        for case in set(CASES) - {"list", "restart"} - peer.left_out.keys():
            assert case in peer.calls, (peer.name, case)
