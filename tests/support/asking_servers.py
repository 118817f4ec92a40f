"""Servers of the real packages whose tools ask the client, as their documentation shows it."""

from __future__ import annotations

import fastmcp
import mcp.server
from mcp.server.mcpserver import Context
from pydantic import BaseModel

__all__ = ["of_fastmcp", "of_the_sdk"]


class Answer(BaseModel):
    """The answer to a form."""

    name: str


def of_fastmcp() -> fastmcp.FastMCP:
    """Return a server of fastmcp with the tool ``ask``."""
    server = fastmcp.FastMCP("asking")

    @server.tool
    async def ask(ctx: fastmcp.Context) -> str:
        return str(await ctx.elicit("Who are you?", response_type=str))

    return server


def of_the_sdk() -> mcp.server.MCPServer:
    """Return a server of the official SDK with the tool ``ask``."""
    server = mcp.server.MCPServer("asking")

    @server.tool()
    async def ask(ctx: Context) -> str:
        return str(await ctx.elicit("Who are you?", Answer))

    return server
