"""How long the calls of a server took lately, looked up at most once a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.router import Router

__all__ = ["Latencies"]

_FRESH_NS: Final = 10**9
_MOST_SERVERS: Final = 1024


class Latencies:
    """Read the latencies that the router has measured.

    A look at a server costs as much as it has instances: too much for every failure of an outage.

    Parameters
    ----------
    router
        Measures them.
    clock
        Monotonic nanoseconds.
    """

    def __init__(self, router: Router, clock: Callable[[], int]) -> None:
        self._router = router
        self._clock = clock
        self._looks: dict[str, tuple[int, WindowSummary]] = {}

    def window(self, server_id: str) -> WindowSummary | None:
        """Return what was measured up to a second ago, ``None`` if there is no such server any more."""
        now_ns = self._clock()
        look = self._looks.get(server_id)
        if look is not None and now_ns - look[0] < _FRESH_NS:
            return look[1]
        try:
            window = self._router.server_counts(server_id, now_ns).window
        except KeyError:
            self._looks.pop(server_id, None)
            return None
        if len(self._looks) >= _MOST_SERVERS:
            self._looks.clear()
        self._looks[server_id] = now_ns, window
        return window

    def median_s(self, server_id: str) -> float:
        """Return the seconds that every second call took less than, 0 if that is not known."""
        window = self.window(server_id)
        return 0.0 if window is None else window.p50_s or 0.0
