"""Servers that flood, each in a process of its own: the loop has time for others in every turn, and calls are answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.calls import eventually
from support.processes import PROGRAMS

from mcp_manager import Handlers, McpManager
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import CallError, ProtocolError
from mcp_manager.runtime import read_budget
from mcp_manager.runtime.read_budget import FLOOD
from mcp_manager.session.session import Session
from mcp_manager.testing.faults import Dripping
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.types import ServerState

pytestmark = pytest.mark.both_loops

PROGRAM = str(PROGRAMS / "flooding.py")
WAIT_S = 90.0
# A tenth of a millisecond has time for no more than these, however fast the machine is.
MOST = 100


def tool(name: str) -> bytes:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    return json.dumps(message).encode()


def text_of(reply: bytes) -> str:
    text: str = json.loads(reply)["result"]["content"][0]["text"]
    return text


@contextlib.contextmanager
def flooding(kind: str, *options: str, path: str = "/mcp") -> Iterator[dict[str, Any]]:
    """Run a server that floods over HTTP; yields its configuration."""
    with subprocess.Popen([sys.executable, "-P", PROGRAM, "http", kind, *options], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield {"url": f"http://127.0.0.1:{int(process.stdout.readline())}{path}", "health": {"enabled": False}}
        finally:
            process.kill()


def program(kind: str) -> dict[str, Any]:
    """Return the configuration of a program that floods."""
    return {"command": sys.executable, "args": ["-P", PROGRAM, "stdio", kind], "health": {"enabled": False}}


@contextlib.asynccontextmanager
async def managed(*, lanes: bool = True, **options: Any) -> AsyncIterator[McpManager]:
    async with asyncio.timeout(WAIT_S), McpManager(ManagerConfig(http_lanes=lanes), **options) as manager:
        yield manager


class Work:
    """Count messages and faults of all sessions by the turn of the loop that they are taken in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        self.most = 0
        self._in_this_turn = 0
        for name in ("on_message", "on_fault"):
            monkeypatch.setattr(Session, name, self._counting(getattr(Session, name)))

    def _counting(self, take: Callable[..., None]) -> Callable[..., None]:
        def counted(session: Session, *news: Any) -> None:
            self.taken += 1
            self._in_this_turn += 1
            take(session, *news)

        return counted

    async def watch(self, messages: int) -> None:
        """Let turns pass until so many messages were taken."""
        before = self.taken
        while self.taken < before + messages:
            self._in_this_turn = 0
            await asyncio.sleep(0)
            self.most = max(self.most, self._in_this_turn)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("kind", ["notifications", "replies", "garbage"])
async def test_a_standing_stream_has_its_share_of_every_turn(work: Work, lanes: bool, kind: str) -> None:
    with flooding(kind) as config:
        async with managed(lanes=lanes) as manager:
            await manager.deploy("flood", config)
            await work.watch(2000)
            assert work.most <= MOST
            assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"


@pytest.mark.parametrize("kind", ["notifications", "replies", "garbage"])
async def test_a_pipe_has_its_share_of_every_turn(work: Work, kind: str) -> None:
    async with managed() as manager:
        await manager.deploy("flood", program(kind))
        await work.watch(2000)
        assert work.most <= MOST
        # Behind what is in the pipe already.
        assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"


async def test_all_floods_together_have_the_share_of_one(work: Work) -> None:
    with contextlib.ExitStack() as stack:
        floods = [stack.enter_context(flooding("notifications")) for _ in range(3)]
        async with managed() as manager:
            for number, config in enumerate(floods):
                await manager.deploy(f"http-{number}", config)
            for number in range(2):
                await manager.deploy(f"stdio-{number}", program("notifications"))
            await work.watch(2000)
            assert work.most <= MOST
            for server_id in ("http-0", "http-1", "http-2", "stdio-0", "stdio-1"):
                assert text_of(await manager.execute_raw(server_id, tool("echo"))) == "done"


@pytest.mark.parametrize("lanes", [True, False])
async def test_the_reply_behind_a_flood_is_found(work: Work, lanes: bool) -> None:
    with flooding("comments") as config:
        async with managed(lanes=lanes) as manager:
            await manager.deploy("flood", config)
            assert text_of(await manager.execute_raw("flood", tool("flood"), timeout=WAIT_S)) == "done"


