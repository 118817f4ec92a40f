"""Callers together with other parts: tool rules, settings that change in place, and events."""

from __future__ import annotations

from typing import Any

import pytest
from support.calls import CALM, deployed, eventually
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
