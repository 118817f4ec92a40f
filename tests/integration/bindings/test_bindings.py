"""PyMcpManager as documented: threads, loops, interrupts, and an interpreter that ends without being asked to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import mcp_manager
from mcp_manager import (
    CallError,
    ConfigError,
    ConnectError,
    InvalidRequestError,
    NotRunningError,
    PyMcpManager,
    ServerExistsError,
    ServerNotFoundError,
)

STDIO: dict[str, Any] = {
    "name": "Demo",
    "server_type": "infrastructure",
    "command": sys.executable,
    "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"],
    "priority": 10,
    "tags": ["docker", "production"],
}


def tool(name: str, arguments: dict[str, Any], **envelope: Any) -> str:
    return json.dumps({"method": "tools/call", "params": {"name": name, "arguments": arguments}, **envelope})


@pytest.fixture
def manager() -> Iterator[PyMcpManager]:
    with PyMcpManager() as started:
        started.deploy_server("demo-1", json.dumps(STDIO))
        yield started


def test_the_documented_life_of_a_server(manager: PyMcpManager) -> None:
    assert manager.get_server_state("demo-1") == mcp_manager.SERVER_STATE_HEALTHY
    (info,) = manager.list_servers()
    assert (info.id, info.name, info.server_type, info.state, info.priority) == (
        "demo-1",
        "Demo",
        "infrastructure",
        "Healthy",
        10,
    )
    response = json.loads(manager.execute("demo-1", tool("add", {"a": 2, "b": 3}, id="mine")))
    assert response["id"] == "mine"
    assert response["jsonrpc"] == "2.0"
    assert response["result"]["content"][0]["text"] == "5"
    health = manager.get_health_status()
    assert (health.total_servers, health.healthy_servers) == (1, 1)
    text = manager.export_prometheus_metrics()
    assert 'mcp_requests_total{method="tools/call",server_id="demo-1",status="success"} 1.0' in text
    assert manager.get_metrics().startswith("# HELP")
    manager.undeploy_server("demo-1")
    assert manager.list_servers() == []
    with pytest.raises(ServerNotFoundError, match="Server demo-1 not found"):
        manager.execute("demo-1", '{"method":"ping"}')


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [("7", 7), ('"a\\u00e9"', "aé"), (str(2**70), 2**70), ("-1", -1)],
)
def test_the_callers_id_comes_back(manager: PyMcpManager, request_id: str, expected: object) -> None:
    reply = manager.execute("demo-1", f'{{"id":{request_id},"method":"ping"}}')
    assert json.loads(reply)["id"] == expected


@pytest.mark.parametrize(
    ("module", "function"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
def test_greenlets_in_place_of_threads_are_refused(monkeypatch: pytest.MonkeyPatch, module: str, function: str) -> None:
    patcher = types.ModuleType(module)
    setattr(patcher, function, lambda name: name in ("threading", "thread"))
    monkeypatch.setitem(sys.modules, module, patcher)
    with pytest.raises(NotRunningError, match=f"{module.partition('.')[0]} has replaced the threads of Python"):
        PyMcpManager({}).start()
    setattr(patcher, function, lambda name: False)
    with PyMcpManager({}) as started:
        assert started.list_servers() == []


def test_a_json_rpc_error_is_a_response(manager: PyMcpManager) -> None:
    response = json.loads(manager.execute("demo-1", '{"jsonrpc":"2.0","id":1,"method":"no/such"}'))
    assert response["error"]["code"] == -32601


def test_a_notification_returns_null(manager: PyMcpManager) -> None:
    assert manager.execute("demo-1", '{"method":"notifications/roots/list_changed"}') == "null"


@pytest.mark.parametrize(
    "request_json",
    [
        "",
        "nonsense",
        "[]",
        "42",
        "{}",
        '{"method":5}',
        '{"method":"x","params":3}',
        '{"method":"x","jsonrpc":"1.0"}',
        '{"method":"x","id":{}}',
        '{"method":"x"} trailing',
        '{"method":"x","params":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"method":"\ud800"}',
        b'{"method":"x"}',
        None,
    ],
)
def test_a_malformed_request_is_a_value_error(manager: PyMcpManager, request_json: Any) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid request: ") as caught:
        manager.execute("demo-1", request_json)
    assert isinstance(caught.value, ValueError)
    assert caught.value.delivery == "not_sent"
    assert manager.get_server_state("demo-1") == "Healthy"


def test_a_bad_deployment_changes_nothing(manager: PyMcpManager) -> None:
    with pytest.raises(ConfigError, match="Invalid server config"):
        manager.deploy_server("bad", "{invalid json}")
    with pytest.raises(ServerExistsError) as caught:
        manager.deploy_server("demo-1", json.dumps(STDIO))
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ConfigError):
        manager.deploy_server("bad", json.dumps({**STDIO, "priority": 300}))
    assert [each.id for each in manager.list_servers()] == ["demo-1"]


def test_an_unreachable_server_is_deployed_and_unhealthy(manager: PyMcpManager) -> None:
    manager.deploy_server("gone", json.dumps({"url": "http://127.0.0.1:9/mcp"}))
    assert manager.get_server_state("gone") == "Unhealthy"
    with pytest.raises(ConnectError, match="Execution failed") as caught:
        manager.execute("gone", '{"method":"ping"}')
    assert caught.value.delivery == "not_sent"
    health = manager.get_health_status()
    assert (health.total_servers, health.healthy_servers, health.unhealthy_servers) == (2, 1, 1)


def test_many_threads_share_one_manager(manager: PyMcpManager) -> None:
    def call(number: int) -> str:
        reply = json.loads(manager.execute("demo-1", tool("echo", {"text": f"t{number}"}, id=number)))
        assert reply["id"] == number
        return str(reply["result"]["content"][0]["text"])

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(call, range(200))) == [f"t{number}" for number in range(200)]


def test_waiting_releases_the_interpreter(manager: PyMcpManager) -> None:
    done = threading.Event()

    def slow() -> None:
        manager.execute("demo-1", tool("sleep", {"seconds": 1.0}))
        done.set()

    thread = threading.Thread(target=slow)
    thread.start()
    turns = 0
    while not done.is_set() and turns < 1000:
        manager.execute("demo-1", '{"method":"ping"}')
        turns += 1
    thread.join()
    assert turns > 5


def test_scale_up_suspend_and_back(manager: PyMcpManager) -> None:
    children = psutil.Process().children()
    manager.scale_server("demo-1", 3)
    assert len(psutil.Process().children()) == len(children) + 2
    manager.scale_server("demo-1", 0)
    assert manager.get_server_state("demo-1") == "Stopped"
    with pytest.raises(RuntimeError, match="no instance"):
        manager.execute("demo-1", '{"method":"ping"}')
    manager.scale_server("demo-1", 1)
    assert json.loads(manager.execute("demo-1", '{"method":"ping"}'))["result"] == {}
    for wrong in (-1, 65, True, "2"):
        with pytest.raises(ValueError, match="instances"):
            manager.scale_server("demo-1", wrong)  # type: ignore[arg-type]


def test_calls_before_start_and_after_stop() -> None:
    manager = PyMcpManager()
    calls = (
        lambda: manager.deploy_server("x", json.dumps(STDIO)),
        lambda: manager.execute("x", '{"method":"ping"}'),
        lambda: manager.undeploy_server("x"),
        lambda: manager.scale_server("x", 1),
    )
    for call in calls:
        with pytest.raises(NotRunningError, match="not started"):
            call()
    manager.start()
    manager.start()
    assert manager.list_servers() == []
    manager.stop()
    manager.stop()
    for call in calls:
        with pytest.raises(NotRunningError, match="stopped"):
            call()
    with pytest.raises(RuntimeError, match="Failed to start manager"):
        manager.start()


async def test_the_documented_asyncio_sample() -> None:
    manager = PyMcpManager()
    await manager.start_async()
    await asyncio.gather(*(manager.deploy_server_async(f"server-{i}", json.dumps(STDIO)) for i in range(3)))
    replies = await asyncio.gather(*(manager.execute_async(f"server-{i}", '{"method":"ping"}') for i in range(3)))
    assert [json.loads(reply)["result"] for reply in replies] == [{}, {}, {}]
    with pytest.raises(NotRunningError, match="_async"):
        manager.execute("server-0", '{"method":"ping"}')
    assert await manager.get_server_state_async("server-0") == "Healthy"
    await manager.stop()
    await manager.stop()


def test_a_plain_stop_inside_the_running_loop_leaves_nothing() -> None:
    async def main() -> None:
        manager = PyMcpManager()
        await manager.start_async()
        await manager.deploy_server_async("a", json.dumps(STDIO))
        manager.stop()

    before = len(psutil.Process().children())
    asyncio.run(main())
    assert len(psutil.Process().children()) == before


async def test_a_threaded_manager_serves_any_loop(manager: PyMcpManager) -> None:
    async def one() -> str:
        return await manager.execute_async("demo-1", tool("echo", {"text": "x"}))

    replies = await asyncio.gather(*(one() for _ in range(10)))
    assert len(replies) == 10
    loop = asyncio.get_running_loop()
    other = await loop.run_in_executor(None, lambda: asyncio.run(one()))
    assert "x" in other
    await loop.shutdown_default_executor()


async def test_a_cancelled_call_leaves_the_manager_usable(manager: PyMcpManager) -> None:
    task = asyncio.create_task(manager.execute_async("demo-1", tool("sleep", {"seconds": 30})))
    ready = await manager.execute_async("demo-1", tool("echo", {"text": "running"}))
    assert "running" in ready
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "again" in await manager.execute_async("demo-1", tool("echo", {"text": "again"}))


def test_another_loop_is_refused() -> None:
    manager = PyMcpManager()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(manager.start_async())

        async def elsewhere() -> None:
            with pytest.raises(NotRunningError):
                await manager.execute_async("a", '{"method":"ping"}')

        asyncio.run(elsewhere())
        with pytest.raises(NotRunningError):
            manager.execute("a", '{"method":"ping"}')
        manager.stop()
    finally:
        loop.close()


def test_a_sync_call_from_another_thread_reaches_a_manager_on_a_loop() -> None:
    async def main() -> None:
        async with PyMcpManager() as manager:
            await manager.deploy_server_async("a", json.dumps(STDIO))
            reply = await asyncio.to_thread(manager.execute, "a", '{"id":5,"method":"ping"}')
            assert json.loads(reply)["id"] == 5

    asyncio.run(main())


class Hammer:
    """Threads that call a manager without a pause until they are refused, and what they were told."""

    def __init__(self, manager: PyMcpManager, threads: int = 16) -> None:
        self._manager = manager
        self.answers = [0] * threads
        self.refusals: list[Exception | None] = [None] * threads
        self._threads = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int) -> None:
        verbs = (lambda: self._manager.execute("a", '{"method":"ping"}'), lambda: self._manager.get_server_state("a"))
        while True:
            try:
                verbs[self.answers[number] % 2]()
            except (NotRunningError, CallError, ServerNotFoundError) as error:
                self.refusals[number] = error
                return
            self.answers[number] += 1

    def is_under_way(self) -> bool:
        """Tell whether every thread has an answer; fails with what one of them met that has ended already."""
        for thread, refusal in zip(self._threads, self.refusals, strict=True):
            if refusal is not None or not thread.is_alive():
                raise AssertionError("a caller was refused before the manager was stopped") from refusal
        return all(self.answers)

    def assert_all_were_refused(self) -> None:
        for thread in self._threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self._threads), "a caller was left waiting"
        assert None not in self.refusals


@pytest.mark.parametrize("running_loop", [False, True])
def test_sixteen_threads_call_while_the_manager_stops(running_loop: bool) -> None:
    manager = PyMcpManager()
    manager.start()
    manager.deploy_server("a", json.dumps(STDIO))
    hammer = Hammer(manager)
    while not hammer.is_under_way():
        manager.get_server_state("a")
    if running_loop:
        asyncio.run(manager.stop_async())
    else:
        manager.stop()
    hammer.assert_all_were_refused()


@pytest.mark.parametrize("stops", [False, True])
def test_sixteen_threads_call_while_the_loop_of_the_manager_ends(stops: bool) -> None:
    async def main() -> Hammer:
        manager = PyMcpManager()
        await manager.start_async()
        await manager.deploy_server_async("a", json.dumps(STDIO))
        hammer = Hammer(manager)
        while not hammer.is_under_way():
            await asyncio.sleep(0.001)
        if stops:
            await manager.stop()
            hammer.assert_all_were_refused()
        return hammer

    asyncio.run(main()).assert_all_were_refused()


@pytest.mark.slow
def test_calls_that_arrive_while_asyncio_run_ends_leave_no_task() -> None:
    over = threading.Event()

    def call(manager: PyMcpManager) -> None:
        while not over.is_set():
            with contextlib.suppress(NotRunningError, ServerNotFoundError):
                manager.execute("nobody", '{"method":"ping"}')

    async def main() -> list[threading.Thread]:
        manager = PyMcpManager()
        await manager.start_async()
        threads = [threading.Thread(target=call, args=(manager,), daemon=True) for _ in range(16)]
        for thread in threads:
            thread.start()
        await asyncio.sleep(0.01)
        return threads

    for _ in range(10):
        over.clear()
        threads = asyncio.run(main())
        over.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    # Tasks that a closed loop left pending are reported when they are collected.
    gc.collect()


def run_script(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("start", ["manager.start()", "asyncio.run(manager.start_async())"])
def test_an_interpreter_that_never_stops_its_manager_still_ends_cleanly(start: str, tmp_path: Path) -> None:
    done = run_script(
        f"""
        import asyncio, json, sys
        import psutil
        from mcp_manager import PyMcpManager
        manager = PyMcpManager()
        {"manager.start()" if start == "manager.start()" else ""}
        config = {json.dumps(STDIO)!r}
        if {start == "manager.start()"}:
            manager.deploy_server("a", config)
        else:
            async def main():
                await manager.start_async()
                await manager.deploy_server_async("a", config)
                print([child.pid for child in psutil.Process().children()], flush=True)
            asyncio.run(main())
            raise SystemExit
        print([child.pid for child in psutil.Process().children()], flush=True)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pids = json.loads(done.stdout)
    assert pids
    assert not any(is_alive(pid) for pid in pids)


def test_ctrl_c_interrupts_a_sync_call_and_the_manager_lives_on(tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.touch()
    server = shlex.join([STDIO["command"], *STDIO["args"]])
    config = json.dumps({"command": "sh", "args": ["-c", f"tee {shlex.quote(str(received))} | {server}"]})
    code = textwrap.dedent(
        f"""
        import json, signal, sys
        # A parent that ignores the signal, such as a background shell, hands that down.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from mcp_manager import PyMcpManager
        with PyMcpManager() as manager:
            manager.deploy_server("a", {config!r})
            try:
                manager.execute("a", {tool("sleep", {"seconds": 60})!r})
            except KeyboardInterrupt:
                print("interrupted", json.loads(manager.execute("a", '{{"method":"ping"}}'))["result"])
                print('status="cancelled"}} 1.0' in manager.get_metrics())
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # Only a call that was sent is counted as cancelled.
        while "sleep" not in received.read_text():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (out, err, process.returncode) == ("interrupted {}\nTrue\n", "", 0)
