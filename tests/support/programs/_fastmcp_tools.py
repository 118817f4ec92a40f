"""The fastmcp server with the tools that the tests call on every server."""

from __future__ import annotations

import asyncio
import os

from fastmcp import Context, FastMCP
from fastmcp.server.dependencies import get_http_headers

__all__ = ["server"]

entries: list[str] = []
server: FastMCP[None] = FastMCP("fastmcp-tools")


@server.tool
def echo(text: str) -> str:
    """Return the text."""
    return text


@server.tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@server.tool
async def sleep(seconds: float, text: str = "slept") -> str:
    """Return after some seconds."""
    await asyncio.sleep(seconds)
    return text


@server.tool
def fail(message: str = "failed on purpose") -> str:
    """Fail, which the protocol reports as a result with isError."""
    raise ValueError(message)


@server.tool
def crash() -> str:
    """End the process without an answer."""
    os._exit(3)


@server.tool
async def progress(steps: int, ctx: Context) -> str:
    """Report progress that many times."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"{steps} steps"


@server.tool
async def hold() -> str:
    """Never return; record the cancellation."""
    entries.append("hold")
    try:
        await asyncio.Event().wait()
    finally:
        entries.append("let go")
    return ""


@server.tool
def ledger() -> str:
    """Return the records of ``hold``, one per line."""
    return "\n".join(entries)


@server.tool
async def elicit(ctx: Context) -> str:
    """Return the name that the client's user gives."""
    answer = await ctx.elicit("Who are you?", str)
    return str(getattr(answer, "data", answer))


@server.tool
def session_id() -> str:
    """Return the id of the HTTP session that the call belongs to, or nothing."""
    return get_http_headers(include_all=True).get("mcp-session-id", "")
