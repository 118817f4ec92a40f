"""Bounds the lines of a log: a few a minute for one server, some dozens at a time for all, the rest as summaries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from mcp_manager.events.log_lines import KINDS, kind_of
from mcp_manager.events.records import Event, ServerEvent, ServerStateChanged
from mcp_manager.runtime.background import bare_context

__all__ = ["Held", "LineLimit", "summary_of"]

K = TypeVar("K")

# Lines of one kind that are written at once: for one server within a minute, and for all servers within ten seconds.
_OWN_S: Final = 60.0
_OWN_MOST: Final = 10
_ALL_S: Final = 10.0
_ALL_MOST: Final = 50
# Up to this many servers whose lines were held back get a line each, more get a summary, which names a few.
_MOST_SINGLE: Final = 10
_MOST_NAMED: Final = 5
# Windows that are over are forgotten after so many events.
_FORGET_AFTER: Final = 1_024

_MANY: Final = {
    "child_started": "have their programs running",
    "child_exited": "lost their programs",
    "circuit": "opened or closed a circuit",
    "session_lost": "lost their sessions",
    "session_replaced": "have new sessions",
    "server_deployed": "were deployed",
    "server_undeployed": "were undeployed",
    "server_redeployed": "were redeployed",
    "server_scaled": "were scaled",
    "tools_changed": "changed their tools",
}


class Held:
    """The last event of a kind of one server that was not written, how many there were, and their highest level."""

    __slots__ = ("count", "due", "event", "level")

    def __init__(self, event: Event, level: int, due: float) -> None:
        self.event: Event = event
        self.level: int = level
        self.due: float = due
        self.count: int = 1


class _Window:
    """A period in which lines are counted."""

    __slots__ = ("lines", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.lines = 0


class LineLimit:
    """Decide which events get a line of their own at once.

    What is held back is not lost: when its time is over, the last event of each kind and server is written after all,
    and says how many were left out. So the log always ends with the present state, even if it takes no lines of the
    level of that event: it is written at the highest level of what was left out.

    Parameters
    ----------
    write
        ``write(event, level, left_out)`` writes one line.
    summarize
        ``summarize(held)`` writes one line for events of one kind of many servers.
    """

    def __init__(self, write: Callable[[Event, int, int], None], summarize: Callable[[Sequence[Held]], None]) -> None:
        self._write = write
        self._summarize = summarize
        self._own: dict[tuple[str, str], _Window] = {}
        self._all: dict[str, _Window] = {}
        self._held: dict[tuple[str, str], Held] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._offers = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def supersede(self, event: Event) -> None:
        """Take an event whose level is not logged: it may make obsolete what is held back."""
        held = self._held.get(_key(event))
        if held is not None:
            held.event = event

    def offer(self, event: Event, level: int) -> None:
        """Write an event, or hold it back."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._offers += 1
        if self._offers % _FORGET_AFTER == 0:
            self._forget_old(now)
        key = _key(event)
        held = self._held.get(key)
        if held is not None:
            held.event, held.level = event, max(held.level, level)
            held.count += 1
            return
        own, together = _current(self._own, key, now, _OWN_S), _current(self._all, key[0], now, _ALL_S)
        if own.lines >= _OWN_MOST or together.lines >= _ALL_MOST:
            due = own.until if own.lines >= _OWN_MOST else together.until
            self._held[key] = Held(event, level, due)
            self._arm(loop, due)
            return
        own.lines += 1
        together.lines += 1
        self._write(event, level, 0)

    def forget(self, server_id: str) -> None:
        """Write what is held back of a server that was removed, and forget the server."""
        for kind in KINDS:
            key = (kind, server_id)
            self._own.pop(key, None)
            held = self._held.pop(key, None)
            if held is not None:
                self._write(held.event, held.level, held.count - 1)

    def close(self) -> None:
        """Write everything that is held back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._release(list(self._held))
        self._own.clear()
        self._all.clear()

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            if self._due_at <= due:
                return
            self._timer.cancel()
        self._due_at = due
        self._timer = loop.call_at(due, self._due, loop, context=bare_context())

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        # A timer may run a little early.
        now = loop.time() + 0.01
        self._release([key for key, held in self._held.items() if held.due <= now])
        self._forget_old(now)
        if self._held:
            self._arm(loop, min(each.due for each in self._held.values()))

    def _forget_old(self, now: float) -> None:
        self._own = {key: each for key, each in self._own.items() if each.until > now}

    def _release(self, keys: Sequence[tuple[str, str]]) -> None:
        by_kind: dict[str, list[Held]] = {}
        for key in keys:
            by_kind.setdefault(key[0], []).append(self._held.pop(key))
        for held in by_kind.values():
            if len(held) > _MOST_SINGLE:
                self._summarize(held)
            else:
                for each in held:
                    self._write(each.event, each.level, each.count - 1)


def summary_of(held: Sequence[Held]) -> str:
    """Return one line for events of one kind of many servers."""
    events = [each.event for each in held if isinstance(each.event, ServerEvent)]
    named = ", ".join(repr(each.server_id) for each in events[:_MOST_NAMED])
    states = Counter(each.state.value for each in events if isinstance(each, ServerStateChanged))
    if states:
        found = ", ".join(f"{count} {state}" for state, count in states.most_common())
        return f"{len(held)} more servers changed their state: {found} (such as {named})"
    kind = kind_of(held[0].event)
    return f"{len(held)} more servers {_MANY.get(kind, kind)} (such as {named})"


def _key(event: Event) -> tuple[str, str]:
    return kind_of(event), event.server_id if isinstance(event, ServerEvent) else ""


def _current(windows: dict[K, _Window], key: K, now: float, length_s: float) -> _Window:
    window = windows.get(key)
    if window is None or window.until <= now:
        window = windows[key] = _Window(now + length_s)
    return window
