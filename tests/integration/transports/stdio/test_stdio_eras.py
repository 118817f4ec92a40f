"""Programs of both eras that crash, hang, are killed or talk nonsense: what their callers hear, and what comes after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import SWIFT, eventually
from support.children import is_gone
from support.processes import PROGRAMS

from mcp_manager import CallError, DeadlineExceededError, McpManager, ServerExitedError

WAIT_S = 15.0

pytestmark = pytest.mark.parametrize("era", ["handshake", "stateless"])


@contextlib.asynccontextmanager
async def deployed(era: str, *options: str, **settings: Any) -> AsyncIterator[McpManager]:
    config = {
        "command": sys.executable,
        "args": [str(PROGRAMS / "asking_stdio.py"), era, *options],
        **SWIFT,
        "connect_timeout_s": 15.0,
        **settings,
    }
    async with McpManager() as manager:
        await manager.deploy("a", config)
        yield manager


async def learned(manager: McpManager, tool: str, **arguments: Any) -> Any:
    result = await asyncio.wait_for(manager.call_tool("a", tool, arguments), WAIT_S)
    return result.structured_content


async def waiting_calls(manager: McpManager, count: int) -> list[asyncio.Task[Any]]:
    """Begin calls that are not answered, and return once the server has all of them."""
    calls = [asyncio.create_task(manager.call_tool("a", "nothing")) for _ in range(count)]
    async with asyncio.timeout(WAIT_S):
        while True:
            messages = (await learned(manager, "received"))["received"]
            names = [each["params"].get("name") for each in messages if each["method"] == "tools/call"]
            if names.count("nothing") == count:
                return calls


async def restarted(manager: McpManager, before: int) -> int:
    """Wait for another process, and return its number."""
    await eventually(lambda: bool(manager.server("a").pids) and manager.server("a").pids != (before,), "a restart")
    [after] = manager.server("a").pids
    await learned(manager, "received")
    return after


async def test_a_crash_fails_what_is_under_way_and_the_program_is_started_again(era: str, tmp_path: Path) -> None:
    log = tmp_path / "starts"
    async with deployed(era, f"start_log={log}") as manager:
        [before] = manager.server("a").pids
        calls = await waiting_calls(manager, 3)
        calls.append(asyncio.create_task(manager.call_tool("a", "exit")))
        errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), WAIT_S)
        assert [type(each) for each in errors] == [ServerExitedError] * 4
        assert {each.delivery for each in errors if isinstance(each, CallError)} == {"unknown"}
        after = await restarted(manager, before)
        assert log.read_text().split() == [str(before), str(after)]
        begins = [each["method"] for each in (await learned(manager, "received"))["received"]][:2]
        # One that was settled as stateless is asked again; one that was not begins with its handshake.
        assert begins[0] == ("server/discover" if era == "stateless" else "initialize")
        assert manager.server("a").faults == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_kill_from_outside_is_a_crash(era: str, number: signal.Signals) -> None:
    async with deployed(era) as manager:
        [before] = manager.server("a").pids
        [call] = await waiting_calls(manager, 1)
        os.kill(before, number)
        with pytest.raises(ServerExitedError, match=number.name) as caught:
            await asyncio.wait_for(call, WAIT_S)
        assert caught.value.delivery == "unknown"
        await restarted(manager, before)


async def test_a_halted_program_costs_its_callers_their_deadline_and_goes_on_after_it(era: str) -> None:
    async with deployed(era, health={"enabled": False}, breaker={"enabled": False}) as manager:
        [pid] = manager.server("a").pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeadlineExceededError) as caught:
            await manager.call_tool("a", "level", timeout=0.1)
        assert caught.value.delivery == "unknown"
        os.kill(pid, signal.SIGCONT)
        await learned(manager, "level")
        assert manager.server("a").pids == (pid,)
        assert manager.server("a").faults == {}


async def test_a_halted_program_can_be_stopped(era: str) -> None:
    async with deployed(era, shutdown_grace_s=0.05) as manager:
        [pid] = manager.server("a").pids
        os.kill(pid, signal.SIGSTOP)
        await asyncio.wait_for(manager.undeploy("a"), WAIT_S)
        assert is_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc to find it by")
@pytest.mark.parametrize("end", ["undeployed", "killed", "crashed"])
async def test_a_descendant_with_a_session_of_its_own_ends_with_the_program(era: str, end: str) -> None:
    async with deployed(era) as manager:
        [pid] = manager.server("a").pids
        descendant = (await learned(manager, "spawn"))["pid"]
        if end == "undeployed":
            await manager.undeploy("a")
        elif end == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            with pytest.raises(ServerExitedError):
                await learned(manager, "exit")
        await eventually(lambda: is_gone(descendant), "the end of the descendant")


async def test_what_a_program_says_wrong_is_shown_and_harms_no_call(era: str) -> None:
    async with deployed(era) as manager:
        before = (await learned(manager, "received"))["received"]
        for text in ("banner", "{", '{"jsonrpc":"2.0","id":123456,"result":{}}', "[]"):
            await learned(manager, "say", text=text)
        again = {"jsonrpc": "2.0", "id": before[0]["id"], "result": {"again": True}}
        await learned(manager, "say", text=json.dumps(again))
        assert manager.server("a").faults == {"a line that is not a message": 3, "a reply that nobody waits for": 2}


async def test_a_reply_beyond_the_limit_ends_the_program_and_is_told(era: str) -> None:
    async with deployed(era, max_response_bytes=100_000) as manager:
        [before] = manager.server("a").pids
        with pytest.raises(CallError, match="max_response_bytes"):
            await learned(manager, "say", text="x" * 100_001)
        await restarted(manager, before)


async def test_a_flood_of_stderr_delays_no_call(era: str) -> None:
    async with deployed(era) as manager:
        await learned(manager, "complain", times=300_000)
        await learned(manager, "level")
