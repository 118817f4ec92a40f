"""Who reads from a connection, and stops where a turn of the loop has no time left for what nobody asked for."""

import asyncio

from typing_extensions import disjoint_base

from mcp_manager._core.deadlines import Deadline

@disjoint_base
class PacedReader(Deadline):
    """Read from a transport in time slices; see :class:`~mcp_manager.runtime.read_budget.ReadBudget`."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection, ``None`` before there is one and after its end."""

    @property
    def paused(self) -> bool:
        """Whether it waits for its turn."""

    def read_on(self) -> None:
        """Take what was received before, and read on if nothing of it is left."""
