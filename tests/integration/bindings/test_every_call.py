"""Every kind of call of ``PyMcpManager``, from threads, from other loops and on the manager's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.blocking import Blocked
from support.calls import CALM

from mcp_manager import (
    Caller,
    ConfigError,
    ConnectError,
    DeadlineExceededError,
    FleetChange,
    InvalidRequestError,
    ManagerConfig,
    NotRunningError,
    PyForCaller,
    PyMcpManager,
    ServerExistsError,
    ServerNotFoundError,
    ServerState,
)
from mcp_manager.testing.scripted import ScriptedServer

ARGUMENTS = {"text": "x"}
GONE = "http://127.0.0.1:9/mcp"
SHORT_S = 0.05

# What only reads, with arguments for a server "a".
READS: dict[str, Callable[[Any], Any]] = {
    "health": lambda manager: manager.health(),
    "get_health_status": lambda manager: manager.get_health_status(),
    "servers": lambda manager: manager.servers(),
    "list_servers": lambda manager: manager.list_servers(),
    "snapshot": lambda manager: manager.snapshot(),
    "flight_records": lambda manager: manager.flight_records(),
    "metrics_text": lambda manager: manager.metrics_text(),
    "export_prometheus_metrics": lambda manager: manager.export_prometheus_metrics(),
    "scrape": lambda manager: manager.scrape(),
    "scrape_stream": lambda manager: b"".join(manager.scrape_stream()),
    "is_running": lambda manager: (manager.is_running,),
    "watched": lambda manager: (manager.watched,),
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def manager(server: ScriptedServer) -> Iterator[PyMcpManager]:
    with PyMcpManager() as manager:
        manager.deploy("a", {"url": server.url, **CALM})
        yield manager


@contextlib.asynccontextmanager
async def on_this_loop(server: ScriptedServer) -> AsyncIterator[PyMcpManager]:
    async with PyMcpManager() as manager:
        await manager.deploy_async("a", {"url": server.url, **CALM})
        yield manager


def use(manager: PyMcpManager) -> None:
    """Call what there is on this thread."""
    assert manager.call_tool("a", "echo", ARGUMENTS, timeout=10).text == "x"
    assert manager.call_fleet_tool("a__echo", ARGUMENTS, timeout=10).text == "x"
    assert {tool.name for tool in manager.list_tools("a")} == {
        tool.tool.name for tool in manager.list_all_tools().tools
    }
    assert manager.request("a", "tools/call", {"name": "echo", "arguments": ARGUMENTS})["content"][0]["text"] == "x"
    assert b"result" in manager.execute_raw("a", b'{"method":"ping"}')
    assert "result" in manager.execute_text("a", '{"method":"ping"}')
    assert manager.ping("a") is None
    assert manager.server("a").state is manager.server_state("a") is ServerState.HEALTHY
    assert manager.wait_ready(timeout=10) is None
    assert manager.drop_cached("a") is None
    alice = manager.for_caller(Caller("alice"))
    assert isinstance(alice, PyForCaller)
    assert alice.call_tool("a", "echo", ARGUMENTS).text == "x"
    assert "result" in alice.execute("a", '{"method":"ping"}')
    assert "alice" not in repr(alice)


async def use_async(manager: PyMcpManager) -> None:
    """Await what there is on this loop."""
    assert (await manager.call_tool_async("a", "echo", ARGUMENTS, timeout=10)).text == "x"
    assert (await manager.call_fleet_tool_async("a__echo", ARGUMENTS, timeout=10)).text == "x"
    assert len((await manager.list_all_tools_async()).tools) == len(await manager.list_tools_async("a"))
    assert b"result" in await manager.execute_raw_async("a", b'{"method":"ping"}')
    assert (await manager.server_async("a")).state is await manager.server_state_async("a") is ServerState.HEALTHY
    await manager.wait_ready_async(timeout=10)
    await manager.drop_cached_async("a")
    alice = await manager.for_caller_async(Caller("alice"))
    assert (await alice.call_tool_async("a", "echo", ARGUMENTS)).text == "x"
    assert "result" in await alice.execute_async("a", '{"method":"ping"}')
    assert (await manager.scrape_async()).body.startswith(b"# HELP")
    assert b"".join([piece async for piece in await manager.scrape_stream_async()]).startswith(b"# HELP")
    assert (await manager.metrics_text_async()).startswith("# HELP")


def test_threads_have_every_call(manager: PyMcpManager) -> None:
    use(manager)
    for name, read in READS.items():
        assert read(manager), name


def test_another_loop_has_every_call(manager: PyMcpManager) -> None:
    async def main() -> None:
        await use_async(manager)
        for name, read in READS.items():
            assert read(manager), name

    asyncio.run(main())


async def test_the_managers_own_loop_has_every_call(server: ScriptedServer) -> None:
    async with on_this_loop(server) as manager:
        await use_async(manager)
        for name, read in READS.items():
            assert read(manager), name
        # Threads call it at the same time.
        await asyncio.to_thread(use, manager)


def test_reading_works_before_the_start_and_after_the_end() -> None:
    manager = PyMcpManager()

    def read() -> None:
        assert {name for name, each in READS.items() if not each(manager)} <= {
            "servers",
            "list_servers",
            "flight_records",
        }
        assert not manager.is_running

    async def main() -> None:
        read()

    read()
    asyncio.run(main())
    with manager:
        assert manager.is_running
    read()
    asyncio.run(main())


async def test_a_blocking_call_on_the_managers_loop_names_what_to_await(server: ScriptedServer) -> None:
    async with on_this_loop(server) as manager:
        refused: dict[str, Callable[[], Any]] = {
            "execute_async": lambda: manager.execute("a", '{"method":"ping"}'),
            "call_tool_async": lambda: manager.call_tool("a", "echo"),
            "list_all_tools_async": lambda: manager.list_all_tools(),
            "wait_ready_async": lambda: manager.wait_ready(),
            "unwatch_async": lambda: manager.unwatch(),
            "apply_async": lambda: manager.apply(ManagerConfig()),
            "ping_async": lambda: manager.for_caller(Caller("alice")).ping("a"),
        }
        for name, call in refused.items():
            with pytest.raises(NotRunningError, match=f"await {name} instead"):
                call()


def test_calls_before_the_start_and_after_the_end_are_refused() -> None:
    manager = PyMcpManager()
    calls: tuple[Callable[[], Any], ...] = (
        lambda: manager.call_tool("a", "echo"),
        lambda: manager.deploy("a", {}),
        lambda: manager.drop_cached("a"),
        lambda: manager.for_caller(Caller("alice")).ping("a"),
        lambda: asyncio.run(manager.call_tool_async("a", "echo")),
    )
    for call in calls:
        with pytest.raises(NotRunningError, match="not started"):
            call()
    manager.start()
    manager.stop()
    for call in calls:
        with pytest.raises(NotRunningError, match="stopped"):
            call()


def test_wrong_arguments_are_refused_as_by_the_original(manager: PyMcpManager) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'argument'"):
        manager.call_tool("a", "echo", argument={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 2 required"):
        manager.call_tool()  # type: ignore[call-arg]
    with pytest.raises(InvalidRequestError, match="timeout"):
        manager.call_tool("a", "echo", timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="Caller"):
        manager.for_caller("alice")  # type: ignore[arg-type]
    with pytest.raises(ServerNotFoundError):
        manager.list_tools("b")
    with pytest.raises(ServerNotFoundError):
        manager.call_tool(7, "echo")  # type: ignore[arg-type]


# Deadlines of callers


@pytest.mark.parametrize(
    "call",
    [
        lambda manager: manager.call_tool("a", "echo", ARGUMENTS, timeout=SHORT_S),
        lambda manager: manager.list_tools("a", timeout=SHORT_S),
        lambda manager: manager.call_fleet_tool("a__echo", ARGUMENTS, timeout=SHORT_S),
        lambda manager: manager.wait_ready(timeout=SHORT_S),
        lambda manager: asyncio.run(manager.call_tool_async("a", "echo", ARGUMENTS, timeout=SHORT_S)),
        lambda manager: manager.for_caller(Caller("alice")).ping("a", timeout=SHORT_S),
    ],
)
def test_a_timeout_holds_while_the_managers_loop_is_blocked(
    manager: PyMcpManager, call: Callable[[PyMcpManager], Any]
) -> None:
    assert manager._loop is not None
    with Blocked(manager._loop), pytest.raises(DeadlineExceededError) as caught:
        call(manager)
    assert caught.value.delivery == "not_sent"


def test_the_timeout_of_the_server_is_the_default(manager: PyMcpManager, server: ScriptedServer) -> None:
    manager.deploy("b", {"url": server.url, **CALM, "request_timeout_s": SHORT_S})
    assert manager._loop is not None
    with Blocked(manager._loop), pytest.raises(DeadlineExceededError):
        manager.call_tool("b", "echo", ARGUMENTS)


# Changes on the manager's own loop


@pytest.mark.both_loops
async def test_changes_take_effect_at_once_on_the_managers_loop(server: ScriptedServer) -> None:
    config = {"url": server.url, **CALM, "max_instances": 3}
    async with PyMcpManager() as manager:
        deployed = manager.deploy_server("a", config)
        assert isinstance(deployed, FleetChange)
        assert [each.id for each in manager.list_servers()] == ["a"]
        with pytest.raises(ServerExistsError):
            manager.deploy_server("a", config)
        with pytest.raises(ConfigError):
            manager.deploy_server("b", {"url": 7})
        with pytest.raises(ServerNotFoundError):
            manager.undeploy_server("b")
        with pytest.raises(ServerNotFoundError):
            manager.scale_server("b", 1)
        with pytest.raises(ServerNotFoundError):
            manager.redeploy_server("b", config)
        await deployed
        assert manager.get_server_state("a") == "Healthy"
        scaled = manager.scale_server("a", 3)
        assert manager.server("a").desired == 3
        with pytest.raises(ConfigError):
            manager.scale_server("a", 4)
        await scaled
        assert manager.server("a").ready == 3
        manager.set_maintenance("a", True)
        assert manager.server_state("a") is ServerState.MAINTENANCE
        manager.set_maintenance("a", False)
        replaced = manager.redeploy_server("a", {**config, "headers": {"X-New": "1"}})
        await replaced
        assert (await manager.call_tool_async("a", "echo", ARGUMENTS)).text == "x"
        assert server.requests_of("tools/call")[-1].headers["x-new"] == "1"
        removed = manager.undeploy_server("a")
        assert manager.list_servers() == []
        await removed
        # Nobody awaits this one.
        manager.deploy_server("c", config)
    assert manager.list_servers() == []


async def test_a_change_that_fails_later_is_logged_once(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_this_loop(server) as manager:
        with pytest.raises(ConnectError):
            await manager.redeploy("a", {"url": GONE, **CALM, "connect_timeout_s": 0.2})
        assert "could not be changed" not in caplog.text
        manager.redeploy("a", {"url": GONE, **CALM, "connect_timeout_s": 0.2})
        while "could not be changed" not in caplog.text:
            await asyncio.sleep(0.005)
        assert (await manager.call_tool_async("a", "echo", ARGUMENTS)).text == "x"
    assert caplog.text.count("server 'a' could not be changed") == 1


def test_changes_block_on_other_threads_and_may_be_awaited_all_the_same(
    manager: PyMcpManager, server: ScriptedServer
) -> None:
    async def main() -> None:
        await manager.deploy("b", {"url": server.url, **CALM})
        assert manager.get_server_state("b") == "Healthy"
        await manager.scale("b", 2)
        await manager.undeploy("b")

    asyncio.run(main())
    with pytest.raises(ServerNotFoundError):
        manager.undeploy("b")


def test_a_callback_on_the_managers_thread_may_change_the_fleet(server: ScriptedServer) -> None:
    seen: list[list[str]] = []
    done = threading.Event()

    def changed(event: Any) -> None:
        if event.server_id == "a" and event.state is ServerState.HEALTHY and not seen:
            manager.deploy("b", {"url": server.url, **CALM})
            seen.append([each.id for each in manager.servers()])
            done.set()

    with PyMcpManager(on_state_change=changed) as manager:
        manager.deploy("a", {"url": server.url, **CALM})
        assert done.wait(10)
        assert seen == [["a", "b"]]


def test_many_threads_call_at_once(manager: PyMcpManager) -> None:
    with ThreadPoolExecutor(16) as threads:
        texts = threads.map(lambda n: manager.call_tool("a", "echo", {"text": f"t{n}"}).text, range(100))
        assert list(texts) == [f"t{n}" for n in range(100)]
