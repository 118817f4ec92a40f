"""Limits end to end: what a server's overload does to the calls after it, and what callers wait for and are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.calls import deployed, echo, eventually, failure_of, text_of, tool_call

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError, DeadlineExceededError, OverloadedError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

ONE_TRY: dict[str, Any] = {"retry": {"attempts": 1}}


def calling(manager: McpManager, *texts: str, server_id: str = "a") -> list[asyncio.Task[bytes]]:
    return [asyncio.ensure_future(manager.execute_raw(server_id, echo(text), timeout=10.0)) for text in texts]


def waiting(manager: McpManager, server_id: str = "a") -> int:
    return manager._router.server(server_id).waiting


def called(server: ScriptedServer) -> list[str]:
    return [each.params["arguments"]["text"] for each in server.requests_of("tools/call")]


async def test_calls_above_a_servers_limit_are_sent_in_the_order_in_which_they_came() -> None:
    with ScriptedServer() as server:
        hold = faults.Hold()
        server.script("tools/call", hold)
        async with deployed(
            server, **ONE_TRY, limits={"max_concurrent": 1, "max_waiting": 3, "max_wait_s": 9.0}
        ) as manager:
            calls = calling(manager, "1", "2", "3", "4")
            await server.wait_for("tools/call")
            await eventually(lambda: waiting(manager) == 3, "waiting")
            error = await failure_of(manager, "a", echo("5"))
            assert isinstance(error, OverloadedError)
            assert (error.delivery, error.limit) == ("not_sent", "limits.max_concurrent")
            assert called(server) == ["1"]
            hold.release()
            assert [text_of(await call) for call in calls] == ["1", "2", "3", "4"]
            assert called(server) == ["1", "2", "3", "4"]
            assert waiting(manager) == 0


async def test_overload_limits_an_instance_until_it_answers_again() -> None:
    with ScriptedServer() as server:
        settings = {"initial": 1, "max_waiting": 1, "max_wait_s": 9.0}
        async with deployed(server, **ONE_TRY, limits=settings) as manager:
            server.script("tools/call", faults.Status(503))
            error = await failure_of(manager, "a", echo("refused"))
            assert isinstance(error, OverloadedError) and error.limit is None
            hold = faults.Hold()
            server.script("tools/call", hold)
            calls = calling(manager, "1", "2")
            await eventually(lambda: waiting(manager) == 1, "waiting")
            await server.wait_for("tools/call", 2)
            crowded = await failure_of(manager, "a", echo("3"))
            assert isinstance(crowded, OverloadedError) and crowded.limit == "limits.concurrency"
            hold.release()
            assert [text_of(await call) for call in calls] == ["1", "2"]
            assert called(server) == ["refused", "1", "2"]


async def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    with ScriptedServer() as server:
        async with deployed(server, **ONE_TRY) as manager:
            server.script("tools/call", faults.Status(429, {"Retry-After": "30"}))
            assert isinstance(await failure_of(manager, "a", echo("1")), OverloadedError)
            error = await failure_of(manager, "a", echo("2"))
            assert "asked for a pause" in str(error)
            assert error.retry_after_s is not None and 20.0 < error.retry_after_s <= 30.0
            assert called(server) == ["1"]


async def test_a_wait_ends_with_the_deadline_and_with_the_callers_patience() -> None:
    with ScriptedServer() as server:
        hold = faults.Hold()
        server.script("tools/call", hold)
        limits = {"max_concurrent": 1, "max_waiting": 9, "max_wait_s": 9.0}
        async with deployed(server, **ONE_TRY, limits=limits) as manager:
            (first,) = calling(manager, "1")
            await server.wait_for("tools/call")
            error = await failure_of(manager, "a", echo("2"), timeout=0.05)
            assert isinstance(error, DeadlineExceededError) and error.delivery == "not_sent"
            impatient, patient = calling(manager, "3", "4")
            await eventually(lambda: waiting(manager) == 2, "waiting")
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            hold.release()
            assert [text_of(await each) for each in (first, patient)] == ["1", "4"]
            assert called(server) == ["1", "4"]


async def test_all_servers_together_have_a_limit() -> None:
    with ScriptedServer() as server, ScriptedServer() as other:
        hold = faults.Hold()
        server.script("tools/call", hold)
        async with deployed(
            server, ManagerConfig(max_concurrent=1, max_waiting=1, max_wait_s=9.0), **ONE_TRY
        ) as manager:
            await manager.deploy("b", {"url": other.url, "health": {"enabled": False}})
            (first,) = calling(manager, "1")
            await server.wait_for("tools/call")
            (second,) = calling(manager, "2", server_id="b")
            await eventually(lambda: waiting(manager, "b") == 1, "waiting")
            error = await failure_of(manager, "b", echo("3"))
            assert isinstance(error, OverloadedError) and error.limit == "max_concurrent"
            hold.release()
            assert [text_of(await each) for each in (first, second)] == ["1", "2"]


async def test_rates_hold_for_a_server_and_for_a_tool() -> None:
    with ScriptedServer() as server:
        limits = {"rate": {"rate": 0.001, "burst": 3}, "tools": {"echo": {"rate": 0.01, "burst": 2}}}
        async with deployed(server, **ONE_TRY, limits=limits) as manager:
            for text in ("1", "2"):
                await manager.execute_raw("a", echo(text))
            error = await failure_of(manager, "a", echo("3"))
            assert isinstance(error, OverloadedError) and error.limit == "limits.tools"
            assert error.retry_after_s is not None and 50.0 < error.retry_after_s <= 100.0
            # Another tool is let through, to the server's own rate.
            await manager.execute_raw("a", tool_call("other", {"text": "4"}))
            whole = await failure_of(manager, "a", tool_call("other", {"text": "5"}))
            assert isinstance(whole, OverloadedError) and whole.limit == "limits.rate"
            assert called(server) == ["1", "2", "4"]
            assert 'status="overloaded"} 2' in manager.metrics_text()


async def test_those_who_wait_learn_that_their_server_is_removed() -> None:
    with ScriptedServer() as server:
        server.script("tools/call", faults.Hold())
        limits = {"max_concurrent": 1, "max_waiting": 9, "max_wait_s": 9.0}
        async with deployed(server, **ONE_TRY, limits=limits) as manager:
            first, second = calling(manager, "1", "2")
            await server.wait_for("tools/call")
            await eventually(lambda: waiting(manager) == 1, "waiting")
            removal = asyncio.ensure_future(manager.undeploy("a"))
            with pytest.raises(CallError, match="the server is being stopped"):
                await second
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await removal
            assert called(server) == ["1"]


async def test_notifications_keep_to_the_limit_as_well() -> None:
    with ScriptedServer() as server:
        hold = faults.Hold()
        server.script("tools/call", hold)
        limits = {"max_concurrent": 1, "max_waiting": 1, "max_wait_s": 9.0}
        async with deployed(server, **ONE_TRY, limits=limits) as manager:
            (first,) = calling(manager, "1")
            await server.wait_for("tools/call")
            note = json.dumps({"method": "notifications/roots/list_changed"}).encode()
            noted = asyncio.ensure_future(manager.execute_raw("a", note))
            await eventually(lambda: waiting(manager) == 1, "waiting")
            assert not server.requests_of("notifications/roots/list_changed")
            hold.release()
            await asyncio.gather(first, noted)
            await server.wait_for("notifications/roots/list_changed")
