"""The base of readers that pause when an event-loop iteration has no time left for unsolicited messages."""

import asyncio

from typing_extensions import disjoint_base

from mcp_manager._core.deadlines import Deadline

@disjoint_base
class PacedReader(Deadline):
    """Read from a transport in time slices; see :class:`~mcp_manager.runtime.read_budget.ReadBudget`."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; ``None`` before it is made and after its end."""

    @property
    def paused(self) -> bool:
        """Whether it waits for a time slice."""

    def read_on(self) -> None:
        """Handle what was received before, and resume reading once nothing of it is left."""
