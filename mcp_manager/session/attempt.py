"""One attempt to make a session, shared by all who need one."""

from __future__ import annotations

import asyncio

from mcp_manager.errors import CallError
from mcp_manager.session.connect_slots import Turn
from mcp_manager.session.session import Session
from mcp_manager.transports.stdio.process_activity import ProcessActivity

__all__ = ["Attempt"]


class Attempt:
    """One attempt to make a session: its turn, its task, and the outcome that all who need the session wait for.

    ``has_failed_before`` tells that the attempt before it failed; ``replaces`` is the session that the new one takes over
    from, and why, ``None`` where there is none.
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
        self.session = session
        self.turn = turn
        self.has_failed_before = has_failed_before
        self.outcome: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        # Loop time; 0 while it waits for its turn.
        self.began_at = 0.0
        # What ends the waiting for an answer, and how much longer that was made for what the loop had lost.
        self.overdue: asyncio.TimerHandle | None = None
        self.given_back_s = 0.0
        # Whether the start of a program took longer than it may.
        self.has_timed_out = False
        self._activity: ProcessActivity | None = None
        self.replaces: tuple[Session, CallError] | None = None

    @property
    def stage(self) -> str:
        """How far the start of a program has come, in words."""
        if not self.began_at:
            return "waiting for its turn to start: start_concurrency programs are starting already"
        return f"still starting after {self.outcome.get_loop().time() - self.began_at:.1f} s"

    @property
    def progress(self) -> str:
        """How far it has come, and what the program has written, in words."""
        words = self.session.last_words
        return f"{self.stage}; {words}" if words else self.stage

    def is_idle(self) -> bool:
        """Tell whether the program that is started only waits."""
        pid = self.session.pid
        if not pid:
            return False
        if self._activity is None:
            self._activity = ProcessActivity()
        return self._activity.is_idle(pid)

    def succeed(self, session: Session) -> None:
        """Hand the session to all who wait for it."""
        if not self.outcome.done():
            self.outcome.set_result(session)

    def fail(self, error: BaseException) -> None:
        """Tell all who wait why there is no session."""
        if not self.outcome.done():
            # A copy, which has no traceback: the frames in that hold this very attempt.
            self.outcome.set_exception(error.for_caller(error.delivery) if isinstance(error, CallError) else error)
            # Retrieved here: callers may all have given up waiting.
            self.outcome.exception()
