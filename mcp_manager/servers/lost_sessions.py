"""Sessions that an instance has lost, until their last call and their end."""

from __future__ import annotations

import asyncio
import weakref

from mcp_manager.runtime.background import background_task
from mcp_manager.session import Session

__all__ = ["LostSessions"]


class LostSessions:
    """Retire lost sessions, and end the calls in flight on them with their instance.

    ``ending`` has the tasks that end by themselves, which the end of the instance waits for.
    """

    __slots__ = ("_in_use", "ending")

    def __init__(self) -> None:
        self.ending: set[asyncio.Task[None]] = set()
        # Calls in flight may use a session for longer than it takes to retire it.
        self._in_use: weakref.WeakSet[Session] = weakref.WeakSet()

    def retire(self, session: Session, *, is_known: bool) -> asyncio.Task[None]:
        """End a session in a task; ``is_known`` tells that the server may still know it."""
        self._in_use.add(session)
        task = background_task(session.retire(is_known=is_known), "retire a session")
        self.keep(task)
        return task

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a task that ends by itself."""
        self.ending.add(task)
        task.add_done_callback(self.ending.discard)

    def interrupt(self) -> None:
        """End the calls in flight on lost sessions."""
        for session in list(self._in_use):
            session.interrupt()
