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

    __slots__ = ("better_since", "shown")

    def __init__(self) -> None:
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
    """Keep one state per server, and the counts of the states.

    ``counts`` are how many servers there are, and how many of them are healthy and unhealthy: of one instant, whichever
    thread reads them. The other servers are degraded, among them those that were never used, of which it keeps nothing.
    """

    def __init__(self) -> None:
        self.counts = (0, 0, 0)
        self._standings: dict[S, Standing] = {}

    def add(self) -> None:
        """Count a server that is new."""
        self._change(1)

    def remove(self, server: S) -> None:
        """Count a server no more, whatever its state."""
        standing = self._standings.pop(server, None)
        self._change(-1, left=standing.state if standing is not None else None)

    def clear(self) -> None:
        """Forget all of them."""
        self.counts = (0, 0, 0)
        self._standings.clear()

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
            self._change(0, left=standing.state, taken=state)
        standing.shown = (state, reasons)
        return standing

    def _change(self, servers: int, *, left: ServerState | None = None, taken: ServerState | None = None) -> None:
        total, healthy, unhealthy = self.counts
        healthy += (taken is ServerState.HEALTHY) - (left is ServerState.HEALTHY)
        unhealthy += (taken is ServerState.UNHEALTHY) - (left is ServerState.UNHEALTHY)
        self.counts = (total + servers, healthy, unhealthy)
