"""A process beside this one that kills what this one leaves behind when it is killed itself (SIGKILL, out of memory).

A child that reads its input to the end notices by itself. One that is busy, deaf to it, or behind a launcher does not;
and the parent-death signal of Linux reaches neither what a launcher started nor any child whose parent is a thread that
lives on. So a small interpreter waits for the end of this process, for as long as this process has children. There is
none where the system does not tell of the end of a process that is no child (``pidfd_open``: Linux 5.3).
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

# What an interpreter may need to start at all.
_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "PATH")
_SHELL: Final = "/bin/sh"
# By way of a shell that ends at once, so that it is nobody's child here: whoever counts or waits for the children of
# this process finds servers alone.
_DETACH: Final = (_SHELL, "-c", '"$@" &', "sh")
_INIT: Final = 1


class _Guard:
    """The process that waits, while there is one."""

    def __init__(self) -> None:
        # The collector may end a forgotten child in the midst of anything.
        self.lock = threading.RLock()
        self._is_told = False
        self.orders = -1
        # Where it is a child after all.
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; where that does not work, say so once."""
        if sys.platform != "linux" or not hasattr(os, "pidfd_open") or not sys.executable:
            return
        try:
            host = os.pidfd_open(os.getpid())
        except OSError as error:
            self._give_up(error)
            return
        theirs, self.orders = os.pipe()
        # An orphan of the first process of a container would be its child again, and not be waited for.
        is_detached = os.getpid() != _INIT and os.access(_SHELL, os.X_OK)
        # -I and -S: nothing of the user's is imported.
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
                # What is sent to the processes of a terminal does not reach it.
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
        """End it; as it waits for nothing else, that is a matter of moments."""
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
        """Leave it to the process that this one is a forked copy of."""
        if self.orders >= 0:
            os.close(self.orders)
        if self.process is not None:
            # Its end is not to be waited for, or warned of.
            self.process.returncode = 0

    def _give_up(self, error: OSError | ValueError) -> None:
        if self.orders >= 0:
            os.close(self.orders)
            self.orders = -1
        if not self._is_told:
            self._is_told = True
            _log.info("if this process is killed, its children may live on: nobody can watch it (%s)", error)


def watch() -> None:
    """Have a process wait for the end of this one, unless one does already; takes the moment of a start."""
    with _guard.lock:
        if _guard.orders < 0:
            _guard.start()


def dismiss(is_needed: Callable[[], bool]) -> None:
    """End it, unless there is something left to kill."""
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
