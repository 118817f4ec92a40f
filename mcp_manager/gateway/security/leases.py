"""``Leases``: streams that end with the credentials they were opened with; one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from mcp_manager.gateway.security.principal import Principal
from mcp_manager.runtime.background import bare_context

__all__ = ["Lease", "Leased", "Leases"]

_LOOK_EVERY_S: Final = 5.0
# Of one iteration of the event loop, so that calls do not wait behind ten thousand streams.
_MOST_IN_TURN: Final = 32
_LEAST_SWEPT: Final = 64


class Leased(Protocol):
    """A stream."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""

    def end(self) -> None:
        """End it."""


class Lease:
    """How long one stream may be open; made by :meth:`Leases.add`.

    Attributes
    ----------
    principal
        Whose stream it is, with the credentials that it depends on.
    """

    __slots__ = ("_leases", "_session", "_stream", "principal")

    def __init__(self, leases: Leases, principal: Principal, stream: Leased, session: str) -> None:
        self._leases = leases
        self._stream: Leased | None = stream
        self._session = session
        self.principal: Principal = principal

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended."""
        return self._stream is None or not self._stream.is_open

    def renew(self, principal: Principal) -> None:
        """Depend on credentials that were shown later, if they are of the same principal, allow as much, and last as long."""
        mine = self.principal
        if principal.name == mine.name and principal.grant is mine.grant and principal.expires_at >= mine.expires_at:
            self.principal = principal

    def close(self) -> None:
        """Take note that the stream has ended. Idempotent."""
        if self._stream is not None:
            self._stream = None
            self._leases.forget(self, self._session)

    def end(self) -> None:
        """End the stream. Idempotent."""
        stream = self._stream
        self.close()
        if stream is not None and stream.is_open:
            stream.end()


class Leases:
    """End streams when the credentials of their principal expire, or within seconds of their revocation.

    Parameters
    ----------
    is_current
        Tells whether the credentials of a principal are still valid.
    clock
        Returns the seconds since the epoch.
    """

    def __init__(self, is_current: Callable[[Principal], bool], clock: Callable[[], float] = time.time) -> None:
        self._is_current = is_current
        self._clock = clock
        self._open: set[Lease] = set()
        self.of_sessions: dict[str, Lease] = {}
        """The streams that later requests of their session may renew, by id of the session."""
        # One entry for each lease that is open, ordered by the time when it is looked at, and then by number.
        self._due: list[tuple[float, int, Lease]] = []
        self._number = 0
        self._sweep_at = _LEAST_SWEPT
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._open))

    def add(self, principal: Principal, stream: Leased, session: str = "") -> Lease:
        """Let a stream end when credentials do.

        Parameters
        ----------
        principal
            Whose stream it is.
        stream
            The stream; its end need not be told.
        session
            The id of its session: later requests in it may renew the lease. "" without one.
        """
        if len(self._open) >= self._sweep_at:
            for each in self:
                if each.is_over:
                    each.close()
            self._sweep_at = max(_LEAST_SWEPT, 2 * len(self._open))
        lease = Lease(self, principal, stream, session)
        self._open.add(lease)
        if session:
            before = self.of_sessions.get(session)
            if before is not None and before.is_over:
                before.close()
            self.of_sessions[session] = lease
        self._plan(lease)
        return lease

    def renew(self, session: str, principal: Principal) -> None:
        """Take note of the credentials that a request in a session has shown."""
        lease = self.of_sessions.get(session)
        if lease is not None:
            lease.renew(principal)

    def forget(self, lease: Lease, session: str) -> None:
        """Forget a stream that has ended; called by its lease."""
        self._open.discard(lease)
        if session and self.of_sessions.get(session) is lease:
            del self.of_sessions[session]
        if len(self._due) > 2 * len(self._open) + _MOST_IN_TURN:
            self._due = [entry for entry in self._due if not entry[2].is_over]
            heapq.heapify(self._due)

    def stop(self) -> None:
        """End the timer, and forget all streams without ending them. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = math.inf
        self._due.clear()
        for lease in list(self._open):
            lease.close()

    def look_at_all(self) -> None:
        """End all streams whose credentials are no longer valid, as when others are in force."""
        for lease in self:
            if not self._is_valid(lease.principal, self._clock()):
                lease.end()

    def _plan(self, lease: Lease) -> None:
        if lease.principal.credential is None and lease.principal.expires_at == math.inf:
            # Nobody need authenticate.
            return
        due_at = min(lease.principal.expires_at, self._clock() + _LOOK_EVERY_S)
        self._number += 1
        heapq.heappush(self._due, (due_at, self._number, lease))
        if due_at < self._timer_at:
            self._wake()

    def _wake(self) -> None:
        """Set the timer for the first lease that is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = math.inf
        while self._due and self._due[0][2].is_over:
            heapq.heappop(self._due)[2].close()
        if self._due:
            self._timer_at = self._due[0][0]
            # At most: the clock may be set while the gateway runs.
            wait_s = min(max(0.0, self._timer_at - self._clock()), _LOOK_EVERY_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look, context=bare_context())

    def _look(self) -> None:
        """End what has no valid credentials any more."""
        self._timer = None
        self._timer_at = math.inf
        now, left = self._clock(), _MOST_IN_TURN
        while self._due and self._due[0][0] <= now and left:
            left -= 1
            lease = heapq.heappop(self._due)[2]
            if lease.is_over:
                lease.close()
            elif self._is_valid(lease.principal, now):
                self._plan(lease)
            else:
                lease.end()
        self._wake()

    def _is_valid(self, principal: Principal, now: float) -> bool:
        return principal.expires_at > now and self._is_current(principal)
