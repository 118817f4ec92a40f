"""What was done for calls beside their first attempts, counted by server: for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["Recoveries", "Recovery"]

Recovery = Literal["retry", "hedge", "server", "stale", "static"]
"""An attempt after one that failed, or beside one that takes long; an answer of another server, a kept or a fixed one."""

_NONE: Final[Mapping[Recovery, int]] = {}


class Recoveries:
    """Count recoveries; a server that needs none takes no memory, and a call that needs none comes nowhere near."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Recovery, int]] = {}

    def count(self, server_id: str, recovery: Recovery) -> None:
        """Count one more."""
        counts = self._counts.setdefault(server_id, {})
        counts[recovery] = counts.get(recovery, 0) + 1

    def of(self, server_id: str) -> Mapping[Recovery, int]:
        """Return how many there were of each kind; one that never came is missing."""
        return self._counts.get(server_id, _NONE)

    def forget(self, server_id: str) -> None:
        """Begin anew for a server that is gone."""
        self._counts.pop(server_id, None)
