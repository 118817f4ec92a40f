"""A fastmcp server over streamable HTTP, with the tools that the tests call on every server."""

from __future__ import annotations

import asyncio
import os

from _serving import argument_parser, serve
from fastmcp import FastMCP

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


if __name__ == "__main__":
    options = argument_parser().parse_args()
    serve(server.http_app(path="/mcp", json_response=options.json), options.fd)
