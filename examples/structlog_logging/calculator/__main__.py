"""Run the service until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from mcp_manager import McpManager, load_manager_config

from . import logs
from .service import application
from .tracing import tracing

_FLEET: Final = Path(__file__).parents[1] / "fleet.toml"
# Requests that are under way at the end have this long.
_DRAIN_S: Final = 20.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger("calculator")


async def serve(host: str, port: int) -> None:
    """Serve until a signal comes; then let requests end, and stop the fleet."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    fleet = load_manager_config(
        os.environ.get("FLEET_FILE", _FLEET), environment={"PYTHON": sys.executable, **os.environ}
    )
    async with McpManager(fleet) as manager:
        runner = web.AppRunner(application(manager), access_log=None, shutdown_timeout=_DRAIN_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            _log.info("serving", host=host, port=runner.addresses[0][1])
            await stopping.wait()
            _log.info("stopping")
            await site.stop()
            # What was accepted until now is answered. `cleanup` would not read from a connection that is quite new, and
            # would wait for it all of _DRAIN_S (aiohttp 3.14).
            await asyncio.sleep(0.1)
        finally:
            await runner.cleanup()
    _log.info("stopped")


def main() -> None:
    """Configure the log by variables, and serve."""
    logs.configure(
        as_json=os.environ.get("LOG_FORMAT", "console" if sys.stdout.isatty() else "json") == "json",
        level=os.environ.get("LOG_LEVEL", "INFO"),
        child_output=os.environ.get("LOG_CHILD_OUTPUT") == "1",
    )
    with tracing():
        asyncio.run(serve(os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))))


if __name__ == "__main__":
    main()
