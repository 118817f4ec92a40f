"""Calls for callers from threads and other loops."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.calls import CALM
from support.guarded import GuardedServer

from mcp_manager import Caller, InvalidRequestError, PyMcpManager

REQUEST = '{"id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}}'


def seen(reply: str) -> str:
    """The credential that the server saw."""
    credential: str = json.loads(reply)["result"]["_meta"]["caller"]
    return credential


def test_threads_call_for_callers() -> None:
    names = [f"user-{number % 5}" for number in range(40)]
    with GuardedServer({f"Bearer {name}" for name in names}) as server, PyMcpManager() as manager:
        manager.deploy_server("a", {"url": server.url, **CALM, "connect": "lazy"})
        with ThreadPoolExecutor(8) as pool:
            replies = pool.map(lambda name: manager.execute("a", REQUEST, caller=Caller(name, auth=name)), names)
            assert [seen(each) for each in replies] == [f"Bearer {name}" for name in names]
        assert len(server.requests_of("initialize")) == 5
        with pytest.raises(InvalidRequestError):
            manager.execute("a", REQUEST, caller="alice")  # type: ignore[arg-type]


async def test_loops_call_for_callers() -> None:
    with GuardedServer({"Bearer alice"}) as server:
        async with PyMcpManager() as manager:
            await manager.deploy_server_async("a", {"url": server.url, **CALM, "connect": "lazy"})
            caller = Caller("alice", auth="alice")
            replies = [await manager.execute_async("a", REQUEST, caller=caller)]
            replies.append(await asyncio.to_thread(manager.execute, "a", REQUEST, caller=caller))
            assert [seen(each) for each in replies] == ["Bearer alice"] * 2
