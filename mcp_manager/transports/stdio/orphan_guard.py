"""Runs a guard process that kills this process's children if this process is killed (SIGKILL, out of memory).

A child that reads its input notices the end of this process by itself. One that is busy, ignores its input or runs
behind a launcher does not. Linux's parent-death signal is no substitute: it does not reach what a launcher started, and
it follows the parent thread, not the process. So a small interpreter waits for the end of this process as long as this
process has children. It needs ``pidfd_open`` (Linux 5.3) to wait for a process that is not its child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

from mcp_manager.transports.stdio import marked
from mcp_manager.transports.stdio.descendants import host_token

__all__ = ["dismiss", "watch"]

_log = logging.getLogger(__name__)

# The variables that an interpreter may need to start.
_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "PATH")
_SHELL: Final = "/bin/sh"
# A shell starts the guard and ends at once, so that the guard is not a child of this process: code that counts or waits
# for the children of this process finds only servers.
_DETACH: Final = (_SHELL, "-c", '"$@" &', "sh")
_INIT: Final = 1


class _Guard:
    """The guard process, while there is one."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end a forgotten child while the lock is held.
        self.lock = threading.RLock()
        self._is_told = False
        self.orders = -1
        # Set if the guard is a child of this process after all.
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the guard; log once if that is impossible."""
        if sys.platform != "linux" or not hasattr(os, "pidfd_open") or not sys.executable:
            return
        try:
            host = os.pidfd_open(os.getpid())
        except OSError as error:
            self._give_up(error)
            return
        theirs, self.orders = os.pipe()
        # If this process is process 1, as in a container, an orphan would become its child again and never be reaped.
        is_detached = os.getpid() != _INIT and os.access(_SHELL, os.X_OK)
        # -I and -S: import nothing of the user's.
        waiting = [sys.executable, "-I", "-S", marked.__file__, str(host), str(theirs), host_token()]
        try:
            process = subprocess.Popen(
                [*_DETACH, *waiting] if is_detached else waiting,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                cwd="/",
                pass_fds=(host, theirs),
                # Signals to the processes of a terminal must not reach it.
                start_new_session=True,
            )
            if is_detached:
                process.wait()
            else:
                self.process = process
        except (OSError, ValueError) as error:
            self._give_up(error)
        finally:
            os.close(host)
            os.close(theirs)

    def end(self) -> None:
        """End the guard, which takes only moments."""
        orders, self.orders = self.orders, -1
        if orders < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(orders, b"q")
        os.close(orders)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        """Leave the guard to the parent, after a fork."""
        if self.orders >= 0:
            os.close(self.orders)
        if self.process is not None:
            # Marked as ended, so that Popen neither waits for it nor warns about it.
            self.process.returncode = 0

    def _give_up(self, error: OSError | ValueError) -> None:
        if self.orders >= 0:
            os.close(self.orders)
            self.orders = -1
        if not self._is_told:
            self._is_told = True
            _log.info(
                "if this process is killed, its children may keep running: the guard process cannot be started (%s)",
                error,
            )


def watch() -> None:
    """Start the guard unless it runs; blocks for the moment of a process start."""
    with _guard.lock:
        if _guard.orders < 0:
            _guard.start()


def dismiss(is_needed: Callable[[], bool]) -> None:
    """End the guard unless it is still needed; ``is_needed`` is called under the lock."""
    with _guard.lock:
        if not is_needed():
            _guard.end()


def _begin_anew() -> None:
    global _guard
    _guard.forget()
    _guard = _Guard()


_guard = _Guard()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
