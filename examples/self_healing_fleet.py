"""A self-healing fleet: it is killed, scaled and replaced while callers use it all the time. It runs without arguments.

The exit status is 0 only if every call was answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from mcp_manager import CallError, McpManager

SERVER_ID = "workers"
CALLERS = 4
PAUSE_S = 0.005
PATIENCE_S = 20.0


def workers(release: str) -> dict[str, Any]:
    """Return the server's configuration: four processes of the package's demo server."""
    return {
        "name": release,
        "command": sys.executable,
        "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"],
        "instances": 4,
        "connect_timeout_s": PATIENCE_S,
        "restart": {"initial_s": 0.1},
        # A call to a process that dies may have been executed; it is retried only because echo is safe to repeat.
        "retry": {"tools": {"echo": "safe"}},
    }


class Callers:
    """Tasks that call a tool in a loop, and count answers and failures."""

    def __init__(self, manager: McpManager) -> None:
        self._manager = manager
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = 0
        self.failures: list[CallError] = []
        self.slowest_s = 0.0

    def start(self) -> None:
        """Start the tasks."""
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]

    async def stop(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, number: int) -> None:
        while True:
            began = time.perf_counter()
            try:
                await self._manager.call_tool(SERVER_ID, "echo", {"text": f"caller {number}"})
                self.answered += 1
            except CallError as error:
                self.failures.append(error)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)


async def meanwhile(callers: Callers, title: str, work: Coroutine[Any, Any, str]) -> None:
    """Do something to the fleet, and print what happened to the calls in that time."""
    answered, failed, callers.slowest_s = callers.answered, len(callers.failures), 0.0
    said = await work
    print(
        f"  {title:<22}{said:<46}{callers.answered - answered:>5} calls answered, {len(callers.failures) - failed} failed,"
        f" slowest {1000 * callers.slowest_s:.0f} ms",
        flush=True,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; it is polled, because no event reports it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def whole_again(manager: McpManager, instances: int) -> None:
    """Wait until the given number of instances are ready and none is draining."""

    def is_whole() -> bool:
        view = manager.server(SERVER_ID)
        return (view.ready, view.draining) == (instances, 0)

    await until(is_whole)


async def just_call(manager: McpManager) -> str:
    """Leave the fleet alone for a moment."""
    await asyncio.sleep(0.3)
    return f"{manager.server(SERVER_ID).state}, {manager.server(SERVER_ID).ready} instances"


async def kill_one(manager: McpManager) -> str:
    """Kill a process without warning, and wait until it is replaced."""
    victim = manager.server(SERVER_ID).pids[0]
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in manager.server(SERVER_ID).pids)
    noticed = time.perf_counter()
    await whole_again(manager, 4)
    replaced = time.perf_counter()
    return f"noticed after {1000 * (noticed - began):.0f} ms, replaced after {1000 * (replaced - began):.0f} ms"


async def scale(manager: McpManager, instances: int) -> str:
    """Change the number of instances."""
    before = manager.server(SERVER_ID).desired
    await manager.scale(SERVER_ID, instances)
    await whole_again(manager, instances)
    return f"{before} -> {instances} instances"


async def replace(manager: McpManager, release: str) -> str:
    """Replace all processes by those of a new release, one after the other."""
    before = set(manager.server(SERVER_ID).pids)
    await manager.redeploy(SERVER_ID, workers(release), strategy="rolling")
    view = manager.server(SERVER_ID)
    return f"{view.name}, {len(before - set(view.pids))} of {len(before)} processes replaced"


async def main() -> int:
    """Run all steps; return the exit status."""
    async with McpManager() as manager:
        await manager.deploy(SERVER_ID, workers("release 1"))
        await manager.wait_ready(timeout=PATIENCE_S)
        callers = Callers(manager)
        callers.start()
        try:
            print(f"{CALLERS} callers, and what happens meanwhile")
            await meanwhile(callers, "nothing", just_call(manager))
            await meanwhile(callers, "kill -9 of a process", kill_one(manager))
            await meanwhile(callers, "scale up", scale(manager, 6))
            await meanwhile(callers, "scale down", scale(manager, 2))
            await meanwhile(callers, "rolling replacement", replace(manager, "release 2"))
        finally:
            await callers.stop()
    for error in callers.failures:
        print(f"  failed: {error}")
    print("Every call was answered" if not callers.failures else f"{len(callers.failures)} calls failed")
    return 1 if callers.failures else 0


if __name__ == "__main__":
    # This example kills programs on purpose; the warnings about them are hidden.
    logging.basicConfig(level=logging.ERROR)
    sys.exit(asyncio.run(main()))
