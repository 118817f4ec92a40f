"""Programs that are slow to start: nobody kills them, nobody waits for them longer than asked, and they are told of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, SWIFT, echo, eventually, failure_of, text_of
from support.era_server import HANDSHAKE, STATELESS
from support.processes import StdioCommand, era_stdio, scripted_stdio

from mcp_manager import (
    ConnectError,
    DeadlineExceededError,
    ManagerConfig,
    McpManager,
    ServerExitedError,
    ServerState,
)
from mcp_manager.config import parse_server_config
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

# What waits for a start gives up at once; whatever comes up does so in spite of that.
BRIEF: dict[str, Any] = {**CALM, "connect_timeout_s": 0.05}
WAIT_S = 30.0


class Slow:
    """Programs that do not speak before they may."""

    def __init__(self, folder: Path) -> None:
        self._gate = folder / "gate"
        self._log = folder / "starts"
        self.messages = folder / "messages"
        self.start = [
            {"do": "note_start", "log": str(self._log)},
            {"do": "wait_for", "path": str(self._gate)},
        ]

    def program(self, **script: Any) -> StdioCommand:
        return scripted_stdio({"start": self.start, **script})

    def program_of(self, *speaks: str, **script: Any) -> StdioCommand:
        return era_stdio(self.messages, *speaks, start=self.start, **script)

    def let_go(self) -> None:
        self._gate.touch()

    def hold_back(self) -> None:
        self._gate.unlink()

    @property
    def starts(self) -> int:
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    yield Slow(tmp_path)


@pytest.mark.both_loops
async def test_a_slow_start_is_not_ended_and_a_call_waits_for_it(slow: Slow) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", slow.program().config(**BRIEF))
        await eventually(lambda: slow.starts == 1, "the start")
        assert (manager.server("a").state, manager.server("a").reasons) == (ServerState.INITIALIZING, ("starting",))
        assert manager.health().degraded_servers == manager.health().total_servers == 1
        call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=WAIT_S))
        await asyncio.sleep(0)
        slow.let_go()
        assert text_of(await call) == "x"
        assert manager.server("a").state is ServerState.HEALTHY
    assert slow.starts == 1


async def test_starting_a_manager_waits_no_longer_than_connecting_may_take(slow: Slow) -> None:
    server = parse_server_config(slow.program().config(**BRIEF), server_id="a")
    async with McpManager(ManagerConfig(servers={"a": server})) as manager:
        assert manager.server("a").state is ServerState.INITIALIZING
        slow.let_go()
        await manager.wait_ready(timeout=WAIT_S)
    assert slow.starts == 1


async def test_more_instances_start_at_once_and_nobody_waits_for_them(slow: Slow) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", slow.program().config(**BRIEF))
        await manager.scale("a", 3)
        # Each is asked for its era by itself: none of them waits for what another one answers.
        await eventually(lambda: slow.starts == 3, "three starts")
        slow.let_go()
        await eventually(lambda: manager.server("a").ready == 3, "three instances")
    assert slow.starts == 3


@pytest.mark.parametrize("strategy", ["blue_green", "rolling", "canary"])
async def test_a_slow_start_is_no_reason_to_roll_back(slow: Slow, strategy: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", scripted_stdio().config(**CALM))
        await eventually(lambda: manager.server("a").ready == 1, "the old instance")
        plan: dict[str, Any] = {"strategy": strategy, "canary_s": 0.05, "min_calls": 0}
        change = slow.program().config(**{**BRIEF, "priority": 7})
        replacing = asyncio.create_task(manager.redeploy("a", change, **plan))
        await eventually(lambda: slow.starts == 1, "the new instance")
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        slow.let_go()
        await replacing
        assert manager.server("a").priority == 7
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_a_fleet_is_applied_while_a_replacement_starts(slow: Slow) -> None:
    config = parse_server_config(slow.program().config(**{**BRIEF, "priority": 7}), server_id="a")
    async with McpManager() as manager:
        await manager.deploy("a", scripted_stdio().config(**CALM))
        await eventually(lambda: manager.server("a").ready == 1, "the old instance")
        applied = await manager.apply(ManagerConfig(servers={"a": config}))
        assert (applied.redeployed, applied.starting, applied.failed) == ((), ("a",), {})
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        slow.let_go()
        await eventually(lambda: manager.server("a").priority == 7, "the replacement")


async def test_a_slow_start_after_a_crash_is_not_ended(slow: Slow) -> None:
    async with McpManager() as manager:
        slow.let_go()
        program = slow.program(on={"tools/call": [[{"do": "exit"}]]})
        settings = {**SWIFT, "connect_timeout_s": 0.05, "breaker": {"enabled": False}}
        await manager.deploy("a", program.config(**settings))
        await eventually(lambda: manager.server("a").ready == 1, "the start")
        slow.hold_back()
        await failure_of(manager, "a", echo("x"))
        await eventually(lambda: slow.starts == 2, "the next start")
        assert manager.server("a").reasons == ("starting",)
        slow.let_go()
        await eventually(lambda: manager.server("a").ready == 1, "the return")
    assert slow.starts == 2


@pytest.mark.slow
async def test_a_start_that_runs_out_is_told_with_what_was_written_and_the_next_has_longer() -> None:
    prompt = [{"do": "stderr", "text": "npm warn\n"}, {"do": "raw", "text": "Need to install x\nOk to proceed? (y) "}]
    program = scripted_stdio({"start": [*prompt, {"do": "hang"}]})
    config = program.config(**{**CALM, "start_timeout_s": 0.7, "restart": {"initial_s": 0.01, "max_s": 0.02}})
    async with McpManager() as manager:
        await manager.deploy("a", config)
        error = await failure_of(manager, "a", echo("x"), timeout=WAIT_S)
        assert isinstance(error, ConnectError)
        assert "start_timeout_s (0.7 s" in error.message
        await eventually(lambda: "raised to 1.4 s" in str(manager.server("a").last_error), "a longer start")
        assert "its stderr ends: npm warn" in str(manager.server("a").last_error)
        assert "Ok to proceed? (y)" in str(manager.server("a").last_error)


async def test_a_call_that_gives_up_during_a_start_is_told_what_the_program_wrote() -> None:
    secret = "hunter2-hunter2"
    start = [{"do": "stderr", "text": f"API_KEY {secret} is not set\x1b[0m\n"}, {"do": "raw", "text": "."}]
    program = scripted_stdio({"start": [*start, {"do": "hang"}]})
    breaker = {"breaker": {"enabled": True, "consecutive_failures": 1, "timeout_floor_s": 0.0}}
    async with McpManager() as manager:
        await manager.deploy("a", program.config(**{**BRIEF, **breaker}, env={"API_KEY": secret}))
        await eventually(lambda: "API_KEY" in str(manager.server("a").last_error), "the complaint")
        for _ in range(3):
            # Nobody's circuit opens because a program is not up yet.
            error = await failure_of(manager, "a", echo("x"), timeout=0.05)
            assert isinstance(error, DeadlineExceededError)
            assert error.delivery == "not_sent"
            assert "still starting after" in error.message
            assert "API_KEY *** is not set;" in error.hint
        assert secret not in str(error) + str(manager.server("a").last_error)


async def test_half_a_credential_is_not_quoted_either() -> None:
    secret = "hunter2-hunter2"
    start = [{"do": "stderr", "text": f"using {secret[:9]}"}, {"do": "raw", "text": f"key {secret[:11]}"}]
    program = scripted_stdio({"start": [*start, {"do": "hang"}]})
    async with McpManager() as manager:
        await manager.deploy("a", program.config(**BRIEF, env={"API_KEY": secret}))
        await eventually(lambda: "its stdout ends: key" in str(manager.server("a").last_error), "both")
        assert "its stderr ends: using ***; its stdout ends: key ***" in str(manager.server("a").last_error)


async def test_a_program_that_dies_at_its_start_fails_at_once() -> None:
    program = scripted_stdio({"start": [{"do": "raw", "text": "Error: no such module\n"}, {"do": "exit", "code": 7}]})
    async with McpManager() as manager:
        await manager.deploy("a", program.config(**{**CALM, "connect_timeout_s": WAIT_S}))
        error = await failure_of(manager, "a", echo("x"), timeout=WAIT_S)
    assert isinstance(error, ServerExitedError)
    assert "exited with status 7" in error.message
    assert "Error: no such module" in error.hint


async def test_a_line_that_is_no_message_is_told_when_a_reply_does_not_come() -> None:
    program = scripted_stdio({"on": {"tools/call": [[{"do": "raw", "text": "Loading\n"}], [{"do": "nothing"}]]}})
    async with McpManager() as manager:
        await manager.deploy("a", program.config(**{**CALM, "connect_timeout_s": WAIT_S}))
        error = await failure_of(manager, "a", echo("x"), timeout=1.0)
        assert "a line that is not a message: Loading" in error.hint
        # What was written before a call is no news of it.
        error = await failure_of(manager, "a", echo("x"), timeout=0.2)
        assert error.hint == "pass a longer timeout="


@pytest.mark.slow
@pytest.mark.both_loops
async def test_programs_that_only_wait_keep_nobody_from_starting() -> None:
    waiting = scripted_stdio({"start": [{"do": "hang"}]})
    async with McpManager(ManagerConfig(start_concurrency=1)) as manager:
        for number in range(3):
            await manager.deploy(f"waits{number}", waiting.config(**BRIEF))
        await manager.deploy("a", scripted_stdio().config(**BRIEF))
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=WAIT_S)) == "x"


async def test_a_program_that_waits_for_its_turn_says_so() -> None:
    busy = StdioCommand("sh", "-c", "while :; do :; done")
    async with McpManager(ManagerConfig(start_concurrency=1)) as manager:
        await manager.deploy("busy", busy.config(**BRIEF))
        await manager.deploy("a", scripted_stdio().config(**BRIEF))
        error = await failure_of(manager, "a", echo("x"), timeout=0.05)
        assert "waiting for its turn" in error.message and "start_concurrency" in error.message
        await manager.undeploy("busy")
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=WAIT_S)) == "x"


# The era of a program that is not up yet


@pytest.mark.both_loops
async def test_a_late_answer_to_the_question_of_eras_counts(slow: Slow) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", slow.program_of(STATELESS, HANDSHAKE).config(**BRIEF))
        await eventually(lambda: slow.starts == 1, "the start")
        # Longer than the question waits before the program is greeted as well.
        await asyncio.sleep(0.2)
        slow.let_go()
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=WAIT_S)) == "x"
        assert manager.server("a").protocol_version == STATELESS
    assert '"initialize"' in slow.messages.read_text()


async def test_a_greeting_that_a_silent_program_takes_up_is_no_verdict(slow: Slow) -> None:
    slow.let_go()
    script = {"on": {"server/discover": [[{"do": "nothing"}]], "tools/call": [[{"do": "exit"}]]}}
    async with McpManager() as manager:
        config = slow.program_of(STATELESS, HANDSHAKE, **script).config(**{**SWIFT, "connect_timeout_s": 0.05})
        await manager.deploy("a", config)
        await eventually(lambda: manager.server("a").protocol_version == HANDSHAKE, "the handshake")
        await failure_of(manager, "a", echo("x"))
        await eventually(lambda: slow.starts == 2, "the next start")
        await eventually(lambda: slow.messages.read_text().count("server/discover") == 2, "the question, asked again")


@pytest.mark.parametrize("mode", ["stateless", STATELESS])
async def test_a_slow_program_of_a_forced_revision_is_waited_for(slow: Slow, mode: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", slow.program_of(STATELESS).config(**BRIEF, protocol_version=mode))
        await asyncio.sleep(0.1)
        slow.let_go()
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=WAIT_S)) == "x"


# A bridge that starts a program for every session


@pytest.mark.both_loops
async def test_a_handshake_that_is_answered_late_counts_and_a_call_gets_it() -> None:
    hold = faults.Hold()
    with ScriptedServer() as server:
        server.script("initialize", hold)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "connect_timeout_s": 0.1})
            assert manager.server("a").state is ServerState.UNHEALTHY
            hold.release()
            await eventually(lambda: manager.server("a").ready == 1, "the late answer")
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert len(server.requests_of("initialize")) == 1


@pytest.mark.both_loops
async def test_a_held_handshake_keeps_nobody_from_a_new_one() -> None:
    with ScriptedServer() as server:
        server.script("initialize", faults.Hold())
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "connect_timeout_s": 0.2})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            # Whose answer did not come is not waited for any more.
            await server.wait_until(lambda: server.open_connections <= 2)


async def test_dead_servers_keep_no_healthy_one_from_being_deployed() -> None:
    with ScriptedServer() as silent, ScriptedServer() as server:
        silent.script_always("initialize", faults.Hold())
        settings = {**CALM, "connect_timeout_s": WAIT_S, "protocol_version": "handshake"}
        async with McpManager(ManagerConfig(connect_concurrency=4, probe_concurrency=4)) as manager:
            dead = [asyncio.create_task(manager.deploy(f"d{n}", {"url": silent.url, **settings})) for n in range(40)]
            await eventually(lambda: len(silent.requests_of("initialize")) == 40, "forty attempts that only wait")
            await manager.deploy("a", {"url": server.url, **settings})
            assert manager.server("a").state is ServerState.HEALTHY
            assert not any(each.done() for each in dead)
            for each in dead:
                each.cancel()
            await asyncio.gather(*dead, return_exceptions=True)


async def test_dead_servers_keep_no_healthy_one_from_being_probed() -> None:
    with ScriptedServer() as silent, ScriptedServer() as server:
        silent.script("initialize", faults.Status(503))
        settings = {**SWIFT, "connect_timeout_s": WAIT_S, "protocol_version": "handshake"}
        async with McpManager(ManagerConfig(probe_concurrency=1)) as manager:
            await manager.deploy("dead", {"url": silent.url, **settings})
            silent.script_always("initialize", faults.Hold())
            await eventually(lambda: len(silent.requests_of("initialize")) == 2, "the attempt that is never answered")
            await manager.deploy("a", {"url": server.url, **settings})
            await eventually(lambda: len(server.requests_of("ping")) >= 2, "probes of the healthy one")
