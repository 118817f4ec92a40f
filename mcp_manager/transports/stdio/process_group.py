"""The one place that signals and reaps child processes, and that ends those an exiting interpreter would leave."""

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
    """A process and the group it leads: the one place that signals and reaps.

    Until the leader is reaped its number, which is the group's as well, cannot become another's. So both happen under
    one lock, and nothing is signalled after the reaping.

    ``token`` marks what left the group; see :func:`kill_marked`.
    """

    def __init__(self, process: subprocess.Popen[bytes], token: str) -> None:
        self.pid = process.pid
        self.token = token
        self._process = process
        self._parent = os.getpid()
        self._lock = threading.Lock()
        _living.add(self)
        orphan_guard.watch()

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless its leader was reaped."""
        # The group of a dying leader may be gone (no such process) or, on macOS, a zombie (not permitted).
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None and self.is_own:
                os.killpg(self.pid, number)

    def reap(self) -> int | None:
        """Return the leader's exit code, ``None`` while it lives."""
        with self._lock:
            code = self._process.poll()
        if code is not None:
            _living.discard(self)
            orphan_guard.dismiss(lambda: bool(_living))
        return code

    @property
    def is_own(self) -> bool:
        """Whether this is no forked copy of the parent, whose exit or collection is no reason to end its children."""
        return os.getpid() == self._parent

    def kill_and_reap(self) -> None:
        """Kill the group and what left it, and wait, blocking, for its leader's end."""
        if self.is_own:
            self.kill_leader()
            kill_marked({self.token})

    def kill_leader(self) -> None:
        """Kill the group and wait, blocking, for its leader's end."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + _KILLED_S
        while self.reap() is None and time.monotonic() < deadline:
            time.sleep(_REAP_POLL_S)

    def forget(self) -> None:
        """Kill and reap on behalf of the garbage collector, which may have interrupted just that."""
        if not self._lock.locked():
            self.kill_and_reap()


def wait_unreaped(pid: int) -> None:
    """Block until a child process has ended, and leave its reaping to others."""
    if sys.platform == "darwin":
        # Python has no waitid there before 3.13.
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):
            queue.control([select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)], 1)
    else:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


_living: Final[set[ProcessGroup]] = set()


@atexit.register
def _kill_all() -> None:
    """Leave no child behind an interpreter that ends without having closed them."""
    groups = [group for group in list(_living) if group.is_own]
    for group in groups:
        group.kill_leader()
    if groups:
        kill_marked({group.token for group in groups})
