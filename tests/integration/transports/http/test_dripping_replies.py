"""Replies that come in tiny pieces take the memory of their bytes, not of their pieces."""

from __future__ import annotations

import tracemalloc

import pytest
from support.calls import deployed, echo, text_of

from mcp_manager.testing.faults import Dripping
from mcp_manager.testing.scripted import ScriptedServer

SIZE = 1 << 19
# The buffer that grows, what was read from the socket, the reply as bytes; with lists of pieces it was 65 and more.
MOST = 4 * SIZE


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("sse", [False, True], ids=["json", "events"])
async def test_a_reply_in_tiny_chunks_takes_the_memory_of_its_bytes(sse: bool, width: int) -> None:
    fault = Dripping(SIZE, width, sse=sse)
    with ScriptedServer() as server:
        async with deployed(server) as manager:
            # Whatever the first calls leave behind is not the reply's.
            for _ in range(2):
                await manager.execute_raw("a", echo("before"))
            server.script("tools/call", fault)
            tracemalloc.start()
            try:
                reply = await manager.execute_raw("a", echo("dripping"), timeout=60.0)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert len(text_of(reply)) == SIZE
    assert peak < MOST
