"""One attempt to make a session, shared by every caller that needs the session."""

from __future__ import annotations

import asyncio

from mcp_manager.errors import CallError
from mcp_manager.session.connect_slots import Turn
from mcp_manager.session.session import Session
from mcp_manager.transports.stdio.process_activity import ProcessActivity

__all__ = ["Attempt"]


class Attempt:
    """One attempt to make a session: its turn, its task, and the outcome that callers wait for.

    ``replaces`` is the session that the new one replaces and the reason, ``None`` if it replaces none.

    Parameters
    ----------
    session
        The session to connect.
    turn
        Its turn among all attempts; see :class:`~mcp_manager.session.connect_slots.ConnectSlots`.
    has_failed_before
        Whether the attempt before it failed.
    """

    __slots__ = (
        "_activity",
        "began_at",
        "given_back_s",
        "has_failed_before",
        "has_timed_out",
        "outcome",
        "overdue",
        "replaces",
        "session",
        "task",
        "turn",
    )

    task: asyncio.Task[None]

    def __init__(self, session: Session, turn: Turn, has_failed_before: bool) -> None:
        self.session: Session = session
        self.turn: Turn = turn
        self.has_failed_before: bool = has_failed_before
        self.outcome: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        # Loop time; 0 while it waits for its turn.
        self.began_at: float = 0.0
        # The timer of the connect timeout, and how many seconds it was extended because the loop was blocked.
        self.overdue: asyncio.TimerHandle | None = None
        self.given_back_s: float = 0.0
        # Whether the start of a program took longer than it may.
        self.has_timed_out: bool = False
        self._activity: ProcessActivity | None = None
        self.replaces: tuple[Session, CallError] | None = None

    @property
    def stage(self) -> str:
        """How far the start of a program has come, in words."""
        if not self.began_at:
            return "waiting for its turn to start: start_concurrency programs are already starting"
        return f"still starting after {self.outcome.get_loop().time() - self.began_at:.1f} s"

    @property
    def progress(self) -> str:
        """How far the start has come and what the program has written, in words."""
        words = self.session.last_words
        return f"{self.stage}; {words}" if words else self.stage

    def is_idle(self) -> bool:
        """Tell whether the program that is being started only waits."""
        pid = self.session.pid
        if not pid:
            return False
        if self._activity is None:
            self._activity = ProcessActivity()
        return self._activity.is_idle(pid)

    def succeed(self, session: Session) -> None:
        """Give the session to every caller that waits for it."""
        if not self.outcome.done():
            self.outcome.set_result(session)

    def fail(self, error: BaseException) -> None:
        """Raise the error in every caller that waits for the session."""
        if not self.outcome.done():
            # A copy without a traceback, whose frames would hold this attempt.
            self.outcome.set_exception(error.for_caller(error.delivery) if isinstance(error, CallError) else error)
            # Retrieved here, because every caller may have stopped waiting.
            self.outcome.exception()
