"""Callers that are interrupted, in a thread, or cancelled, on another loop: at every kind of method."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import pytest
from support import faults
from support.calls import CALM
from support.scripted import ScriptedServer

from mcp_manager import Caller, ManagerConfig, PyMcpManager, ServerConfig

WAIT_S = 15.0
ECHO = {"text": "x"}


class Interrupted(BaseException):
    """What the signal raises in the main thread."""


class Case(NamedTuple):
    """A call that a server does not answer: the request that it holds, and the call in a thread and on a loop."""

    held: str
    blocking: Callable[[PyMcpManager, str], Any]
    awaited: Callable[[PyMcpManager, str], Coroutine[Any, Any, Any]]


CASES = {
    "execute": Case(
        "tools/call",
        lambda manager, url: manager.execute("a", '{"method":"tools/call","params":{"name":"echo","arguments":{}}}'),
        lambda manager, url: manager.execute_async("a", '{"method":"tools/call","params":{"name":"echo"}}'),
    ),
    "call_tool": Case(
        "tools/call",
        lambda manager, url: manager.call_tool("a", "echo", ECHO, timeout=WAIT_S),
        lambda manager, url: manager.call_tool_async("a", "echo", ECHO, timeout=WAIT_S),
    ),
    "with progress": Case(
        "tools/call",
        lambda manager, url: manager.call_tool("a", "echo", ECHO, on_progress=lambda *_: None),
        lambda manager, url: manager.call_tool_async("a", "echo", ECHO, on_progress=lambda *_: None),
    ),
    "for_caller": Case(
        "tools/call",
        lambda manager, url: manager.for_caller(Caller("alice")).call_tool("a", "echo", ECHO),
        lambda manager, url: manager.for_caller(Caller("alice")).call_tool_async("a", "echo", ECHO),
    ),
    "list_tools": Case(
        "tools/list",
        lambda manager, url: manager.list_tools("a"),
        lambda manager, url: manager.list_tools_async("a"),
    ),
    "call_fleet_tool": Case(
        "tools/list",
        lambda manager, url: manager.call_fleet_tool("a__echo", ECHO, timeout=WAIT_S),
        lambda manager, url: manager.call_fleet_tool_async("a__echo", ECHO, timeout=WAIT_S),
    ),
    "deploy": Case(
        "initialize",
        lambda manager, url: manager.deploy("b", {"url": url, **CALM, "connect_timeout_s": WAIT_S}),
        lambda manager, url: manager.deploy_async("b", {"url": url, **CALM, "connect_timeout_s": WAIT_S}),
    ),
    "redeploy": Case(
        "initialize",
        lambda manager, url: manager.redeploy(
            "a", {"url": url, **CALM, "connect_timeout_s": WAIT_S, "headers": {"x": "y"}}
        ),
        lambda manager, url: manager.redeploy_async(
            "a", {"url": url, **CALM, "connect_timeout_s": WAIT_S, "headers": {"x": "y"}}
        ),
    ),
    "scale": Case(
        "initialize",
        lambda manager, url: manager.scale("a", 2),
        lambda manager, url: manager.scale_async("a", 2),
    ),
    "wait_ready": Case(
        "initialize",
        lambda manager, url: manager.wait_ready(2, timeout=WAIT_S),
        lambda manager, url: manager.wait_ready_async(2, timeout=WAIT_S),
    ),
    "apply": Case(
        "initialize",
        lambda manager, url: manager.apply(fleet(url)),
        lambda manager, url: manager.apply_async(fleet(url)),
    ),
}
EACH = pytest.mark.parametrize("name", CASES)


def fleet(url: str) -> ManagerConfig:
    return ManagerConfig(servers={"a": ServerConfig(url=url), "b": ServerConfig(url=url, connect_timeout_s=WAIT_S)})


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def manager(server: ScriptedServer) -> Iterator[PyMcpManager]:
    with PyMcpManager() as manager:
        manager.deploy("a", {"url": server.url, **CALM, "connect_timeout_s": WAIT_S})
        yield manager


@contextlib.contextmanager
def held(server: ScriptedServer, name: str, manager: PyMcpManager) -> Iterator[faults.Hold]:
    """Have the server hold what a case waits for; afterwards, everything works as before."""
    if name == "wait_ready":
        manager.deploy("b", {"url": server.url, **CALM, "connect": "lazy", "connect_timeout_s": WAIT_S})
    hold = faults.Hold()
    server.forget()
    server.script(CASES[name].held, hold)
    yield hold
    hold.release()
    assert manager.call_tool("a", "echo", ECHO, timeout=WAIT_S).text == "x"
    if name == "deploy":
        # It was never there for anybody.
        while [each.id for each in manager.servers()] != ["a"]:
            threading.Event().wait(0.005)
    if name == "redeploy":
        assert manager.server("a").desired == 1
    assert manager._calls is not None
    while manager._calls._started:
        threading.Event().wait(0.005)


@EACH
def test_an_interrupted_thread_leaves_its_call(manager: PyMcpManager, server: ScriptedServer, name: str) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        asyncio.run(server.wait_for(CASES[name].held))
        signal.pthread_kill(main, signal.SIGUSR1)

    def interrupted(*_: Any) -> NoReturn:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        with held(server, name, manager), ThreadPoolExecutor(1) as threads:
            interrupting = threads.submit(interrupt)
            with pytest.raises(Interrupted):
                CASES[name].blocking(manager, server.url)
            interrupting.result(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


@EACH
def test_a_cancelled_task_on_another_loop_leaves_its_call(
    manager: PyMcpManager, server: ScriptedServer, name: str
) -> None:
    async def main() -> None:
        calling = asyncio.create_task(CASES[name].awaited(manager, server.url))
        await server.wait_for(CASES[name].held)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    with held(server, name, manager):
        asyncio.run(main())


@pytest.mark.parametrize("name", ["call_tool", "with progress", "for_caller"])
def test_the_server_is_told_of_a_call_that_nobody_waits_for(
    manager: PyMcpManager, server: ScriptedServer, name: str
) -> None:
    async def main() -> None:
        calling = asyncio.create_task(CASES[name].awaited(manager, server.url))
        await server.wait_for(CASES[name].held)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await server.wait_for("notifications/cancelled")

    with held(server, name, manager):
        asyncio.run(main())


async def test_a_cancelled_task_on_the_managers_own_loop_leaves_its_call(server: ScriptedServer) -> None:
    async with PyMcpManager() as manager:
        await manager.deploy("a", {"url": server.url, **CALM})
        hold = faults.Hold()
        server.script("tools/call", hold)
        calling = asyncio.create_task(manager.call_tool_async("a", "echo", ECHO))
        await server.wait_for("tools/call")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await server.wait_for("notifications/cancelled")
        hold.release()
        server.forget()
        # Whoever awaits a change that has taken effect only stops waiting.
        server.script("initialize", hold := faults.Hold())
        change = manager.deploy("b", {"url": server.url, **CALM, "connect_timeout_s": WAIT_S})

        async def wait() -> None:
            await change

        waiting = asyncio.create_task(wait())
        await server.wait_for("initialize")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [each.id for each in manager.servers()] == ["a", "b"]
        hold.release()
        await change
        assert (await manager.call_tool_async("b", "echo", ECHO)).text == "x"
