"""Callers together with other parts: tool rules, settings that change in place, and events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.calls import CALM, deployed, eventually
from support.era_server import Response
from support.guarded import ALICE, BOB, OWN, TOKENS, GuardedServer, who

from mcp_manager import (
    ManagerConfig,
    McpManager,
    ServerConfig,
    SessionLost,
    SessionReplaced,
    ToolNotAllowedError,
)
from mcp_manager.config import parse_server_config
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import Request


def config_of(server: GuardedServer, **changes: Any) -> ServerConfig:
    return parse_server_config({"url": server.url, **CALM, **OWN, **changes}, server_id="a")


async def apply(manager: McpManager, server: GuardedServer, **changes: Any) -> None:
    applied = await manager.apply(ManagerConfig(servers={"a": config_of(server, **changes)}))
    assert applied.updated == ("a",)


async def test_tool_rules_hold_for_callers() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, tools={"deny": ["echo"]}, **OWN) as manager:
            with pytest.raises(ToolNotAllowedError):
                await who(manager, ALICE)
            assert "echo" not in [tool.name for tool in await manager.for_caller(ALICE).list_tools("a")]
            assert server.requests_of("tools/call") == []


async def test_rules_that_change_in_place_hold_on_the_sessions_of_callers() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            assert await who(manager, ALICE) == "Bearer alice"
            await apply(manager, server, tools={"deny": ["echo"]})
            for caller in (ALICE, BOB, None):
                with pytest.raises(ToolNotAllowedError):
                    await who(manager, caller)
            await apply(manager, server)
            assert await who(manager, ALICE) == "Bearer alice"
            # The session of the server itself, and one of Alice.
            assert len(server.requests_of("initialize")) == 2


async def test_a_time_limit_that_changes_in_place_holds_for_the_sessions_of_callers() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, caller_idle_s=600, **OWN) as manager:
            await who(manager, ALICE)
            await apply(manager, server, caller_idle_s=0.05)
            await who(manager, BOB)
            await eventually(lambda: len(server.live_sessions) == 1, "the end of the idle sessions")
            assert await who(manager, ALICE) == "Bearer alice"


async def test_sessions_of_callers_come_and_go_without_events() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager, manager.events(kinds=(SessionLost, SessionReplaced)) as events:
            await who(manager, ALICE)
            (lost,) = [each for each, seen in server.seen.items() if seen == {"Bearer alice"}]
            server._live_sessions.discard(lost)
            assert await who(manager, ALICE) == "Bearer alice"
            (own,) = [each for each, seen in server.seen.items() if seen == {"Bearer own-token"}]
            server._live_sessions.discard(own)
            assert await who(manager, None) == "Bearer own-token"
            await eventually(lambda: len(server.requests_of("initialize")) == 4, "the new sessions")
            kinds = [type(await anext(events)).__name__ for _ in range(2)]
            assert kinds == ["SessionLost", "SessionReplaced"]


async def test_what_a_caller_is_shown_says_nothing_of_the_rules(caplog: pytest.LogCaptureFixture) -> None:
    class Server(GuardedServer):
        """Show one of its tools to its own credential alone."""

        def answer(self, request: Request) -> Response:
            status, headers, reply = super().answer(request)
            if request.method == "tools/list" and reply is not None:
                is_own = request.headers.get("authorization") == "Bearer own-token"
                shown = [{"name": each, "inputSchema": {"type": "object"}} for each in ("echo", "admin")[: 1 + is_own]]
                reply = {**reply, "result": {"tools": shown}}
            return status, headers, reply

    with Server(TOKENS) as server:
        async with deployed(server, tools={"deny": ["admin", "never"]}, **OWN) as manager:
            assert [each.name for each in await manager.for_caller(ALICE).list_tools("a")] == ["echo"]
            assert not any("matches" in each.getMessage() for each in caplog.records)
            assert [each.name for each in await manager.list_tools("a")] == ["echo"]
            (told,) = [each.getMessage() for each in caplog.records if "matches" in each.getMessage()]
            assert "never" in told
            assert "admin" not in told


async def test_sessions_of_callers_of_a_removed_server_do_not_count_for_the_next() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, max_caller_sessions=1, **OWN) as manager:
            hold = Hold()
            await who(manager, ALICE)
            server.script("tools/call", hold)
            slow = asyncio.create_task(who(manager, ALICE, timeout=30))
            await server.wait_for("tools/call", 2)
            removal = asyncio.create_task(manager.undeploy("a"))
            await eventually(lambda: manager.servers() == [], "the removal")
            await manager.deploy("a", {"url": server.url, **CALM, **OWN, "max_caller_sessions": 1})
            assert await who(manager, BOB) == "Bearer bob"
            hold.release()
            await asyncio.gather(slow, removal, return_exceptions=True)
            assert await who(manager, BOB) == "Bearer bob"
