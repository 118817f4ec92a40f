"""Recent call latencies by server, read from the router at most once a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.router import Router

__all__ = ["Latencies"]

_FRESH_NS: Final = 10**9
_MOST_SERVERS: Final = 1024


class Latencies:
    """Cache the latencies that the router measures.

    Reading them costs time in proportion to the server's instances: too much for every failure in an outage.

    Parameters
    ----------
    router
        Measures the latencies.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(self, router: Router, clock: Callable[[], int]) -> None:
        self._router = router
        self._clock = clock
        self._looks: dict[str, tuple[int, WindowSummary]] = {}

    def window(self, server_id: str) -> WindowSummary | None:
        """Return a server's latest latencies, at most one second old; ``None`` if the server was removed."""
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
        """Return a server's median latency in seconds, 0 if it is not known."""
        window = self.window(server_id)
        return 0.0 if window is None else window.p50_s or 0.0
