"""Many callers, an unreliable server, cancellations and deadlines at any moment: every reply finds its own caller."""

from __future__ import annotations

import asyncio
import collections
import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of
from support.certificates import make_context

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import ConnectionLostError, DeadlineExceededError, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.connections.clients import Clients

pytestmark = pytest.mark.both_loops

CALLERS = 64
CALLS = 100


@pytest.fixture(params=["tcp", "tls"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScriptedServer]:
    """A server over TCP, and one over TLS whose certificate is in what Python trusts."""
    context = None
    if request.param == "tls" and "uvloop" in request.node.name:
        # The ordinary way of aiohttp has it, too.
        reason = "uvloop reports a TLS connection that is given up as its handshake ends"
        request.node.add_marker(pytest.mark.allow_leaks("loop_errors", reason=reason))
    if request.param == "tls":
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with")
        context, trusted = make_context(Path(tmp_path_factory.mktemp("certificates")))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with ScriptedServer(tls=context) as server:
        yield server


class Caller:
    """Make calls, some of them to be given up, and count what became of them."""

    def __init__(self, manager: McpManager, seed: int, outcomes: collections.Counter[str]) -> None:
        self.manager = manager
        self.seed = seed
        self.random = random.Random(seed)
        self.outcomes = outcomes
        self.answered: list[str] = []

    async def run(self, calls: int) -> None:
        for number in range(calls):
            token = f"caller {self.seed} call {number} " + "x" * self.random.choice([0, 0, 0, 2000, 50_000])
            [call] = self.random.choices(
                [self.plainly, self.hurried, self.cancelled, self.cancelled_soon], [5, 2, 2, 1]
            )
            try:
                reply = await call(token)
            except ConnectionLostError as error:
                assert error.delivery == "unknown"
                self.outcomes["lost"] += 1
            except ProtocolError as error:
                # The second of two replies, under way until the connection carried this call: refused, not taken.
                assert error.delivery == "unknown", error
                self.outcomes["refused"] += 1
            else:
                if reply is not None:
                    # The one thing that matters.
                    assert text_of(reply) == token
                    self.answered.append(token)
                    self.outcomes["answered"] += 1

    async def plainly(self, token: str) -> bytes | None:
        return await self.manager.execute_raw("server", echo(token), timeout=20)

    async def hurried(self, token: str) -> bytes | None:
        try:
            return await self.manager.execute_raw("server", echo(token), timeout=self.random.random() * 0.02)
        except DeadlineExceededError:
            self.outcomes["expired"] += 1
            return None

    async def cancelled(self, token: str) -> bytes | None:
        task = asyncio.create_task(self.plainly(token))
        asyncio.get_running_loop().call_later(self.random.random() * 0.02, task.cancel)
        return await self.unless_cancelled(task)

    async def cancelled_soon(self, token: str) -> bytes | None:
        task = asyncio.create_task(self.plainly(token))
        for _ in range(self.random.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        return await self.unless_cancelled(task)

    async def unless_cancelled(self, task: asyncio.Task[bytes | None]) -> bytes | None:
        try:
            return await task
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
            return None


@pytest.mark.slow
@pytest.mark.parametrize("max_connections", [0, 8])
async def test_every_reply_finds_its_caller(
    server: ScriptedServer, max_connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak = 0
    open_socket = Clients._open_socket

    def counted(clients: Clients, address: Any) -> socket.socket:
        nonlocal peak
        opened = open_socket(clients, address)
        peak = max(peak, clients.open_connections("server"))
        return opened

    # On this side: the server learns of a new connection before it learns that the old one has gone.
    monkeypatch.setattr(Clients, "_open_socket", counted)
    outcomes: collections.Counter[str] = collections.Counter()
    moods = faults.Moods(max_connections)
    server.script_always("tools/call", moods)
    callers = CALLERS if server.tls is None else CALLERS // 4
    async with McpManager(ManagerConfig(max_connections=max_connections)) as manager:
        await manager.deploy("server", {"url": server.url, **CALM})
        fleet = [Caller(manager, seed, outcomes) for seed in range(callers)]
        await asyncio.gather(*(caller.run(CALLS) for caller in fleet))
        server.script_always("tools/call", None)
        # Nothing that happened has spoilt a connection, or lost a place.
        texts = [f"after {number}" for number in range(40)]
        replies = await asyncio.gather(*(manager.execute_raw("server", echo(text), timeout=20) for text in texts))
        assert [text_of(reply) for reply in replies] == texts
        if max_connections:
            # The event loop ends a TLS handshake that is given up, and closes its socket turns later.
            assert peak == max_connections or (server.tls is not None and peak > max_connections)
            await server.wait_until(lambda: server.open_connections <= max_connections)
    assert sum(outcomes.values()) == callers * CALLS
    assert all(outcomes[outcome] > 0 for outcome in ("answered", "cancelled", "expired", "lost")), outcomes
    assert outcomes["refused"] <= moods.answered_twice
    times = collections.Counter(server.executed)
    assert set(times.values()) == {1}
    assert {token for caller in fleet for token in caller.answered} <= set(times)
    await server.wait_until(lambda: server.open_connections == 0)


async def test_a_large_reply_over_a_lane(server: ScriptedServer) -> None:
    text = "".join(chr(32 + number % 90) for number in range(1_000_000))
    async with McpManager() as manager:
        await manager.deploy("server", {"url": server.url, **CALM})
        for _ in range(5):
            assert text_of(await manager.execute_raw("server", echo(text), timeout=20)) == text
            assert text_of(await manager.execute_raw("server", echo("small"), timeout=20)) == "small"
        server.script("tools/call", faults.Oversize(1_000_000), faults.Oversize(1_000_000, chunked=True))
        for _ in range(2):
            assert text_of(await manager.execute_raw("server", echo("much"), timeout=20)) == "x" * 1_000_000
        # One after another, and each connection as good as new: there is need for one alone.
        assert server.peak_connections == 1


async def test_a_server_that_is_one_reply_behind_spoils_one_connection(server: ScriptedServer) -> None:
    server.script_always("tools/call", faults.StaleReplies())
    async with McpManager() as manager:
        await manager.deploy("server", {"url": server.url, **CALM})
        assert text_of(await manager.execute_raw("server", echo("first"), timeout=5)) == "first"
        error = await failure_of(manager, "server", echo("second"))
        assert isinstance(error, ProtocolError)
        assert error.delivery == "unknown"
        assert text_of(await manager.execute_raw("server", echo("third"), timeout=5)) == "third"
