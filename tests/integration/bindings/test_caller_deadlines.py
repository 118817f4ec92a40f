"""Calls from other threads and loops whose manager's loop is blocked: the callers' deadlines hold all the same."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.blocking import Blocked
from support.calls import CALM, echo, text_of

from mcp_manager import NotRunningError, PyMcpManager, Selector
from mcp_manager.bindings import loop_thread
from mcp_manager.bindings.call_queue import CallQueue
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.loop_thread import LoopThread
from mcp_manager.errors import DeadlineExceededError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

ECHO = echo("x").decode()
SHORT_S = 0.05
# What nobody waits for: a test that has to is one that fails.
LONG_S = 60.0
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
with contextlib.suppress(ImportError):
    from uvloop import new_event_loop

    LOOPS["uvloop"] = new_event_loop


@pytest.fixture(params=LOOPS, autouse=True)
def new_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Make the loops of managers of one kind."""
    monkeypatch.setattr(loop_thread, "_new_loop", LOOPS[request.param])
    return LOOPS[request.param]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def manager(server: ScriptedServer) -> Iterator[PyMcpManager]:
    with PyMcpManager() as manager:
        breaker = {"enabled": True, "timeout_floor_s": 0.0, "consecutive_failures": 1}
        manager.deploy_server("a", {"url": server.url, **CALM, "breaker": breaker})
        yield manager


def from_a_thread(manager: PyMcpManager, server_id: Any = "a", **arguments: Any) -> str:
    return manager.execute(server_id, ECHO, **arguments)


def from_a_loop(manager: PyMcpManager, server_id: Any = "a", **arguments: Any) -> str:
    return asyncio.run(manager.execute_async(server_id, ECHO, **arguments))


CALLERS = pytest.mark.parametrize("call", [from_a_thread, from_a_loop])


def loop_of(manager: PyMcpManager) -> asyncio.AbstractEventLoop:
    assert manager._loop is not None
    return manager._loop


def circuit(manager: PyMcpManager) -> str:
    assert manager._manager is not None
    return manager._manager.server("a").circuit


def check(error: DeadlineExceededError, delivery: str) -> None:
    """Say that the caller gave up, and why."""
    assert error.delivery == delivery
    assert error.is_local
    assert "event loop was blocked" in str(error)
    assert "'a'" in str(error)


@CALLERS
def test_a_call_that_a_blocked_loop_has_not_begun_is_withdrawn(
    manager: PyMcpManager, server: ScriptedServer, call: Callable[..., str]
) -> None:
    with Blocked(loop_of(manager)):
        with pytest.raises(DeadlineExceededError) as caught:
            call(manager, timeout=SHORT_S)
        check(caught.value, "not_sent")
        assert caught.value.retryable
    assert text_of(from_a_thread(manager)) == "x"
    assert len(server.requests_of("tools/call")) == 1
    assert circuit(manager) == "Closed"


@pytest.mark.slow
@CALLERS
def test_a_call_that_was_begun_before_the_loop_was_blocked_is_cancelled(
    manager: PyMcpManager, server: ScriptedServer, call: Callable[..., str]
) -> None:
    held = faults.Hold()
    server.script("tools/call", held)
    with ThreadPoolExecutor(1) as threads:
        # Much longer than it takes until the loop is blocked, which must be before the deadline.
        calling = threads.submit(call, manager, timeout=1.5)
        asyncio.run(server.wait_for("tools/call"))
        with Blocked(loop_of(manager)):
            error = calling.exception()
    assert isinstance(error, DeadlineExceededError)
    check(error, "unknown")
    assert text_of(from_a_thread(manager)) == "x"
    assert circuit(manager) == "Closed"


@CALLERS
def test_the_configured_timeout_bounds_a_call_that_has_none(
    manager: PyMcpManager, server: ScriptedServer, call: Callable[..., str]
) -> None:
    manager.deploy_server("b", {"url": server.url, **CALM, "request_timeout_s": SHORT_S})
    with Blocked(loop_of(manager)), pytest.raises(DeadlineExceededError) as caught:
        call(manager, "b")
    assert (caught.value.server_id, caught.value.delivery) == ("b", "not_sent")


def test_a_selector_with_a_timeout_is_bounded(manager: PyMcpManager) -> None:
    with Blocked(loop_of(manager)), pytest.raises(DeadlineExceededError) as caught:
        from_a_thread(manager, Selector(tool="echo"), timeout=SHORT_S)
    assert (caught.value.server_id, caught.value.delivery) == (None, "not_sent")


def test_a_manager_on_a_loop_of_somebody_else(server: ScriptedServer, new_loop: Callable[[], Any]) -> None:
    async def main() -> Any:
        async with PyMcpManager() as manager:
            await manager.deploy_server_async("a", {"url": server.url, **CALM})
            with ThreadPoolExecutor(1) as threads:
                calling = threads.submit(from_a_thread, manager, timeout=SHORT_S)
                # What it is that blocks: this very coroutine.
                error = calling.exception(LONG_S)
            assert text_of(await manager.execute_async("a", ECHO)) == "x"
            return error

    with asyncio.Runner(loop_factory=new_loop) as runner:
        error = runner.run(main())
    assert isinstance(error, DeadlineExceededError), error
    check(error, "not_sent")
    assert len(server.requests_of("tools/call")) == 1


