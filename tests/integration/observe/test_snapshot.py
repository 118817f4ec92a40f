"""The snapshot of a fleet: everything of one instant, true to what happened, and nothing secret in it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.calls import CALM, echo
from support.processes import unused_port

from mcp_manager import CallError, FleetSnapshot, ManagerConfig, McpManager, PyMcpManager, ServerSnapshot
from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SECRET = "s3cr3t"


def server_of(snapshot: FleetSnapshot, server_id: str) -> ServerSnapshot:
    return next(server for server in snapshot.servers if server.id == server_id)


async def test_it_shows_what_happened_down_to_instances() -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(max_concurrent=7)) as manager:
            tags = {"tags": ["red", "blue"], "priority": 9, "server_type": "search"}
            await manager.deploy("a", {"url": server.url, "instances": 2, **CALM, **tags})
            await manager.deploy("later", {"url": server.url, "instances": 0, **CALM})
            for _ in range(8):
                await manager.execute_raw("a", echo("x"))
            snapshot = manager.snapshot()
            assert manager.health() == snapshot.health
        assert snapshot.manager.max_concurrent == 7
        assert snapshot.taken_at.endswith("+00:00")
        assert [each.id for each in snapshot.servers] == ["a", "later"]
        shown = snapshot.servers[0]
        assert (shown.server_type, shown.tags, shown.priority) == ("search", ("red", "blue"), 9)
        assert (shown.state, shown.desired, shown.ready, shown.draining, shown.waiting) == ("Healthy", 2, 2, 0, 0)
        assert shown.window_calls == 8
        assert shown.p50_s is not None
        assert shown.p99_s is not None
        assert 0 < shown.p50_s <= shown.p99_s < 60
        assert [each.index for each in shown.instances] == [0, 1]
        for each in shown.instances:
            assert (each.where, each.availability, each.pid) == (server.url, "ready", None)
            assert (each.era, each.revision, each.generation) == ("handshake", "2025-11-25", 1)
            assert (each.circuit, each.retry_after_s, each.inflight, each.last_error) == ("Closed", 0.0, 0, None)
        assert (snapshot.servers[1].state, snapshot.servers[1].instances) == ("Stopped", ())


async def test_a_call_under_way_and_an_open_circuit_are_seen() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            settings = {**CALM, "breaker": {"consecutive_failures": 1, "open_s": 60.0}}
            await manager.deploy("a", {"url": server.url, **settings})
            server.script("tools/call", faults.Hold())
            waiting = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=30))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            (busy,) = manager.snapshot().servers[0].instances
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            server.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await manager.execute_raw("a", echo("x"))
            opened = manager.snapshot().servers[0]
    assert (busy.inflight, busy.circuit) == (1, "Closed")
    assert (opened.state, opened.reasons) == ("Unhealthy", ("circuit open",))
    (instance,) = opened.instances
    assert (instance.inflight, instance.circuit) == (0, "Open")
    assert 40 < instance.retry_after_s <= 72
    assert (instance.window_calls, instance.window_failures) == (1, 1)


async def test_it_is_json_without_secrets() -> None:
    port = unused_port()
    async with McpManager() as manager:
        await manager.deploy(
            "gone",
            {
                "url": f"http://127.0.0.1:{port}/mcp?key={SECRET}",
                "auth": {"type": "bearer", "token": SECRET},
                "headers": {"X-Key": SECRET},
                "extras": {"a": SECRET},
                **CALM,
            },
        )
        await manager.deploy(
            "child",
            {
                "command": sys.executable,
                "args": ["-c", f"import sys; sys.exit({SECRET!r} and 3)"],
                "env": {"K": SECRET},
            },
        )
        snapshot = manager.snapshot()
    text = msgspec.json.encode(snapshot)
    assert SECRET.encode() not in text
    assert FleetSnapshot.from_dict(msgspec.json.decode(text)) == snapshot
    (gone,) = server_of(snapshot, "gone").instances
    assert (gone.where, gone.availability) == (f"http://127.0.0.1:{port}/mcp?key=***", "pending")
    assert gone.era is None
    assert gone.last_error is not None
    assert "refused" in gone.last_error
    (child,) = server_of(snapshot, "child").instances
    assert (child.where, child.pid) == (sys.executable, None)


def test_the_bindings_and_the_command_line_show_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "fleet.json"
    config.write_text(json.dumps({"servers": {"works": stdio_server_config()}}), encoding="utf-8")
    with PyMcpManager(config) as manager:
        snapshot = manager.snapshot()
    (instance,) = snapshot.servers[0].instances
    assert instance.pid
    assert main(["status", str(config), "--snapshot"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert FleetSnapshot.from_dict(printed).servers[0].state == snapshot.servers[0].state


async def test_the_async_twin() -> None:
    manager = PyMcpManager()
    await manager.start_async()
    try:
        assert (await manager.snapshot_async()).health.total_servers == 0
    finally:
        await manager.stop()
