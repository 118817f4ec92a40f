"""Measures what telemetry costs: traces for each call, and the export of the metrics of a large fleet.

Run as ``python benchmarks/bench_telemetry.py [--quick] [--path] [--loop uvloop]``. Managers with and without traces call the same
compiled server in turn; a line has the medians, over the rounds, of the processor time of a call on the loop's thread,
and of its difference to the call without telemetry in the same round. The collector takes what comes. ``--path`` measures the call path alone, without a server: the noise
of sockets hides a tenth of a microsecond.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from aiohttp import web

from mcp_manager import ManagerConfig, McpManager, TelemetryConfig, TracesConfig
from mcp_manager._core.jsonrpc import scan, scan_reply

sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.calls.build import build_loopback
from benchmarks.calls.checkout import child_environment

CALL = b'{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'
IN_FLIGHT = 16
SERIES = 10_000
METHODS = 10
UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
CASES: dict[str, tuple[TracesConfig | None, Any]] = {
    "off": (None, None),
    "off, again": (None, None),
    "traces of nothing but errors and slow calls": (TracesConfig(ratio=0.0), None),
    "traces of 1 %": (TracesConfig(ratio=0.01), None),
    "traces of all": (TracesConfig(ratio=1.0, tail_per_s=0.0), None),
    "a context that is not sampled is passed on": (TracesConfig(), lambda: UNSAMPLED),
}


@contextlib.contextmanager
def origin() -> Iterator[str]:
    """Run the server in a process of its own; yield its origin."""
    build_loopback()
    command = [sys.executable, "-P", "-m", "benchmarks.calls.serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.stdin.close()


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Run a collector in a process of its own that takes everything; yield its URL."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


async def serve() -> None:
    """Take everything until killed."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/{any:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def managed(
    url: str, endpoint: str, traces: TracesConfig | None, trace_context: Any
) -> AsyncIterator[McpManager]:
    """Run a manager with a server ``s``."""
    config = ManagerConfig(telemetry=TelemetryConfig(traces=traces, endpoint=endpoint))
    async with McpManager(config, trace_context=trace_context) as manager:
        await manager.deploy("s", {"url": url, "health": {"enabled": False}, "connect": "lazy"})
        yield manager


async def calls_cost_us(manager: McpManager, calls: int) -> float:
    """Make calls, 16 at a time; return the processor time of one on this thread in µs."""

    async def work() -> None:
        for _ in range(calls // IN_FLIGHT):
            await manager.execute_raw("s", CALL)

    began = time.thread_time_ns()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return (time.thread_time_ns() - began) / 1e3 / calls


async def trace(url: str, endpoint: str, rounds: int, calls: int) -> None:
    """Print what traces cost a call."""
    async with contextlib.AsyncExitStack() as stack:
        managers = {
            name: await stack.enter_async_context(managed(url, endpoint, *case)) for name, case in CASES.items()
        }
        for manager in managers.values():
            await calls_cost_us(manager, calls)
        costs: dict[str, list[float]] = {name: [] for name in managers}
        order = list(managers)
        for _ in range(rounds):
            for name in order:
                costs[name].append(await calls_cost_us(managers[name], calls))
            order = [*order[1:], order[0]]
    for name, each in costs.items():
        more = median(cost - base for cost, base in zip(each, costs["off"], strict=True))
        print(f"{name:45} {median(each):8.2f} µs a call {more:+8.2f} µs")


class Answered:
    """A call whose reply is there at once."""

    lease = None

    @property
    def future(self) -> Answered:
        return self

    def __await__(self) -> Iterator[None]:
        return iter(())


async def path_alone(rounds: int, calls: int) -> None:
    """Print what traces cost on the call path, with the compiled core's part of it left out."""
    request, answered = scan(CALL), Answered()
    reply = scan_reply(b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')
    async with contextlib.AsyncExitStack() as stack:
        dispatchers: dict[str, tuple[Any, Any]] = {}
        for name, (traces, _) in list(CASES.items())[:-1]:
            manager = await stack.enter_async_context(
                managed("http://127.0.0.1:9/", "http://127.0.0.1:9", traces, None)
            )
            dispatcher: Any = manager._dispatcher
            dispatcher._begin, dispatcher._land = lambda *_: answered, lambda *_: reply
            dispatchers[name] = dispatcher, manager._supervisor_of("s")
        costs: dict[str, list[float]] = {name: [] for name in dispatchers}
        for _ in range(rounds):
            for name, (dispatcher, supervisor) in dispatchers.items():
                began = time.thread_time_ns()
                for _ in range(calls):
                    await dispatcher.call(supervisor, "tools/call", request, time.monotonic_ns(), 0)
                costs[name].append((time.thread_time_ns() - began) / 1e3 / calls)
            await asyncio.sleep(0)
    least = {name: quantiles(each, n=10)[0] for name, each in costs.items()}
    for name, cost in least.items():
        print(f"{name:45} {cost:8.2f} µs a call {cost - least['off']:+8.2f} µs")


async def export(url: str, endpoint: str) -> None:
    """Print what the export of many series takes, and how late the loop is meanwhile."""
    servers = {f"s{number}": {"url": url, "health": {"enabled": False}} for number in range(SERIES // METHODS)}
    config = ManagerConfig(telemetry=TelemetryConfig(metrics=True, endpoint=endpoint, interval_s=3600.0))
    async with McpManager(config) as manager:
        for server_id, settings in servers.items():
            await manager.deploy(server_id, settings)
        for server_id in servers:
            for method in range(METHODS):
                await manager.execute_raw(server_id, CALL if not method else b'{"method":"m%d"}' % method)
        exporter: Any = manager._telemetry._metrics
        await lag("loop alone", 1.0, None)
        took: list[tuple[float, float]] = []

        def run() -> None:
            began, cpu = time.perf_counter(), time.thread_time()
            asyncio.run(exporter._export(None))
            took.append((time.perf_counter() - began, time.thread_time() - cpu))

        thread = threading.Thread(target=run)
        thread.start()
        await lag("during the export", 60.0, thread)
        print(f"{SERIES:,} series, exported in {took[0][0]:.2f} s, {took[0][1]:.2f} s of them processor time")


async def lag(what: str, seconds: float, thread: threading.Thread | None) -> None:
    """Print how late the loop is, as long as a thread lives or for some seconds."""
    late: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until and (thread is None or thread.is_alive()):
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - began - 0.001) * 1e3)
    p99 = quantiles(late, n=100)[98]
    print(f"loop lag, {what}: p50 {median(late):.2f} ms, p99 {p99:.2f} ms, most {max(late):.2f} ms")


async def measure(options: argparse.Namespace) -> None:
    rounds, calls = (5, 4_800) if options.quick else (21, 16_000)
    if options.path:
        await path_alone(10 * rounds, 1_600)
        return
    with origin() as server, collector() as endpoint:
        for path in ("/json/100", "/json/100/stateless"):
            print(f"-- {path}, {IN_FLIGHT} in flight, {options.loop}")
            await trace(server + path, endpoint, rounds, calls)
        print("-- metrics")
        await export(f"{server}/json/100", endpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--path", action="store_true", help="the call path alone, without a server")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an option

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve() if options.serve else measure(options))


if __name__ == "__main__":
    main()
