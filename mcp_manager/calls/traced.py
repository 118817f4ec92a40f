"""What happens during a traced call, besides its first attempt: retries, resends and hedges, as events of its span."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["EVENTS", "Event", "note_event"]


class Event(NamedTuple):
    """Something that happened at ``at_ns``, in nanoseconds since 1970; ``error`` is the class of the reason."""

    name: str
    at_ns: int
    error: str | None


EVENTS: Final[ContextVar[list[Event] | None]] = ContextVar("mcp_manager_call_events", default=None)
"""The events of the call that the current task makes; ``None`` if it is not traced."""


def note_event(name: str, reason: BaseException | None = None) -> None:
    """Record an event of the current call, if it is traced."""
    events = EVENTS.get()
    if events is not None:
        events.append(Event(name, time.time_ns(), None if reason is None else type(reason).__name__))
