"""How a program is spoken to is found out by a probe, and a program that cannot stand one is greeted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, SWIFT, echo, eventually, failure_of, text_of
from support.era_server import HANDSHAKE, META, STATELESS
from support.processes import era_stdio

from mcp_manager import McpManager
from mcp_manager.errors import DeadlineExceededError, ProtocolError

SETTINGS: dict[str, Any] = {**CALM, "connect_timeout_s": 10.0, "restart": {"initial_s": 0.05, "max_s": 0.1}}
NEVER = {"do": "nothing"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def received(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def methods(log: Path) -> list[str]:
    return [message.get("method", "") for message in received(log)]


async def test_a_stateless_program_is_never_greeted(log: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, STATELESS).config(**SETTINGS))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert manager.server("s").protocol_version == STATELESS
    assert methods(log) == ["server/discover", "tools/call"]
    for message in received(log):
        assert message["params"]["_meta"][META + "protocolVersion"] == STATELESS


async def test_a_program_of_before_is_greeted_after_any_error(log: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE).config(**SETTINGS))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert manager.server("s").protocol_version == HANDSHAKE
    assert methods(log) == ["server/discover", "initialize", "notifications/initialized", "tools/call"]


async def test_a_program_that_answers_anything_is_greeted(log: Path) -> None:
    script = {"on": {"server/discover": [[{"do": "empty"}]]}}
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE, **script).config(**SETTINGS))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert manager.server("s").faults == {"a malformed result of server/discover": 1}


@pytest.mark.slow
async def test_a_program_that_does_not_answer_the_probe_is_greeted_in_time(log: Path) -> None:
    script = {"on": {"server/discover": [[NEVER]]}}
    async with McpManager() as manager:
        settings = {**SETTINGS, "connect_timeout_s": 3.0}
        await manager.deploy("s", era_stdio(log, HANDSHAKE, **script).config(**settings))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert methods(log) == ["server/discover", "initialize", "notifications/initialized", "tools/call"]


@pytest.mark.slow
async def test_a_program_that_answers_the_probe_late_and_knows_no_handshake_is_asked_again(log: Path) -> None:
    script = {"on": {"server/discover": [[NEVER]]}}
    async with McpManager() as manager:
        settings = {**SETTINGS, "connect_timeout_s": 4.0}
        await manager.deploy("s", era_stdio(log, STATELESS, **script).config(**settings))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert manager.server("s").protocol_version == STATELESS
    assert methods(log) == ["server/discover", "initialize", "server/discover", "tools/call"]


async def test_a_program_that_dies_of_the_probe_gets_none_again(log: Path) -> None:
    script = {"on": {"server/discover": [[{"do": "exit"}]], "tools/call": [[{"do": "exit"}]]}}
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE, **script).config(**SWIFT, connect_timeout_s=10.0))
        assert manager.server("s").protocol_version == HANDSHAKE
        await failure_of(manager, "s", echo("x"))
        await eventually(lambda: methods(log).count("notifications/initialized") == 2, "the next start")
    assert methods(log).count("server/discover") == 1
    assert methods(log).count("initialize") == 2


async def test_instances_of_one_program_share_the_verdict_that_it_wants_a_handshake(log: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE).config(**SETTINGS))
        await manager.scale("s", 3)
        await manager.wait_ready(min=1)
        await eventually(lambda: manager.server("s").ready == 3, "three instances")
    assert methods(log).count("server/discover") == 1
    assert methods(log).count("initialize") == 3


async def test_a_revision_that_was_refused_and_named_is_asked_for_again(log: Path) -> None:
    refused = {"do": "refuse", "code": -32022, "data": {"supported": [STATELESS]}}
    script = {"on": {"server/discover": [[refused]], "tools/call": [[refused]]}}
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, STATELESS, **script).config(**SETTINGS))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert methods(log) == ["server/discover", "server/discover", "tools/call", "tools/call"]


@pytest.mark.parametrize("mode", ["stateless", STATELESS])
async def test_a_forced_stateless_revision_is_never_given_up(log: Path, mode: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE).config(**SETTINGS, protocol_version=mode))
        error = await failure_of(manager, "s", echo("x"))
        assert isinstance(error, ProtocolError) or "does not speak" in str(error)
    assert "initialize" not in methods(log)


@pytest.mark.parametrize("mode", ["handshake", HANDSHAKE])
async def test_a_forced_handshake_asks_nothing_first(log: Path, mode: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, HANDSHAKE, STATELESS).config(**SETTINGS, protocol_version=mode))
        assert manager.server("s").protocol_version == HANDSHAKE
    assert methods(log)[0] == "initialize"


@pytest.mark.parametrize("speaks", [HANDSHAKE, STATELESS])
async def test_a_call_given_up_is_cancelled_by_a_notification(log: Path, speaks: str) -> None:
    script = {"on": {"tools/call": [[NEVER], [NEVER]]}}
    async with McpManager() as manager:
        await manager.deploy("s", era_stdio(log, speaks, **script).config(**SETTINGS))
        error = await failure_of(manager, "s", echo("late"), timeout=0.3)
        assert isinstance(error, DeadlineExceededError) and error.delivery == "unknown"
        call = asyncio.create_task(manager.execute_raw("s", echo("cancelled")))
        await eventually(lambda: methods(log).count("tools/call") == 2, "the call")
        call.cancel()
        await eventually(lambda: methods(log).count("notifications/cancelled") == 2, "the cancellations")
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    calls = [message["id"] for message in received(log) if message.get("method") == "tools/call"]
    ended = [each["params"]["requestId"] for each in received(log) if each.get("method") == "notifications/cancelled"]
    assert ended == calls[:2]
