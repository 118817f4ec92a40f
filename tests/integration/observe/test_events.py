"""What a manager tells of real servers: programs that are killed, URLs that vanish, and what is done to the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest
from support.calls import SWIFT
from support.forking import in_child
from support.processes import scripted_stdio, unused_port

import mcp_manager
from mcp_manager import (
    ChildExited,
    ChildStarted,
    ConfigApplied,
    ConfigError,
    Event,
    EventStream,
    InvalidRequestError,
    ManagerConfig,
    McpManager,
    NotRunningError,
    PyMcpManager,
    ServerConfig,
    ServerDeployed,
    ServerExitedError,
    ServerNotFoundError,
    ServerRedeployed,
    ServerScaled,
    ServerState,
    ServerStateChanged,
    ServerUndeployed,
    SessionLost,
    SessionReplaced,
    ToolsChanged,
)
from mcp_manager.testing.scripted import ScriptedServer

E = TypeVar("E", bound=Event)

LIMIT_S = 20.0
HEALTHY, UNHEALTHY = ServerState.HEALTHY, ServerState.UNHEALTHY


async def next_of(stream: EventStream, kind: type[E]) -> E:
    """Wait for the next event of a kind."""
    async with asyncio.timeout(LIMIT_S):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the stream ended without {kind.__name__}")


async def until(stream: EventStream, state: ServerState) -> list[ServerStateChanged]:
    """Wait for a state; return all changes up to it."""
    seen = []
    while not seen or seen[-1].state is not state:
        seen.append(await next_of(stream, ServerStateChanged))
    return seen


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def logged(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == level and each.name.startswith("mcp_man")]


@pytest.mark.both_loops
async def test_a_program_that_is_killed_is_told_in_the_log_and_as_events(
    manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")
    await manager.deploy("files", {**scripted_stdio().config(), **SWIFT})
    events = manager.events(server_id="files")
    caplog.clear()
    (pid,) = manager.server("files").pids
    os.kill(pid, signal.SIGKILL)
    exited = await next_of(events, ChildExited)
    assert (exited.server_id, exited.instance, exited.pid) == ("files", 0, pid)
    assert (exited.signal, exited.exit_status, exited.was_ready) == ("SIGKILL", None, True)
    assert exited.restart_in_s is not None
    assert 0 <= exited.restart_in_s <= 0.1
    changes = await until(events, HEALTHY)
    assert (changes[0].previous, changes[0].state, changes[0].reasons) == (HEALTHY, UNHEALTHY, ("restarting",))
    (new,) = manager.server("files").pids
    assert new != pid
    warnings, news = logged(caplog, logging.WARNING), logged(caplog, logging.INFO)
    assert len(warnings) == 2
    assert (
        f"lost its program (pid {pid}, instance 0): the server process was killed by signal 9 (SIGKILL)" in warnings[0]
    )
    assert "it is started again in" in warnings[0]
    assert warnings[1].startswith("server 'files' is Unhealthy: restarting (")
    assert len(news) == 2
    assert news[0].startswith("server 'files' has its program running again after")
    assert f"(pid {new}, instance 0)" in news[0]
    assert news[1].startswith("server 'files' is Healthy again after")
    record = next(each for each in caplog.records if getattr(each, "event", "") == "child_exited")
    assert (record.server_id, record.pid, record.signal) == ("files", pid, "SIGKILL")  # type: ignore[attr-defined]
    view, snapshot = manager.server("files"), manager.snapshot().servers[0].instances[0]
    assert view.last_exit == snapshot.last_exit == exited


async def test_how_a_program_exits_and_why_is_told(manager: McpManager) -> None:
    events = manager.events(kinds=ChildExited)
    code = "import sys; sys.stderr.write('API_KEY is not set\\n'); sys.exit(3)"
    await manager.deploy("a", {"command": sys.executable, "args": ["-c", code], **SWIFT})
    exited = await next_of(events, ChildExited)
    assert (exited.exit_status, exited.signal, exited.was_ready) == (3, None, False)
    assert exited.stderr == "API_KEY is not set"
    assert exited.reason == "the server process exited with status 3"
    # It is started again and again, and each end is told.
    assert (await next_of(events, ChildExited)).pid != exited.pid


async def test_the_program_of_a_refused_rollout_is_not_said_to_start_again(
    manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    await manager.deploy("a", {**scripted_stdio().config(), **SWIFT})
    events = manager.events(kinds=ChildExited)
    with pytest.raises(ServerExitedError):
        await manager.redeploy("a", {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]})
    exited = await next_of(events, ChildExited)
    assert (exited.exit_status, exited.restart_in_s) == (3, None)
    (warning,) = logged(caplog, logging.WARNING)
    assert "exited with status 3; it wrote nothing to stderr" in warning
    # One that has taken over is started again.
    await manager.redeploy("a", {**scripted_stdio().config(), **SWIFT})
    (pid,) = manager.server("a").pids
    os.kill(pid, signal.SIGKILL)
    assert (await next_of(events, ChildExited)).restart_in_s is not None


async def test_a_url_that_vanishes_and_comes_back_is_told(manager: McpManager) -> None:
    with ScriptedServer() as server:
        await manager.deploy("web", {"url": server.url, **SWIFT})
        events = manager.events(server_id="web")
        server.refuse_connections()
        server.expire_sessions()
        assert (await until(events, UNHEALTHY))[0].previous is HEALTHY
        server.listen()
        assert (await until(events, HEALTHY))[-1].outage_s is not None


async def test_a_url_that_cannot_be_reached_is_one_warning(
    manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    events = manager.events()
    await manager.deploy("gone", {"url": f"http://127.0.0.1:{unused_port()}/mcp", **SWIFT})
    assert isinstance(await next_of(events, ServerDeployed), ServerDeployed)
    changed = await next_of(events, ServerStateChanged)
    assert (changed.previous, changed.state) == (ServerState.INITIALIZING, UNHEALTHY)
    assert changed.error is not None
    assert "Connection refused" in changed.error
    [warning] = [each for each in logged(caplog, logging.WARNING) if "Unhealthy" in each]
    assert warning.startswith("server 'gone' is Unhealthy: not connected (cannot connect to http://127.0.0.1:")


async def test_what_is_done_to_the_fleet_is_told(manager: McpManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")
    kinds = [ServerDeployed, ServerUndeployed, ServerRedeployed, ServerScaled, ConfigApplied]
    events = manager.events(kinds=kinds)
    with ScriptedServer() as server:
        config = ServerConfig(url=server.url, max_instances=3)
        await manager.deploy("a", config)
        await manager.scale("a", 3)
        await manager.scale("a", 3)
        await manager.redeploy("a", ServerConfig(url=server.url, tags=("new",)))
        await manager.apply(ManagerConfig(servers={"b": config}))
        await manager.stop()
    told = [each async for each in events]
    assert [(type(each).__name__, getattr(each, "server_id", "")) for each in told] == [
        ("ServerDeployed", "a"),
        ("ServerScaled", "a"),
        ("ServerRedeployed", "a"),
        ("ServerDeployed", "b"),
        ("ServerUndeployed", "a"),
        ("ConfigApplied", ""),
    ]
    applied = told[-1]
    assert isinstance(applied, ConfigApplied)
    assert (applied.deployed, applied.undeployed, applied.failed) == (("b",), ("a",), ())
    assert logged(caplog, logging.WARNING) == []
    for line in ("server 'a' deployed (http, instances: 1)", "server 'a' scaled from 1 to 3 instances"):
        assert line in caplog.messages


async def test_the_servers_of_the_configuration_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")
    url = f"http://127.0.0.1:{unused_port()}/mcp"
    servers = {f"s{number}": ServerConfig(url=url, connect="lazy") for number in range(500)}
    manager = McpManager(ManagerConfig(servers=servers))
    events = manager.events(kinds=[ServerDeployed], buffer=1_000)
    async with manager:
        assert logged(caplog, logging.INFO) == ["500 servers deployed"]
    assert len([each async for each in events]) == 500


async def test_changed_tools_and_maintenance_are_told(manager: McpManager) -> None:
    with ScriptedServer() as server:
        await manager.deploy("a", {"url": server.url})
        events = manager.events(kinds=[ToolsChanged, ServerStateChanged])
        manager._tools_changed("a", None)
        await manager.set_maintenance("a", True)
        assert await next_of(events, ToolsChanged)
        assert (await next_of(events, ServerStateChanged)).state is ServerState.MAINTENANCE
        manager._tools_changed("unknown", None)


# Callers' threads, loops and ends


def test_threads_follow_a_manager_that_runs_on_its_own() -> None:
    seen: list[str] = []
    threads: set[str] = set()

    def on_state_change(event: ServerStateChanged) -> None:
        threads.add(threading.current_thread().name)
        seen.append(event.state.value)

    with PyMcpManager(on_state_change=on_state_change) as manager:
        events = manager.events()
        manager.deploy_server("a", {**scripted_stdio().config(), **SWIFT})
        assert isinstance(next(events), ServerDeployed)
        started = next(each for each in events if isinstance(each, ChildStarted))
        os.kill(started.pid, signal.SIGKILL)
        for event in events:
            if isinstance(event, ServerStateChanged) and event.outage_s is not None:
                break
        reading: list[list[Event]] = []
        reader = threading.Thread(target=lambda: reading.append(list(events)))
        reader.start()
    reader.join(LIMIT_S)
    assert [each for each in reading[0] if not isinstance(each, ServerStateChanged)] == []
    assert threads == {"mcp-manager"}
    assert seen[0] == "Healthy"
    assert seen[-1] == "Healthy"
    assert "Unhealthy" in seen
    with pytest.raises(NotRunningError):
        manager.events()


async def test_other_loops_follow_a_manager_that_runs_on_its_own() -> None:
    manager = PyMcpManager()
    await asyncio.to_thread(manager.start)
    try:
        events = manager.events()
        await manager.deploy_server_async("a", {**scripted_stdio().config(), **SWIFT})
        assert (await next_of(events, ChildStarted)).pid
    finally:
        await manager.stop_async()
    async with asyncio.timeout(LIMIT_S):
        async for _ in events:
            pass


@pytest.mark.both_loops
async def test_a_manager_stops_while_consumers_wait() -> None:
    ended = []
    async with McpManager() as manager:
        await manager.deploy("a", scripted_stdio().config())

        async def consume() -> None:
            async for _ in manager.events():
                pass
            ended.append(True)

        async def follow() -> None:
            async for _ in manager.stderr_lines("a", follow=True):
                pass
            ended.append(True)

        consumers = [asyncio.create_task(consume()), asyncio.create_task(follow())]
        await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*consumers)
    assert ended == [True, True]
    with pytest.raises(NotRunningError, match="is stopped"):
        manager.events()


async def test_events_are_told_before_the_start_and_end_without_one() -> None:
    manager = McpManager()
    events = manager.events()
    await manager.stop()
    assert [each async for each in events] == []


async def test_a_callback_sees_a_manager_that_is_whole() -> None:
    seen: list[Any] = []

    async def on_state_change(event: ServerStateChanged) -> None:
        seen.append((event.state, manager.server_state(event.server_id), manager.health().healthy_servers))

    manager = McpManager(on_state_change=on_state_change)
    async with manager:
        await manager.deploy("a", scripted_stdio().config())
        async with asyncio.timeout(LIMIT_S):
            while not seen:
                await asyncio.sleep(0)
    assert seen == [(HEALTHY, HEALTHY, 1)]


@pytest.mark.parametrize("kind", [McpManager, PyMcpManager])
def test_what_is_no_callback_is_refused(kind: type[Any]) -> None:
    with pytest.raises(ConfigError, match="on_state_change must be a function, not 'print'"):
        kind(on_state_change="print")


async def test_wrong_arguments_are_refused(manager: McpManager) -> None:
    for kinds in (str, [str], "ServerStateChanged", [], 7, [ServerStateChanged(**STATE)]):
        with pytest.raises(ConfigError, match="kinds must be classes of events"):
            manager.events(kinds=kinds)  # type: ignore[arg-type]
    for buffer in (0, -1, 1.5, True, "x"):
        with pytest.raises(InvalidRequestError, match="buffer must be an integer from 1"):
            manager.events(buffer=buffer)  # type: ignore[arg-type]
    with pytest.raises(ServerNotFoundError):
        manager.events(server_id=7)  # type: ignore[arg-type]
    with pytest.raises(ServerNotFoundError):
        manager.stderr_lines("unknown")
    with ScriptedServer() as server:
        await manager.deploy("web", {"url": server.url})
        with pytest.raises(ConfigError, match="server 'web' is no program: only programs write to a standard error"):
            manager.stderr_lines("web")


STATE: dict[str, Any] = {"server_id": "a", "previous": HEALTHY, "state": UNHEALTHY}


async def test_a_forked_child_has_no_part_in_it(manager: McpManager) -> None:
    await manager.deploy("a", scripted_stdio().config())
    events = manager.events()
    assert "NotRunningError" in in_child(lambda: manager.events())
    assert "NotRunningError" in in_child(lambda: manager.stderr_lines("a"))
    assert "inherited by a fork" in in_child(lambda: events._found())
    await manager.scale("a", 0)
    assert await next_of(events, ServerScaled)


def test_events_survive_a_copy_to_another_process() -> None:
    event = ServerStateChanged(**STATE, reasons=("slow",))
    assert pickle.loads(pickle.dumps(event)) == event
    assert mcp_manager.ServerStateChanged is ServerStateChanged


# What programs write


async def test_what_a_program_writes_can_be_read_and_followed(manager: McpManager) -> None:
    code = (
        "import sys, runpy; print('starting', file=sys.stderr, flush=True);"
        "sys.stderr.write('Ok to proceed? '); sys.stderr.flush();"
        "runpy.run_module('mcp_manager.cli.demo_servers.stdio_server', run_name='__main__')"
    )
    await manager.deploy("a", {"command": sys.executable, "args": ["-P", "-W", "ignore", "-c", code], **SWIFT})
    async with asyncio.timeout(LIMIT_S):
        assert [each.text async for each in manager.stderr_lines("a")] == ["starting", "Ok to proceed?"]
        follower = manager.stderr_lines("a", follow=True)
        first = await anext(follower)
        assert (first.text, first.pid) == ("starting", manager.server("a").pids[0])
        os.kill(first.pid, signal.SIGKILL)
        # The lines of the one that ended stay, and those of the next one follow.
        assert (await anext(follower)).text == "Ok to proceed?"
        after = await anext(follower)
        assert (after.text, after.pid != first.pid) == ("starting", True)
        await manager.undeploy("a")
        assert [each async for each in follower] == []


async def test_a_flood_of_lines_at_debug_does_not_starve_the_loop(
    manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mcp_manager.child")
    code = (
        "import sys, threading, runpy\n"
        "def flood():\n"
        "    while True: sys.stderr.write('x' * 50 + chr(10))\n"
        "threading.Thread(target=flood, daemon=True).start()\n"
        "runpy.run_module('mcp_manager.cli.demo_servers.stdio_server', run_name='__main__')"
    )
    flood = {"command": sys.executable, "args": ["-P", "-W", "ignore", "-c", code], "shutdown_grace_s": 0.1}
    await manager.deploy("flood", flood)
    with ScriptedServer() as server:
        await manager.deploy("other", {"url": server.url})
        began = time.monotonic()
        for _ in range(50):
            await manager.ping("other")
        took_s = time.monotonic() - began
    lines = [each for each in caplog.records if getattr(each, "event", "") == "child_output"]
    # 200 at once, and 200 a second.
    assert 0 < len(lines) <= 200 + 200 * (LIMIT_S + took_s)
    assert max(getattr(each, "left_out", 0) for each in lines) >= 0


class Raising(logging.Handler):
    """A log handler with a bug."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError("handler bug")


