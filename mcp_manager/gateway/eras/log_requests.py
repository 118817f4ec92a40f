"""Log messages that requests of 2026-07-28 ask for, from servers of the handshake era, whose sessions have a level."""

from __future__ import annotations

from typing import Final

from mcp_manager.gateway.forwarding import Forwarding
from mcp_manager.gateway.sessions.log_levels import LEVELS, RANKS, LogLevels

__all__ = ["LogRequests"]

_MOST_SERVERS: Final = 100_000
# Counts as one session among those that have set a level: no other session may raise the level above it.
_ALL_REQUESTS: Final = "requests without a session"


class LogRequests:
    """Let servers send what requests ask for; each server is told once for each lower level.

    Parameters
    ----------
    forwarding
        Tells the servers.
    levels
        The levels that sessions of clients have set.
    """

    def __init__(self, forwarding: Forwarding, levels: LogLevels) -> None:
        self._forwarding = forwarding
        self._levels = levels
        self._lowest = len(LEVELS)
        self._told: dict[str, int] = {}

    async def ask(self, server_id: str, level: str) -> None:
        """Let a server send messages of this level; nothing happens if it does already, or speaks 2026-07-28."""
        rank = RANKS.get(level)
        if rank is None or self._told.get(server_id, len(LEVELS)) <= rank or not self._forwarding.may_ask(server_id):
            return
        if len(self._told) >= _MOST_SERVERS:
            self._told.clear()
        self._told[server_id] = rank
        if rank < self._lowest:
            self._lowest = rank
            self._levels.set(_ALL_REQUESTS, level)
        await self._forwarding.set_log_level(server_id, self._levels.lowest())
