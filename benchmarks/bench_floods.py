"""What a server that floods costs its neighbours: their latencies beside each kind of flood, and beside none.

Run as ``python benchmarks/bench_floods.py [--loop uvloop] [--seconds 2] [--only PART]``. The flooding servers are processes of
their own; so is the neighbour, which is called once at a time. Each line has the neighbour's median and 99th percentile, how
many times the quiet 99th percentile that is, how late the loop was at the worst, and how much of the flood was taken.
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
from pathlib import Path
from typing import Any

from mcp_manager import Handlers, McpManager
from mcp_manager.config import ManagerConfig

FLOODING = str(Path(__file__).parent.parent / "tests" / "support" / "programs" / "flooding.py")
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}}
).encode()
FLOOD = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "flood"}}).encode()
COUNT = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count"}}).encode()
STREAMS = ("notifications", "logs", "changes", "pings", "samplings", "replies", "comments", "garbage")
PIPES = ("notifications", "logs", "pings", "replies", "blanks", "garbage", "stderr")


def jobs() -> Iterator[tuple[str, str, str, int]]:
    """Name what is measured, with the way the flood comes, its kind, and how many servers flood."""
    for kind in STREAMS:
        yield f"standing stream, {kind}", "standing", kind, 1
    yield "standing stream, 1-byte chunks", "pieces", "notifications", 1
    yield "standing stream, ordinary path", "ordinary", "notifications", 1
    yield "ordinary path, 1-byte chunks", "ordinary pieces", "notifications", 1
    yield "standing stream closed at once", "standing", "closing", 1
    yield "HTTP+SSE, notifications", "sse", "notifications", 1
    yield "reply on a stream", "reply", "notifications", 1
    yield "interim responses", "reply", "interim", 1
    yield "interim responses, ordinary path", "ordinary reply", "interim", 1
    for kind in PIPES:
        yield f"stdio, {kind}", "stdio", kind, 1
    yield "20 standing streams, notifications", "standing", "notifications", 20
    yield "20 standing streams, pings", "standing", "pings", 20
    yield "20 programs, notifications", "stdio", "notifications", 20


@contextlib.contextmanager
def program(*command: str) -> Iterator[int]:
    """Run a server and return its port."""
    with subprocess.Popen(
        [sys.executable, "-P", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield told["port"] if isinstance(told, dict) else told
        finally:
            process.kill()


async def measure(manager: McpManager, seconds: float) -> tuple[list[float], float]:
    """Call the neighbour for a while; return what each call took, and how late the loop was at the worst."""
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
    """Ask the first server how much of its flood was taken."""
    try:
        reply = json.loads(await manager.execute_raw("flood-0", COUNT, timeout=2))
        return int(reply["result"]["content"][0]["text"])
    except Exception:
        return 0


async def run(way: str, kind: str, number: int, neighbour: int, seconds: float) -> tuple[list[float], float, float]:
    """Measure beside ``number`` floods of a kind; return latencies, lag and bytes a second of the first flood."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)

    async def sampled(server_id: str, request: Any) -> Any:
        await asyncio.sleep(0.01)
        return {"role": "assistant", "content": {"type": "text", "text": ""}, "model": "m"}

    async def logged(server_id: str, message: Any) -> None:
        await asyncio.sleep(0.01)

    handlers = Handlers(sampling=sampled, logging=logged)
    with contextlib.ExitStack() as stack:
        async with McpManager(ManagerConfig(http_lanes="ordinary" not in way), handlers=handlers) as manager:
            await manager.deploy("neighbour", {"url": f"http://127.0.0.1:{neighbour}/json/100"})
            for index in range(number):
                if way == "stdio":
                    config: dict[str, Any] = {"command": sys.executable, "args": ["-P", FLOODING, "stdio", kind]}
                else:
                    pieces = ["1"] if "pieces" in way else []
                    port = stack.enter_context(program(FLOODING, "http", kind, *pieces))
                    config = {"url": f"http://127.0.0.1:{port}/mcp"}
                    if way == "sse":
                        config = {"url": f"http://127.0.0.1:{port}/sse", "transport": "sse"}
                await manager.deploy(f"flood-{index}", {**config, "health": {"enabled": False}})
            floods = []
            if "reply" in way:
                floods = [
                    asyncio.create_task(manager.execute_raw(f"flood-{index}", FLOOD, timeout=seconds))
                    for index in range(number)
                ]
            await asyncio.sleep(0.2)
            before, begun = await taken(manager), time.perf_counter()
            latencies, late = await measure(manager, seconds)
            rate = (await taken(manager) - before) / (time.perf_counter() - begun)
            for flood in floods:
                flood.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        return latencies, late, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    factory: Any = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415

        factory = uvloop.new_event_loop
    with program("-m", "mcp_manager.bench.serve") as neighbour:
        print(f"{options.loop:34}{'p50 ms':>9}{'p99 ms':>9}{'x quiet':>9}{'late ms':>9}{'MB/s':>8}", flush=True)
        quiet = 0.0
        for name, way, kind, number in [("quiet", "", "", 0), *jobs()]:
            if number and options.only not in name:
                continue
            with asyncio.Runner(loop_factory=factory) as runner:
                try:
                    latencies, late, rate = runner.run(run(way, kind, number, neighbour, options.seconds))
                except Exception as error:
                    print(f"{name:34} {type(error).__name__}: {error}", flush=True)
                    continue
            p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
            quiet = quiet or p99
            figures = f"{p50:9.2f}{p99:9.2f}{p99 / quiet:9.1f}{late * 1e3:9.1f}{rate / 1e6:8.1f}"
            print(f"{name:34}{figures}", flush=True)


if __name__ == "__main__":
    main()
