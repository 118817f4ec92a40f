"""Managers that nobody stops, or that are stopped at odd moments: a warning, an end, and nothing that stays."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support import kept
from support.calls import CALM
from support.processes import scripted_stdio

from mcp_manager import CallError, ConfigError, McpManager, NotRunningError, PyMcpManager
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

STDIO = scripted_stdio().config(**CALM)
PING = '{"method":"ping"}'
LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    gc.collect()
    yield


def own_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mcp-manager"]


async def test_the_first_collection_frees_a_manager_that_was_stopped() -> None:
    async def use() -> None:
        async with McpManager() as manager:
            await manager.deploy("a", STDIO)

    before = kept.objects()
    await use()
    gc.collect()
    assert kept.objects() - before == {}


def test_a_dropped_manager_is_warned_of_and_ends_with_its_thread_and_programs() -> None:
    manager = PyMcpManager()
    manager.start()
    manager.deploy_server("a", json.dumps(STDIO))
    [thread] = own_threads()
    [program] = psutil.Process().children()
    with pytest.warns(ResourceWarning, match=r"a PyMcpManager was dropped while it was running: call stop\(\)"):
        del manager
        gc.collect()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert not program.is_running()


async def test_one_that_was_started_on_a_loop_ends_there() -> None:
    manager = PyMcpManager()
    await manager.start_async()
    await manager.deploy_server_async("a", json.dumps(STDIO))
    inner, serving = manager._manager, manager._serving
    assert inner is not None
    assert serving is not None
    with pytest.warns(ResourceWarning, match="a PyMcpManager was dropped"):
        del manager
        gc.collect()
    await asyncio.wait({serving}, timeout=LIMIT_S)
    assert not inner.is_running
    assert psutil.Process().children() == []


@pytest.mark.allow_leaks("loop_errors", reason="asyncio reports the tasks of a loop that was closed under them")
@pytest.mark.filterwarnings("ignore:unclosed", "ignore:Unclosed", "ignore:coroutine")
def test_a_manager_whose_loop_was_closed_under_it() -> None:
    loop = asyncio.new_event_loop()
    manager = McpManager()
    loop.run_until_complete(manager.start())
    loop.run_until_complete(manager.deploy("a", STDIO))
    [program] = psutil.Process().children()
    loop.close()
    with pytest.warns(ResourceWarning, match=r"a McpManager was dropped while it was running: await its stop\(\)"):
        del manager, loop
        gc.collect()
    psutil.wait_procs([program], LIMIT_S)
    assert not program.is_running()


def test_what_is_not_running_is_dropped_without_a_word(tmp_path: Path) -> None:
    PyMcpManager()
    McpManager()
    with PyMcpManager():
        pass
    with pytest.raises(ConfigError):
        PyMcpManager(tmp_path / "missing.toml")
    with pytest.raises(ConfigError):
        McpManager(5)  # type: ignore[arg-type]

    async def main() -> None:
        async with McpManager():
            pass

    asyncio.run(main())
    gc.collect()


def test_stop_while_it_starts_and_many_times_at_once() -> None:
    for _ in range(5):
        manager = PyMcpManager()
        with ThreadPoolExecutor(5) as threads:
            start = threads.submit(manager.start)
            for stop in [threads.submit(lambda: manager.stop()) for _ in range(4)]:  # noqa: B023
                stop.result(LIMIT_S)
            error = start.exception(LIMIT_S)
        assert error is None or isinstance(error, NotRunningError)
        manager.stop()
        assert own_threads() == []
        with pytest.raises(NotRunningError):
            manager.execute("a", PING)


def test_a_stop_in_the_midst_of_the_start_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a signal's handler, on the thread that starts it."""
    manager = PyMcpManager()
    make = manager._make_manager

    def interrupted() -> McpManager:
        manager.stop()
        return make()

    monkeypatch.setattr(manager, "_make_manager", interrupted)
    with pytest.raises(NotRunningError, match="it was stopped"):
        manager.start()
    assert own_threads() == []


