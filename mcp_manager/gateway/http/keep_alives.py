"""Comments on event streams, so that no proxy takes a quiet connection for a dead one: one timer for all streams."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from mcp_manager.gateway.channels import EventStream
from mcp_manager.runtime.background import bare_context

__all__ = ["COMMENT", "KeepAlives", "Waiting"]

COMMENT: Final = b":\n\n"
"""A comment of server-sent events, which clients ignore (WHATWG HTML, 9.2.6)."""


# Of one iteration of the event loop, so that calls do not wait behind ten thousand idle streams.
_MOST_IN_TURN: Final = 32


class Waiting(Protocol):
    """A request that nothing was sent for yet."""

    waits_since: int

    def keep_alive(self) -> None:
        """Begin an event stream, if the client accepts one."""


class KeepAlives:
    """Keep quiet connections alive.

    Parameters
    ----------
    interval_s
        Seconds between two comments on a stream. A request that waits this long, and at most twice as long, gets a
        stream.

    Attributes
    ----------
    ticks
        How often the interval has passed.
    waiting
        The requests that wait, in the order in which they began to.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._streams: set[EventStream] = set()
        self.waiting: dict[Waiting, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        # The streams that still get a comment in this round.
        self._left: list[EventStream] = []
        self._next_turn: asyncio.Handle | None = None
        self.ticks: int = 0

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum([stream.is_open for stream in self._streams])

    def start(self) -> None:
        """Begin, on the running loop."""
        self._plan(asyncio.get_running_loop())

    def replace(self, interval_s: float) -> None:
        """Send comments in this interval from now on."""
        self._interval_s = interval_s
        if self._timer is not None:
            self._timer.cancel()
            self._plan(asyncio.get_running_loop())

    def stop(self) -> None:
        """End; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._left = []
        self._streams.clear()
        self.waiting.clear()

    def add(self, stream: EventStream) -> None:
        """Keep a stream alive until it has ended."""
        self._streams.add(stream)

    def discard(self, stream: EventStream) -> None:
        """Forget a stream that has ended."""
        self._streams.discard(stream)

    def wait_for(self, request: Waiting) -> None:
        """Keep a request alive until :meth:`forget`."""
        request.waits_since = self.ticks
        self.waiting[request] = None

    def forget(self, request: Waiting) -> None:
        """Forget a request that something is sent for. Idempotent."""
        self.waiting.pop(request, None)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._interval_s, self._tick, loop, context=bare_context())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._plan(loop)
        self.ticks += 1
        if self._next_turn is None:
            self._left = list(self._streams)
            self._take_turn(loop)
        overdue = []
        for request in self.waiting:
            if request.waits_since > self.ticks - 2:
                break
            overdue.append(request)
        for request in overdue:
            del self.waiting[request]
            request.keep_alive()

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the next comments of a round."""
        self._next_turn = None
        turn = self._left[-_MOST_IN_TURN:]
        del self._left[-_MOST_IN_TURN:]
        for stream in turn:
            if stream.is_open:
                stream.send(COMMENT)
            else:
                self._streams.discard(stream)
        if self._left:
            self._next_turn = loop.call_soon(self._take_turn, loop, context=bare_context())
