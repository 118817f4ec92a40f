"""The queue of scheduled probes of one kind."""

from __future__ import annotations

from collections import deque

from mcp_manager.health.assessment import Watch

__all__ = ["ProbeQueue"]


class ProbeQueue:
    """Scheduled probes of one kind: ``running`` of at most ``most``, and the ``overdue`` that wait for one to end."""

    __slots__ = ("most", "overdue", "running")

    def __init__(self, most: int) -> None:
        self.most: int = most
        self.running: int = 0
        self.overdue: deque[Watch] = deque()
