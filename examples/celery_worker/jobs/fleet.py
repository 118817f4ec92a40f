"""The manager of this process: each child of the pool has its own, started after the fork."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from celery.signals import worker_process_init, worker_process_shutdown, worker_shutdown

from mcp_manager import PyMcpManager

FLEET = os.environ.get("FLEET_FILE", str(Path(__file__).parent.parent / "fleet.toml"))

_lock = threading.Lock()
_manager: PyMcpManager | None = None


def manager() -> PyMcpManager:
    """Return the manager of this process; the first call starts it."""
    global _manager
    with _lock:
        if _manager is None:
            started = PyMcpManager(FLEET)
            started.start()
            _manager = started
        return _manager


def stop() -> None:
    """Stop the manager of this process, if it was started."""
    global _manager
    with _lock:
        stopped, _manager = _manager, None
    if stopped is not None:
        stopped.stop()


@worker_process_init.connect
def _start_in_child(**_: object) -> None:
    # Before the first task of the child. The pool `threads` does not send this: there, the first task starts the manager.
    manager()


@worker_process_shutdown.connect
def _stop_in_child(**_: object) -> None:
    stop()


@worker_shutdown.connect
def _stop_in_worker(**_: object) -> None:
    # The pools `solo` and `threads` run tasks in this process. That of prefork has no manager to stop.
    stop()


def _begin_anew() -> None:
    """Forget the manager of the parent process, and a lock that one of its threads may hold."""
    global _lock, _manager
    _lock, _manager = threading.Lock(), None


os.register_at_fork(after_in_child=_begin_anew)
