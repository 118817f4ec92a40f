"""DirectCall records of real calls: the ordinary ones, the others, and what an anomaly writes to the log."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from support.calls import CALM, deployed, echo, failure_of
from support.processes import unused_port
from support.stateless_server import StatelessServer

from mcp_manager import CallError, ManagerConfig, McpManager
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.observe.log_format import JsonFormatter
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SECRET = "s3cr3t"


def fields(record: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


@pytest.mark.parametrize("lanes", [True, False])
async def test_ordinary_calls_are_remembered_whichever_way_they_go(lanes: bool) -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            for number in range(3):
                await manager.execute_raw("a", echo(str(number)))
            records = manager.flight_records()
    assert len(records) == 3
    for record in records:
        assert fields(record, "server_id", "method", "status", "delivery") == ("a", "tools/call", "success", "answered")
        assert fields(record, "instance", "era", "revision") == (0, "handshake", "2025-11-25")
        assert fields(record, "session_generation", "attempts", "circuit", "inflight") == (1, 1, "Closed", 0)
        assert 0 < record.total_s < 60
        assert record.error is None


async def test_those_of_processes_and_of_the_stateless_era() -> None:
    with StatelessServer() as server:
        async with McpManager() as manager:
            await manager.deploy("new", {"url": server.url, **CALM})
            await manager.deploy("child", stdio_server_config())
            await manager.list_tools("new")
            await manager.call_tool("child", "echo", {"text": "x"})
            new, child = manager.flight_records()
    assert fields(new, "server_id", "method", "era", "revision") == ("new", "tools/list", "stateless", "2026-07-28")
    assert fields(child, "server_id", "method", "era") == ("child", "tools/call", "handshake")


async def test_a_lost_session_an_error_and_a_refusal_are_told_apart() -> None:
    with ScriptedServer() as server:
        async with deployed(server, breaker={"consecutive_failures": 1, "open_s": 60.0}) as manager:
            server.expire_sessions()
            await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", b'{"id":1,"method":"no/such"}')
            server.script("tools/call", faults.Status(500))
            await failure_of(manager, "a", echo("x"))
            await failure_of(manager, "a", echo("x"))
            again, wrong, failed, refused = manager.flight_records()
    assert fields(again, "attempts", "session_generation", "status", "circuit") == (2, 3, "success", "Closed")
    assert fields(wrong, "status", "delivery", "attempts", "error") == ("rpc_error", "answered", 1, None)
    assert fields(failed, "status", "delivery", "circuit") == ("protocol_error", "unknown", "Open")
    assert failed.error == "ProtocolError"
    assert fields(refused, "status", "delivery", "attempts", "instance") == ("circuit_open", "not_sent", 1, None)


async def test_no_more_are_kept_than_configured() -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(flight_records=2)) as manager:
            for _ in range(5):
                await manager.ping("a")
            assert len(manager.flight_records()) == 2
        async with deployed(server, ManagerConfig(flight_records=0)) as manager:
            await manager.ping("a")
            server.script("tools/call", faults.Status(500))
            await failure_of(manager, "a", echo("x"))
            assert manager.flight_records() == []


async def test_an_opened_circuit_has_the_last_calls_written_down_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    url = f"http://127.0.0.1:{unused_port()}/mcp?key={SECRET}"
    async with McpManager() as manager:
        settings = {**CALM, "breaker": {"consecutive_failures": 2, "open_s": 60.0}, "retry": {"attempts": 1}}
        await manager.deploy("a", {"url": url, "headers": {"X-Key": SECRET}, "connect": "lazy", **settings})
        for _ in range(3):
            with pytest.raises(CallError):
                await manager.call_tool("a", "echo", {"text": SECRET})
        assert len(manager.flight_records()) == 3
    (record,) = [each for each in caplog.records if "last calls" in each.getMessage()]
    message = record.getMessage()
    assert message.startswith("server 'a': a circuit opened; its last calls: [")
    assert message.count('"connect_error"') == 2
    line = JsonFormatter().format(record)
    assert SECRET not in line
    # A log of JSON has them as members, not only as JSON in a text.
    calls = json.loads(line)["calls"]
    assert [each["error"] for each in calls] == ["ConnectError", "ConnectError"]
    assert json.loads(message.partition("last calls: ")[2]) == calls
