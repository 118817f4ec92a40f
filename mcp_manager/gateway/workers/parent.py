"""``Parent``: the process that starts the workers, restarts those that die, and serves nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from secrets import token_urlsafe
from typing import Any, Final

import msgspec

from mcp_manager.backoff import backoff_delay
from mcp_manager.gateway.systemd import Systemd
from mcp_manager.gateway.workers.assignment import Assignment
from mcp_manager.gateway.workers.listeners import Listeners
from mcp_manager.gateway.workers.process import WorkerProcess
from mcp_manager.runtime.background import background_task

__all__ = ["Parent", "WorkersConfig"]

_log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30.0
# A worker that lived this long did not die of what killed the one before it.
_STABLE_S: Final = 60.0
# Connections wait for a successor, as closing the sockets resets those in their queues. From this failure on, it is
# doubtful that there will be one soon, and siblings take over.
_LEFT_OUT_FROM: Final = 2
# For what comes after the last call: sessions and programs end.
_AFTER_DRAIN_S: Final = 15.0
_SUCCESS: Final = 0
_FAILURE: Final = 1


class WorkersConfig(msgspec.Struct, frozen=True):
    """How a fleet is served by several processes.

    Parameters
    ----------
    command
        The command line of a worker, without secrets. The process calls
        :func:`~mcp_manager.gateway.workers.assignment.inherited` to learn what it is.
    count
        How many workers there are.
    address
        Where to listen: see :class:`~mcp_manager.gateway.workers.listeners.Listeners`.
    session_keys
        What seals session ids; a random key if there is none.
    drain_timeout_s
        Seconds that calls under way may take once the service ends.
    """

    command: Sequence[str]
    count: int
    address: tuple[str, int] | socket.socket
    session_keys: tuple[str, ...] = ()
    drain_timeout_s: float = 30.0

    def __repr__(self) -> str:
        return f"WorkersConfig(count={self.count}, command={self.command!r})"


class Parent:
    """Start the workers, and keep them running until a signal ends the service.

    SIGTERM and SIGINT end it: the address is closed, each worker finishes the calls under way, and after
    ``drain_timeout_s`` what is left is killed. A second one kills at once. SIGHUP lets one worker after another read its
    configuration again. A worker that dies is restarted at once, and with growing delays if that does not help.

    If this process is killed, the workers finish the calls under way and end: see
    :mod:`~mcp_manager.gateway.workers.lifeline`.

    Parameters
    ----------
    config
        What to run.
    on_ready
        Called with the port once all workers serve.
    """

    def __init__(self, config: WorkersConfig, on_ready: Callable[[int], None] | None = None) -> None:
        self._config = config
        self._on_ready = on_ready
        self._secret = token_urlsafe(32)
        self._session_keys = config.session_keys or (token_urlsafe(32),)
        self._workers: list[WorkerProcess | None] = [None] * config.count
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listeners: Listeners | None = None
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._are_ready = False
        self._drain_timeout_s = config.drain_timeout_s
        self._systemd = Systemd()

    async def run(self) -> int:
        """Serve until a signal ends the service.

        Returns
        -------
        The exit status: 0 after an orderly end; that of a worker which cannot be started at first, as with a
        configuration that is wrong; 1 if calls were cut short, or a worker had to be killed.

        Raises
        ------
        OSError
            The address cannot be listened at.
        """
        with Listeners(self._config.address, self._config.count) as self._listeners, self._signals():
            try:
                status = await self._started()
                if status is None:
                    await self._stopping.wait()
                    status = _SUCCESS
                self._systemd.stopping()
                return await self._end(status)
            finally:
                self._systemd.close()
                await self._leave_nothing()

    def stop(self) -> None:
        """End the service in order; called again, at once."""
        if self._stopping.is_set():
            self._killing.set()
        self._stopping.set()

    def reload(self) -> None:
        """Let one worker after another read its configuration again."""
        if not self._stopping.is_set():
            background_task(self._reload(), "reload the workers", among=self._tasks)

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run, by their number."""
        return [each.pid for each in self._workers if each is not None and not each.has_ended]

    async def _started(self) -> int | None:
        """Start all workers, and return once they serve; return a status if the service has to end instead."""
        stopping = background_task(self._stopping.wait(), "wait for the end", among=self._tasks)
        workers = [self._start(number) for number in range(self._config.count)]
        for worker in workers:
            either: set[asyncio.Future[Any]] = {worker.ready, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                return _SUCCESS
            if worker.has_ended:
                status = worker.ended.result()
                _log.error("worker %d ended before it served (exit status %d)", worker.number, status)
                # It has said why. A signal is a failure of this program as well.
                return status if status > 0 else _FAILURE
        assert self._listeners is not None
        self._are_ready = True
        for worker in workers:
            worker.tell("together")
            background_task(self._keep(worker), f"keep worker {worker.number} running", among=self._tasks)
        if self._on_ready is not None:
            self._on_ready(self._listeners.port)
        self._systemd.ready(self._status())
        return None

    def _status(self) -> str:
        return f"{len(self.pids())} of {self._config.count} workers serve"

    def _start(self, number: int) -> WorkerProcess:
        listeners = self._listeners
        assert listeners is not None
        listeners.take_in(number)
        assignment = Assignment(
            number,
            self._config.count,
            listeners.directory,
            self._secret,
            self._session_keys,
            listeners.public[number].fileno(),
            listeners.siblings[number].fileno(),
        )
        worker = self._workers[number] = WorkerProcess(self._config.command, assignment)
        return worker

    async def _keep(self, worker: WorkerProcess) -> None:
        """Start a worker again whenever it dies."""
        failures, number = 0, worker.number
        began = time.monotonic()
        while True:
            await asyncio.wait({worker.ended})
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _STABLE_S:
                failures = 0
            _log.warning("worker %d ended (%s); it is started again", number, _ending(worker.ended.result()))
            if failures:
                assert self._listeners is not None
                if failures >= _LEFT_OUT_FROM:
                    self._listeners.leave_out(number)
                delay_s = backoff_delay(failures - 1, _FIRST_DELAY_S, _LONGEST_DELAY_S, 0.2, random.random())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay_s)
                    return
            failures += 1
            began = time.monotonic()
            try:
                worker = self._start(number)
            except OSError as error:
                _log.error("worker %d cannot be started: %s", number, error)
                continue
            await asyncio.wait({worker.ready})
            if not worker.has_ended:
                worker.tell("together")

    async def _reload(self) -> None:
        async with self._reloading:
            self._systemd.reloading()
            try:
                await self._reload_each()
            finally:
                self._systemd.reloaded(self._status())

    async def _reload_each(self) -> None:
        for worker in self._workers:
            if worker is not None and not self._stopping.is_set():
                answer = await worker.ask("reload")
                if problem := answer.get("problem"):
                    # What one worker cannot use is of no use to the others.
                    _log.error("the configuration was not applied: %s", problem)
                    return
                self._drain_timeout_s = float(answer.get("drain_timeout_s", self._drain_timeout_s))
        for worker in self._workers:
            if worker is not None:
                worker.tell("together")

    async def _end(self, status: int) -> int:
        """End all workers, and return the exit status."""
        assert self._listeners is not None
        self._listeners.close_public()
        grace_s = self._drain_timeout_s + _AFTER_DRAIN_S
        running = [each for each in self._workers if each is not None and not each.has_ended]
        ends = [background_task(each.end(grace_s), "end a worker", among=self._tasks) for each in running]
        killing = background_task(self._kill_when_told(running), "wait for a second signal", among=self._tasks)
        if ends:
            await asyncio.wait(ends)
        killing.cancel()
        if not all(end.result() for end in ends):
            _log.error("workers that did not end in time were killed")
            return status or _FAILURE
        # A worker says with its status whether calls were cut short. One that has not begun to serve ends by the signal.
        orderly = (_SUCCESS, -signal.SIGTERM)
        return status or (_SUCCESS if all(each.ended.result() in orderly for each in running) else _FAILURE)

    async def _kill_when_told(self, running: list[WorkerProcess]) -> None:
        await self._killing.wait()
        for each in running:
            each.signal(signal.SIGKILL)

    async def _leave_nothing(self) -> None:
        """End what is left, also if this task was cancelled."""
        self._stopping.set()
        for task in list(self._tasks):
            task.cancel()
        for each in self._workers:
            if each is not None:
                each.signal(signal.SIGKILL)
        for each in self._workers:
            if each is not None:
                await each.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the signals that end or reload the service, where that is possible: on the main thread."""
        loop = asyncio.get_running_loop()
        taken = []
        for number, called in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self.reload)):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, called)
                taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