def test_a_call_that_begins_late_has_what_is_left_of_its_time(manager: PyMcpManager) -> None:
    told: list[float] = []

    async def tell(*_: object, timeout: float, **__: object) -> str:
        told.append(timeout)
        return ECHO

    assert manager._manager is not None
    manager._manager.execute_text = tell  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(1) as threads:
        with Blocked(loop_of(manager)):
            calling = threads.submit(from_a_thread, manager, timeout=LONG_S)
            while not manager._calls._waiting:  # type: ignore[union-attr]
                threading.Event().wait(0.001)
            threading.Event().wait(SHORT_S)
        calling.result()
    assert 0.0 < told[0] <= LONG_S - SHORT_S


# The queue


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("called")
    yield thread
    thread.finish(nothing)
    thread.join()


async def nothing() -> None:
    """End the loop thread."""


def in_a_thread(calls: CallQueue, work: Coroutine[Any, Any, Any], deadline: CallerDeadline) -> Any:
    return calls.run(work, deadline)


def in_a_loop(calls: CallQueue, work: Coroutine[Any, Any, Any], deadline: CallerDeadline) -> Any:
    return asyncio.run(calls.run_async(work, deadline))


RUNS = pytest.mark.parametrize("run", [in_a_thread, in_a_loop])


class Work:
    """Work that tells how far it came; ``hold`` blocks the loop in its first step until that event is set."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._hold = hold

    async def run(self) -> str:
        self.begun.set()
        try:
            if self._hold is not None:
                self._hold.wait(10)
                return "answer"
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()
        raise AssertionError


@RUNS
def test_work_whose_task_is_made_and_not_begun_is_not_sent(thread: LoopThread, run: Callable[..., Any]) -> None:
    released = threading.Event()
    blocking, waiting = Work(released), Work()
    with ThreadPoolExecutor(2) as threads:
        with Blocked(thread.loop):
            # Both get their tasks in one pass, and the first one blocks the next.
            first = threads.submit(thread.calls.run, blocking.run())
            while not thread.calls._waiting:
                threading.Event().wait(0.001)
            second = threads.submit(run, thread.calls, waiting.run(), CallerDeadline(SHORT_S, "a"))
            while len(thread.calls._waiting) < 2:
                threading.Event().wait(0.001)
        error = second.exception()
        released.set()
        assert first.result() == "answer"
    assert isinstance(error, DeadlineExceededError)
    check(error, "not_sent")
    thread.calls.run(nothing())
    assert not waiting.begun.is_set()
    assert not thread.calls._started


@RUNS
def test_work_that_is_begun_is_cancelled_when_the_loop_comes_to_it(thread: LoopThread, run: Callable[..., Any]) -> None:
    work = Work()
    with pytest.raises(DeadlineExceededError) as caught:
        run(thread.calls, work.run(), CallerDeadline(SHORT_S, "a"))
    check(caught.value, "unknown")
    assert work.ended.wait(10)
    thread.calls.run(nothing())
    assert not thread.calls._started


@RUNS
def test_an_answer_that_is_there_when_the_caller_gives_up_wins(
    thread: LoopThread, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    work = Work(released)
    withdraw = CallQueue._withdraw

    def end_first(calls: CallQueue, call: Any) -> Any:
        # In the instant between the end of the patience and the look at what became of the call.
        released.set()
        while not call.is_done:
            threading.Event().wait(0.001)
        return withdraw(calls, call)

    monkeypatch.setattr(CallQueue, "_withdraw", end_first)
    assert run(thread.calls, work.run(), CallerDeadline(SHORT_S, "a")) == "answer"


@RUNS
def test_the_loops_own_answer_to_a_deadline_comes_first(thread: LoopThread, run: Callable[..., Any]) -> None:
    async def late() -> None:
        await asyncio.sleep(SHORT_S)
        raise DeadlineExceededError("what the loop knows", delivery="rejected")

    with pytest.raises(DeadlineExceededError, match="what the loop knows"):
        run(thread.calls, late(), CallerDeadline(SHORT_S, "a"))


@RUNS
def test_what_is_withdrawn_leaves_nothing_on_a_blocked_loop(thread: LoopThread, run: Callable[..., Any]) -> None:
    class Argument:
        pass

    async def use(_: Argument) -> None:
        raise AssertionError

    argument = Argument()
    alive = weakref.ref(argument)
    with Blocked(thread.loop):
        with pytest.raises(DeadlineExceededError):
            run(thread.calls, use(argument), CallerDeadline(SHORT_S, "a"))
        del argument
        gc.collect()
        assert alive() is None
        assert not thread.calls._waiting


@RUNS
def test_the_end_of_the_manager_comes_before_the_deadline(run: Callable[..., Any]) -> None:
    thread = LoopThread("called")
    work = Work()
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(run, thread.calls, work.run(), CallerDeadline(LONG_S, "a"))
        assert work.begun.wait(10)
        thread.finish(nothing)
        thread.join()
        error = calling.exception()
    assert isinstance(error, NotRunningError)
    assert error.delivery == "unknown"


def test_calls_from_a_loop_share_a_timer_that_keeps_none_of_them(thread: LoopThread) -> None:
    # Of those that the tests run on, this one shows its timers.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        loop: Any = runner.get_loop()

        async def calls() -> None:
            before = len(loop._scheduled)
            for _ in range(3):
                await thread.calls.run_async(nothing(), CallerDeadline(LONG_S, "a"))
            assert len(loop._scheduled) == before + 1
            assert len(thread.calls._wheels.wheel(loop)) == 0

        runner.run(calls())
