"""Keeps the state of every server that was ever used, and running counts of the states."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from mcp_manager.types import ServerState

__all__ = ["DRAINING", "HARMLESS", "SETTLING", "SICK", "STARTING", "UNPROBED", "Standing", "Tally"]

S = TypeVar("S", bound=Hashable)

UNPROBED: Final = "unprobed"
STARTING: Final = "starting"
DRAINING: Final = "draining"
SETTLING: Final = "settling"

HARMLESS: Final = frozenset({UNPROBED, STARTING, DRAINING})
"""Reasons that an operator caused or that only mean that a server is new: no settling time follows them."""
SICK: Final = frozenset({ServerState.DEGRADED, ServerState.UNHEALTHY})
"""The states of a server with which something is wrong."""


class Standing:
    """The state that a server is shown with.

    Attributes
    ----------
    shown
        The state, and the reasons why it is not ``Healthy``.
    better_since
        Since when, in the loop's time, it has been found better than shown; ``None`` if it is not.
    told, told_at
        The state that was told last, and the loop's time when it was; only :class:`.Transitions` changes them.
    sick_since
        Since when it has been told as degraded or unhealthy without interruption; ``None`` if it is not.
    """

    __slots__ = ("better_since", "shown", "sick_since", "told", "told_at")

    def __init__(self, now: float) -> None:
        self.told: ServerState = ServerState.INITIALIZING
        self.told_at: float = now
        self.sick_since: float | None = None
        # Replaced as a whole: other threads read it.
        self.shown: tuple[ServerState, tuple[str, ...]] = (ServerState.INITIALIZING, (UNPROBED,))
        self.better_since: float | None = None

    @property
    def state(self) -> ServerState:
        """The state."""
        return self.shown[0]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ``Healthy``."""
        return self.shown[1]


class Tally(Generic[S]):
    """Keep the state of each server, and the counts of the states.

    Attributes
    ----------
    counts
        The number of all servers, of healthy and of unhealthy ones, consistent on every thread. All others count as
        degraded, also servers that were never used, about which nothing else is kept.
    """

    def __init__(self) -> None:
        self.counts: tuple[int, int, int] = (0, 0, 0)
        self._standings: dict[S, Standing] = {}

    def add(self) -> None:
        """Count a new server."""
        self._change(1)

    def remove(self, server: S) -> None:
        """Stop counting a server, whatever its state."""
        standing = self._standings.pop(server, None)
        self._change(-1, left=standing.state if standing is not None else None)

    def clear(self) -> None:
        """Forget all servers."""
        self.counts = (0, 0, 0)
        self._standings.clear()

    def touch(self, server: S, now: float) -> None:
        """Begin to keep the state of a server that is used for the first time, at ``now`` of the loop's time."""
        if server not in self._standings:
            self._standings[server] = Standing(now)

    def used(self) -> list[S]:
        """Return the servers that were ever used, in the order of their first use.

        Raises
        ------
        RuntimeError
            Another thread used a server for the first time meanwhile; repeat it.
        """
        return list(self._standings)

    def standing(self, server: S) -> Standing | None:
        """Return the standing of a server; ``None`` if it was never assessed."""
        return self._standings.get(server)

    def judge(self, server: S, state: ServerState, reasons: tuple[str, ...], now: float, settle_s: float) -> Standing:
        """Record the state that a server was found in, and return its standing.

        A worse state is shown at once. A server that was degraded or unhealthy is shown as healthy once it has been
        found healthy without interruption for ``settle_s`` seconds; until then it is shown as degraded.

        Parameters
        ----------
        now
            Seconds of a clock that does not go back.
        """
        standing = self._standings.get(server)
        if standing is None:
            standing = self._standings[server] = Standing(now)
        if state is not ServerState.HEALTHY:
            standing.better_since = None
        elif standing.state in SICK and not HARMLESS.issuperset(standing.reasons) and settle_s > 0:
            if standing.better_since is None:
                standing.better_since = now
            if now - standing.better_since < settle_s:
                state, reasons = ServerState.DEGRADED, (SETTLING,)
            else:
                standing.better_since = None
        if state is not standing.state:
            self._change(0, left=standing.state, taken=state)
        standing.shown = (state, reasons)
        return standing

    def _change(self, servers: int, *, left: ServerState | None = None, taken: ServerState | None = None) -> None:
        total, healthy, unhealthy = self.counts
        healthy += (taken is ServerState.HEALTHY) - (left is ServerState.HEALTHY)
        unhealthy += (taken is ServerState.UNHEALTHY) - (left is ServerState.UNHEALTHY)
        self.counts = (total + servers, healthy, unhealthy)
