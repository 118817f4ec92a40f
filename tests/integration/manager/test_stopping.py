"""Stopping ends what is on its way in or out as well: nothing survives it."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import psutil
import pytest
from support.calls import CALM, eventually
from support.processes import scripted_stdio

from mcp_manager import ConnectError, ManagerConfig, McpManager
from mcp_manager.testing.faults import Status
from mcp_manager.testing.scripted import ScriptedServer

# Takes no notice of the end of its input, nor of SIGTERM.
STUBBORN = scripted_stdio({"start": [{"do": "ignore_end"}]})
DEMO = ("-P", "-m", "mcp_manager.cli.demo_servers.stdio_server")
SILENT = {"command": sys.executable, "args": ["-c", "import time; time.sleep(3600)"]}


def living() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


async def deployed(**settings: Any) -> McpManager:
    manager = McpManager()
    await manager.start()
    await manager.deploy("a", STUBBORN.config(**settings))
    return manager


async def one_more_than(before: set[int]) -> None:
    await eventually(lambda: bool(living() - before), "another program is started")


async def test_stopping_during_an_undeployment_waits_for_it() -> None:
    before = living()
    manager = await deployed(shutdown_grace_s=0.2)
    undeploying = asyncio.create_task(manager.undeploy("a"))
    await eventually(lambda: not manager.servers(), "the undeployment has begun")
    await manager.stop()
    assert living() <= before
    await undeploying


async def test_stopping_in_a_hurry_hurries_an_undeployment() -> None:
    before = living()
    manager = await deployed(shutdown_grace_s=3600.0)
    undeploying = asyncio.create_task(manager.undeploy("a"))
    await eventually(lambda: not manager.servers(), "the undeployment has begun")
    stopping = asyncio.create_task(manager.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert living() <= before
    await undeploying


async def test_stopping_during_a_replacement_ends_the_new_one_too() -> None:
    before = living()
    manager = await deployed(shutdown_grace_s=0.2)
    replacing = asyncio.create_task(manager.redeploy("a", {**SILENT, "connect_timeout_s": 60.0}))
    await one_more_than(before | living())
    await manager.stop()
    assert living() <= before
    with pytest.raises(ConnectError, match="being stopped"):
        await replacing


async def test_stopping_during_a_replacement_ends_the_old_one_too() -> None:
    before = living()
    manager = await deployed(shutdown_grace_s=0.5)
    old = manager.server("a").pids
    # The new one ends at once.
    replacing = asyncio.create_task(manager.redeploy("a", {"command": sys.executable, "args": list(DEMO)}))
    await eventually(lambda: manager.server("a").pids not in ((), old), "the new one has taken over")
    await manager.stop()
    assert living() <= before
    await replacing


async def test_whoever_stops_and_whoever_undeploys_both_learn_that_the_last_call_is_over() -> None:
    manager = McpManager(ManagerConfig(shutdown_timeout_s=60.0))
    await manager.start()
    await manager.deploy("a", {"command": sys.executable, "args": list(DEMO), "shutdown_grace_s": 60.0})
    slow = asyncio.create_task(manager.call_tool("a", "sleep", {"seconds": 0.3}))
    await manager.ping("a")
    undeploying = asyncio.create_task(manager.undeploy("a"))
    await eventually(lambda: not manager.servers(), "the undeployment has begun")
    await asyncio.wait_for(asyncio.gather(manager.stop(), undeploying), 30.0)
    assert not (await slow).is_error


@pytest.mark.both_loops
@pytest.mark.parametrize("is_undeployed", [True, False])
async def test_a_look_up_of_a_name_that_hangs_is_not_waited_for(
    is_undeployed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, released = threading.Event(), threading.Event()

    async def hangs(*_: Any, **__: Any) -> Any:
        asked.set()
        return await asyncio.get_running_loop().run_in_executor(None, released.wait)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs, raising=False)
    try:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": "http://slow.example.test:9/mcp", **CALM, "connect": "lazy"})
            failing = asyncio.create_task(manager.list_tools("a", timeout=60.0))
            await eventually(asked.is_set, "the name is looked up")
            await (manager.undeploy("a") if is_undeployed else manager.stop())
            with pytest.raises(ConnectError, match="being stopped"):
                await failing
        assert not released.is_set()
    finally:
        released.set()


async def test_a_call_in_a_pause_goes_on_with_the_configuration_that_took_over() -> None:
    with ScriptedServer() as old, ScriptedServer() as new:
        old.script_always("tools/call", Status(503, {"Retry-After": "1"}))
        async with McpManager() as manager:
            retry = {"attempts": 2, "tools": {"echo": "safe"}}
            await manager.deploy("a", {"url": old.url, **CALM, "retry": retry})
            calling = asyncio.create_task(manager.call_tool("a", "echo", {"text": "x"}, timeout=30.0))
            await old.wait_for("tools/call")
            await manager.redeploy("a", {"url": new.url, **CALM, "retry": retry})
            assert (await calling).text == "x"
        assert len(old.requests_of("tools/call")) == len(new.requests_of("tools/call")) == 1
