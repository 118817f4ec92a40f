"""Measures a large fleet that is hardly used: memory, deployments, changes, health() and processor time when idle.

    python benchmarks/bench_fleet.py [SERVERS]

10,000 lazily deployed servers by default. Deployments and changes are measured in processor time, which other load does
not affect. For each change it also prints for how long the loop was held at most.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from mcp_manager import McpManager
from mcp_manager.config import ManagerConfig, ServerConfig

IDLE_S = 3.0
LOOKS = 1000


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fleet_of(servers: int, prefix: str, **of_first: Any) -> ManagerConfig:
    """Return the configuration of servers that connect with their first call; ``of_first`` are settings of the first."""
    made = {
        f"{prefix}{number}": ServerConfig(url=f"http://127.0.0.1:1/{prefix}{number}", connect="lazy")
        for number in range(servers)
    }
    return ManagerConfig(servers={**made, f"{prefix}0": msgspec.structs.replace(made[f"{prefix}0"], **of_first)})


class Turns:
    """Measure the longest turn of the loop while the block runs."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def __aenter__(self) -> Turns:
        self._task = asyncio.create_task(self._count())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _count(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.thread_time() - began)


async def show_change(manager: McpManager, what: str, config: ManagerConfig) -> None:
    """Apply a configuration, and print how long that took and for how long it held the loop."""
    async with Turns() as turns:
        began = time.thread_time()
        applied = await manager.apply(config)
        took_s = time.thread_time() - began
    changed = len(applied.updated) + len(applied.redeployed) + len(applied.undeployed)
    print(f"{what:12} {took_s * 1e3:10.1f} ms, {changed} changed, loop held {turns.longest_s * 1e3:.1f} ms at most")


async def measure(servers: int) -> None:
    """Deploy the servers, call health(), idle, and print what each took."""
    async with McpManager() as manager:
        # What all servers share must not count.
        await manager.apply(fleet_of(1, "first"))
        manager.health()
        gc.collect()
        before = resident_bytes()
        config = fleet_of(servers, "server")
        began, began_cpu = time.perf_counter(), time.process_time()
        await manager.apply(config)
        took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
        del config
        gc.collect()
        each = (resident_bytes() - before) / servers
        began = time.perf_counter()
        for _ in range(LOOKS):
            health = manager.health()
        look_s = (time.perf_counter() - began) / LOOKS
        assert health.total_servers == servers
        began_cpu = time.process_time()
        await asyncio.sleep(IDLE_S)
        idle = (time.process_time() - began_cpu) / IDLE_S
        print(f"{servers} servers, lazily deployed")
        print(f"memory       {each:10.0f} bytes each, with its configuration")
        print(f"apply        {servers / took_cpu:10.0f} servers per CPU second ({servers / took:.0f} per second)")
        print(f"health()     {look_s * 1e6:10.1f} us")
        print(f"idle         {idle:10.2%} of a core")
        await show_change(manager, "same again", fleet_of(servers, "server"))
        await show_change(manager, "one tag", fleet_of(servers, "server", tags=("new",)))
        await show_change(manager, "remove all", ManagerConfig())


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
