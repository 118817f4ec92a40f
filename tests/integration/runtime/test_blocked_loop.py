"""Trouble of this side: a blocked loop and missing descriptors say nothing of any server."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, SWIFT, echo, eventually, text_of
from support.processes import scripted_stdio
from support.streams import HttpSseServer

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import ConnectError, DeadlineExceededError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

pytestmark = pytest.mark.both_loops

TIMEOUT_S = 0.8
BLOCK_S = 1.3
CALLS = 40
# Under which a few failures would open the circuit.
TOUCHY: dict[str, Any] = {**CALM, "breaker": {"enabled": True, "timeout_floor_s": 0.1, "open_s": 30.0}}


def block(seconds: float) -> None:
    """Do what keeps the loop from everything else."""
    time.sleep(seconds)


async def calls_over_a_block(manager: McpManager, held: faults.Hold | None, server: ScriptedServer) -> list[object]:
    """Make calls whose deadlines pass while the loop is blocked, and which are answered meanwhile; return what they meet."""
    calls = [asyncio.create_task(manager.execute_raw("a", echo(f"{n}"), timeout=TIMEOUT_S)) for n in range(CALLS)]
    await server.wait_for("tools/call", CALLS)
    if held is not None:
        held.release()
    block(BLOCK_S)
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.slow
async def test_replies_that_came_while_the_loop_was_blocked_are_late_and_no_failures() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **TOUCHY})
            held = faults.Hold()
            server.script("tools/call", *[held] * CALLS)
            outcomes = await calls_over_a_block(manager, held, server)
            late = [each for each in outcomes if isinstance(each, DeadlineExceededError)]
            assert len(late) == CALLS, outcomes
            # They are there: whoever called learns that his request was executed, and none is sent again.
            assert {each.delivery for each in late} == {"answered"}
            assert not any(each.retryable for each in late)
            assert len(server.requests_of("tools/call")) == CALLS
            assert manager.server("a").circuit == "Closed"
            assert text_of(await manager.execute_raw("a", echo("after"))) == "after"


@pytest.mark.slow
async def test_a_reply_over_stdio_that_came_while_the_loop_was_blocked_is_late_and_no_failure() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", scripted_stdio({"on": {"tools/call": [[]] * CALLS}}).config(**TOUCHY))
        calls = [asyncio.create_task(manager.execute_raw("a", echo(f"{n}"), timeout=TIMEOUT_S)) for n in range(CALLS)]
        await manager.ping("a")
        block(BLOCK_S)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, DeadlineExceededError) and each.is_local for each in outcomes), outcomes
        assert manager.server("a").circuit == "Closed"
        assert text_of(await manager.execute_raw("a", echo("after"))) == "after"


@pytest.mark.slow
async def test_a_silence_that_was_judged_after_a_block_is_no_failure() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **TOUCHY})
            server.script("tools/call", *[faults.Hold()] * CALLS)
            outcomes = await calls_over_a_block(manager, None, server)
            assert all(isinstance(each, DeadlineExceededError) and each.is_local for each in outcomes), outcomes
            assert manager.server("a").circuit == "Closed"
            server.script_always("tools/call", faults.Hold())
            # One that the loop was there to see is a failure as ever.
            calls = [manager.execute_raw("a", echo("x"), timeout=TIMEOUT_S) for _ in range(CALLS)]
            await asyncio.gather(*calls, return_exceptions=True)
            assert manager.server("a").circuit == "Open"


# Any failure opens the circuit.
FRAIL: dict[str, Any] = {**CALM, "breaker": {"enabled": True, "timeout_floor_s": 0.01, "consecutive_failures": 1}}


@contextlib.asynccontextmanager
async def silent(transport: str) -> AsyncIterator[McpManager]:
    """Have a server deployed that answers no call of a tool, and one call behind it."""
    with contextlib.ExitStack() as stack:
        if transport == "stdio":
            config = scripted_stdio({"on": {"tools/call": [[], []]}}).config(**FRAIL)
        elif transport == "sse":
            server = stack.enter_context(HttpSseServer())
            server.script_always("tools/call", Acknowledged())
            config = {"url": server.url, **FRAIL, "transport": "sse"}
        else:
            server = stack.enter_context(ScriptedServer())
            server.script_always("tools/call", faults.Hold())
            config = {"url": server.url, **FRAIL}
        async with McpManager(ManagerConfig(http_lanes=transport != "http without lanes")) as manager:
            await manager.deploy("a", config)
            await manager.ping("a")
            yield manager


class Acknowledged:
    """Take a message, and say nothing on the stream."""

    async def play(self, connection: Connection, _: Request | None) -> None:
        await connection.respond(202)


TRANSPORTS = pytest.mark.parametrize("transport", ["http", "http without lanes", "sse", "stdio"])


@TRANSPORTS
async def test_a_short_deadline_that_a_block_used_up_is_no_failure(transport: str) -> None:
    async with silent(transport) as manager:
        call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=0.06))
        # On its way, as the connection is there.
        for _ in range(3):
            await asyncio.sleep(0)
        block(0.2)
        with pytest.raises(DeadlineExceededError) as caught:
            await call
        assert caught.value.is_local
        assert "loop was blocked" in caught.value.hint
        assert manager.server("a").circuit == "Closed"


@pytest.mark.slow
@TRANSPORTS
async def test_a_deadline_that_a_block_before_its_end_used_up_is_no_failure(transport: str) -> None:
    async with silent(transport) as manager:
        call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=1.2))
        for _ in range(3):
            await asyncio.sleep(0)
        block(1.1)
        with pytest.raises(DeadlineExceededError) as caught:
            await call
        assert caught.value.is_local
        assert manager.server("a").circuit == "Closed"


@pytest.mark.slow
@TRANSPORTS
async def test_a_server_that_is_slow_beside_a_block_is_at_fault(transport: str) -> None:
    async with silent(transport) as manager:
        block(0.5)
        await asyncio.sleep(0)
        call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=2.0))
        await asyncio.sleep(1.85)
        # The end is seen late, by a seventh of the time: the server cannot be excused with that.
        block(0.3)
        with pytest.raises(DeadlineExceededError) as caught:
            await call
        assert not caught.value.is_local
        assert manager.server("a").circuit == "Open"


@pytest.mark.slow
async def test_a_session_that_is_made_while_the_loop_is_blocked_is_made() -> None:
    with ScriptedServer() as server:
        held = faults.Hold()
        server.script("initialize", held)
        async with McpManager() as manager:
            config = {"url": server.url, **SWIFT, "connect_timeout_s": 0.3, "start_timeout_s": 0.3}
            deploying = asyncio.create_task(manager.deploy("a", config))
            await server.wait_for("initialize")
            held.release()
            block(1.2)
            await deploying
            await eventually(lambda: manager.server("a").state == "Healthy", "the session")
            assert len(server.requests_of("initialize")) == 1


@pytest.mark.slow
async def test_a_blocked_loop_is_measured_shown_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with McpManager() as manager:
        for _ in range(2):
            # More than a measurement is apart from the next one.
            block(1.8)
            await eventually(lambda: "loop was blocked" in caplog.text, "the warning")
        view = manager.snapshot().loop_lag
        shown_ms = manager.health().loop_lag_ms
        later = manager.snapshot().loop_lag
        assert view is not None and later is not None
        assert view.longest_s > 1.0
        assert view.blocks >= 1
        # While the loop is late, each look finds it later than the one before.
        assert round(view.longest_s * 1e3) <= shown_ms <= round(later.longest_s * 1e3)
        assert 'mcp_loop_lag_seconds_bucket{le="+Inf"}' in manager.metrics_text()
    # At most once a minute.
    assert caplog.text.count("loop was blocked") == 1


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor that it has not already."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["stdio", "http", "name"])
async def test_a_lack_of_descriptors_says_nothing_of_a_server(transport: str) -> None:
    with ScriptedServer() as server:
        url = server.url.replace("127.0.0.1", "localhost") if transport == "name" else server.url
        config = scripted_stdio().config(**SWIFT) if transport == "stdio" else {"url": url, **SWIFT}
        config = {**config, "connect_timeout_s": 0.5, "retry": {"attempts": 1}}
        async with McpManager() as manager:
            # What is imported with its first use would need descriptors.
            await manager.deploy("before", {**config, "connect_timeout_s": 30})
        async with McpManager() as manager:
            with no_descriptors():
                await manager.deploy("a", config)
                told = False
                for _ in range(20):
                    with pytest.raises((ConnectError, DeadlineExceededError)) as caught:
                        await manager.execute_raw("a", echo("x"), timeout=0.05)
                    assert caught.value.delivery == "not_sent"
                    told |= caught.value.is_local and "ulimit -n" in caught.value.hint
                assert told
                view = manager.server("a")
                assert view.circuit == "Closed"
                assert view.state != "Unhealthy", view
            await eventually(lambda: manager.server("a").state == "Healthy", "a session after all")
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
