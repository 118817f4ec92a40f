"""Programs that are halted, loop or are busy, for real: who is replaced, with what it has started, and who is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.calls import eventually
from support.children import is_gone
from support.processes import scripted_stdio

from mcp_manager import McpManager
from mcp_manager.config import parse_server_config
from mcp_manager.errors import ConfigError, DeadlineExceededError
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

# As quick as a busy machine lets it be.
HEALTH = {
    "interval_s": 0.2,
    "timeout_s": 0.4,
    "unhealthy_interval_s": 0.1,
    "unhealthy_interval_max_s": 0.2,
    "jitter": 0.0,
    "settle_s": 0.0,
}
SETTINGS: dict[str, Any] = {
    "health": HEALTH,
    "restart": {"initial_s": 0.1, "max_s": 0.5},
    "breaker": {"enabled": False},
    "retry": {"attempts": 1},
}
# One thread: while it sleeps in a tool, it answers nothing.
BUSY = """
import json, sys, time
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "busy", "version": "1"}}
    elif message["method"] == "tools/call":
        time.sleep(message["params"]["arguments"]["seconds"])
        result = {"content": []}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    print("still here", file=sys.stderr, flush=True)
"""


def busy(**settings: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", BUSY], "protocol_version": "2025-11-25", **SETTINGS, **settings}


def sleep_for(seconds: float) -> dict[str, Any]:
    return {"name": "sleep", "arguments": {"seconds": seconds}}


async def test_a_halted_program_is_replaced_with_all_it_has_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "grandchild"
    program = scripted_stdio({"start": [{"do": "spawn", "pid_file": str(pid_file)}]})
    async with McpManager() as manager:
        await manager.deploy("a", program.config(**SETTINGS, protocol_version="2025-11-25"))
        await manager.ping("a")
        [pid] = manager.server("a").pids
        grandchild = int(pid_file.read_text(encoding="ascii"))
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: manager.server("a").pids not in ((), (pid,)), "another one has taken over")
        assert is_gone(pid) and is_gone(grandchild)
        assert manager.server("a").restarts == {"hang": 1}
        assert 'mcp_child_restarts_total{cause="hang",server_id="a"} 1.0' in manager.metrics_text()
        await manager.ping("a")


@pytest.mark.slow
async def test_a_program_that_is_busy_for_longer_than_probes_may_take_ends_well() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", busy())
        await manager.ping("a")
        before = manager.server("a").pids
        await manager.request("a", "tools/call", sleep_for(3.0), timeout=60.0)
        assert manager.server("a").pids == before
        assert manager.server("a").restarts == {}


@pytest.mark.slow
async def test_a_call_that_was_given_up_keeps_it_busy_as_well() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", busy(request_timeout_s=60.0))
        await manager.ping("a")
        before = manager.server("a").pids
        calling = asyncio.create_task(manager.request("a", "tools/call", sleep_for(3.0), timeout=60.0))
        await eventually(lambda: bool(manager.snapshot().servers[0].inflight), "it is called")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await manager.request("a", "tools/call", sleep_for(0.0), timeout=60.0)
        assert manager.server("a").pids == before


@pytest.mark.slow
async def test_a_tool_that_loops_on_when_its_call_is_over_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", busy())
        await manager.ping("a")
        [pid] = manager.server("a").pids
        with pytest.raises(DeadlineExceededError):
            await manager.request("a", "tools/call", sleep_for(3600.0), timeout=0.5)
        await eventually(lambda: manager.server("a").pids not in ((), (pid,)), "another one has taken over")
        assert is_gone(pid)
        assert any("did not answer 3 probes in a row and was killed" in each.getMessage() for each in caplog.records)


@pytest.mark.slow
async def test_one_of_several_is_replaced_while_the_others_serve() -> None:
    async with McpManager() as manager:
        config = busy(instances=3, max_instances=3, balancing={"policy": "round_robin"})
        await manager.deploy("a", config)
        before = manager.server("a").pids
        os.kill(before[1], signal.SIGSTOP)
        await eventually(
            lambda: len(manager.server("a").pids) == 3 and before[1] not in manager.server("a").pids, "it is replaced"
        )
        assert {before[0], before[2]} <= set(manager.server("a").pids)
        await manager.ping("a")


@pytest.mark.slow
async def test_it_can_be_turned_off() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", busy(restart={"initial_s": 0.1, "on_hang": False}, shutdown_grace_s=0.0))
        await manager.ping("a")
        before = manager.server("a").pids
        os.kill(before[0], signal.SIGSTOP)
        await eventually(lambda: "probes failing" in manager.server("a").reasons, "its probes fail")
        await asyncio.sleep(1.0)
        assert manager.server("a").pids == before


@dataclass(frozen=True)
class Stuck:
    """Answer on every session but one."""

    session: str

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if request.headers.get("mcp-session-id") == self.session:
            await connection.hang()
        await connection.answer(request)


@pytest.mark.slow
async def test_a_session_that_is_stuck_is_made_anew_and_the_old_one_ended() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, "protocol_version": "2025-11-25", **SETTINGS})
            # Probes have been answered on it.
            await server.wait_for("ping", 2)
            [stuck] = server.live_sessions
            server.script_always("ping", Stuck(stuck))
            await eventually(lambda: stuck not in server.live_sessions, "another one has taken over")
            await eventually(lambda: manager.server("a").state.name == "HEALTHY", "it is well again")
            await manager.ping("a")
            assert len(server.live_sessions) == 1


@pytest.mark.parametrize("given", ["no", 1, None])
def test_whether_to_replace_is_yes_or_no(given: object) -> None:
    with pytest.raises(ConfigError, match=r"restart\.on_hang"):
        parse_server_config({"command": "x", "restart": {"on_hang": given}}, server_id="a")
    assert parse_server_config({"command": "x"}, server_id="a").restart.on_hang
