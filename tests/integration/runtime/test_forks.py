"""A fork while a manager runs: the child is told so at once and can have its own, and the parent does not notice."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, text_of, tool_call
from support.forking import in_child, living_child
from support.processes import scripted_stdio

from mcp_manager import Caller, ManagerConfig, McpManager, NotRunningError, PyMcpManager
from mcp_manager.bindings.loop_thread import LoopThread
from mcp_manager.runtime.forks import tell_of_forks
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

PING = '{"method":"ping"}'
CALL = tool_call("echo", {"text": "x"}).decode()
STDIO = json.dumps(scripted_stdio().config(**CALM))
ARGUMENTS: dict[str, Any] = {
    "server_id": "a",
    "config_json": STDIO,
    "config": ManagerConfig(),
    "request_json": PING,
    "instances": 1,
    "caller": Caller("alice"),
}


@pytest.fixture(params=["asyncio", "uvloop"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PyMcpManager]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    else:
        monkeypatch.setattr("mcp_manager.bindings.loop_thread._new_loop", asyncio.SelectorEventLoop)
    with PyMcpManager() as started:
        started.deploy_server("a", STDIO)
        yield started


def is_well(manager: PyMcpManager) -> bool:
    """Tell whether a manager answers, by a server that has a child process."""
    return bool(json.loads(manager.execute("a", PING))["result"] == {})


def serve_alone() -> str:
    """Do what a worker does: a manager of its own."""
    with PyMcpManager() as mine:
        mine.deploy_server("b", STDIO)
        return str(json.loads(mine.execute("b", PING))["result"])


def outcome(method: Callable[..., Any]) -> str:
    """Call a method with plausible arguments, await what is to be awaited, and tell what it came to."""
    wanted = [
        ARGUMENTS.get(name, "x")
        for name, each in inspect.signature(method).parameters.items()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]

    async def awaited() -> object:
        return await method(*wanted)

    try:
        returned = asyncio.run(awaited()) if inspect.iscoroutinefunction(method) else method(*wanted)
    except NotRunningError as error:
        return f"NotRunningError: {error}"
    return f"returned {type(returned).__name__}"


def test_every_method_of_an_inherited_manager_tells_so_at_once(manager: PyMcpManager) -> None:
    names = [name for name, each in inspect.getmembers(PyMcpManager, inspect.isfunction) if not name.startswith("_")]
    told = json.loads(in_child(lambda: json.dumps({name: outcome(getattr(manager, name)) for name in names})))
    quiet = {"stop", "stop_async", "for_caller", "for_caller_async"}
    assert {name for name, text in told.items() if "parent process" not in text} == quiet
    assert "parent process" in in_child(lambda: outcome(partial(manager.for_caller(Caller("alice")).ping, "a")))
    assert told["stop"] == "returned _Stopping"
    assert told["stop_async"] == "returned NoneType"
    assert "new manager in this process; mcp-manager help processes says in which hook" in told["execute"]
    assert is_well(manager)


def test_a_child_handles_signals_as_before_the_watch_of_a_file(manager: PyMcpManager, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[servers]\n", encoding="utf-8")
    manager.watch(path, sighup=True)
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
    assert in_child(lambda: str(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)) == "True"
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
    manager.stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


async def test_a_child_of_a_loop_handles_signals_as_before_the_watch_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[servers]\n", encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, sighup=True)
        assert in_child(lambda: str(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)) == "True"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_the_end_of_a_block_around_an_inherited_manager_is_quiet() -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("a", STDIO)

        def leave() -> str:
            manager.__exit__(None, None, None)
            return "left"

        assert in_child(leave) == "left"
        assert is_well(manager)


@pytest.mark.parametrize("is_inside", [False, True])
def test_a_child_has_managers_of_its_own(manager: PyMcpManager, is_inside: bool) -> None:
    def twice() -> str:
        return serve_alone() + (in_child(serve_alone) if is_inside else "")

    assert in_child(twice) == ("{}{}" if is_inside else "{}")
    assert is_well(manager)


def test_a_manager_that_was_not_started_before_the_fork_serves_in_the_child() -> None:
    manager = PyMcpManager()

    def serve() -> str:
        with manager:
            manager.deploy_server("a", STDIO)
            return str(is_well(manager))

    assert in_child(serve) == "True"
    assert in_child(serve) == "True"
    assert serve() == "True"


def test_children_of_one_manager_that_was_not_started_do_not_share_progress_tokens() -> None:
    with ScriptedServer() as server:
        manager = McpManager(ManagerConfig())

        async def call() -> None:
            async with manager:
                await manager.deploy("a", {"url": server.url, **CALM})
                await manager.call_tool("a", "echo", {"text": "x"}, on_progress=lambda *_: None)

        for _ in range(2):
            assert in_child(lambda: asyncio.run(call())) == "None"
        tokens = {each.params["_meta"]["progressToken"] for each in server.requests_of("tools/call")}
        assert len(tokens) == 2


def test_calls_of_other_threads_go_on_through_many_forks(manager: PyMcpManager) -> None:
    over = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            while not over.is_set():
                assert is_well(manager)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    told = [in_child(lambda: outcome(manager.execute)) for _ in range(5)]
    told += [in_child(serve_alone) for _ in range(2)]
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all("parent process" in each for each in told[:5])
    assert told[5:] == ["{}", "{}"]


def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child() -> None:
    manager = PyMcpManager()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with manager._lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    told = in_child(lambda: manager.start() or manager.list_servers())
    over.set()
    thread.join()
    assert told == "[]"


def test_a_fork_while_the_manager_stops() -> None:
    manager = PyMcpManager()
    manager.start()
    blocked, over = threading.Event(), threading.Event()
    assert manager._loop is not None
    manager._loop.call_soon_threadsafe(lambda: (blocked.set(), over.wait()))
    blocked.wait()
    thread = threading.Thread(target=manager.stop)
    thread.start()
    while not manager._stopped:
        thread.join(0.01)
    told = in_child(lambda: f"{outcome(manager.stop)}, {outcome(manager.execute)}, {outcome(manager.start)}")
    over.set()
    thread.join()
    assert told.startswith("returned _Stopping, NotRunningError: ")
    assert told.count("parent process") == 2
    assert "is stopped" in outcome(manager.execute)


def test_a_call_under_way_is_answered_in_the_parent_alone(manager: PyMcpManager) -> None:
    with ScriptedServer() as server, concurrent.futures.ThreadPoolExecutor(1) as threads:
        hold = Hold()
        server.script("tools/call", hold)
        manager.deploy_server("http", json.dumps({"url": server.url, **CALM}))
        call = threads.submit(manager.execute, "http", CALL)
        asyncio.run(server.wait_for("tools/call"))
        with living_child():
            hold.release()
            assert "result" in json.loads(call.result())
        assert json.loads(manager.execute("http", PING))["result"] == {}


def test_a_living_child_keeps_neither_connections_nor_programs_from_ending(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    program = scripted_stdio()
    # At the end of its input it ends by itself; a signal would end the shell before it says so.
    shell = {"command": "sh", "args": ["-c", f'"$@"; touch {ended}', "sh", program.command, *program.args]}
    with ScriptedServer() as server:
        manager = PyMcpManager()
        manager.start()
        manager.deploy_server("http", json.dumps({"url": server.url, **CALM}))
        manager.deploy_server("a", json.dumps({**shell, **CALM, "shutdown_grace_s": 5.0}))
        assert server.open_connections
        with living_child():
            manager.stop()
            assert ended.exists()
            asyncio.run(server.wait_until(lambda: not server.open_connections))


def run_script(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


START = {
    "own thread": """
        manager = PyMcpManager()
        manager.start()
        manager.deploy_server("a", CONFIG)
        check(lambda: manager.execute("a", PING))
        manager.stop()
        """,
    "loop of the caller": """
        async def main():
            async with McpManager() as manager:
                await manager.deploy("a", CONFIG)
                check(lambda: None)
                await manager.ping("a")
        asyncio.run(main())
        """,
    "loop that does not run": """
        loop = asyncio.new_event_loop()
        manager = McpManager()
        loop.run_until_complete(manager.start())
        loop.run_until_complete(manager.deploy("a", CONFIG))
        check(lambda: loop.run_until_complete(manager.ping("a")))
        loop.run_until_complete(manager.stop())
        loop.close()
        """,
}


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_ends_as_any_other_interpreter(start: str, loop: str, tmp_path: Path) -> None:
    """With its own shutdown, in the midst of whatever it is a copy of."""
    policy = "import uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())" if loop == "uvloop" else ""
    done = run_script(
        textwrap.dedent(
            f"""
            import asyncio, os, sys, warnings
            warnings.filterwarnings("ignore", "There is no current|The event loop|.*unclosed", ResourceWarning)
            from mcp_manager import McpManager, PyMcpManager
            {policy}
            CONFIG, PING = {STDIO!r}, {PING!r}
            def check(call):
                call()
                pid = os.fork()
                if pid == 0:
                    sys.exit(7)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
                call()
            """
        )
        + textwrap.dedent(START[start])
        + "print('well')",
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("well\n", "", 0)


async def test_a_manager_on_the_loop_that_forks(tmp_path: Path) -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("http", {"url": server.url, **CALM})
            call = manager.execute_raw("http", CALL.encode())

            async def all_of_it() -> list[str]:
                told = []
                for work in (
                    lambda: call,
                    lambda: manager.execute_raw("http", CALL.encode()),
                    lambda: manager.call_tool("http", "echo", {"text": "x"}),
                    lambda: manager.deploy("new", {"url": server.url}),
                    lambda: manager.scale("http", 2),
                    manager.wait_ready,
                    manager.list_all_tools,
                    manager.start,
                ):
                    with contextlib.suppress(AssertionError):
                        try:
                            await work()
                            told.append("nothing")
                        except NotRunningError as error:
                            told.append("parent process" in str(error) and "told")
                await manager.stop()
                return told

            # The coroutine goes on in the child in place of the loop, as it does after any fork in a callback.
            assert in_child(lambda: set(asyncio.run(all_of_it()))) == "{'told'}"
            assert text_of(await call) == "x"
            assert text_of(await manager.execute_raw("http", CALL.encode())) == "x"
            assert server.requests_of("DELETE") == []
        assert len(server.requests_of("DELETE")) == 1


def test_a_fork_on_the_thread_of_the_loop_ends_with_its_callback() -> None:
    thread = LoopThread("test-loop")

    async def fork() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()

    async def last() -> None:
        return None

    tell_of_forks(thread)
    pid = thread.calls.run(fork())
    assert pid
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert thread.calls.run(answer()) == 42
    thread.finish(last)
    thread.join()


async def answer() -> int:
    return 42


def test_a_signal_handler_that_forks_while_its_thread_waits(manager: PyMcpManager) -> None:
    with ScriptedServer() as server:
        hold = Hold()
        server.script("tools/call", hold)
        manager.deploy_server("http", json.dumps({"url": server.url, **CALM}))
        read, written = os.pipe()
        parent = os.getpid()

        def handle(*_: object) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pids.append(os.fork())
            if os.getpid() == parent:
                hold.release()

        pids: list[int] = []
        before = signal.signal(signal.SIGUSR1, handle)
        threading.Thread(
            target=lambda: (asyncio.run(server.wait_for("tools/call")), os.kill(parent, signal.SIGUSR1))
        ).start()
        try:
            reply = manager.execute("http", CALL)
        except NotRunningError as error:
            if os.getpid() == parent:
                raise
            os.write(written, f"{error.delivery} {error}".encode())
        finally:
            if os.getpid() != parent:
                os._exit(0)
        signal.signal(signal.SIGUSR1, before)
        os.close(written)
        os.waitpid(pids[0], 0)
        with open(read, "rb") as pipe:
            assert pipe.read().startswith(b"unknown The call continues in the parent process")
        assert "result" in json.loads(reply)


def test_programs_are_started_with_a_function_before_them(manager: PyMcpManager) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        done = subprocess.run(["true"], preexec_fn=os.getpid, check=False)
    assert done.returncode == 0
    assert is_well(manager)


def test_pools_of_forked_processes(manager: PyMcpManager) -> None:
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert [each.result() for each in [pool.submit(serve_alone) for _ in range(2)]] == ["{}", "{}"]
        process = context.Process(target=serve_alone)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        process.close()
    assert is_well(manager)
