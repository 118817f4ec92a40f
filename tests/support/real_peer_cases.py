"""What a manager does with a real server in a session: lists, calls, progress, cancellation, and the server's questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest
from support.real_peers import Call, Peer, Running

from mcp_manager import McpManager

__all__ = ["PATIENCE_S", "SESSION_CASES", "Case", "expect"]

PATIENCE_S: Final = 20.0

Case = Callable[[McpManager, Peer, Running], Awaitable[None]]


async def list_tools(manager: McpManager, peer: Peer, _: Running) -> None:
    tools = {tool.name: tool for tool in await manager.list_tools("peer")}
    called = {call.tool for call in peer.calls.values()}
    assert called <= tools.keys()
    assert all(tools[name].input_schema["type"] == "object" for name in called)


async def call_tool(manager: McpManager, peer: Peer, _: Running) -> None:
    await expect(manager, peer.calls["call"])


async def follow_progress(manager: McpManager, peer: Peer, _: Running) -> None:
    call = peer.calls["progress"]
    seen: list[tuple[float, float | None]] = []
    result = await manager.call_tool(
        "peer", call.tool, call.arguments, on_progress=lambda progress, total, _: seen.append((progress, total))
    )
    assert call.expected in result.text
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def give_up(manager: McpManager, peer: Peer, _: Running) -> None:
    call = peer.calls["cancel"]
    begun = asyncio.Event()
    calling = asyncio.create_task(
        manager.call_tool("peer", call.tool, call.arguments, on_progress=lambda *_: begun.set())
    )
    if peer.ledger:
        notes = await noted(manager, "hold")
    else:
        await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    if peer.ledger:
        assert await noted(manager, "let go") == [*notes, "let go"]
    await expect(manager, peer.calls["call"])


def answer(case: str) -> Case:
    async def ask(manager: McpManager, peer: Peer, _: Running) -> None:
        call = peer.calls[case]
        async with asyncio.timeout(PATIENCE_S):
            # A server of files takes the roots when it likes.
            while call.expected not in (await manager.call_tool("peer", call.tool, call.arguments)).text:
                pass

    return ask


async def expect(manager: McpManager, call: Call) -> None:
    result = await manager.call_tool("peer", call.tool, call.arguments)
    assert not result.is_error
    assert call.expected in result.text


async def noted(manager: McpManager, entry: str) -> list[str]:
    """Wait until the server has noted that, last; return the notes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            notes = (await manager.call_tool("peer", "ledger")).text.splitlines()
            if notes[-1:] == [entry]:
                return notes


SESSION_CASES: Final[Mapping[str, Case]] = {
    "list": list_tools,
    "call": call_tool,
    "progress": follow_progress,
    "cancel": give_up,
    "sampling": answer("sampling"),
    "elicitation": answer("elicitation"),
    "roots": answer("roots"),
}
"""The cases of :data:`support.real_peers.CASES` that need nothing but a session, by name."""