async def test_a_log_handler_that_raises_breaks_nothing(manager: McpManager, capfd: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("mcp_manager"), Raising()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        events = manager.events()
        await manager.deploy("a", {**scripted_stdio().config(), **SWIFT})
        await until(events, HEALTHY)
        os.kill(manager.server("a").pids[0], signal.SIGKILL)
        await until(events, HEALTHY)
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
    assert "ZeroDivisionError: handler bug" in capfd.readouterr().err


# Secrets


async def test_no_secret_is_in_any_line_event_or_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sesame-open-4711-canary"
    told: list[ServerStateChanged] = []
    say = f"import sys; print('token {secret}', file=sys.stderr, flush=True); sys.exit('bad key {secret}')"
    async with McpManager(on_state_change=told.append) as manager:
        events = manager.events(buffer=10_000)
        program = {"command": sys.executable, "args": ["-c", say], "env": {"API_TOKEN": secret}, **SWIFT}
        await manager.deploy("program", program)
        url = f"http://127.0.0.1:{unused_port()}/mcp?api_key={secret}"
        await manager.deploy("url", {"url": url, "auth": {"type": "bearer", "token": secret}, **SWIFT})
        with ScriptedServer() as server:
            await manager.deploy("web", {"url": server.url, "headers": {"X-Token": secret}, **SWIFT})
        await next_of(events, ChildExited)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await next_of(manager.events(kinds=[ServerUndeployed]), ServerUndeployed)
        lines = [each async for each in manager.stderr_lines("program")]
        shown = [repr(manager.snapshot()), repr(manager.servers())]
    seen = [each async for each in events]
    assert lines
    assert told
    records = [json.dumps(vars(each), default=repr) for each in caplog.records]
    everything = "\n".join([caplog.text, *records, repr(seen), repr(told), repr(lines), *shown])
    assert "token ***" in everything
    assert secret not in everything
    assert secret[:12] not in everything


async def test_a_lost_session_and_its_successor_are_told(manager: McpManager) -> None:
    with ScriptedServer() as server:
        await manager.deploy("web", {"url": server.url, **SWIFT})
        events = manager.events()
        server.expire_sessions()
        await manager.ping("web")
        lost = await next_of(events, SessionLost)
        assert (lost.server_id, lost.instance) == ("web", 0)
        replaced = await next_of(events, SessionReplaced)
        assert replaced.revision == manager.server("web").protocol_version
        assert replaced.outage_s is not None
        assert replaced.outage_s >= 0
