"""A small fleet under load that serves its metrics, for a first look at the dashboard: ``python serve_metrics.py``.

Most calls succeed. Some wait for a limit, some tools report errors, some calls run out of time, and one server is down. It
ends with Ctrl-C. ``--otlp URL`` also exports the metrics, every 15 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from mcp_manager import CallError, ManagerConfig, McpManager, ServerConfig, TelemetryConfig

PROGRAM: dict[str, Any] = {
    "command": sys.executable,
    "args": ("-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"),
}
SERVERS: dict[str, dict[str, Any]] = {
    "math": {**PROGRAM, "instances": 2},
    # One call at a time: the others wait.
    "narrow": {**PROGRAM, "limits": {"max_concurrent": 1, "max_waiting": 10}},
    # Nothing listens there.
    "down": {"url": "http://127.0.0.1:9/mcp"},
}
PORT = 9464
MANAGER = web.AppKey("manager", McpManager)


async def metrics(request: web.Request) -> web.Response:
    """Answer a scrape of Prometheus."""
    page = await request.app[MANAGER].scrape(request.headers.get("Accept", ""))
    return web.Response(body=page.body, headers={"Content-Type": page.content_type})


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield server, tool and arguments of one call after the other."""
    while True:
        chance = random.random()
        if chance < 0.05:
            yield "math", "add", {"a": "two", "b": 3}
        elif chance < 0.06:
            yield "math", "sleep", {"seconds": 2}
        elif chance < 0.1:
            yield "down", "echo", {"text": "is anybody there?"}
        elif chance < 0.4:
            yield "narrow", "sleep", {"seconds": random.uniform(0.0, 0.2)}
        else:
            yield "math", "add", {"a": 2, "b": 3}


async def call(manager: McpManager) -> None:
    """Be one of the callers."""
    for server_id, tool, arguments in calls():
        # The metrics count it.
        with contextlib.suppress(CallError):
            await manager.call_tool(server_id, tool, arguments, timeout=1.0)
        await asyncio.sleep(random.expovariate(2.0))


async def serve(port: int, otlp: str | None) -> None:
    """Call the servers and serve the metrics until SIGINT or SIGTERM."""
    telemetry = TelemetryConfig(metrics=otlp is not None, endpoint=otlp, interval_s=15.0)
    config = ManagerConfig(
        servers={name: ServerConfig(**settings) for name, settings in SERVERS.items()}, telemetry=telemetry
    )
    async with McpManager(config) as manager:
        app = web.Application()
        app[MANAGER] = manager
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        stopped = asyncio.Event()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
        callers = [asyncio.create_task(call(manager)) for _ in range(10)]
        print(f"Metrics: http://127.0.0.1:{runner.addresses[0][1]}/metrics (Ctrl-C ends it)", flush=True)
        await stopped.wait()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument("--otlp", metavar="URL", help="also export the metrics to this collector")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.otlp))
