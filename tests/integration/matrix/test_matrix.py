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
from support.real_peer_cases import PATIENCE_S, SESSION_CASES, Case, expect
from support.real_peers import ANSWERS, CASES, HANDSHAKE, PEERS, STATELESS, Peer, Running

from mcp_manager import CallError, McpManager

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


RUNS: dict[str, Case] = {**SESSION_CASES, "expiry": forget_session, "restart": restart}


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
