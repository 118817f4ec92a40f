"""Calls with a key: one session for all of them, and what their caller learns when that is gone."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest
from support.calls import CALM, deployed, echo
from support.stateless_server import StatelessServer

from mcp_manager import InvalidRequestError, ManagerConfig, McpManager, PyMcpManager, SessionLostError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

KEYS = [f"caller-{number}" for number in range(12)]


def sessions_by_text(server: ScriptedServer) -> dict[str, set[str]]:
    """In which sessions each text was echoed."""
    found: dict[str, set[str]] = defaultdict(set)
    for request in server.requests_of("tools/call"):
        found[request.params["arguments"]["text"]].add(request.headers["mcp-session-id"])
    return found


def balancing(affinity: str, **more: Any) -> dict[str, Any]:
    return {"instances": 4, "balancing": {"affinity": affinity, **more}}


@pytest.mark.parametrize("policy", ["p2c", "consistent"])
@pytest.mark.parametrize("affinity", ["soft", "hard"])
async def test_all_calls_of_a_key_go_to_one_session(affinity: str, policy: str) -> None:
    with ScriptedServer() as server:
        async with deployed(server, **balancing(affinity, policy=policy)) as manager:
            for _ in range(5):
                await asyncio.gather(*(manager.call_tool("a", "echo", {"text": key}, key=key) for key in KEYS))
            await manager.execute_raw("a", echo(KEYS[0]), key=KEYS[0])
            await manager.execute_text("a", echo(KEYS[1]).decode(), key=KEYS[1])
            await manager.request("a", "tools/call", {"name": "echo", "arguments": {"text": KEYS[2]}}, key=KEYS[2])
        found = sessions_by_text(server)
    assert {len(sessions) for sessions in found.values()} == {1}
    assert len(set().union(*found.values())) > 1


async def test_without_affinity_the_policy_alone_decides() -> None:
    with ScriptedServer() as server:
        async with deployed(server, **balancing("none", policy="round_robin")) as manager:
            for _ in range(8):
                await manager.call_tool("a", "echo", {"text": "x"}, key="x")
        assert len(sessions_by_text(server)["x"]) == 4
        async with deployed(server, **balancing("none", policy="consistent")) as manager:
            for _ in range(8):
                await manager.call_tool("a", "echo", {"text": "y"}, key="y")
        assert len(sessions_by_text(server)["y"]) == 1


async def test_a_lost_session_is_told_once_where_affinity_is_hard() -> None:
    with ScriptedServer() as server:
        breaker = {"breaker": {"consecutive_failures": 1, "open_s": 60.0}}
        async with deployed(server, **balancing("hard"), **breaker) as manager:
            await manager.call_tool("a", "echo", {"text": "before"}, key="k")
            expired = server.live_sessions
            server.expire_sessions()
            with pytest.raises(SessionLostError) as lost:
                await manager.call_tool("a", "echo", {"text": "refused"}, key="k")
            assert (lost.value.delivery, lost.value.retryable, lost.value.server_id) == ("rejected", False, "a")
            assert manager.flight_records()[-1].circuit == "Closed"
            await manager.call_tool("a", "echo", {"text": "after"}, key="k")
            await manager.call_tool("a", "echo", {"text": "after"}, key="k")
        assert server.executed == ["before", "after", "after"]
        # In that of another instance, in which the key had nothing to lose, the first of them was refused.
        assert len(sessions_by_text(server)["after"] - expired) == 1


async def test_another_call_that_had_the_session_replaced_does_not_hide_its_loss() -> None:
    with ScriptedServer() as server:
        async with deployed(server, **{**balancing("hard"), "instances": 1}) as manager:
            await manager.call_tool("a", "echo", {"text": "before"}, key="k")
            server.expire_sessions()
            await manager.call_tool("a", "echo", {"text": "without a key"})
            with pytest.raises(SessionLostError) as lost:
                await manager.call_tool("a", "echo", {"text": "refused"}, key="k")
            assert lost.value.delivery == "not_sent"
            await manager.call_tool("a", "echo", {"text": "after"}, key="k")
        assert server.executed == ["before", "without a key", "after"]


async def test_a_lost_session_is_replaced_where_affinity_is_soft() -> None:
    with ScriptedServer() as server:
        async with deployed(server, **balancing("soft")) as manager:
            await manager.call_tool("a", "echo", {"text": "before"}, key="k")
            server.expire_sessions()
            for _ in range(3):
                await manager.call_tool("a", "echo", {"text": "after"}, key="k")
        assert server.executed == ["before", "after", "after", "after"]
        # The first of them was refused in the old session.
        assert len(sessions_by_text(server)["after"] - sessions_by_text(server)["before"]) == 1


@pytest.mark.parametrize("affinity", ["soft", "hard"])
@pytest.mark.parametrize("how", ["scale", "redeploy"])
async def test_an_instance_that_goes_takes_its_keys_with_it(affinity: str, how: str) -> None:
    with ScriptedServer() as server:
        async with deployed(server, **balancing(affinity)) as manager:
            for key in KEYS:
                await manager.call_tool("a", "echo", {"text": key}, key=key)
            if how == "scale":
                await manager.scale("a", 1)
            else:
                await manager.redeploy("a", {"url": server.url, "name": "new", **CALM, **balancing(affinity)})
            lost = 0
            for key in KEYS:
                try:
                    await manager.call_tool("a", "echo", {"text": f"{key} again"}, key=key)
                except SessionLostError:
                    lost += 1
                    await manager.call_tool("a", "echo", {"text": f"{key} again"}, key=key)
    before = {key: sessions for key, sessions in sessions_by_text(server).items() if not key.endswith("again")}
    kept = 0 if how == "redeploy" else sum("session-1" in sessions for sessions in before.values())
    assert lost == (len(KEYS) - kept if affinity == "hard" else 0)


async def test_of_an_open_circuit_soft_affinity_takes_another_and_hard_waits() -> None:
    with ScriptedServer() as server:
        for affinity in ("soft", "hard"):
            breaker = {"breaker": {"consecutive_failures": 1, "open_s": 60.0}}
            async with deployed(server, **balancing(affinity), **breaker) as manager:
                await manager.call_tool("a", "echo", {"text": affinity}, key="k")
                server.script("tools/call", faults.Status(500))
                with pytest.raises(Exception, match="500"):
                    await manager.call_tool("a", "echo", {"text": "fails"}, key="k")
                if affinity == "soft":
                    await manager.call_tool("a", "echo", {"text": "elsewhere"}, key="k")
                else:
                    with pytest.raises(Exception, match="circuit is open"):
                        await manager.call_tool("a", "echo", {"text": "elsewhere"}, key="k")
        found = sessions_by_text(server)
    assert found["elsewhere"].isdisjoint(found["soft"])
    assert server.executed.count("elsewhere") == 1


async def test_a_server_that_keeps_no_sessions_is_balanced_as_ever() -> None:
    with StatelessServer() as server:
        async with McpManager() as manager:
            settings = balancing("hard", policy="round_robin")
            await manager.deploy("a", {"url": server.url, **CALM, **settings})
            for _ in range(8):
                await manager.call_tool("a", "echo", {"text": "x"}, key="k")
            taken = {record.instance for record in manager.flight_records() if record.method == "tools/call"}
            await manager.redeploy("a", {"url": server.url, "name": "new", **CALM, **settings})
            await manager.call_tool("a", "echo", {"text": "x"}, key="k")
    assert taken == {0, 1, 2, 3}


async def test_a_lazy_server_is_pinned_with_its_first_session() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, "connect": "lazy", **CALM, **balancing("hard")})
            await asyncio.gather(*(manager.call_tool("a", "echo", {"text": "k"}, key="k") for _ in range(5)))
            await manager.call_tool("a", "echo", {"text": "k"}, key="k")
        assert len(sessions_by_text(server)["k"]) == 1


def test_the_bindings_take_a_key() -> None:
    with ScriptedServer() as server:
        config = ManagerConfig()
        assert config.flight_records
        with PyMcpManager() as manager:
            manager.deploy_server("a", json.dumps({"url": server.url, **CALM, **balancing("soft")}))
            for _ in range(6):
                manager.execute("a", echo("k").decode(), key="k")
        assert len(sessions_by_text(server)["k"]) == 1


async def test_a_key_is_a_string() -> None:
    with ScriptedServer() as server:
        async with deployed(server, **balancing("soft")) as manager:
            with pytest.raises(InvalidRequestError, match="key must be a string, not int"):
                await manager.call_tool("a", "echo", {"text": "x"}, key=7)  # type: ignore[arg-type]
            assert server.executed == []
