"""What statuses without a usable reply mean: what was executed, and whether to try again."""

from __future__ import annotations

from typing import Any

import pytest
from support.calls import CALM, deployed, echo, failure_of, text_of

from mcp_manager import ManagerConfig, McpManager, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

TWICE: dict[str, Any] = {"retry": {"attempts": 2, "backoff_s": 0.001, "backoff_max_s": 0.001}}


@pytest.fixture(params=[True, False], ids=["lanes", "ordinary"])
def config(request: pytest.FixtureRequest) -> ManagerConfig:
    return ManagerConfig(http_lanes=request.param)


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
async def test_only_a_redirect_is_called_one(config: ManagerConfig, status: int) -> None:
    with ScriptedServer() as server:
        async with deployed(server, config) as manager:
            server.script("tools/call", faults.Status(status, {"Location": "http://other.test/"}))
            error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ProtocolError)
    assert "redirect" not in str(error)
    assert f"HTTP {status}" in error.message
    assert (error.http_status, error.retryable) == (status, False)


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_is_not_followed_says_where_it_leads(config: ManagerConfig, status: int) -> None:
    with ScriptedServer() as server:
        async with deployed(server, config) as manager:
            server.script("tools/call", faults.Status(status, {"Location": "http://other.test/"}))
            error = await failure_of(manager, "a", echo("x"))
    assert "redirects" in error.message
    assert "http://other.test" in error.message
    assert error.delivery == "rejected"


@pytest.mark.parametrize(("status", "delivery"), [(408, "unknown"), (425, "rejected")])
async def test_what_is_only_too_late_or_too_early_may_be_tried_again(
    config: ManagerConfig, status: int, delivery: str
) -> None:
    with ScriptedServer() as server:
        async with deployed(server, config) as manager:
            server.script("tools/call", faults.Status(status))
            error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ProtocolError)
    assert (error.http_status, error.retryable, error.delivery) == (status, True, delivery)


async def test_a_call_is_repeated_where_nothing_was_executed(config: ManagerConfig) -> None:
    with ScriptedServer() as server:
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, **TWICE})
            server.script("tools/call", faults.Status(425))
            assert text_of(await manager.execute_raw("a", echo("early"))) == "early"
            server.script("tools/list", faults.Status(408))
            assert [each.name for each in await manager.list_tools("a")] == ["echo"]
            server.script("tools/call", faults.Status(408))
            # It may have been executed, and must not be twice.
            assert isinstance(await failure_of(manager, "a", echo("late")), ProtocolError)
            assert server.executed == ["early"]
