"""A fleet for the tests of agent frameworks: a good server, one with unusual tools, and one that is down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from support.calls import CALM
from support.tool_server import ToolServer, text_result, weather

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.adapters import Toolset, select_tools, select_tools_blocking

__all__ = ["ODD_ARGUMENTS", "ODD_SCHEMA", "AgentFleet", "agent_fleet", "cancelled_during_call", "threaded_fleet"]

ODD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Order",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "kind": {"enum": ["leaf", "branch"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["title"],
        }
    },
    "properties": {
        "tree": {"$ref": "#/$defs/node"},
        "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "self": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "config": {"type": "string", "pattern": "^[a-z]+$"},
        "run_manager": {"type": "boolean"},
        "input": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["tree"],
    "additionalProperties": False,
}
"""References to itself, optional and nullable members, and arguments named like parameters of the frameworks."""

ODD_ARGUMENTS: dict[str, Any] = {
    "tree": {"title": "root", "kind": "branch", "children": [{"title": "leaf"}]},
    "matrix": [[1, 2], []],
    "self": None,
    "config": "abc",
    "run_manager": True,
    "input": {"x": 1.5},
}

ODD_TOOLS: list[dict[str, Any]] = [
    {
        "name": "order",
        "title": "Order a tree",
        "description": "Order. " + "Long text. " * 150,
        "inputSchema": ODD_SCHEMA,
        "outputSchema": {"type": "object", "properties": {"count": {"type": "integer"}}},
        "annotations": {"readOnlyHint": True, "destructiveHint": False},
        "_meta": {"team": "trees"},
    },
    {"name": "bare", "inputSchema": {"type": "object"}},
    {
        "name": "broken",
        "description": "Its schema refers to what is not there.",
        "inputSchema": {"type": "object", "properties": {"x": {"$ref": "#/$defs/nothing"}, "y": {"$ref": "//h/y"}}},
    },
    {
        "name": "single",
        "description": "Takes one argument.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
]


@dataclass(frozen=True)
class AgentFleet:
    """The servers, their manager, and the tools of those that can be listed."""

    manager: McpManager | PyMcpManager
    weather: ToolServer
    odd: ToolServer
    toolset: Toolset

    @property
    def called(self) -> list[tuple[str, dict[str, Any]]]:
        """The calls that the servers executed, those of the weather server first."""
        return [*self.weather.called, *self.odd.called]


@contextlib.asynccontextmanager
async def agent_fleet() -> AsyncIterator[AgentFleet]:
    """Run the fleet on the loop of the test; the toolset has the tools ``weather__…`` and ``odd__…``."""
    with _servers() as (fine, odd):
        async with McpManager() as manager:
            for server_id, settings in _deployments(fine, odd).items():
                await manager.deploy(server_id, settings)
            toolset = await select_tools(manager)
            assert set(toolset.missing) == {"down"}
            yield AgentFleet(manager, fine, odd, toolset)


@contextlib.contextmanager
def threaded_fleet() -> Iterator[AgentFleet]:
    """Run the fleet of a manager with a thread of its own."""
    with _servers() as (fine, odd), PyMcpManager() as manager:
        for server_id, settings in _deployments(fine, odd).items():
            manager.deploy_server(server_id, settings)
        yield AgentFleet(manager, fine, odd, select_tools_blocking(manager))


async def cancelled_during_call(fleet: AgentFleet, run: Coroutine[Any, Any, Any]) -> BaseException | None:
    """Cancel a run while its call is at the server, and return how it ended once the server has heard of it."""
    running: asyncio.Future[Any] = asyncio.ensure_future(run)
    await fleet.weather.wait_for("tools/call")
    running.cancel()
    ending: object = (await asyncio.gather(running, return_exceptions=True))[0]
    await fleet.weather.wait_for("notifications/cancelled")
    return ending if isinstance(ending, BaseException) else None


@contextlib.contextmanager
def _servers() -> Iterator[tuple[ToolServer, ToolServer]]:
    odd = ToolServer(
        ODD_TOOLS,
        {
            "order": {
                "content": [{"type": "text", "text": '{"count":2}'}],
                "structuredContent": {"count": 2},
                "_meta": {"took_ms": 3},
            },
            "single": lambda given: text_result(given["text"]),
        },
    )
    with weather() as fine, odd:
        yield fine, odd


def _deployments(fine: ToolServer, odd: ToolServer) -> dict[str, dict[str, Any]]:
    with ToolServer([]) as down:
        address = down.url
    return {
        "weather": {"url": fine.url, **CALM},
        "odd": {"url": odd.url, **CALM},
        "down": {"url": address, **CALM, "connect_timeout_s": 0.5},
    }
