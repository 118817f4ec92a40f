"""The gateway on standard input and output, in front of a fleet that the argument gives as JSON; SIGTERM ends it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from mcp_manager.gateway.gateway import Gateway


async def serve(fleet: object, path: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Printed once the gateway serves.
    asyncio.get_running_loop().call_soon(print, "not a message")
    await Gateway(fleet, stdio=True).serve_stdio(path, stop)  # type: ignore[arg-type]


asyncio.run(serve(json.loads(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "/mcp"))
