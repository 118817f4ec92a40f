"""Whoever starts, changes or stops a fleet may give up at any moment: nobody else is cancelled by it, and it can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo
from support.processes import scripted_stdio

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import McpManagerError
from mcp_manager.testing.scripted import ScriptedServer

pytestmark = pytest.mark.both_loops

# An operation goes on in fewer passes of the loop than this, or waits for the network.
PASSES = (0, 1, 2, 3, 4, 6, 9, 14, 22, 40)

Work = Callable[[McpManager, dict[str, Any]], Awaitable[Any]]

OPERATIONS: dict[str, Work] = {
    "deploy": lambda manager, config: manager.deploy("b", config),
    "undeploy": lambda manager, config: manager.undeploy("a"),
    "redeploy": lambda manager, config: manager.redeploy("a", {**config, "request_timeout_s": 7.0}),
    "scale": lambda manager, config: manager.scale("a", 3),
    "apply": lambda manager, config: manager.apply(
        ManagerConfig(servers={"a": {**config, "request_timeout_s": 7.0}, "b": config})
    ),
    "wait_ready": lambda manager, config: manager.wait_ready(timeout=5.0),
    "stop": lambda manager, config: manager.stop(),
}


@contextlib.contextmanager
def server_config(transport: str) -> Iterator[dict[str, Any]]:
    config = {**CALM, "shutdown_grace_s": 0.2, "drain_timeout_s": 0.2}
    if transport == "stdio":
        yield scripted_stdio().config(**config)
        return
    with ScriptedServer() as server:
        yield {"url": server.url, **config}


async def given_up(task: asyncio.Task[Any], passes: int) -> None:
    """Cancel a task after some passes of the loop, and wait for its end."""
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10.0):
        with contextlib.suppress(asyncio.CancelledError, McpManagerError):
            await task


async def assert_told(bystanders: list[asyncio.Task[Any]]) -> None:
    """Insist that each of these ends with what was asked for, or with an error of ours."""
    async with asyncio.timeout(10.0):
        outcomes = await asyncio.gather(*bystanders, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, McpManagerError | TimeoutError) or not isinstance(outcome, BaseException), outcomes


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_giving_up_an_operation_cancels_nobody_else(name: str, transport: str) -> None:
    with server_config(transport) as config:
        for passes in PASSES if transport == "http" else PASSES[1::4]:
            manager = McpManager(ManagerConfig(servers={"a": {**config, "connect": "lazy"}}))
            await manager.start()
            bystanders = [
                asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=5.0)),
                asyncio.create_task(manager.wait_ready(1, timeout=5.0)),
            ]
            await given_up(asyncio.ensure_future(OPERATIONS[name](manager, config)), passes)
            stops = [asyncio.create_task(manager.stop()) for _ in range(2)]
            await assert_told([*bystanders, *stops])
            await manager.stop()


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_giving_up_the_start_leaves_a_manager_that_can_be_stopped(transport: str) -> None:
    with server_config(transport) as config:
        for passes in PASSES if transport == "http" else PASSES[1::4]:
            manager = McpManager(ManagerConfig(servers={"a": config, "b": {**config, "connect": "lazy"}}))
            starting = asyncio.create_task(manager.start())
            await given_up(starting, passes)
            await assert_told([asyncio.create_task(manager.stop()) for _ in range(2)])


async def test_a_server_removed_while_it_is_scaled_leaves_no_work_that_nobody_awaits() -> None:
    with server_config("http") as config, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        manager = McpManager()
        await manager.start()
        for passes in range(6):
            await manager.deploy("a", config)
            scaling = asyncio.create_task(manager.scale("a", 3))
            for _ in range(passes):
                await asyncio.sleep(0)
            await assert_told([scaling, asyncio.create_task(manager.undeploy("a"))])
        await manager.stop()
        del scaling
        gc.collect()
    assert [str(each.message) for each in warned if issubclass(each.category, RuntimeWarning)] == []


async def test_giving_up_one_stop_cancels_no_other() -> None:
    with server_config("http") as config:
        for passes in PASSES:
            manager = McpManager(ManagerConfig(servers={"a": config, "b": config}))
            await manager.start()
            innocent = [asyncio.create_task(manager.stop()) for _ in range(2)]
            hasty = [asyncio.create_task(manager.stop()) for _ in range(2)]
            for each in hasty:
                await given_up(each, passes)
            await assert_told(innocent)
            await manager.stop()


async def test_whoever_cancels_everything_on_the_loop_leaves_nothing() -> None:
    with server_config("http") as config:
        for passes in PASSES:
            manager = McpManager(ManagerConfig(servers={"a": config}))
            before = asyncio.all_tasks()
            starting = asyncio.create_task(manager.start())
            for _ in range(passes):
                await asyncio.sleep(0)
            # What asyncio.run() does at its end, however far anything has come.
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.wait({*left, starting}, timeout=10.0)
            assert starting.done()
            await assert_told([asyncio.create_task(manager.stop())])
