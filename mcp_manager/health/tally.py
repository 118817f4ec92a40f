"""The state of every server that was ever used, and how many servers are in which: kept, so that it need not be counted."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from mcp_manager.types import ServerState

__all__ = ["DRAINING", "SETTLING", "STARTING", "UNPROBED", "Standing", "Tally"]

S = TypeVar("S", bound=Hashable)

UNPROBED: Final = "unprobed"
STARTING: Final = "starting"
DRAINING: Final = "draining"
SETTLING: Final = "settling"

# What is as its operator wants it, or only new, leaves no doubt behind when it is over.
_HARMLESS: Final = frozenset({UNPROBED, STARTING, DRAINING})
_SICK: Final = frozenset({ServerState.DEGRADED, ServerState.UNHEALTHY})


class Standing:
    """What a server is shown as, and since when (a loop's time) it has been better than that, ``None`` if it is not."""

    __slots__ = ("better_since", "reasons", "state")

    def __init__(self) -> None:
        self.state = ServerState.INITIALIZING
        self.reasons: tuple[str, ...] = (UNPROBED,)
        self.better_since: float | None = None


class Tally(Generic[S]):
    """Keep one state per server, and the counts of the states.

    ``total``, ``healthy`` and ``unhealthy`` change with every state in one step; the other servers are degraded, among
    them those that were never used, of which it keeps nothing.
    """

    def __init__(self) -> None:
        self.total = 0
        self.healthy = 0
        self.unhealthy = 0
        self._standings: dict[S, Standing] = {}

    @property
    def degraded(self) -> int:
        """How many servers are neither healthy nor unhealthy."""
        return self.total - self.healthy - self.unhealthy

    def add(self) -> None:
        """Count a server that is new."""
        self.total += 1

    def remove(self, server: S) -> None:
        """Count a server no more, whatever its state."""
        self.total -= 1
        standing = self._standings.pop(server, None)
        if standing is not None:
            self._count(standing.state, -1)

    def standing(self, server: S) -> Standing | None:
        """Return what a server is shown as, ``None`` if it was never judged."""
        return self._standings.get(server)

    def judge(self, server: S, state: ServerState, reasons: tuple[str, ...], now: float, settle_s: float) -> Standing:
        """Take note of what a server is found to be, and return what it is shown as.

        Worse is shown at once. What has been degraded or unhealthy is shown as healthy when it has been found so, and
        nothing else, for ``settle_s`` seconds: until then it is degraded, as it serves, but has yet to prove itself.

        Parameters
        ----------
        now
            Seconds of a clock that does not go back.
        """
        standing = self._standings.get(server)
        if standing is None:
            standing = self._standings[server] = Standing()
        if state is not ServerState.HEALTHY:
            standing.better_since = None
        elif standing.state in _SICK and not _HARMLESS.issuperset(standing.reasons) and settle_s > 0:
            if standing.better_since is None:
                standing.better_since = now
            if now - standing.better_since < settle_s:
                state, reasons = ServerState.DEGRADED, (SETTLING,)
            else:
                standing.better_since = None
        if state is not standing.state:
            self._count(standing.state, -1)
            standing.state = state
            self._count(state, 1)
        standing.reasons = reasons
        return standing

    def _count(self, state: ServerState, change: int) -> None:
        if state is ServerState.HEALTHY:
            self.healthy += change
        elif state is ServerState.UNHEALTHY:
            self.unhealthy += change
