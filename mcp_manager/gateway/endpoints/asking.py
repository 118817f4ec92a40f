"""Which server has something that only an answer can tell: one after the other is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final

from mcp_manager._core.jsonrpc import RESULT, scan_reply
from mcp_manager.errors import McpManagerError
from mcp_manager.manager import McpManager

__all__ = ["first_that_answers"]

_MOST_ASKED: Final = 8
_ASKING_S: Final = 5.0


async def first_that_answers(manager: McpManager, server_ids: Iterable[str], request: bytes) -> str | None:
    """Return the first of these servers that has a result for a request; asks at most eight, for a few seconds."""
    try:
        async with asyncio.timeout(_ASKING_S):
            for server_id in islice(server_ids, _MOST_ASKED):
                try:
                    reply = await manager.exchange(server_id, request)
                except McpManagerError:
                    continue
                if scan_reply(reply).kind == RESULT:
                    return server_id
    except TimeoutError:
        return None
    return None
