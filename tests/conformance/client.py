"""The client that the conformance suite runs: the manager's public API, driven as each scenario asks.

The URL of the scenario's server is the last argument, its name is in ``MCP_CONFORMANCE_SCENARIO`` and what it wants the
client to know in ``MCP_CONFORMANCE_CONTEXT``. Nothing here knows of revisions, sessions, streams or headers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.authorization import settings

from mcp_manager import ManagerConfig, McpManager, accept_with_defaults

SERVER: Final = "suite"
# The suite starts all its clients at once.
PATIENCE_S: Final = 45.0

Flow = Callable[[McpManager, Mapping[str, Any]], Awaitable[None]]


async def use_tools(manager: McpManager, _: Mapping[str, Any]) -> None:
    """List the tools and call each of them."""
    for tool in await manager.list_tools(SERVER):
        await manager.call_tool(SERVER, tool.name, example_arguments(tool.input_schema))


async def use_whatever_has_a_name(manager: McpManager, context: Mapping[str, Any]) -> None:
    """Use every kind of thing that has a name which goes into a header."""
    await use_tools(manager, context)
    for resource in await manager.list_resources(SERVER):
        await manager.read_resource(SERVER, resource.uri)
    for prompt in await manager.list_prompts(SERVER):
        await manager.get_prompt(SERVER, prompt.name)


async def list_tools(manager: McpManager, _: Mapping[str, Any]) -> None:
    """List the tools, and do no more: the server has nothing else."""
    await manager.list_tools(SERVER)


async def make_given_calls(manager: McpManager, context: Mapping[str, Any]) -> None:
    """Call what the context says, with the arguments that it says."""
    await manager.list_tools(SERVER)
    for call in context["toolCalls"]:
        await manager.call_tool(SERVER, call["name"], call["arguments"])


async def call_side_by_side(manager: McpManager, _: Mapping[str, Any]) -> None:
    """Call all tools at once, so that the state of one call could get into another."""
    tools = await manager.list_tools(SERVER)
    async with asyncio.TaskGroup() as calls:
        for tool in tools:
            calls.create_task(manager.call_tool(SERVER, tool.name, example_arguments(tool.input_schema)))


async def send_schema_back(manager: McpManager, _: Mapping[str, Any]) -> None:
    """Show the server what its client has read of a schema."""
    tools = {tool.name: tool for tool in await manager.list_tools(SERVER)}
    schema = tools["json_schema_2020_12_tool"].input_schema
    await manager.call_tool(SERVER, "json_schema_echo", {"schema": schema})


async def list_skills(manager: McpManager, _: Mapping[str, Any]) -> None:
    """List the skills and load none."""
    await manager.request(SERVER, "skills/list")


FLOWS: Final[Mapping[str, Flow]] = {
    "http-custom-headers": make_given_calls,
    "http-standard-headers": use_whatever_has_a_name,
    "json-schema-2020-12-preservation": send_schema_back,
    "json-schema-ref-no-deref": list_tools,
    "request-metadata": list_tools,
    "sep-2322-client-request-state": call_side_by_side,
    "sep-2640-client-no-prefetch": list_skills,
}


def example_arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Make arguments of the types that a tool's schema names."""
    examples: dict[object, Any] = {
        "number": 2.5,
        "integer": 2,
        "boolean": True,
        "array": [],
        "object": {},
        "null": None,
    }
    properties = schema.get("properties", {})
    return {name: examples.get(each.get("type"), "example") for name, each in properties.items()}


async def accept(_: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a form like a user who presses Enter: every default, and yes to what has none."""
    fields = params.get("requestedSchema", {}).get("properties", {})
    return accept_with_defaults(params, {name: True for name, each in fields.items() if "default" not in each})


async def main() -> None:
    """Deploy the suite's server and do what its scenario wants."""
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    fields, options = settings(scenario, context) if scenario.startswith("auth/") else ({}, {})
    server = {
        "url": sys.argv[-1],
        "connect": "lazy",
        "connect_timeout_s": PATIENCE_S,
        "request_timeout_s": PATIENCE_S,
        "health": {"enabled": False},
        **fields,
    }
    config = ManagerConfig(client_name="mcp-manager-conformance")
    async with McpManager(config, handlers={"elicitation/create": accept}, **options) as manager:
        await manager.deploy(SERVER, server)
        await FLOWS.get(scenario, use_tools)(manager, context)


if __name__ == "__main__":
    asyncio.run(main())