async def test_http_and_sse_has_its_share_of_every_turn(work: Work) -> None:
    with flooding("notifications", path="/sse") as config:
        async with managed() as manager:
            await manager.deploy("flood", {**config, "transport": "sse"})
            await work.watch(2000)
            assert work.most <= MOST
            assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"


@pytest.mark.slow
async def test_a_flood_is_counted_and_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with flooding("notifications") as config:
        async with managed() as manager:
            await manager.deploy("flood", config)
            await manager.deploy("program", program("stderr"))
            for server_id in ("flood", "program"):
                await eventually(lambda: manager.server(server_id).faults.get(FLOOD, 0) >= 2, "the fault")  # noqa: B023
                assert (await eventual_reasons(manager, server_id)) == ("flooding",)
                assert f'mcp_floods_total{{server_id="{server_id}"}}' in manager.metrics_text()
            told = [record.getMessage() for record in caplog.records if FLOOD in record.getMessage()]
            assert sorted(each.split(":")[0] for each in told) == ["server 'flood'", "server 'program'"]


async def eventual_reasons(manager: McpManager, server_id: str) -> tuple[str, ...]:
    """Return why the server is not healthy, once there is a reason."""
    await eventually(lambda: manager.server(server_id).reasons, "a reason")
    view = manager.server(server_id)
    assert view.state is ServerState.DEGRADED
    return view.reasons


async def test_a_flood_that_only_the_parser_sees_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_budget, "_FLOOD_NS", 10_000_000)
    with ScriptedServer() as server:
        async with managed(lanes=False) as manager:
            await manager.deploy("drips", {"url": server.url, "health": {"enabled": False}})
            server.script("tools/call", Dripping(1 << 17, 1))
            await manager.execute_raw("drips", tool("echo"), timeout=WAIT_S)
            assert manager.server("drips").faults.get(FLOOD, 0) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["http", "stdio"])
async def test_pings_without_end_are_answered_as_far_as_there_is_time(way: str) -> None:
    with contextlib.ExitStack() as stack:
        config = program("pings") if way == "stdio" else stack.enter_context(flooding("pings"))
        async with managed() as manager:
            await manager.deploy("flood", config)
            for _ in range(20):
                assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"


async def test_a_handler_that_is_slow_hears_of_the_newest(work: Work) -> None:
    heard = 0
    running = 0
    most = 0

    async def slow(server_id: str, message: Any) -> None:
        nonlocal heard, running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        heard += 1

    with flooding("logs") as config:
        async with managed(handlers=Handlers(logging=slow)) as manager:
            await manager.deploy("flood", config)
            await eventually(lambda: "too many notifications at once" in manager.server("flood").faults, "the fault")
            assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"
            await eventually(lambda: heard > 64, "later news")
            assert most == 64


async def test_news_of_changed_lists_is_told_now_and_then() -> None:
    told = 0

    def changed(server_id: str) -> None:
        nonlocal told
        told += 1

    with flooding("changes") as config:
        async with managed(handlers=Handlers(on_tools_changed=changed)) as manager:
            await manager.deploy("flood", config)
            await eventually(lambda: told == 1, "the first news")
            begun = asyncio.get_running_loop().time()
            await eventually(lambda: told >= 4, "more news")
            assert asyncio.get_running_loop().time() - begun >= 3 * 0.25 - 0.05


@pytest.mark.parametrize("lanes", [True, False])
async def test_interim_responses_without_end_fail_their_call_alone(lanes: bool) -> None:
    with flooding("interim") as config:
        async with managed(lanes=lanes) as manager:
            await manager.deploy("flood", config)
            with pytest.raises(CallError) as caught:
                await manager.execute_raw("flood", tool("flood"), timeout=WAIT_S)
            assert isinstance(caught.value, ProtocolError)
            assert caught.value.delivery == "unknown"
            assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"


@pytest.mark.parametrize("lanes", [True, False])
async def test_the_smallest_chunks_hold_nobody_up(lanes: bool) -> None:
    with flooding("notifications", "1") as config:
        async with managed(lanes=lanes) as manager:
            await manager.deploy("flood", config)
            for _ in range(20):
                assert text_of(await manager.execute_raw("flood", tool("echo"))) == "done"
