"""Runs calls from other threads and loops on one event loop: a queue in, a lock or one callback back."""

from __future__ import annotations

import asyncio
import threading
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, Final, Generic, TypeVar

from mcp_manager.bindings.caller_deadline import CallerDeadline, LoopWheels, Patience
from mcp_manager.bindings.progress import ThreadReports
from mcp_manager.errors import Delivery, NotRunningError
from mcp_manager.runtime.background import background_task, resolve

__all__ = ["CallQueue"]

T = TypeVar("T")

_CHECK_S: Final = 0.5
_PENDING: Final = object()


class CallQueue:
    """Run coroutines on an event loop for other threads and loops, faster than ``asyncio.run_coroutine_threadsafe``.

    The loop is woken once for all calls that arrived since it last looked. A call's own task stores the result and, as
    its last step, releases a lock: there is no concurrent future, and no callback that takes another event-loop
    iteration.

    Parameters
    ----------
    loop
        The loop that runs the calls. Whoever ends it must call :meth:`close` first. On a loop that somebody else owns,
        run :meth:`serve`, which notices the end of the loop. Threads that wait notice the end of a loop without either.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[_Call[Any]] = deque()
        self._started: set[_Call[Any]] = set()
        self._wheels = LoopWheels()
        self._woken = False
        self._closed = False
        self._is_inherited = False

    def run(
        self,
        work: Coroutine[Any, Any, T],
        deadline: CallerDeadline | None = None,
        reports: ThreadReports | None = None,
    ) -> T:
        """Run work on the loop and block this thread until it is done; an interrupt of this thread cancels the work.

        It must not be called on the loop's own thread.

        Parameters
        ----------
        work
            The coroutine to run.
        deadline
            When this thread gives up, even if the loop is blocked: work that has not begun never will, and other work
            is cancelled. While the loop is not blocked, the work itself must end in time.
        reports
            Delivers what the work reports on its way, on this thread.

        Raises
        ------
        NotRunningError
            The work was cancelled on the loop, or the loop ended.
        DeadlineExceededError
            The deadline passed while the loop did not respond.
        """
        lock: threading.Lock | ThreadReports
        if reports is None:
            lock = threading.Lock()
            lock.acquire()
        else:
            lock = reports
        call = _Call(work, lock.release)
        try:
            self._submit(call)
            # The wait is cut into short ones: a signal that arrives just before a wait for a lock begins does not end
            # that wait, and neither does the end of a loop that somebody else owns.
            while not lock.acquire(timeout=_CHECK_S if deadline is None else min(_CHECK_S, deadline.patience_s())):
                if self._is_inherited:
                    raise _inherited()
                if not self._loop.is_running():
                    if call.is_done:
                        break
                    raise _stopped(self._withdraw(call))
                if deadline is not None and not deadline.patience_s():
                    break
                self._wake_again(call)
        except BaseException:
            self._abandon(call)
            raise
        try:
            return call.outcome() if call.is_done else self._give_up(call, deadline)
        finally:
            # The traceback of an error keeps this frame alive.
            del call

    async def run_async(self, work: Coroutine[Any, Any, T], deadline: CallerDeadline | None = None) -> T:
        """Run work on the loop and await it on another one, which must end first unless :meth:`close` is called.

        A cancellation of the caller cancels the work and does not wait for its end. ``deadline`` and the errors are
        those of :meth:`run`.
        """
        running = asyncio.get_running_loop()
        waiter = running.create_future()
        call = _Call(work, partial(_notify, running, waiter))
        if deadline is not None:
            patience, wheel = Patience(waiter), self._wheels.wheel(running)
            wheel.add(patience, deadline.patience_ends_ns)
        try:
            self._submit(call)
            await waiter
        except BaseException:
            self._abandon(call)
            raise
        finally:
            if deadline is not None:
                wheel.remove(patience)
        try:
            return call.outcome() if call.is_done else self._give_up(call, deadline)
        finally:
            del call

    def close(self) -> None:
        """Refuse calls that have not started, now and later; calls that have end with their tasks."""
        self._closed = True
        while (call := self._next()) is not None:
            call.refuse()

    def _disown(self) -> None:
        """Leave the calls to the parent process after a fork; a caller that waits here gets an error."""
        self._is_inherited = self._closed = True

    async def serve(self) -> None:
        """Run until cancelled, as by ``asyncio.run`` at its end, and end all calls before this task ends."""
        try:
            await self._loop.create_future()
        except asyncio.CancelledError:
            if self._closed:
                raise
            self.close()
            tasks = {call.task for call in self._started if call.task is not None}
            for task in tasks:
                if not task.cancelling():
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            raise

    def _submit(self, call: _Call[Any]) -> None:
        self._waiting.append(call)
        # Append first, then check: close() and _start() do it in the opposite order, so that no call is missed.
        if self._closed:
            self.close()
        elif not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._start)
            except RuntimeError:
                # The loop is closed. Other callers may have relied on this wake-up.
                self.close()

    def _start(self) -> None:
        self._woken = False
        while (call := self._next()) is not None:
            if self._closed:
                call.refuse()
                continue
            run = self._run(call)
            # Up to the pause inside the ``try``: a task that is cancelled before its first step would skip the
            # ``finally``.
            run.send(None)
            self._started.add(call)
            call.task = background_task(run, "call from a thread", context=call.context, loop=self._loop)

    async def _run(self, call: _Call[Any]) -> None:
        try:
            await _pause()
            # Set first, then check: _withdraw() does it in the opposite order, so that work that has begun is never
            # reported as not sent.
            call.has_begun = True
            if not call.is_withdrawn:
                call.result = await call.work
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            # These are meant for the loop.
            raise
        except BaseException as error:
            # Without this frame in the traceback: it refers to the call, which refers to the error.
            trace = error.__traceback__
            call.error = error.with_traceback(trace and trace.tb_next)
            del trace
        finally:
            call.work.close()
            self._started.discard(call)
            call.is_done = True
            call.done()
            del call

    def _next(self) -> _Call[Any] | None:
        try:
            # Most often the queue is empty, and an exception costs more than the check.
            return self._waiting.popleft() if self._waiting else None
        except IndexError:
            return None

    def _wake_again(self, call: _Call[Any]) -> None:
        """Wake the loop for a thread that was interrupted after it set ``_woken`` and before it woke the loop."""
        if call.task is None:
            self._call_on_loop(self._start)

    def _withdraw(self, call: _Call[Any]) -> Delivery:
        """Prevent work from beginning; return ``unknown`` if it was too late for that."""
        call.is_withdrawn = True
        try:
            self._waiting.remove(call)
        except ValueError:
            # The loop has taken it, and will skip it.
            return "unknown" if call.has_begun else "not_sent"
        call.work.close()
        return "not_sent"

    def _give_up(self, call: _Call[T], deadline: CallerDeadline | None) -> T:
        """Give up a call whose deadline has passed, unless it is done at this very moment."""
        assert deadline is not None
        if self._is_inherited:
            raise _inherited()
        delivery = self._withdraw(call)
        if call.is_done:
            return call.outcome()
        if delivery == "unknown":
            self._call_on_loop(partial(self._cancel, call))
        raise deadline.passed(delivery)

    def _abandon(self, call: _Call[Any]) -> None:
        if self._is_inherited:
            return
        self._withdraw(call)
        self._call_on_loop(partial(self._cancel, call))

    def _cancel(self, call: _Call[Any]) -> None:
        self._start()
        if call.task is not None:
            call.task.cancel()

    def _call_on_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self.close()


class _Call(Generic[T]):
    """A piece of work, and its result once ``done`` has been called."""

    __slots__ = ("context", "done", "error", "has_begun", "is_done", "is_withdrawn", "result", "task", "work")

    def __init__(self, work: Coroutine[Any, Any, T], done: Callable[[], None]) -> None:
        self.work = work
        self.done = done
        self.context = copy_context()
        self.task: asyncio.Task[None] | None = None
        self.result: Any = _PENDING
        self.error: BaseException | None = None
        self.has_begun = self.is_withdrawn = self.is_done = False

    def refuse(self) -> None:
        self.work.close()
        self.error = _stopped("not_sent")
        self.is_done = True
        self.done()

    def outcome(self) -> T:
        if self.result is not _PENDING:
            result: T = self.result
            return result
        if self.error is None or isinstance(self.error, asyncio.CancelledError):
            raise _stopped("unknown")
        try:
            raise self.error
        finally:
            del self


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


def _notify(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(resolve, waiter)
    except RuntimeError:
        # The caller's loop is closed: nobody waits any more.
        return


def _stopped(delivery: Delivery) -> NotRunningError:
    return NotRunningError("The manager was stopped during the call", delivery=delivery)


def _inherited() -> NotRunningError:
    return NotRunningError("The call continues in the parent process of this fork", delivery="unknown")
