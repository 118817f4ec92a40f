"""How far the life of a manager has come and on which loop it is asked, and what it answers where that does not fit."""

from __future__ import annotations

import asyncio
import enum

from mcp_manager.errors import NotRunningError

__all__ = ["Phase", "not_running", "running_loop"]


class Phase(enum.Enum):
    """The phases of a manager's life; the value completes "The manager is …"."""

    NEW = "not started"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    INHERITED = "inherited by a fork and belongs to the parent process"


def not_running(phase: Phase, state: str = "", *, subject: str = "The manager") -> NotRunningError:
    """Make the error for a manager in this phase; ``state`` says more than that: "belongs to another event loop"."""
    hint = {
        Phase.NEW: "call start() first",
        Phase.RUNNING: "use it on the loop it was started on, or PyMcpManager from any thread",
        Phase.INHERITED: "create and start a new manager in this process",
    }.get(phase, "create a new manager")
    return NotRunningError(f"{subject} {state or f'is {phase.value}'}", hint=hint)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
