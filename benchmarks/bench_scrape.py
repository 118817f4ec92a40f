"""Measures scrapes of large fleets: processor time, how long they hold the event loop, size, and what calls feel.

    python benchmarks/bench_scrape.py [--servers 1000 10000 100000] [--seconds 21]

The first table has fleets of lazy servers that were never called, and of servers that were all called, by two methods.
The second has calls to one server, 2,000 a second, each measured from the moment at which it was due, alone and while
a fleet is scraped again and again with ``scrape_stream()``: medians over rounds that take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.calls.children import LoopbackServer
from mcp_manager import McpManager
from mcp_manager._core.records import READY
from mcp_manager.config import ManagerConfig, ServerConfig

RATE = 2_000
METHODS = ("tools/call", "tools/list")
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"text","arguments":{"size":"100"}}}'
TICK_S = 0.001
ROUNDS = 7


class Scraped(NamedTuple):
    """What one scrape took."""

    cpu_s: float
    wall_s: float
    held_s: float
    size: int


def fleet_of(servers: int) -> ManagerConfig:
    """Return the configuration of servers that connect with their first call."""
    return ManagerConfig(
        servers={
            f"server-{number}": ServerConfig(url=f"http://127.0.0.1:1/{number}", connect="lazy")
            for number in range(servers)
        }
    )


def use_all(manager: McpManager) -> None:
    """Count three calls of two methods on every server, as if they had been made."""
    router = manager._router
    now_ns = time.monotonic_ns()
    for supervisor in manager._servers.values():
        for instance in supervisor.activate():
            assert instance.backend is not None
            router.set_availability(instance.backend, READY, now_ns)
        for method in METHODS:
            for took_ns in (200_000, 900_000, 40_000_000):
                router.done(router.pick(supervisor.server_id, method, now_ns, 0), 0, 0, now_ns + took_ns)


@asynccontextmanager
async def hold_of_the_loop(found: list[float]) -> AsyncIterator[None]:
    """Append the longest time for which the loop was not free meanwhile, in seconds."""
    longest = 0.0
    ended = False

    async def watch() -> None:
        nonlocal longest
        while not ended:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.perf_counter() - began - TICK_S)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    longest = 0.0
    try:
        yield
    finally:
        ended = True
        await watching
        found.append(longest)


async def scraped(scrape: Callable[[], Awaitable[int]]) -> Scraped:
    """Scrape once; return what it took."""
    held: list[float] = []
    gc.collect()
    async with hold_of_the_loop(held):
        began, began_cpu = time.perf_counter(), time.process_time()
        size = await scrape()
        took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Scraped(took_cpu, took, held[0], size)


async def stream(manager: McpManager) -> int:
    """Scrape in pieces, and return the size of the page."""
    # Another reading than the last one, which would be shared.
    manager._scrapes = None
    return sum([len(piece) async for piece in await manager.scrape_stream()])


async def measure_scrapes(servers: int, *, are_used: bool) -> None:
    """Print what scrapes of one fleet take; the median of five by processor time."""
    async with McpManager() as manager:
        await manager.apply(fleet_of(servers))
        if are_used:
            use_all(manager)

        async def in_pieces() -> int:
            return await stream(manager)

        async def as_a_whole() -> int:
            # Another reading than the last one, which would be shared.
            manager._scrapes = None
            return len((await manager.scrape()).body)

        async def as_text() -> int:
            return len(await asyncio.to_thread(manager.metrics_text))

        for name, scrape in (
            ("scrape_stream()", in_pieces),
            ("scrape()", as_a_whole),
            ("metrics_text(), in a thread", as_text),
        ):
            await scrape()
            taken = sorted([await scraped(scrape) for _ in range(5)])
            cpu_s, wall_s, _, size = taken[2]
            held = sorted(each.held_s for each in taken)
            kind = "used" if are_used else "never used"
            print(
                f"{servers:7} {kind:10} {name:27} {cpu_s * 1e3:8.1f} {wall_s * 1e3:8.1f} {held[2] * 1e3:8.1f}"
                f" {held[-1] * 1e3:8.1f} {size / 1e6:9.2f}",
                flush=True,
            )


async def call_at_a_rate(manager: McpManager, seconds: float) -> list[float]:
    """Call a server at a steady rate; return the latencies in seconds, measured from when each call was due."""
    took: list[float] = []
    pending: set[asyncio.Task[None]] = set()

    async def call(due: float) -> None:
        await manager.execute_raw("called", CALL)
        took.append(time.perf_counter() - due)

    began = time.perf_counter()
    for number in range(int(RATE * seconds)):
        due = began + number / RATE
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(call(due))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    return took


@asynccontextmanager
async def scraping_all_the_time(manager: McpManager) -> AsyncIterator[None]:
    """Scrape again and again meanwhile, with 10 ms between two scrapes."""
    ended = False

    async def scrape() -> None:
        while not ended:
            await stream(manager)
            await asyncio.sleep(0.01)

    scraping = asyncio.create_task(scrape())
    try:
        yield
    finally:
        ended = True
        await scraping


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of values."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def median_of(rounds: list[list[float]], share: float) -> float:
    """Return the median of a quantile over the rounds: other load of the machine disturbs some of them."""
    return statistics.median(quantile(each, share) for each in rounds)


async def measure_calls(servers: int, url: str, seconds: float, *, are_used: bool) -> None:
    """Print the latencies of calls alone and while the fleet is scraped, taking turns."""
    async with McpManager() as manager:
        await manager.apply(fleet_of(servers))
        if are_used:
            use_all(manager)
        await manager.deploy("called", {"url": url})
        await stream(manager)
        # What the fleet's making left to collect is none of the scrapes'.
        gc.collect()
        await call_at_a_rate(manager, 1.0)
        alone: list[list[float]] = []
        scraped_meanwhile: list[list[float]] = []
        for _ in range(ROUNDS):
            alone.append(await call_at_a_rate(manager, seconds / ROUNDS))
            async with scraping_all_the_time(manager):
                scraped_meanwhile.append(await call_at_a_rate(manager, seconds / ROUNDS))
        kind = "used" if are_used else "never used"
        figures = " ".join(
            f"{median_of(rounds, share) * 1e3:8.2f}" for rounds in (alone, scraped_meanwhile) for share in (0.5, 0.99)
        )
        moved = median_of(scraped_meanwhile, 0.99) - median_of(alone, 0.99)
        print(f"{servers:7} {kind:10} {figures} {moved * 1e3:8.2f}", flush=True)


async def measure(sizes: list[int], seconds: float) -> None:
    """Print both tables."""
    print("servers            scrape                        CPU ms  wall ms  held ms  longest        MB")
    for servers in sizes:
        for are_used in (False, True):
            await measure_scrapes(servers, are_used=are_used)
    print(f"\n{RATE} calls/s          alone: p50      p99 scraped: p50  p99    moved p99, ms")
    async with LoopbackServer(None) as server:
        for servers in sizes:
            for are_used in (False, True):
                await measure_calls(servers, server.url("/json/100"), seconds, are_used=are_used)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=21.0)
    options = parser.parse_args()
    random.seed(1)
    asyncio.run(measure(options.servers, options.seconds))


if __name__ == "__main__":
    main()
