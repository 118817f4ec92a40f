"""Checks that a test leaves nothing behind: threads, child processes, sockets, pipes, and errors of event loops."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, get_args

if TYPE_CHECKING:
    import psutil

__all__ = ["LeakCheck", "LeakKind", "LoopErrors", "Snapshot"]

LeakKind = Literal["tasks", "loop_errors", "threads", "children", "descriptors"]
"""What a test can leave behind."""

KINDS: Final[tuple[LeakKind, ...]] = get_args(LeakKind)

_T = TypeVar("_T")

_GRACE_S = 2.0
_POLL_S = 0.005
# Some versions of Python begin with a few hundred frozen objects.
_FROZEN_BY_PYTHON = 1_000
_DESCRIPTORS = "/proc/self/fd"
_THREADS = "/proc/self/task"


class LoopErrors(logging.Handler):
    """Collect the errors that event loops report.

    Every loop passes unhandled exceptions, unretrieved task exceptions and destroyed pending tasks to its exception
    handler; the default handlers of asyncio and uvloop log them as errors of ``asyncio``.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reports: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self.reports.append(text)

    def __enter__(self) -> LoopErrors:
        logging.getLogger("asyncio").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("asyncio").removeHandler(self)


class Snapshot:
    """The threads, child processes, sockets and pipes of this process, to compare with later ones."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._children = _children()
        self._descriptors = _descriptors()

    def new_threads(self, executor: str | None = None) -> list[str]:
        """Join the threads started since, for at most 2 s, and describe those that did not end.

        Those of the ``executor``, whose names begin so, are left out: they wait for more work.
        """
        deadline = time.monotonic() + _GRACE_S
        left = []
        for thread in set(threading.enumerate()) - self._threads:
            if executor is not None and thread.name.startswith(executor):
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name!r} (daemon={thread.daemon}) is still running")
        return left

    def new_children(self) -> list[str]:
        """Wait at most 2 s for the processes started since; kill, reap and describe those that did not end."""

        def remaining() -> set[psutil.Process]:
            own = _multiprocessing_pids()
            return {child for child in _children() - self._children if child.pid not in own}

        left = _settle(remaining)
        import psutil  # noqa: PLC0415 - an extra

        described = [_describe_child(child) for child in left]
        for child in left:
            try:
                child.kill()
                child.wait(_GRACE_S)
            except (psutil.NoSuchProcess, psutil.TimeoutExpired):
                continue
        return described

    def new_descriptors(self) -> list[str]:
        """Collect garbage, wait at most 2 s, and describe the sockets and pipes opened since that are still open."""

        def remaining() -> set[str]:
            left = _descriptors() - self._descriptors
            return left - _multiprocessing_pipes() if left else left

        if not remaining():
            return []
        gc.collect()
        left = _settle(remaining)
        if not left:
            return []
        addresses = _addresses()
        return [f"{each} is still open {addresses.get(each, '')}".rstrip() for each in sorted(left)]


class LeakCheck:
    """The check of one test, which the fixture ``leaks`` makes at its start and asks at its end.

    Parameters
    ----------
    executor
        What the names of the threads begin with that an event loop keeps until it ends, later than the check;
        ``None`` for a test without such a loop.
    """

    def __init__(self, *, executor: str | None = None) -> None:
        self._executor = executor
        _open_what_stays()
        # Reading all that a test-suite has imported takes a tenth of a second for each test. What the suite itself has
        # frozen must stay so.
        self._has_frozen = _Frozen.freeze()
        self._before = Snapshot()
        self._errors = LoopErrors()
        self._errors.__enter__()
        self._allowed: set[LeakKind] = set()
        self._tasks: list[str] = []

    def allow(self, *kinds: LeakKind, reason: str) -> None:
        """Allow this test to leave something behind.

        Parameters
        ----------
        kinds
            ``tasks``, ``loop_errors``, ``threads``, ``children`` or ``descriptors``.
        reason
            Why, for whoever reads the test.
        """
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds or not reason:
            raise ValueError(f"allow needs a reason and kinds of {', '.join(KINDS)}, not {unknown}")
        self._allowed.update(kinds)

    def found(self) -> list[str]:
        """Describe what was left behind so far; waits at most 2 s for what is about to end."""
        checks: dict[LeakKind, Callable[[], list[str]]] = {
            "tasks": lambda: self._tasks,
            "threads": self._threads,
            "children": self._before.new_children,
            "descriptors": self._before.new_descriptors,
            "loop_errors": lambda: [f"an event loop reported: {each}" for each in self._errors.reports],
        }
        return [told for kind, check in checks.items() if kind not in self._allowed for told in check()]

    def _threads(self) -> list[str]:
        return self._before.new_threads(self._executor)

    def note_tasks(self, tasks: list[str]) -> None:
        """Note the tasks that were pending when the loop of the test ended."""
        self._tasks += tasks

    def close(self) -> list[str]:
        """End the check; return descriptions of what was left behind."""
        gc.collect()
        if self._has_frozen:
            _Frozen.unfreeze()
        self._errors.__exit__()
        return self.found()


class _Frozen:
    """Whether a check has frozen all objects, or the suite has."""

    _by_check = False
    _by_suite = False

    @classmethod
    def freeze(cls) -> bool:
        """Freeze all objects and return true; false if they are frozen already.

        That the suite has frozen them is remembered: Python counts them one by one, which takes a tenth of a second.
        """
        if cls._by_check or cls._by_suite:
            return False
        cls._by_suite = gc.get_freeze_count() >= _FROZEN_BY_PYTHON
        if cls._by_suite:
            return False
        gc.freeze()
        cls._by_check = True
        return True

    @classmethod
    def unfreeze(cls) -> None:
        gc.unfreeze()
        cls._by_check = False


@functools.cache
def _open_what_stays() -> None:
    """Have uvloop open its pipe for signals, which it opens with its first loop and never closes."""
    if find_spec("uvloop") is not None:
        from uvloop import new_event_loop  # noqa: PLC0415 - if it is installed

        new_event_loop().close()


def _settle(remaining: Callable[[], set[_T]]) -> set[_T]:
    deadline = time.monotonic() + _GRACE_S
    left = remaining()
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = remaining()
    return left


def _children() -> set[psutil.Process]:
    # psutil reads about every process of the machine. Most tests have no child, and the kernel says so at once.
    if not _has_children():
        return set()
    import psutil  # noqa: PLC0415 - an extra, which most tests do not need

    return set(psutil.Process().children(recursive=True))


def _multiprocessing_pids() -> set[int]:
    """Return the processes that multiprocessing starts once and keeps: its resource tracker and its fork server."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    found = {getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)}
    return {pid for pid in found if pid is not None}


