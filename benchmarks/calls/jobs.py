"""Jobs other than calls, for a fresh process: opening, keeping and closing many sessions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import time
from typing import Any

from benchmarks.calls.measure import memory_kb, processor_s
from mcp_manager.manager import McpManager

__all__ = ["manager_sessions", "sdk_sessions"]

_AT_A_TIME = 50
_REQUEST = b'{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'


class _Stopwatch:
    """Measures wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), sum(processor_s())

    def read(self, name: str) -> dict[str, float]:
        return {
            f"{name}_cpu_s": sum(processor_s()) - self._processor,
            f"{name}_wall_s": time.perf_counter() - self._wall,
        }


async def manager_sessions(urls: list[str]) -> dict[str, Any]:
    """Deploy a server per URL at once, call each once, stop; return seconds, and growth of resident memory in kB."""
    async with McpManager() as warm:
        await warm.deploy("warm", {"url": urls[0]})
        await warm.execute_raw("warm", _REQUEST)
    manager = McpManager()
    await manager.start()
    before = _settled_kb()
    watch = _Stopwatch()
    await asyncio.gather(*(manager.deploy(f"server-{number}", {"url": url}) for number, url in enumerate(urls)))
    found = watch.read("open")
    found["open_kb"] = _settled_kb() - before
    found["healthy"] = manager.health().healthy_servers
    for first in range(0, len(urls), _AT_A_TIME):
        numbers = range(first, min(first + _AT_A_TIME, len(urls)))
        await asyncio.gather(*(manager.execute_raw(f"server-{number}", _REQUEST) for number in numbers))
    found["called_kb"] = _settled_kb() - before
    watch = _Stopwatch()
    await manager.stop()
    return found | watch.read("close")


async def sdk_sessions(urls: list[str]) -> dict[str, Any]:
    """Open a ``ClientSession`` of the official SDK per URL, call each once, close; like :func:`manager_sessions`."""
    client_session = importlib.import_module("mcp").ClientSession
    connect = importlib.import_module("mcp.client.streamable_http").streamable_http_client

    async def open_one(stack: contextlib.AsyncExitStack, url: str) -> Any:
        read, write, *_ = await stack.enter_async_context(connect(url))
        session = await stack.enter_async_context(client_session(read, write))
        await session.initialize()
        return session

    async with contextlib.AsyncExitStack() as warm:
        await (await open_one(warm, urls[0])).call_tool("echo", {"text": "x"})
    async with contextlib.AsyncExitStack() as stack:
        before = _settled_kb()
        watch = _Stopwatch()
        sessions = [await open_one(stack, url) for url in urls]
        found = watch.read("open")
        found["open_kb"] = _settled_kb() - before
        found["healthy"] = len(sessions)
        for session in sessions:
            await session.call_tool("echo", {"text": "x"})
        found["called_kb"] = _settled_kb() - before
        watch = _Stopwatch()
    return found | watch.read("close")


def _settled_kb() -> int:
    """Return the resident memory in kB after a garbage collection."""
    gc.collect()
    resident, _ = memory_kb()
    return resident
