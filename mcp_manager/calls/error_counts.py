"""The counts of failed calls by server, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcp_manager.errors import CallError, Delivery

__all__ = ["CallErrors"]

_NONE: Final[Mapping[tuple[Delivery, str], int]] = {}


class CallErrors:
    """Count failed calls by server, delivery and class of the error; a server without any takes no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[Delivery, str], int]] = {}

    def count(self, server_id: str, error: CallError) -> None:
        """Count a call that no further attempt will save."""
        counts = self._counts.setdefault(server_id, {})
        kind = error.delivery, type(error).__name__
        counts[kind] = counts.get(kind, 0) + 1

    def of(self, server_id: str) -> Mapping[tuple[Delivery, str], int]:
        """Return a server's counts by delivery and error."""
        return self._counts.get(server_id, _NONE)

    def forget(self, server_id: str) -> None:
        """Forget the counts of a server that was removed."""
        self._counts.pop(server_id, None)
