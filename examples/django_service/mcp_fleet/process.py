"""The manager of this process."""

from __future__ import annotations

import asyncio
import os
import threading

from django.conf import settings
from django.core.signals import setting_changed

from mcp_manager import PyMcpManager

_lock = threading.Lock()
_manager: PyMcpManager | None = None


def manager() -> PyMcpManager:
    """Return the manager of this process; the first call starts it, and waits up to five seconds for its servers.

    It has a thread and an event loop of its own: call its methods from any thread, and await those that end in
    ``_async`` on any loop. When the interpreter exits, it is stopped.
    """
    global _manager
    with _lock:
        if _manager is None:
            started = PyMcpManager(settings.MCP_FLEET)
            started.start()
            _manager = started
        return _manager


async def manager_async() -> PyMcpManager:
    """Return the manager of this process; a start does not block the event loop of the caller."""
    started = _manager
    return started if started is not None else await asyncio.to_thread(manager)


def stop() -> None:
    """Stop the manager of this process, if it was started; calls under way may end. The next call starts another."""
    global _manager
    with _lock:
        stopped, _manager = _manager, None
    if stopped is not None:
        stopped.stop()


def _begin_anew() -> None:
    """Forget the manager of the parent process, and a lock that one of its threads may hold."""
    global _lock, _manager
    _lock, _manager = threading.Lock(), None


def _follow(*, setting: str, **_: object) -> None:
    if setting == "MCP_FLEET":
        stop()


os.register_at_fork(after_in_child=_begin_anew)
# Only tests change settings: each override of MCP_FLEET has a manager of its own.
setting_changed.connect(_follow)
