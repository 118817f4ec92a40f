"""Checks that a test leaves nothing behind: threads, child processes, sockets, pipes, unhandled errors, objects."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
from support import kept

T = TypeVar("T")

__all__ = ["KINDS", "LoopErrors", "Snapshot"]

KINDS = ("tasks", "loop_errors", "threads", "children", "descriptors", "objects")
"""The kinds of leaks that are checked; the marker ``allow_leaks`` names exceptions."""

_GRACE_S = 2.0
_POLL_S = 0.005
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
    """The threads, child processes, descriptors and objects of this process, to compare with later ones.

    Without ``objects``, :meth:`new_objects` has nothing to compare with, and the snapshot takes less time.
    """

    def __init__(self, *, objects: bool = True) -> None:
        self._threads = set(threading.enumerate())
        self._children = _children()
        self._descriptors = _descriptors()
        self._objects = kept.objects() if objects else Counter[str]()

    def new_objects(self) -> list[str]:
        """Describe objects of calls, sessions and servers made since that remain in memory after a collection."""
        if not kept.objects() - self._objects:
            return []
        gc.collect()
        left = kept.objects() - self._objects
        return [f"{count} more of {name} can be reached: {kept.holders_of(name)}" for name, count in left.items()]

    def new_threads(self) -> list[str]:
        """Join the threads started since, for at most 2 s, and describe those that did not end."""
        deadline = time.monotonic() + _GRACE_S
        left = []
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name!r} (daemon={thread.daemon}) is still running")
        return left

    def new_children(self) -> list[str]:
        """Wait at most 2 s for the processes started since; kill, reap and describe those that did not end."""

        def remaining() -> set[psutil.Process]:
            return _children() - self._children

        left = _settle(remaining)
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
        if not _descriptors() - self._descriptors:
            return []
        gc.collect()
        left = _settle(lambda: _descriptors() - self._descriptors)
        if not left:
            return []
        addresses = _addresses()
        return [f"{each} is still open {addresses.get(each, '')}".rstrip() for each in sorted(left)]


def _settle(remaining: Callable[[], set[T]]) -> set[T]:
    deadline = time.monotonic() + _GRACE_S
    left = remaining()
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = remaining()
    return left


def _children() -> set[psutil.Process]:
    # psutil reads about every process of the machine. Most tests have no child, and the kernel says so at once.
    return set(psutil.Process().children(recursive=True)) if _has_children() else set()


def _has_children() -> bool:
    """Whether any thread of this process has a child; true where the kernel cannot tell."""
    try:
        return any(Path(f"{_THREADS}/{thread}/children").read_bytes() for thread in os.listdir(_THREADS))
    except OSError:
        # A thread has just ended, or this kernel has no such file.
        return True


def _describe_child(child: psutil.Process) -> str:
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
    known = {}
    by_number = {each.fd: each for each in psutil.Process().net_connections()}
    for number, connection in by_number.items():
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{number}")
        except FileNotFoundError:
            continue
        known[target] = f"({connection.laddr} -> {connection.raddr}, {connection.status})"
    return known
