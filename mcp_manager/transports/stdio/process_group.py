"""Signals and reaps child processes, and kills those that are left when the interpreter exits."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Final

from mcp_manager.transports.stdio import orphan_guard
from mcp_manager.transports.stdio.marked import kill_marked

__all__ = ["ProcessGroup", "wait_unreaped"]

_KILLED_S: Final = 5.0
_REAP_POLL_S: Final = 0.001


class ProcessGroup:
    """A process and the group that it leads.

    Until the leader is reaped, its process id, which is also the group's, cannot be reused. Signalling and reaping
    therefore happen under one lock, and nothing is signalled after the reaping.

    Parameters
    ----------
    process
        The leader.
    token
        Marks the descendants that left the group; see :func:`kill_marked`.
    """

    def __init__(self, process: subprocess.Popen[bytes], token: str) -> None:
        self.pid: int = process.pid
        self.token = token
        self._process = process
        self._parent = os.getpid()
        self._lock = threading.Lock()
        _living.add(self)
        orphan_guard.watch()

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless its leader was reaped."""
        # The group of a dying leader may be gone (ProcessLookupError) or, on macOS, a zombie (PermissionError).
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None and self.is_own:
                os.killpg(self.pid, number)

    def reap(self) -> int | None:
        """Reap the leader if it has ended, and return its exit code, ``None`` while it runs."""
        with self._lock:
            code = self._process.poll()
        if code is not None:
            _living.discard(self)
            orphan_guard.dismiss(lambda: bool(_living))
        return code

    @property
    def is_own(self) -> bool:
        """Whether this process started the child; a forked copy must not end the child when it exits."""
        return os.getpid() == self._parent

    def kill_and_reap(self) -> None:
        """Kill the group and the descendants that left it, and block until the leader has ended."""
        if self.is_own:
            self.kill_leader()
            kill_marked({self.token})

    def kill_leader(self) -> None:
        """Kill the group, and block until the leader has ended."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + _KILLED_S
        while self.reap() is None and time.monotonic() < deadline:
            time.sleep(_REAP_POLL_S)

    def forget(self) -> None:
        """Kill and reap for the garbage collector, unless it has interrupted :meth:`signal` or :meth:`reap`."""
        if not self._lock.locked():
            self.kill_and_reap()


def wait_unreaped(pid: int) -> None:
    """Block until a child process has ended, without reaping it."""
    if sys.platform == "darwin":
        # Python has no os.waitid() on macOS before 3.13.
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):
            queue.control([select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)], 1)
    else:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


_living: Final[set[ProcessGroup]] = set()


@atexit.register
def _kill_all() -> None:
    """Kill the children that were not closed before the interpreter exits."""
    groups = [group for group in list(_living) if group.is_own]
    for group in groups:
        group.kill_leader()
    if groups:
        kill_marked({group.token for group in groups})
