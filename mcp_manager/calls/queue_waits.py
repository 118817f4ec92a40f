"""How long calls waited for a limit, by server, for the metrics."""

from __future__ import annotations

from mcp_manager._core.histogram import Histogram

__all__ = ["QueueWaits"]


class QueueWaits:
    """Measure how long calls waited in queues; a server whose calls never waited takes no memory."""

    def __init__(self) -> None:
        self._waits: dict[str, Histogram] = {}

    def record(self, server_id: str, wait_ns: int) -> None:
        """Record the wait of a call, whether it was admitted in the end or not."""
        waits = self._waits.get(server_id)
        if waits is None:
            waits = self._waits[server_id] = Histogram(schema=3)
        waits.record(max(wait_ns, 0))

    def of(self, server_id: str) -> Histogram | None:
        """Return the waits of a server's calls, ``None`` if none waited."""
        return self._waits.get(server_id)

    def forget(self, server_id: str) -> None:
        """Forget the waits of a server that was removed."""
        self._waits.pop(server_id, None)
