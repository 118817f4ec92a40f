"""The HTTP lane alone: one POST, its body back, without sessions, policies or JSON. The floor of every call."""

from __future__ import annotations

from typing import Protocol

__all__ = ["BareLane", "LaneNotAvailableError", "connect"]


class LaneNotAvailableError(Exception):
    """This build has no lane that could be used by itself."""


class BareLane(Protocol):
    """Kept connections to one URL."""

    async def post(self, body: bytes) -> bytes:
        """POST a body and return the body of the reply."""

    async def aclose(self) -> None:
        """Close the connections."""


async def connect(url: str) -> BareLane:
    """Open a lane to a URL.

    Raises
    ------
    LaneNotAvailableError
        This build has none.
    """
    raise LaneNotAvailableError("this build has no compiled lane")
