"""A fleet of real servers in which everything happens that the metrics count, over and over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any, Final, Self

from aiohttp import web
from support.calls import SWIFT
from support.processes import fastmcp_stdio, sdk_http, sdk_stdio, unused_port

from mcp_manager import CallError, McpManager, RpcError
from mcp_manager.testing.faults import Dripping, Reply, Status
from mcp_manager.testing.scripted import ScriptedServer

__all__ = ["EventfulFleet", "served_metrics"]

_DEMO: Final = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}
_LONG_S: Final = 600.0
_STATIC: Final = {"static": {"tools/call:echo": {"content": [{"type": "text", "text": "as always"}]}}}


class EventfulFleet:
    """Servers of other people, our own demonstration servers and scripted ones; ``with`` starts and ends them.

    :meth:`deploy` deploys them, :meth:`happen` has everything happen once.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self._sdk = enter(sdk_http())
        self._odd = enter(ScriptedServer())
        self._broken = enter(ScriptedServer())
        self._broken.script_always("tools/call", Status(500))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def deploy(self, manager: McpManager) -> None:
        """Deploy all servers."""
        hedge = {"enabled": True, "min_samples": 1, "max_share": 1.0, "min_delay_s": 0.0, "quantile": 0.5}
        retry = {"attempts": 3, "backoff_s": 0.01, "tools": {"sleep": "safe", "echo": "safe"}}
        servers: dict[str, dict[str, Any]] = {
            "sdk-http": {"url": self._sdk.url, **SWIFT},
            "sdk-stdio": {**sdk_stdio().config(), **SWIFT, "retry": retry},
            "fastmcp": {**fastmcp_stdio().config(), **SWIFT},
            "demo": {**_DEMO, **SWIFT, "instances": 2, "hedge": hedge, "retry": retry},
            "narrow": {**_DEMO, "limits": {"max_concurrent": 1, "max_waiting": 20, "max_wait_s": 10.0}},
            "odd": {"url": self._odd.url, "breaker": {"enabled": False}, "retry": retry},
            "broken": {
                "url": self._broken.url,
                "breaker": {"consecutive_failures": 1, "open_s": _LONG_S, "open_max_s": _LONG_S},
                "health": {"enabled": False},
                "fallback": _STATIC,
            },
            "gone": {"url": f"http://127.0.0.1:{unused_port()}/mcp", **SWIFT},
        }
        await asyncio.gather(*(manager.deploy(name, settings) for name, settings in servers.items()))
        await manager.wait_ready(min=len(servers) - 1, timeout=30)

    async def happen(self, manager: McpManager) -> None:
        """Have everything happen once: calls that succeed, fail, wait and are repeated; programs and sessions that end."""
        await asyncio.gather(
            *(_call(manager, name, "echo", {"text": "x"}) for name in ("sdk-http", "sdk-stdio", "fastmcp", "demo")),
            _call(manager, "demo", "add", {"a": "two", "b": 3}),
            _call(manager, "demo", "subtract", {}),
            _call(manager, "demo", "sleep", {"seconds": 0.05}),
            _call(manager, "demo", "sleep", {"seconds": 5.0}, timeout=0.1),
            _call(manager, "sdk-stdio", "fail", {}),
            *(_call(manager, "narrow", "sleep", {"seconds": 0.02}) for _ in range(4)),
            _call(manager, "broken", "echo", {"text": "x"}),
            _call(manager, "broken", "other", {}),
            _call(manager, "gone", "echo", {"text": "x"}, timeout=0.5),
        )
        for fault in (Status(429), Status(401), Reply(b"not JSON"), Dripping(1 << 15, 1, sse=True)):
            self._odd.script("tools/call", fault)
            await _call(manager, "odd", "echo", {"text": "x"})
        self._odd.expire_sessions()
        await _call(manager, "odd", "echo", {"text": "x"})
        await self._end_something(manager)

    async def _end_something(self, manager: McpManager) -> None:
        """Kill a program in the middle of a call, and restart a server, which forgets its sessions."""
        waiting = asyncio.create_task(_call(manager, "sdk-stdio", "sleep", {"seconds": 0.2}))
        await asyncio.sleep(0)
        for pid in manager.server("sdk-stdio").pids:
            os.kill(pid, signal.SIGKILL)
        await waiting
        await asyncio.to_thread(self._sdk.restart)
        await _call(manager, "sdk-http", "echo", {"text": "x"})


async def _call(
    manager: McpManager, server_id: str, tool: str, arguments: dict[str, Any], timeout: float = 5.0
) -> None:
    """Call a tool, and leave it to the metrics how that ends."""
    with contextlib.suppress(CallError, RpcError):
        await manager.call_tool(server_id, tool, arguments, timeout=timeout)


@contextlib.asynccontextmanager
async def served_metrics(manager: McpManager) -> Any:
    """Serve the metrics as the recipe does; yield the address."""

    async def metrics(request: web.Request) -> web.Response:
        page = await manager.scrape(request.headers.get("Accept", ""))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