def _multiprocessing_pipes() -> set[str]:
    """Return the pipes to these processes."""
    found: set[str] = set()
    for module, name, attribute in _KEPT_PIPES:
        number = getattr(getattr(sys.modules.get(module), name, None), attribute, None)
        if number is not None:
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"{_DESCRIPTORS}/{number}"))
    return found


_KEPT_PIPES: Final = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
)


def _has_children() -> bool:
    """Whether any thread of this process has a child; true where the kernel cannot tell."""
    try:
        return any(Path(f"{_THREADS}/{thread}/children").read_bytes() for thread in os.listdir(_THREADS))
    except OSError:
        # A thread has just ended, or this kernel has no such file.
        return True


def _describe_child(child: psutil.Process) -> str:
    import psutil  # noqa: PLC0415 - an extra

    try:
        with child.oneshot():
            return f"child process {child.pid} is {child.status()}: {' '.join(child.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"child process {child.pid} outlived the test"


def _descriptors() -> set[str]:
    """Return the sockets and pipes of this process by inode, which is not reused as descriptors are."""
    found: set[str] = set()
    try:
        names = os.listdir(_DESCRIPTORS)
    except FileNotFoundError:
        return found
    for name in names:
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(("socket:", "pipe:")):
            found.add(target)
    return found


def _addresses() -> dict[str, str]:
    """Describe the connections of this process's sockets, by ``socket:[inode]``."""
    import psutil  # noqa: PLC0415 - an extra

    known = {}
    by_number = {each.fd: each for each in psutil.Process().net_connections()}
    for number, connection in by_number.items():
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{number}")
        except FileNotFoundError:
            continue
        known[target] = f"({connection.laddr} -> {connection.raddr}, {connection.status})"
    return known
