"""Requests that tests send, readers of their replies, and a wait for a condition."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError
from mcp_manager.session.handlers import Handlers
from mcp_manager.testing.scripted import ScriptedServer

__all__ = ["CALM", "SWIFT", "deployed", "echo", "eventually", "failure_of", "text_of", "tool_call"]

CALM: dict[str, Any] = {
    "breaker": {"enabled": False},
    "health": {"enabled": False},
    "retry": {"attempts": 1},
    "connect_timeout_s": 2.0,
    "shutdown_grace_s": 1.0,
}
"""Settings without probes, retries and circuits, so that the test makes all calls."""

SWIFT: dict[str, Any] = {
    "health": {
        "interval_s": 0.1,
        "settle_s": 0.0,
        "unhealthy_interval_s": 0.05,
        "unhealthy_interval_max_s": 0.1,
        "timeout_s": 1.0,
    },
    "restart": {"initial_s": 0.05, "max_s": 0.1},
    "breaker": {"open_s": 0.1, "open_max_s": 0.2},
    "shutdown_grace_s": 1.0,
}
"""Settings with short intervals, so that failures are detected and repaired soon."""

_WAIT_S = 15.0
_POLL_S = 0.005


@contextlib.asynccontextmanager
async def deployed(
    server: ScriptedServer,
    config: ManagerConfig | None = None,
    *,
    handlers: Handlers | None = None,
    **settings: Any,
) -> AsyncIterator[McpManager]:
    """Run a manager that has a server deployed as ``a``, with :data:`CALM` and further settings that override it."""
    async with McpManager(config, handlers=handlers) as manager:
        await manager.deploy("a", {"url": server.url, **CALM, **settings})
        yield manager


def tool_call(name: str, arguments: dict[str, Any], request_id: object = None) -> bytes:
    """Encode a ``tools/call`` request, with an id if one is given."""
    request: dict[str, Any] = {"method": "tools/call", "params": {"name": name, "arguments": arguments}}
    if request_id is not None:
        request |= {"jsonrpc": "2.0", "id": request_id}
    return json.dumps(request).encode()


def echo(text: str, request_id: object = None) -> bytes:
    """Encode a call of the ``echo`` tool."""
    return tool_call("echo", {"text": text}, request_id)


def text_of(reply: bytes | str) -> str:
    """Return the text of a tool's result."""
    text: str = json.loads(reply)["result"]["content"][0]["text"]
    return text


async def failure_of(
    manager: McpManager, server_id: str, request: bytes, *, timeout: float = 2.0, key: str | None = None
) -> CallError:
    """Send a request that must fail within ``timeout``, and return its error.

    The manager's own deadline must end the call; the longer limit here only turns a hang into a test failure.
    """
    try:
        async with asyncio.timeout(timeout + 5.0):
            reply = await manager.execute_raw(server_id, request, timeout=timeout, key=key)
    except CallError as error:
        assert error.server_id == server_id
        assert server_id in str(error)
        assert error.delivery in str(error)
        return error
    raise AssertionError(f"the call was answered: {reply[:200]!r}")


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition that no event reports until it holds; fail the test after 15 s."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {_WAIT_S:g} s")
        await asyncio.sleep(_POLL_S)
