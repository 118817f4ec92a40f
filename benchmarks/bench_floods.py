"""Measures what a flooding server costs its neighbours: their latencies during each kind of flood, and without any.

Run as ``python benchmarks/bench_floods.py [--quick] [--loop uvloop] [--seconds 1] [--rounds 5] [--only PART]``. The
flooding servers are separate processes, and so is the neighbour, which gets one call at a time. For each kind,
measurements without and with the flood alternate. Each line has medians over the rounds: the neighbour's median and
99th percentile during the flood, each with its ratio to the one just before the flood, and how much of the flood was
read; and how late the loop was at worst.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mcp_manager import Handlers, McpManager
from mcp_manager.config import ManagerConfig

sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.calls.build import build_loopback
from benchmarks.calls.checkout import child_environment

FLOODING = str(Path(__file__).parent.parent / "tests" / "support" / "programs" / "flooding.py")
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}}
).encode()
FLOOD = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "flood"}}).encode()
COUNT = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count"}}).encode()
STREAMS = ("notifications", "logs", "changes", "pings", "samplings", "replies", "comments", "garbage")
PIPES = ("notifications", "logs", "pings", "replies", "blanks", "garbage", "stderr")


def jobs() -> Iterator[tuple[str, str, str, int]]:
    """Yield the cases: name, way in which the flood arrives, kind of the flood, number of servers that flood."""
    for kind in STREAMS:
        yield f"standing stream, {kind}", "standing", kind, 1
    yield "standing stream, 1-byte chunks", "pieces", "notifications", 1
    yield "standing stream, plain aiohttp", "ordinary", "notifications", 1
    yield "plain aiohttp, 1-byte chunks", "ordinary pieces", "notifications", 1
    yield "standing stream closed at once", "standing", "closing", 1
    yield "HTTP+SSE, notifications", "sse", "notifications", 1
    yield "reply on a stream", "reply", "notifications", 1
    yield "interim responses", "reply", "interim", 1
    yield "interim responses, plain aiohttp", "ordinary reply", "interim", 1
    for kind in PIPES:
        yield f"stdio, {kind}", "stdio", kind, 1
    yield "20 standing streams, notifications", "standing", "notifications", 20
    yield "20 standing streams, pings", "standing", "pings", 20
    yield "20 programs, notifications", "stdio", "notifications", 20


@contextlib.contextmanager
def program(*command: str) -> Iterator[int]:
    """Run a server and return its port."""
    with subprocess.Popen(
        [sys.executable, "-P", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield told["port"] if isinstance(told, dict) else told
        finally:
            process.kill()


async def measure(manager: McpManager, seconds: float) -> tuple[list[float], float]:
    """Call the neighbour for a while; return how long each call took, and how late the loop was at worst."""
    took: list[float] = []
    late = 0.0

    async def watch() -> None:
        nonlocal late
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - begun - 0.001)

    watching = asyncio.create_task(watch())
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await manager.execute_raw("neighbour", CALL)
        took.append(time.perf_counter() - begun)
    watching.cancel()
    return sorted(took), late


async def taken(manager: McpManager) -> int:
    """Ask the first server how many bytes of its flood were read."""
    try:
        reply = json.loads(await manager.execute_raw("flood-0", COUNT, timeout=2))
        return int(reply["result"]["content"][0]["text"])
    except Exception:
        return 0


@dataclass
class Pair:
    """A measurement without the flood, and the one right after it with the flood."""

    quiet: list[float]
    flooded: list[float]
    late: float
    rate: float

    def at(self, share: float) -> tuple[float, float]:
        """Return a quantile of the latencies during the flood, and its ratio to the quiet one."""
        quiet, flooded = (taken[int(len(taken) * share)] for taken in (self.quiet, self.flooded))
        return flooded, flooded / quiet


def flood_config(stack: contextlib.ExitStack, way: str, kind: str) -> dict[str, Any]:
    """Return the configuration of a server that floods as soon as it is deployed."""
    calm: dict[str, Any] = {"health": {"enabled": False}, "shutdown_grace_s": 0.0}
    if way == "stdio":
        return {"command": sys.executable, "args": ["-P", FLOODING, "stdio", kind], **calm}
    pieces = ["1"] if "pieces" in way else []
    port = stack.enter_context(program(FLOODING, "http", kind, *pieces))
    if way == "sse":
        return {"url": f"http://127.0.0.1:{port}/sse", "transport": "sse", **calm}
    return {"url": f"http://127.0.0.1:{port}/mcp", **calm}


async def measure_flooded(
    manager: McpManager, way: str, ids: list[str], seconds: float
) -> tuple[list[float], float, float]:
    """Measure during floods that are deployed; return latencies, lag, and the first flood's bytes per second."""
    floods = []
    if "reply" in way:
        floods = [asyncio.create_task(manager.execute_raw(each, FLOOD, timeout=seconds + 1)) for each in ids]
    await asyncio.sleep(0.1)
    before, begun = await taken(manager), time.perf_counter()
    latencies, late = await measure(manager, seconds)
    rate = (await taken(manager) - before) / (time.perf_counter() - begun)
    for flood in floods:
        flood.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    return latencies, late, rate


