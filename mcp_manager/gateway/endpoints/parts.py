"""``Parts``: what the endpoints of a gateway share."""

from __future__ import annotations

import msgspec

from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.gateway.endpoints.listings import Listings
from mcp_manager.gateway.endpoints.owned_tasks import OwnedTasks
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.manager import McpManager

__all__ = ["Parts"]


class Parts(msgspec.Struct, frozen=True, eq=False):
    """What the endpoints of a gateway share.

    Parameters
    ----------
    manager
        The fleet.
    listings
        The lists of its servers.
    introductions
        What the servers have said about themselves.
    sealer
        Seals the cursors of lists.
    tasks
        Whose tasks there are.
    """

    manager: McpManager
    listings: Listings
    introductions: Introductions
    sealer: Sealer
    tasks: OwnedTasks
