"""Measures a call to a server in memory, compared with fastmcp's own in-memory client and the same server.

    python benchmarks/bench_memory.py
    python benchmarks/bench_memory.py --calls 2000 --rounds 9

Both sides call the same object in turn, one call after the other, on one loop. The figure is the CPU time of a call, the
server's included: the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastmcp import Client, FastMCP

from mcp_manager import McpManager

Call = Callable[[int], Awaitable[Any]]


async def main(calls: int, rounds: int) -> None:
    """Print the microseconds of CPU time of a call, for each side."""
    server: FastMCP = FastMCP("bench")
    server.tool(add)
    async with McpManager({"bench": server}) as manager, Client(server) as client:
        sides: dict[str, Call] = {
            "mcp_manager call_tool": lambda each: manager.call_tool("bench", "add", {"a": each, "b": 1}),
            "fastmcp Client call_tool": lambda each: client.call_tool("add", {"a": each, "b": 1}),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        # The first round only warms up.
        for number in range(rounds + 1):
            for name, call in sides.items():
                began = time.process_time()
                for each in range(calls):
                    await call(each)
                if number:
                    times[name].append((time.process_time() - began) / calls * 1e6)
    for name, found in times.items():
        print(f"{name:26} {statistics.median(found):7.0f} us   ({min(found):.0f} to {max(found):.0f})")


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    asyncio.run(main(options.calls, options.rounds))