async def run(way: str, kind: str, number: int, neighbour: int, options: argparse.Namespace) -> list[Pair]:
    """Measure without and with ``number`` floods of a kind in turn, so that other load affects both."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)

    async def sampled(server_id: str, request: Any) -> Any:
        await asyncio.sleep(0.01)
        return {"role": "assistant", "content": {"type": "text", "text": ""}, "model": "m"}

    async def logged(server_id: str, message: Any) -> None:
        await asyncio.sleep(0.01)

    handlers = Handlers(sampling=sampled, logging=logged)
    pairs: list[Pair] = []
    with contextlib.ExitStack() as stack:
        configs = {f"flood-{index}": flood_config(stack, way, kind) for index in range(number)}
        async with McpManager(ManagerConfig(http_lanes="ordinary" not in way), handlers=handlers) as manager:
            await manager.deploy("neighbour", {"url": f"http://127.0.0.1:{neighbour}/json/100"})
            await measure(manager, 0.05)
            for _ in range(options.rounds):
                quiet, _ = await measure(manager, options.seconds)
                await asyncio.gather(*(manager.deploy(each, config) for each, config in configs.items()))
                flooded, late, rate = await measure_flooded(manager, way, list(configs), options.seconds)
                await asyncio.gather(*(manager.undeploy(each) for each in configs))
                pairs.append(Pair(quiet, flooded, late, rate))
    return pairs


def figures_of(pairs: list[Pair]) -> str:
    """Return the medians over all rounds, and the worst lag."""
    p50, p50_times, p99, p99_times = (
        median(pair.at(share)[part] for pair in pairs) for share in (0.5, 0.99) for part in (0, 1)
    )
    late, rate = max(pair.late for pair in pairs), median(pair.rate for pair in pairs)
    return f"{p50 * 1e3:9.2f}{p50_times:9.1f}{p99 * 1e3:9.2f}{p99_times:9.1f}{late * 1e3:9.1f}{rate / 1e6:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--seconds", type=float, help="seconds per measurement (default: 1)")
    parser.add_argument(
        "--rounds", type=int, help="rounds per kind, one quiet and one flooded measurement each (default: 5)"
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.2 s, unless given otherwise")
    parser.add_argument("--only", default="", help="measure only cases with this in their name")
    options = parser.parse_args()
    options.seconds = options.seconds or (0.2 if options.quick else 1.0)
    options.rounds = options.rounds or (2 if options.quick else 5)
    logging.disable(logging.CRITICAL)
    factory: Any = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an option

        factory = uvloop.new_event_loop
    build_loopback()
    with program("-m", "benchmarks.calls.serve") as neighbour:
        columns = f"{'p50 ms':>9}{'x quiet':>9}{'p99 ms':>9}{'x quiet':>9}{'late ms':>9}{'MB/s':>8}"
        print(f"{options.loop:36}{columns}", flush=True)
        for name, way, kind, number in jobs():
            if options.only not in name:
                continue
            with asyncio.Runner(loop_factory=factory) as runner:
                try:
                    figures = figures_of(runner.run(run(way, kind, number, neighbour, options)))
                except Exception as error:
                    figures = f" {type(error).__name__}: {error}"
            print(f"{name:36}{figures}", flush=True)


if __name__ == "__main__":
    main()
