"""The official SDK's server over stdio, with tools that send requests to the client, in either era."""

from __future__ import annotations

from typing import Any

import mcp.types as types
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

server = MCPServer("asking", version="1.2.3", log_level="ERROR")


class Person(BaseModel):
    """The fields of the form."""

    name: str = "Joe"
    age: int


@server.tool()
async def who(ctx: Context) -> str:  # type: ignore[type-arg]
    """Ask the user by form."""
    return repr(await ctx.elicit("Who are you?", Person))


@server.tool()
async def who_in_rounds(ctx: Context) -> Any:  # type: ignore[type-arg]
    """Ask the user by form, in a round of the request's own."""
    if ctx.input_responses is None:
        question = types.ElicitRequest(
            params=types.ElicitRequestFormParams(message="Who are you?", requested_schema=Person.model_json_schema())
        )
        return types.InputRequiredResult(input_requests={"who": question}, request_state="asked")
    return f"{ctx.request_state}: {ctx.input_responses}"


@server.tool()
async def roots(ctx: Context) -> str:  # type: ignore[type-arg]
    """Ask for the client's roots."""
    return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


@server.tool()
async def sample(ctx: Context) -> str:  # type: ignore[type-arg]
    """Ask the client's model."""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hi"))
    return repr((await ctx.session.create_message(messages=[message], max_tokens=9)).content)


@server.tool()
async def log(ctx: Context) -> str:  # type: ignore[type-arg]
    """Log a message."""
    await ctx.info("working")
    return "logged"


if __name__ == "__main__":
    server.run("stdio")
