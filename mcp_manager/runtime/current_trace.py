"""The trace of the call that the current task makes: what happens during it, and what log records say of it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["CURRENT_TRACE", "CurrentTrace", "Event", "note_event", "trace_ids"]


class Event(NamedTuple):
    """Something that happened at ``at_ns``, in nanoseconds since 1970; ``error`` is the class of the reason."""

    name: str
    at_ns: int
    error: str | None


class CurrentTrace(NamedTuple):
    """The span of a call under way, and what happened besides its first attempt: retries, resends and hedges.

    ``started_ns`` is when the call began, in nanoseconds of the monotonic clock.
    """

    trace_id: int
    span_id: int
    started_ns: int
    events: list[Event]


CURRENT_TRACE: Final[ContextVar[CurrentTrace | None]] = ContextVar("mcp_manager_current_trace", default=None)
"""The trace of the call that the current task makes; ``None`` if it is not traced."""


def note_event(name: str, reason: BaseException | None = None) -> None:
    """Record an event of the current call, if it is traced."""
    current = CURRENT_TRACE.get()
    if current is not None:
        current.events.append(Event(name, time.time_ns(), None if reason is None else type(reason).__name__))


def trace_ids() -> dict[str, str]:
    """Return what a log record about the current call says of its trace: nothing if it is not traced."""
    current = CURRENT_TRACE.get()
    if current is None:
        return {}
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}
