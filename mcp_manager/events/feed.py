"""The one place through which every event of a manager goes: to its listeners, its callback, and the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mcp_manager.events.callback import OnStateChange, StateCallback
from mcp_manager.events.child_output import ChildOutputs
from mcp_manager.events.line_limit import Held, LineLimit, summary_of
from mcp_manager.events.log_lines import fields_of, kind_of, line_of, report_handler
from mcp_manager.events.records import Event, ServerEvent, ServerStateChanged, ServerUndeployed
from mcp_manager.events.stream import EventStream, Listeners

__all__ = ["EventFeed", "OnStateChange"]

_log = logging.getLogger("mcp_manager.events")


class EventFeed:
    """Tell of a manager's events. All of them are told on the manager's loop, in the order in which they happen.

    Parameters
    ----------
    on_state_change
        Called for every change of a server's state; see :class:`StateCallback`.
    """

    def __init__(self, on_state_change: OnStateChange | None = None) -> None:
        self._listeners: Listeners[Event] = Listeners()
        self._callback = None if on_state_change is None else StateCallback(on_state_change)
        self._lines = LineLimit(_write, _summarize)
        self._is_quiet = False
        # What programs write to their standard error.
        self.outputs: ChildOutputs = ChildOutputs()

    def is_heard(self, level: int) -> bool:
        """Tell whether anybody takes an event whose line has this level; else it need not be made."""
        # What is held back for the log may become obsolete.
        return bool(self._listeners or self._callback or self._lines) or _log.isEnabledFor(level)

    def tell(self, event: Event, level: int = logging.INFO) -> None:
        """Tell of an event.

        Parameters
        ----------
        event
            The event.
        level
            The level of its line in the log.
        """
        if self._listeners:
            self._listeners.put(event)
        if self._callback is not None and isinstance(event, ServerStateChanged):
            self._callback.tell(event)
        if _log.isEnabledFor(level) and not self._is_quiet:
            self._lines.offer(event, level)
        elif self._lines:
            self._lines.supersede(event)
        if isinstance(event, ServerUndeployed):
            self._lines.forget(event.server_id)
            self.outputs.forget(event.server_id)

    @contextlib.contextmanager
    def unlogged(self) -> Iterator[None]:
        """Write no lines meanwhile; must not be held across an await."""
        self._is_quiet = True
        try:
            yield
        finally:
            self._is_quiet = False

    def listen(
        self,
        server_id: str | None,
        kinds: Collection[type[Event]],
        buffer: int,
        home: asyncio.AbstractEventLoop | None,
    ) -> EventStream:
        """Return a stream of the events from now on; see :class:`EventStream`."""
        stream = EventStream(server_id, kinds, buffer, home)
        self._listeners.add(stream)
        return stream

    async def aclose(self) -> None:
        """Write the lines that were held back, and end the callback and all streams; idempotent."""
        self._lines.close()
        try:
            if self._callback is not None:
                await self._callback.aclose()
        finally:
            self._listeners.end()
            self.outputs.end()


def _write(event: Event, level: int, left_out: int) -> None:
    extra = fields_of(event)
    more = ""
    if left_out:
        extra["left_out"] = left_out
        more = f" ({left_out} earlier lines like this one were left out)"
    _log_safely(level, f"{line_of(event)}{more}", extra)


def _summarize(held: Sequence[Held]) -> None:
    extra = {
        "event": kind_of(held[0].event),
        "servers": len({each.event.server_id for each in held if isinstance(each.event, ServerEvent)}),
        "left_out": sum(each.count for each in held),
    }
    _log_safely(max(each.level for each in held), summary_of(held), extra)


def _log_safely(level: int, line: str, extra: dict[str, Any]) -> None:
    try:
        _log.log(level, "%s", line, extra=extra)
    except Exception:
        report_handler()
