"""The phases of a manager's life, the loop it belongs to, and the errors of calls that do not fit either."""

from __future__ import annotations

import asyncio
import enum
import warnings
from typing import Any, NoReturn

from mcp_manager._core.permanence import make_permanent
from mcp_manager.errors import NotRunningError

__all__ = ["Lifetime", "Phase", "Unique", "not_running", "running_loop", "shown_manager", "warn_of_unstopped"]


class Phase(enum.Enum):
    """The phases of a manager's life; the value completes "The manager is …"."""

    NEW = "not started"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    INHERITED = "inherited by a fork and belongs to the parent process"


class Unique:
    """An object with connections, programs and a loop, which can therefore be neither copied nor pickled."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} can be neither copied nor pickled, because it has connections and programs "
            f"(pass on its configuration and create another {name} from it)"
        )


class Lifetime(Unique):
    """Keep the phase of a manager and the loop it lives on."""

    def __init__(self) -> None:
        self._phase = Phase.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        # The thread that calls must come from, 0 unless running. Comparing it is cheaper than asking for the running
        # loop, which costs a system call on Python 3.11.
        self._serving_thread = 0

    @property
    def is_running(self) -> bool:
        """Whether it was started in this process, and not stopped."""
        return self._phase is Phase.RUNNING

    def _disown(self) -> None:
        """Leave connections and programs to the parent process; a manager that was not started stays usable."""
        if self._phase in (Phase.RUNNING, Phase.STOPPING):
            self._phase, self._serving_thread = Phase.INHERITED, 0
            # Destroying it would close what the parent still uses.
            make_permanent(self)

    def __del__(self) -> None:
        if getattr(self, "_phase", None) is Phase.RUNNING:
            warn_of_unstopped(self, "await its stop(), or use it in an async with block")

    def _is_here(self) -> bool:
        return self._phase is Phase.RUNNING and running_loop() is self._loop

    def _check_running(self) -> None:
        if self._phase is not Phase.RUNNING:
            raise not_running(self._phase)
        if running_loop() is not self._loop:
            raise not_running(self._phase, "belongs to another event loop")


def warn_of_unstopped(manager: object, way_out: str) -> None:
    """Warn that a running manager was dropped, so that nothing can stop it any more."""
    name = type(manager).__name__
    warnings.warn(
        f"a {name} was dropped while it was running: {way_out}", ResourceWarning, stacklevel=3, source=manager
    )


def shown_manager(kind: type, phase: Phase, servers: int) -> str:
    """Return the ``repr`` of a manager."""
    return f"<{kind.__name__}: {phase.value}, {servers} server{'' if servers == 1 else 's'}>"


def not_running(phase: Phase, state: str = "", *, subject: str = "The manager") -> NotRunningError:
    """Make the error for a call in this phase.

    Parameters
    ----------
    phase
        The phase of the manager.
    state
        What is wrong, such as "belongs to another event loop"; by default the phase in words.
    subject
        What the error's sentence begins with.
    """
    hint = {
        Phase.NEW: "use it in an async with block, or await start()",
        Phase.RUNNING: "use it on the loop it was started on, or PyMcpManager from any thread",
        Phase.INHERITED: "create and start a new manager in this process; mcp-manager help processes says in which hook",
    }.get(phase, "create a new manager")
    return NotRunningError(f"{subject} {state or f'is {phase.value}'}", hint=hint)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
