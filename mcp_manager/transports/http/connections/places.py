"""Who may open a connection: bounds for each origin and in all, and those who wait, served in the order they came."""

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

__all__ = ["Line", "Place", "Places", "ScarcityError", "Wait"]

# Beyond the bound of an origin: what ends calls, or answers what they wait for, must not wait for calls to end.
_CONTROL_PLACES: Final = 4
# How long fewer connections are allowed after the process had no descriptor left.
_SCARCE_S: Final = 1.0
# How often it is tried again meanwhile.
_PAUSE_S: Final = 0.05
_SCARCITY: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class ScarcityError(OSError):
    """This process, or the system, has no descriptor or memory left for one more connection."""


class Wait:
    """How long a caller waits for what this side lacks, and what that is.

    Parameters
    ----------
    is_control
        Whether it is for what looks after a server, for which there are a few places more.
    patience_s
        Seconds after which it fails for want of descriptors; ``None`` leaves that to whoever bounds it in time.
    """

    __slots__ = ("_ends_at", "is_control", "lacks", "patience_s")

    def __init__(self, *, is_control: bool = False, patience_s: float | None = None) -> None:
        self.is_control = is_control
        self.patience_s = patience_s
        self.lacks: Literal["", "origin", "all", "descriptors"] = ""
        self._ends_at: float | None = None

    @staticmethod
    def is_scarcity(error: BaseException) -> bool:
        """Tell whether a connection failed for what this side lacks."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, socket.gaierror) or (isinstance(cause, OSError) and cause.errno is None):
            # The resolver, and who reads the files of TLS, have their own names for that.
            return not _has_descriptors()
        return isinstance(cause, OSError) and cause.errno in _SCARCITY

    async def pause(self) -> None:
        """Wait a little for descriptors; raises :class:`ScarcityError` when patience is at its end."""
        now = asyncio.get_running_loop().time()
        self.lacks = "descriptors"
        if self._ends_at is None and self.patience_s is not None:
            self._ends_at = now + self.patience_s
        if self._ends_at is not None and now >= self._ends_at:
            raise ScarcityError(errno.EMFILE, "no descriptor is left")
        await asyncio.sleep(_PAUSE_S)


def _has_descriptors() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


class _Held(Protocol):
    """A connection that can be handed over."""

    @property
    def lanes(self) -> Line[Any]: ...

    def close(self) -> None: ...


LaneT = TypeVar("LaneT", bound=_Held)


class _Turn(Generic[LaneT]):
    """Somebody who waits for a place, or for a lane that came free."""

    __slots__ = ("future", "is_control", "takes_lane", "ticket")

    def __init__(self, ticket: int, takes_lane: bool, is_control: bool) -> None:
        self.ticket = ticket
        self.takes_lane = takes_lane
        self.is_control = is_control
        self.future: asyncio.Future[LaneT | None] = asyncio.get_running_loop().create_future()


class Line(Generic[LaneT]):
    """The connections of one origin, and who waits for one. ``wires`` are those that can be handed over."""

    __slots__ = ("entry", "taken", "turns", "wires")

    def __init__(self, wires: WirePool) -> None:
        self.wires = wires
        self.taken = 0
        # The ticket under which it waits for a place in all, 0 if it does not.
        self.entry = 0
        # Made for those who wait: an empty one takes more memory than all else here.
        self.turns: collections.deque[_Turn[LaneT]] | None = None

    def add(self, turn: _Turn[LaneT]) -> None:
        """Have somebody wait: behind the others, or before them with what looks after a server."""
        if self.turns is None:
            self.turns = collections.deque()
        if turn.is_control:
            self.turns.appendleft(turn)
        else:
            self.turns.append(turn)

    def pop(self) -> _Turn[LaneT]:
        """Take out whoever is first in line; there is somebody."""
        assert self.turns, "somebody waits"
        return self.turns.popleft()

    def head(self) -> _Turn[LaneT] | None:
        """Return who has waited longest, forgetting those who gave up."""
        turns = self.turns
        while turns:
            if not turns[0].future.done():
                return turns[0]
            turns.popleft()
        self.turns = None
        return None


class Places:
    """Count the connections that are open, and keep those waiting who would exceed a bound.

    Nobody overtakes: a place goes to whoever has waited longest among those whose origin has room. What a caller finds
    idle it takes without coming by here.

    Parameters
    ----------
    group
        Of the wires: it asks here what becomes of one that came free, while somebody waits.
    limit, limit_per_origin
        The most connections in all, and to one origin; 0 for no limit.
    on_take
        Called whenever a place is asked for: there may be connections to look after from now on.
    """

    def __init__(
        self, group: WireGroup, limit: int, limit_per_origin: int, on_take: Callable[[], None] = lambda: None
    ) -> None:
        self._group = group
        self._on_take = on_take
        # How many lanes carry a stream that stays open.
        self.standing = 0
        self.limit = limit
        self.limit_per_origin = limit_per_origin
        self._allowed = limit
        self._taken = 0
        self._waiting = 0
        self._tickets = itertools.count(1)
        self._busy: dict[Line[Any], None] = {}
        # Lines with somebody who waits for nothing but a place in all, by whose turn it is; some entries are out of date.
        self._next: list[tuple[int, Line[Any]]] = []
        self._restoring: asyncio.TimerHandle | None = None

    async def take(self, line: Line[LaneT], wait: Wait, *, takes_lane: bool) -> LaneT | None:
        """Wait until one more connection may be opened (``None``), or for a lane of this line that came free.

        ``takes_lane`` tells whether a lane is of use.
        """
        self._on_take()
        is_control = wait.is_control
        turn: _Turn[LaneT] = _Turn(next(self._tickets), takes_lane, is_control)
        if (is_control or line.head() is None) and self._has_room() and self._has_room_in(line, turn):
            wait.lacks = ""
            self._grant(line)
            return None
        if wait.lacks != "descriptors":
            wait.lacks = "all" if self._has_room_in(line, turn) else "origin"
        if is_control:
            turn.ticket = -turn.ticket
        line.add(turn)
        self._waiting += 1
        self._group.on_return = self.returned
        self._make_room(line, turn)
        try:
            lane = await turn.future
            wait.lacks = ""
            return lane
        except asyncio.CancelledError:
            if turn.future.done() and not turn.future.cancelled():
                # It came free in the moment its caller gave up.
                lane = turn.future.result()
                if lane is None:
                    self.give(line)
                else:
                    lane.close()
            line.head()
            raise
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._group.on_return = None

    def give(self, line: Line[Any]) -> None:
        """Give back the place of a connection that is gone, to whoever waits longest."""
        self._taken -= 1
        line.taken -= 1
        if not line.taken:
            self._busy.pop(line, None)
        self._enter(line)
        self._serve()

    def returned(self, lane: _Held) -> bool:
        """Hand a lane that came free to whoever waits longest, or close it to make place; ``False``: nobody waits for it."""
        line = lane.lanes
        head, other = line.head(), self._first()
        if head is not None and head.takes_lane and (other is None or head.ticket <= other):
            line.pop()
            self._enter(line)
            head.future.set_result(lane)
            return True
        if head is None and other is None:
            return False
        lane.close()
        return True

    async def pause(self, wait: Wait) -> None:
        """Wait for descriptors, of which none are left; see :meth:`Wait.pause`."""
        self.lower()
        await wait.pause()

    def lower(self) -> None:
        """Allow fewer connections for a while: the process has no descriptor for more than there are now."""
        self._allowed = max(1, self._taken - 1)
        self._close_one_idle()
        if self._restoring is None:
            self._restoring = asyncio.get_running_loop().call_later(_SCARCE_S, self._restore, context=bare_context())

    def close(self) -> None:
        """Do nothing more by itself."""
        if self._restoring is not None:
            self._restoring.cancel()
            self._restoring = None

    def _restore(self) -> None:
        self._restoring = None
        self._allowed = self.limit
        self._serve()

    def _has_room(self) -> bool:
        return not self._allowed or self._taken < self._allowed

    def _has_room_in(self, line: Line[Any], turn: _Turn[Any]) -> bool:
        limit = self.limit_per_origin
        return not limit or line.taken < limit + (_CONTROL_PLACES if turn.is_control else 0)

    def _grant(self, line: Line[Any]) -> None:
        self._taken += 1
        line.taken += 1
        self._busy[line] = None

    def _enter(self, line: Line[Any]) -> None:
        """Have a line wait for a place in all, if that is what it lacks."""
        head = line.head()
        if head is not None and head.ticket != line.entry and self._has_room_in(line, head):
            heapq.heappush(self._next, (head.ticket, line))
            line.entry = head.ticket

    def _first(self) -> int | None:
        """Return the ticket of whoever waits longest for a place in all."""
        while self._next:
            ticket, line = self._next[0]
            head = line.head()
            if head is not None and head.ticket == ticket and self._has_room_in(line, head):
                return ticket
            self._drop_first()
            if head is not None and head.ticket != ticket:
                self._enter(line)
        return None

    def _drop_first(self) -> Line[Any]:
        ticket, line = heapq.heappop(self._next)
        if line.entry == ticket:
            line.entry = 0
        return line

    def _serve(self) -> None:
        while self._has_room() and self._first() is not None:
            line = self._drop_first()
            turn = line.pop()
            self._grant(line)
            turn.future.set_result(None)
            self._enter(line)

    def _make_room(self, line: Line[Any], turn: _Turn[Any]) -> None:
        """Close an idle lane in favour of somebody who begins to wait."""
        if not self._has_room_in(line, turn):
            if line.wires.idle:
                line.wires.idle[0].close()
            return
        self._enter(line)
        self._serve()
        if not turn.future.done():
            self._close_one_idle()

    def _close_one_idle(self) -> None:
        if self._group.idle:
            for line in self._busy:
                if line.wires.idle:
                    line.wires.idle[0].close()
                    return


class Place:
    """The place of one connection that is not a lane's."""

    __slots__ = ("_line", "_places")

    def __init__(self, places: Places, line: Line[Any]) -> None:
        self._places: Places | None = places
        self._line = line

    def give_back(self) -> None:
        """Give the place to whoever waits; idempotent."""
        places, self._places = self._places, None
        if places is not None:
            places.give(self._line)