async def test_a_stop_in_the_midst_of_a_start_on_a_loop(tmp_path: Path) -> None:
    file = tmp_path / "fleet.json"
    with ScriptedServer() as server:
        hold = Hold()
        server.script_always("*", hold)
        file.write_text(json.dumps({"servers": {"a": {"url": server.url, **CALM}}}))
        manager = PyMcpManager(file)
        started = asyncio.create_task(manager.start_async())
        await server.wait_until(lambda: bool(server.requests))
        await manager.stop()
        hold.release()
        # Whether it was told of the end by its server, or only then: it is not running.
        with pytest.raises((NotRunningError, CallError)):
            await started
    assert manager._serving is None


@pytest.mark.parametrize("kind", [McpManager, PyMcpManager])
@pytest.mark.parametrize("reproduce", [copy.copy, copy.deepcopy, pickle.dumps])
def test_managers_are_neither_copied_nor_pickled(kind: type, reproduce: object) -> None:
    with pytest.raises(TypeError, match=f"a {kind.__name__} can be neither copied nor pickled.*create another"):
        reproduce(kind())  # type: ignore[operator]


def run_script(code: str, folder: Path) -> tuple[int, str, str]:
    prelude = f"""
        import asyncio, atexit, json, os, signal, sys, threading, time
        from mcp_manager import CallError, NotRunningError, PyMcpManager
        CONFIG, PING = {json.dumps(STDIO)!r}, {PING!r}
        HANGING = {json.dumps(scripted_stdio({"on": {"tools/call": [[{"do": "nothing"}]] * 9}}).config(**CALM))!r}
        CALL = '{{"method":"tools/call","params":{{"name":"echo"}}}}'
        """
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(prelude) + textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


ENDINGS = {
    "an exit within the block": (
        3,
        """
        with PyMcpManager() as manager:
            manager.deploy_server("a", CONFIG)
            sys.exit(3)
        """,
    ),
    "an exit without a stop": (
        4,
        """
        manager = PyMcpManager()
        manager.start()
        manager.deploy_server("a", CONFIG)
        sys.exit(4)
        """,
    ),
    "a stop at exit, twice": (
        0,
        """
        manager = PyMcpManager()
        manager.start()
        manager.deploy_server("a", CONFIG)
        atexit.register(manager.stop)
        atexit.register(manager.stop)
        """,
    ),
    "a stop in a signal's handler, in the midst of a call": (
        0,
        """
        manager = PyMcpManager()
        signal.signal(signal.SIGTERM, lambda *_: manager.stop())
        manager.start()
        manager.deploy_server("a", HANGING)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            manager.execute("a", CALL)
        except (CallError, NotRunningError) as error:
            pass
        else:
            sys.exit("answered")
        """,
    ),
    "a handler that exits in the midst of a call": (
        5,
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        with PyMcpManager() as manager:
            manager.deploy_server("a", HANGING)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            manager.execute("a", CALL)
        """,
    ),
    "other threads that still call": (
        6,
        """
        manager = PyMcpManager()
        manager.start()
        manager.deploy_server("a", CONFIG)
        under_way = threading.Event()
        def call():
            try:
                while True:
                    manager.execute("a", PING)
                    under_way.set()
            except (CallError, NotRunningError):
                pass
        for _ in range(4):
            threading.Thread(target=call, daemon=True).start()
        under_way.wait()
        sys.exit(6)
        """,
    ),
    "a loop that is blocked for good": (
        7,
        """
        with open("manager.json", "w") as file:
            json.dump({"manager": {"shutdown_timeout_s": 0.1}}, file)
        manager = PyMcpManager("manager.json")
        manager.start()
        manager._loop.call_soon_threadsafe(time.sleep, 3600)
        sys.exit(7)
        """,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_with_a_manager(ending: str, tmp_path: Path) -> None:
    code, script = ENDINGS[ending]
    assert run_script(script, tmp_path) == (code, "", "")
