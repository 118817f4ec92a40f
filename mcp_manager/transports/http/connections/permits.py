"""Bounds how many connections are open, per destination and in total, and queues the callers beyond a bound, FIFO."""

from __future__ import annotations

import asyncio
import collections
import errno
import heapq
import itertools
import socket
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

import aiohttp

from mcp_manager._core.wire import WireGroup, WirePool
from mcp_manager.runtime.background import bare_context

__all__ = ["ConnectionPermits", "ConnectionWait", "DescriptorsExhaustedError", "DestinationQueue", "Permit"]

# Beyond the bound of a destination: requests that end calls, or that calls wait for, must not wait for calls to end.
_CONTROL_PERMITS: Final = 4
# How long fewer connections are allowed after the process has run out of descriptors.
_SCARCE_S: Final = 1.0
# How often a connection is tried again meanwhile.
_PAUSE_S: Final = 0.05
_EXHAUSTION: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class DescriptorsExhaustedError(OSError):
    """This process, or the system, has no descriptor or memory left for another connection."""


class ConnectionWait:
    """One caller's wait for a connection.

    Parameters
    ----------
    is_control
        Whether the connection is for control traffic (probes, cancellations, …), which may exceed the bound of its
        destination by a few.
    patience_s
        Seconds after which the wait for descriptors fails; ``None`` if the caller's own deadline bounds it.

    ``blocked_by`` is what the caller waits for: a permit of the destination (``"origin"``) or in total (``"all"``), or
    descriptors; ``""`` if it does not wait.
    """

    __slots__ = ("_ends_at", "blocked_by", "is_control", "patience_s")

    def __init__(self, *, is_control: bool = False, patience_s: float | None = None) -> None:
        self.is_control: bool = is_control
        self.patience_s: float | None = patience_s
        self.blocked_by: Literal["", "origin", "all", "descriptors"] = ""
        self._ends_at: float | None = None

    @staticmethod
    def is_exhaustion(error: BaseException) -> bool:
        """Return whether a connection failed because the process or system has run out of descriptors or memory."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, socket.gaierror) or (isinstance(cause, OSError) and cause.errno in (None, errno.EBUSY)):
            # The resolver (on uvloop as EBUSY) and the loading of TLS files report it by errors of their own.
            return not _has_descriptors()
        return isinstance(cause, OSError) and cause.errno in _EXHAUSTION

    async def pause(self) -> None:
        """Wait a little for descriptors; raises :class:`DescriptorsExhaustedError` once ``patience_s`` is over."""
        now = asyncio.get_running_loop().time()
        self.blocked_by = "descriptors"
        if self._ends_at is None and self.patience_s is not None:
            self._ends_at = now + self.patience_s
        if self._ends_at is not None and now >= self._ends_at:
            raise DescriptorsExhaustedError(errno.EMFILE, "no descriptor is left")
        await asyncio.sleep(_PAUSE_S)


def _has_descriptors() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


class _Held(Protocol):
    """A connection that can be handed over to another caller."""

    @property
    def lanes(self) -> DestinationQueue[Any]: ...

    def close(self) -> None: ...


LaneT = TypeVar("LaneT", bound=_Held)


class _Waiter(Generic[LaneT]):
    """A caller that waits for a permit, or for a lane that becomes idle."""

    __slots__ = ("future", "is_control", "takes_lane", "ticket")

    def __init__(self, ticket: int, takes_lane: bool, is_control: bool) -> None:
        self.ticket: int = ticket
        self.takes_lane: bool = takes_lane
        self.is_control: bool = is_control
        self.future: asyncio.Future[LaneT | None] = asyncio.get_running_loop().create_future()


class DestinationQueue(Generic[LaneT]):
    """The connections to one destination, and the callers that wait for one; ``wires`` holds the lanes."""

    __slots__ = ("taken", "ticket", "waiters", "wires")

    def __init__(self, wires: WirePool) -> None:
        self.wires: WirePool = wires
        self.taken: int = 0
        # The ticket under which it waits for a permit in total, 0 if it does not.
        self.ticket: int = 0
        # Made when somebody waits: an empty deque takes more memory than all else here.
        self.waiters: collections.deque[_Waiter[LaneT]] | None = None

    def add(self, waiter: _Waiter[LaneT]) -> None:
        """Add a waiter at the end; one for control traffic goes to the front."""
        if self.waiters is None:
            self.waiters = collections.deque()
        if waiter.is_control:
            self.waiters.appendleft(waiter)
        else:
            self.waiters.append(waiter)

    def pop(self) -> _Waiter[LaneT]:
        """Remove and return the first waiter; there must be one."""
        assert self.waiters, "somebody waits"
        return self.waiters.popleft()

    def head(self) -> _Waiter[LaneT] | None:
        """Return the first waiter, dropping those that have given up."""
        waiters = self.waiters
        while waiters:
            if not waiters[0].future.done():
                return waiters[0]
            waiters.popleft()
        self.waiters = None
        return None


class ConnectionPermits:
    """Hand out permits for open connections, and queue the callers that would exceed a bound.

    A free permit goes to the caller that has waited longest among those whose destination has room. A caller that finds
    an idle lane takes it without asking here.

    Parameters
    ----------
    group
        The group of all wires; while callers wait, it offers each wire that becomes idle to :meth:`returned`.
    limit, limit_per_origin
        The most connections in total, and to one destination; 0 for no limit.
    on_acquire
        Called with every request for a permit.

    ``standing`` counts the lanes that carry a stream that stays open.
    """

    def __init__(
        self, group: WireGroup, limit: int, limit_per_origin: int, on_acquire: Callable[[], None] = lambda: None
    ) -> None:
        self._group = group
        self._on_acquire = on_acquire
        self.standing = 0
        self.limit = limit
        self.limit_per_origin = limit_per_origin
        self._allowed = limit
        self._taken = 0
        self._waiting = 0
        self._tickets = itertools.count(1)
        self._busy: dict[DestinationQueue[Any], None] = {}
        # A heap of the queues whose first waiter lacks nothing but a permit in total, by ticket; some entries are
        # stale.
        self._next: list[tuple[int, DestinationQueue[Any]]] = []
        self._restoring: asyncio.TimerHandle | None = None

    async def acquire(self, queue: DestinationQueue[LaneT], wait: ConnectionWait, *, takes_lane: bool) -> LaneT | None:
        """Wait for a permit to open a connection (returns ``None``), or for a lane of this queue that becomes idle.

        Parameters
        ----------
        queue
            The destination.
        wait
            The caller's wait; its ``blocked_by`` is kept up to date.
        takes_lane
            Whether the caller can use a lane.
        """
        self._on_acquire()
        is_control = wait.is_control
        waiter: _Waiter[LaneT] = _Waiter(next(self._tickets), takes_lane, is_control)
        if (is_control or queue.head() is None) and self._has_room() and self._has_room_in(queue, waiter):
            wait.blocked_by = ""
            self._grant(queue)
            return None
        if wait.blocked_by != "descriptors":
            wait.blocked_by = "all" if self._has_room_in(queue, waiter) else "origin"
        if is_control:
            waiter.ticket = -waiter.ticket
        queue.add(waiter)
        self._waiting += 1
        self._group.on_return = self.returned
        self._make_room(queue, waiter)
        try:
            lane = await waiter.future
            wait.blocked_by = ""
            return lane
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                # The permit or the lane came in the moment the caller was cancelled.
                lane = waiter.future.result()
                if lane is None:
                    self.release(queue)
                else:
                    lane.close()
            queue.head()
            raise
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._group.on_return = None

    def release(self, queue: DestinationQueue[Any]) -> None:
        """Give back the permit of a closed connection; the longest waiter gets it."""
        self._taken -= 1
        queue.taken -= 1
        if not queue.taken:
            self._busy.pop(queue, None)
        self._enter(queue)
        self._serve()

    def release_closing(self, queue: DestinationQueue[Any]) -> None:
        """Give back the permit of a connection that is closing: its socket is open until the loop's next turn."""
        asyncio.get_running_loop().call_soon(self.release, queue, context=bare_context())

    def returned(self, lane: _Held) -> bool:
        """Hand an idle lane to the longest waiter, or close it in favour of one at another destination.

        Returns whether anybody waited.
        """
        queue = lane.lanes
        head, other = queue.head(), self._first()
        if head is not None and head.takes_lane and (other is None or head.ticket <= other):
            queue.pop()
            self._enter(queue)
            head.future.set_result(lane)
            return True
        if head is None and other is None:
            return False
        lane.close()
        return True

    async def pause(self, wait: ConnectionWait) -> None:
        """Allow fewer connections for a while and wait for descriptors; see :meth:`ConnectionWait.pause`."""
        self.lower()
        await wait.pause()

    def lower(self) -> None:
        """Allow fewer connections than are open for a second: the process has run out of descriptors."""
        self._allowed = max(1, self._taken - 1)
        self._close_one_idle()
        if self._restoring is None:
            self._restoring = asyncio.get_running_loop().call_later(_SCARCE_S, self._restore, context=bare_context())

    def close(self) -> None:
        """Cancel the timer; idempotent."""
        if self._restoring is not None:
            self._restoring.cancel()
            self._restoring = None

    def _restore(self) -> None:
        self._restoring = None
        self._allowed = self.limit
        self._serve()

    def _has_room(self) -> bool:
        return not self._allowed or self._taken < self._allowed

    def _has_room_in(self, queue: DestinationQueue[Any], waiter: _Waiter[Any]) -> bool:
        limit = self.limit_per_origin
        return not limit or queue.taken < limit + (_CONTROL_PERMITS if waiter.is_control else 0)

    def _grant(self, queue: DestinationQueue[Any]) -> None:
        self._taken += 1
        queue.taken += 1
        self._busy[queue] = None

    def _enter(self, queue: DestinationQueue[Any]) -> None:
        """Put a queue on the heap if its first waiter lacks only a permit in total."""
        head = queue.head()
        if head is not None and head.ticket != queue.ticket and self._has_room_in(queue, head):
            heapq.heappush(self._next, (head.ticket, queue))
            queue.ticket = head.ticket

    def _first(self) -> int | None:
        """Return the ticket of the longest waiter that lacks only a permit in total."""
        while self._next:
            ticket, queue = self._next[0]
            head = queue.head()
            if head is not None and head.ticket == ticket and self._has_room_in(queue, head):
                return ticket
            self._drop_first()
            if head is not None and head.ticket != ticket:
                self._enter(queue)
        return None

    def _drop_first(self) -> DestinationQueue[Any]:
        ticket, queue = heapq.heappop(self._next)
        if queue.ticket == ticket:
            queue.ticket = 0
        return queue

    def _serve(self) -> None:
        while self._has_room() and self._first() is not None:
            queue = self._drop_first()
            waiter = queue.pop()
            self._grant(queue)
            waiter.future.set_result(None)
            self._enter(queue)

    def _make_room(self, queue: DestinationQueue[Any], waiter: _Waiter[Any]) -> None:
        """Close an idle lane in favour of a new waiter."""
        if not self._has_room_in(queue, waiter):
            if queue.wires.idle:
                queue.wires.idle[0].close()
            return
        self._enter(queue)
        self._serve()
        if not waiter.future.done():
            self._close_one_idle()

    def _close_one_idle(self) -> None:
        if self._group.idle:
            for queue in self._busy:
                if queue.wires.idle:
                    queue.wires.idle[0].close()
                    return


class Permit:
    """The permit of a connection that is not a lane."""

    __slots__ = ("_permits", "_queue")

    def __init__(self, permits: ConnectionPermits, queue: DestinationQueue[Any]) -> None:
        self._permits: ConnectionPermits | None = permits
        self._queue = queue

    def release(self) -> None:
        """Give the permit back once the connection is closed, if it closes now; idempotent."""
        permits, self._permits = self._permits, None
        if permits is not None:
            permits.release_closing(self._queue)
