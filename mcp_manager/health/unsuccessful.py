"""Servers that answer, and whose answers are all refusals: a ping alone does not show that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager._core.router import Router
from mcp_manager.supervisor import Supervisor
from mcp_manager.types import CallStatus

__all__ = ["ANSWERED_IN_VAIN", "Unsuccessful"]

ANSWERED_IN_VAIN: Final = frozenset(
    {CallStatus.RPC_ERROR, CallStatus.PROTOCOL_ERROR, CallStatus.AUTH_ERROR, CallStatus.SESSION_LOST}
)
"""How a call ends that the server has answered without a result. What else can fail is the circuit's business."""

# Fewer may be one caller's mistake.
_MIN_CALLS: Final = 5
# After so long, nobody knows.
_HOLDS_NS: Final = 300 * 10**9


class Unsuccessful:
    """Count the calls in a row that a server has answered without a result.

    Parameters
    ----------
    router
        Counts the calls that succeed.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = ("_clock", "_router", "_runs")

    def __init__(self, router: Router, clock: Callable[[], int]) -> None:
        self._router = router
        self._clock = clock
        # How many had succeeded before, how many have not since, and when the last one ended.
        self._runs: dict[Supervisor, tuple[int, int, int]] = {}

    def note(self, supervisor: Supervisor) -> bool:
        """Count one more; tell whether there are enough of them to say so."""
        successes = self._router.successes(supervisor.record)
        before, count, _ = self._runs.get(supervisor, (successes, 0, 0))
        count = count + 1 if before == successes else 1
        self._runs[supervisor] = successes, count, self._clock()
        return count >= _MIN_CALLS

    def holds(self, supervisor: Supervisor) -> bool:
        """Tell whether no call has succeeded of late, though the server answers."""
        run = self._runs.get(supervisor)
        if run is None:
            return False
        successes, count, last_ns = run
        if successes != self._router.successes(supervisor.record) or self._clock() - last_ns >= _HOLDS_NS:
            del self._runs[supervisor]
            return False
        return count >= _MIN_CALLS

    def forget(self, supervisor: Supervisor) -> None:
        """Forget a server that is gone."""
        self._runs.pop(supervisor, None)
