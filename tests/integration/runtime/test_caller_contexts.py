"""What callers have in their context variables, such as their own request, is neither kept nor seen by others."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.kept import objects
from support.processes import PROGRAMS

from mcp_manager import Handlers, ManagerConfig, McpManager
from mcp_manager.testing.scripted import ScriptedServer

tenant: ContextVar[Any] = ContextVar("tenant")
STDIO = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"], "connect_timeout_s": 15.0}


class CallerRequest:
    """What a web framework keeps in a context."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


async def within_request(work: Coroutine[Any, Any, object]) -> weakref.ref[CallerRequest]:
    """Do work with a request of its own in the context, and return a reference to that."""
    request = CallerRequest()
    context = contextvars.copy_context()
    context.run(tenant.set, request)
    await asyncio.get_running_loop().create_task(work, context=context)
    return weakref.ref(request)


def forget_cancelled_timers() -> None:
    """Drop the contexts of cancelled timers, which asyncio keeps until they would have been due."""
    for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()):
        if timer.cancelled():
            timer._context = None


@pytest.mark.both_loops
@pytest.mark.parametrize("way", ["lanes", "ordinary requests", "pipes"])
async def test_nothing_keeps_the_context_that_a_call_is_made_in(server: ScriptedServer, way: str) -> None:
    config = CALM if way == "pipes" else {"url": server.url, **CALM}
    config = {**config, **STDIO} if way == "pipes" else config
    call = {"pipes": ("received", {})}.get(way, ("echo", {"text": "a"}))
    async with McpManager(ManagerConfig(http_lanes=way != "ordinary requests")) as manager:
        kept = {
            "deploy": await within_request(manager.deploy("a", config)),
            "first call": await within_request(manager.call_tool("a", *call)),
            "call": await within_request(manager.call_tool("a", *call)),
            "calls": await within_request(_all(*(manager.call_tool("a", *call) for _ in range(8)))),
            "scale": await within_request(manager.scale("a", 2)),
            "redeploy": await within_request(manager.redeploy("a", config)),
            "raw call": await within_request(manager.execute_raw("a", b'{"method":"ping"}')),
        }

        def are_kept() -> list[str]:
            forget_cancelled_timers()
            gc.collect()
            return [name for name, request in kept.items() if request() is not None]

        await eventually(lambda: not are_kept(), "nothing is kept")
        assert are_kept() == []


async def _all(*calls: Coroutine[Any, Any, object]) -> None:
    await asyncio.gather(*calls)


@pytest.mark.both_loops
async def test_an_idle_connection_keeps_no_server_that_is_gone(server: ScriptedServer) -> None:
    async with McpManager(ManagerConfig(http_lanes=False)) as manager:
        gc.collect()
        before = objects()
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.call_tool("a", "echo", {"text": "a"})
        await manager.undeploy("a")
        gc.collect()
        assert server.open_connections > 0
        assert objects() - before == {}


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_handlers_run_in_the_context_of_the_manager_unless_their_call_asks(era: str) -> None:
    """A server's question comes by a connection that some other caller may have opened."""
    seen: list[object] = []

    def roots(server_id: str) -> list[str]:
        seen.append(tenant.get())
        return []

    async def as_caller(name: str, work: Coroutine[Any, Any, object]) -> None:
        context = contextvars.copy_context()
        context.run(tenant.set, name)
        await asyncio.get_running_loop().create_task(work, context=context)

    tenant.set("maker")
    config = {**STDIO, "args": [STDIO["args"][0], era]}
    async with McpManager(handlers=Handlers(roots=roots)) as manager:
        await as_caller("deployer", manager.deploy("a", config))
        for name in ("first", "second"):
            await as_caller(name, manager.call_tool("a", "ask", {"method": "roots/list"}))
    assert seen == (["maker", "maker"] if era == "handshake" else ["first", "second"])
