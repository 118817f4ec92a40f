"""Calls from other threads and loops: what comes back, who is interrupted, and that no end of a loop leaves a caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.blocking import Blocked

from mcp_manager import NotRunningError
from mcp_manager.bindings import loop_thread
from mcp_manager.bindings.call_queue import CallQueue
from mcp_manager.bindings.loop_thread import LoopThread

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
try:
    from uvloop import new_event_loop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = new_event_loop


class Interrupt(BaseException):
    """What the signal handlers of these tests raise."""


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Make the loops of a test, those of :class:`LoopThread` included, of one kind."""
    monkeypatch.setattr(loop_thread, "_new_loop", LOOPS[request.param])
    return LOOPS[request.param]


async def nothing() -> None:
    """End the loop thread."""


@pytest.fixture
def thread(new_loop: Callable[[], Any]) -> Iterator[LoopThread]:
    thread = LoopThread("called")
    yield thread
    thread.finish(nothing)
    thread.join()


class Interrupter:
    """Raise :class:`Interrupt` in the main thread, from any thread, and count."""

    def __init__(self) -> None:
        self.raised = 0

    def __call__(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def handle(self, *_: object) -> None:
        self.raised += 1
        raise Interrupt


@pytest.fixture
def interrupt_main() -> Iterator[Interrupter]:
    interrupter = Interrupter()
    before = signal.signal(signal.SIGUSR1, interrupter.handle)
    yield interrupter
    signal.signal(signal.SIGUSR1, before)


async def answer(value: object = 42) -> object:
    await asyncio.sleep(0)
    return value


class Held:
    """Work that says when it started, and how it ended."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def run(self) -> None:
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_results_of_work_that_suspends_and_of_work_that_does_not(thread: LoopThread) -> None:
    assert thread.calls.run(answer(7)) == 7
    assert thread.calls.run(answer(None)) is None
    assert thread.calls.run(nothing()) is None


@pytest.mark.parametrize("raised", [ValueError("wrong"), Interrupt(), TimeoutError(), StopAsyncIteration()])
def test_an_exception_is_raised_in_the_callers_thread(thread: LoopThread, raised: BaseException) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise raised

    with pytest.raises(type(raised)) as caught:
        thread.calls.run(fail())
    assert caught.value is raised
    names = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert names[-1] == "fail"
    assert "_run" not in names


def test_an_exception_keeps_nothing_alive_once_it_is_dropped(thread: LoopThread) -> None:
    class Local:
        pass

    alive: list[weakref.ref[Local]] = []

    async def fail() -> None:
        local = Local()
        alive.append(weakref.ref(local))
        raise ValueError

    def call() -> None:
        local = Local()
        alive.append(weakref.ref(local))
        with pytest.raises(ValueError):
            thread.calls.run(fail())

    async def call_async() -> None:
        local = Local()
        alive.append(weakref.ref(local))
        try:
            await thread.calls.run_async(fail())
        except ValueError:
            return

    gc.collect()
    gc.disable()
    try:
        call()
        asyncio.run(call_async())
        # The loop has let go of the tasks when it has had two more passes.
        thread.calls.run(answer())
        thread.calls.run(answer())
        assert [ref() for ref in alive] == [None] * 4
    finally:
        gc.enable()


def test_work_runs_in_a_copy_of_the_callers_context(thread: LoopThread) -> None:
    variable = contextvars.ContextVar[int]("variable")

    async def read_and_set() -> int:
        await asyncio.sleep(0)
        value = variable.get()
        variable.set(-1)
        return value

    def call(value: int) -> tuple[int, int]:
        variable.set(value)
        return thread.calls.run(read_and_set()), variable.get()

    with ThreadPoolExecutor(8) as threads, Blocked(thread.loop):
        futures = [threads.submit(call, value) for value in range(8)]
    assert [future.result() for future in futures] == [(value, value) for value in range(8)]


def test_the_loop_is_woken_once_for_all_that_came_meanwhile(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = thread.loop.call_soon_threadsafe
    calls = CallQueue(thread.loop)
    woken = 0

    def count(callback: Callable[..., object], *args: Any) -> None:
        nonlocal woken
        woken += callback == calls._start
        wake(callback, *args)

    monkeypatch.setattr(thread.loop, "call_soon_threadsafe", count)

    async def main() -> list[object]:
        with Blocked(thread.loop):
            tasks = [asyncio.create_task(calls.run_async(answer(number))) for number in range(10)]
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == list(range(10))
    assert woken == 1
    assert asyncio.run(main()) == list(range(10))
    assert woken == 2


# Cancelled by others


@pytest.mark.parametrize("started", [False, True])
def test_work_that_somebody_else_cancels(thread: LoopThread, started: bool) -> None:
    held = Held()

    def cancel_all() -> None:
        for task in asyncio.all_tasks(thread.loop):
            task.cancel()

    async def main() -> None:
        if started:
            task = asyncio.create_task(thread.calls.run_async(held.run()))
            await asyncio.to_thread(held.started.wait)
            thread.loop.call_soon_threadsafe(cancel_all)
        else:
            with Blocked(thread.loop):
                task = asyncio.create_task(thread.calls.run_async(held.run()))
                await asyncio.sleep(0)
                # In the pass that makes the task, before its first step.
                thread.loop.call_soon_threadsafe(cancel_all)
        async with asyncio.timeout(10):
            with pytest.raises(NotRunningError, match="stopped during the call") as caught:
                await task
        assert caught.value.delivery == "unknown"
        assert not task.cancelled()

    asyncio.run(main())
    assert held.started.is_set() == started
    assert thread.calls.run(answer()) == 42


# Interrupts


def test_an_interrupt_cancels_the_work(thread: LoopThread, interrupt_main: Interrupter) -> None:
    held = Held()

    async def interrupt_the_caller() -> None:
        interrupt_main()
        await held.run()

    with pytest.raises(Interrupt):
        thread.calls.run(interrupt_the_caller())
    assert held.cancelled.wait(10)
    assert thread.calls.run(answer()) == 42


def test_work_that_was_not_started_is_not_started_after_an_interrupt(
    thread: LoopThread, interrupt_main: Interrupter
) -> None:
    held = Held()
    with Blocked(thread.loop):
        timer = threading.Timer(0.05, interrupt_main)
        with pytest.raises(Interrupt):
            timer.start()
            thread.calls.run(held.run())
        timer.join()
    assert thread.calls.run(answer()) == 42
    assert not held.started.is_set()


# An interrupt may also hit a finaliser, which cannot raise it, or come before the call has begun.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_interrupt_at_any_instant_leaves_the_queue_usable(thread: LoopThread, interrupt_main: Interrupter) -> None:
    started, ended = [], []

    async def count(number: int) -> None:
        started.append(number)
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(number)

    def call_until_interrupted(number: int) -> None:
        try:
            while interrupt_main.raised == number:
                thread.calls.run(count(number))
        except Interrupt:
            return

    for number in range(300):
        timer = threading.Thread(target=interrupt_main)
        try:
            timer.start()
        except Interrupt:
            pass
        call_until_interrupted(number)
        timer.join()
        assert thread.calls.run(answer(number)) == number
    thread.calls.run(answer())
    assert started == ended


@pytest.mark.parametrize("times", [1, 2])
def test_a_caller_interrupted_before_it_wakes_the_loop_blocks_nobody(
    thread: LoopThread, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = thread.loop.call_soon_threadsafe
    left = times

    def interrupt(callback: Callable[..., object], *args: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise Interrupt
        wake(callback, *args)

    monkeypatch.setattr(thread.loop, "call_soon_threadsafe", interrupt)
    calls = CallQueue(thread.loop)
    held = Held()
    with pytest.raises(Interrupt):
        calls.run(held.run())
    assert calls.run(answer()) == 42
    assert not held.started.is_set()


# Ends of the loop


class Caller:
    """A thread that calls until it is refused, and what it can say of every call of its."""

    def __init__(self, calls: CallQueue) -> None:
        self._calls = calls
        self.executed: set[int] = set()
        self.answered: set[int] = set()
        self.refused: dict[int, str] = {}
        self.thread = threading.Thread(target=self._call, daemon=True)

    def _call(self) -> None:
        number = 0
        while not self.refused:
            number += 1
            try:
                assert self._calls.run(self._work(number)) == number
                self.answered.add(number)
            except NotRunningError as error:
                self.refused[number] = error.delivery

    async def _work(self, number: int) -> int:
        self.executed.add(number)
        await asyncio.sleep(0)
        return number

    def check(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive(), "a caller was left waiting"
        [(last, delivery)] = self.refused.items()
        assert self.answered == set(range(1, last))
        assert self.executed - self.answered <= {last}
        assert delivery == "unknown" or last not in self.executed


@pytest.fixture
def fast_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("ends", ["stopped", "dies"])
def test_sixteen_threads_call_while_the_loop_thread_ends(
    ends: str, new_loop: Callable[[], Any], fast_switches: None
) -> None:
    for _ in range(15):
        thread = LoopThread("called")
        callers = [Caller(thread.calls) for _ in range(16)]
        for caller in callers:
            caller.thread.start()
        while not all(caller.answered for caller in callers):
            thread.calls.run(nothing())
        if ends == "stopped":
            thread.finish(nothing)
        else:
            thread.loop.call_soon_threadsafe(thread.loop.stop)
        thread.join()
        for caller in callers:
            caller.check()


def test_sixteen_threads_call_while_asyncio_run_ends(new_loop: Callable[[], Any], fast_switches: None) -> None:
    for _ in range(15):
        callers: list[Caller] = []

        async def main() -> asyncio.Task[None]:
            calls = CallQueue(asyncio.get_running_loop())
            callers.extend(Caller(calls) for _ in range(16))  # noqa: B023
            serving = asyncio.create_task(calls.serve())
            for caller in callers:  # noqa: B023
                caller.thread.start()
            while not all(caller.answered for caller in callers):  # noqa: B023
                await asyncio.sleep(0.001)
            return serving

        with asyncio.Runner(loop_factory=new_loop) as runner:
            serving = runner.run(main())
        assert serving.cancelled()
        for caller in callers:
            caller.check()


@pytest.mark.parametrize("served", [False, True])
def test_asyncio_run_ends_under_a_call(new_loop: Callable[[], Any], served: bool) -> None:
    held = Held()

    async def main() -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        calls = CallQueue(loop)
        if served:
            serving = loop.create_task(calls.serve())
        future = threads.submit(calls.run, held.run())
        while not held.started.is_set():
            await asyncio.sleep(0.001)
        assert not served or not serving.done()
        return future  # type: ignore[return-value]

    with ThreadPoolExecutor(1) as threads:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            future: Any = runner.run(main())
        with pytest.raises(NotRunningError) as caught:
            future.result(10)
    assert caught.value.delivery == "unknown"
    assert held.cancelled.is_set()


@pytest.mark.both_loops
async def test_no_call_outlives_what_serves_it() -> None:
    loop = asyncio.get_running_loop()
    calls = CallQueue(loop)
    held = Held()
    serving = asyncio.create_task(calls.serve())
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(calls.run, held.run())
        while not held.started.is_set():
            await asyncio.sleep(0.001)
        serving.cancel()
        await asyncio.wait({serving})
        assert held.cancelled.is_set()
        with pytest.raises(NotRunningError):
            await asyncio.wrap_future(future)
        with pytest.raises(NotRunningError) as caught:
            await asyncio.wrap_future(threads.submit(calls.run, answer()))
    assert caught.value.delivery == "not_sent"


def test_a_loop_thread_on_its_way_out_starts_nothing(new_loop: Callable[[], Any]) -> None:
    thread = LoopThread("called")
    late = Held()
    cleaning, refused = threading.Event(), threading.Event()

    async def clean_up() -> None:
        cleaning.set()
        while not refused.is_set():
            await asyncio.sleep(0.001)

    async def leftover() -> None:
        try:
            thread.loop.stop()
            await asyncio.get_running_loop().create_future()
        finally:
            await clean_up()

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(thread.calls.run, leftover())
        assert cleaning.wait(10)
        with pytest.raises(NotRunningError) as caught:
            thread.calls.run(late.run())
        refused.set()
        with pytest.raises(NotRunningError):
            first.result(10)
    thread.join()
    assert caught.value.delivery == "not_sent"
    assert not late.started.is_set()


@pytest.mark.parametrize("closed", [False, True])
def test_a_loop_that_just_ends_leaves_no_caller(new_loop: Callable[[], Any], closed: bool) -> None:
    """Nothing of the queue's own is told: as with ``run_until_complete`` and nothing after it."""
    loop = new_loop()
    calls = CallQueue(loop)
    running, waiting = Held(), Held()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(calls.run, running.run())
        loop.run_until_complete(asyncio.to_thread(running.started.wait, 10))
        loop.run_until_complete(loop.shutdown_default_executor())
        second = threads.submit(calls.run, waiting.run())
        for future, delivery in ((first, "unknown"), (second, "not_sent")):
            with pytest.raises(NotRunningError) as caught:
                future.result(10)
            assert caught.value.delivery == delivery
    # Should the loop go on after all, it finds the one cancelled and the other gone.
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert running.cancelled.is_set()
    assert not waiting.started.is_set()
    loop.close()
    if closed:
        with pytest.raises(NotRunningError) as caught:
            calls.run(waiting.run())
        assert caught.value.delivery == "not_sent"
        with pytest.raises(NotRunningError):
            asyncio.run(calls.run_async(waiting.run()))


# From another loop


async def test_results_and_errors_reach_another_loop(thread: LoopThread) -> None:
    assert await asyncio.gather(*(thread.calls.run_async(answer(n)) for n in range(50))) == list(range(50))

    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as caught:
        await thread.calls.run_async(fail())
    assert "_run" not in [entry.name for entry in traceback.extract_tb(caught.tb)]


@pytest.mark.parametrize("started", [False, True])
async def test_cancelling_the_caller_cancels_the_work(thread: LoopThread, started: bool) -> None:
    held = Held()
    if started:
        task = asyncio.create_task(thread.calls.run_async(held.run()))
        await asyncio.get_running_loop().run_in_executor(None, held.started.wait)
        task.cancel()
    else:
        with Blocked(thread.loop):
            task = asyncio.create_task(thread.calls.run_async(held.run()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await thread.calls.run_async(answer()) == 42
    assert held.cancelled.is_set() == held.started.is_set() == started
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_the_end_of_the_manager_is_no_cancellation_of_the_caller(new_loop: Callable[[], Any]) -> None:
    thread = LoopThread("called")
    held = [Held() for _ in range(5)]
    tasks = [asyncio.create_task(thread.calls.run_async(each.run())) for each in held]
    for each in held:
        while not each.started.is_set():
            await asyncio.sleep(0.001)
    thread.finish(nothing)
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, NotRunningError)
        assert ended.delivery == "unknown"
    thread.join()
    with pytest.raises(NotRunningError):
        await thread.calls.run_async(answer())


def test_a_callers_loop_that_is_gone_disturbs_nobody(thread: LoopThread) -> None:
    held = Held()
    loop = asyncio.new_event_loop()
    task = loop.create_task(thread.calls.run_async(held.run()))
    loop.run_until_complete(asyncio.sleep(0))
    assert held.started.wait(10)
    with Blocked(thread.loop):
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}))
        loop.close()
    assert held.cancelled.wait(10)
    assert thread.calls.run(answer()) == 42
    # An exception of the work's task is reported when the task is collected.
    gc.collect()
