"""Tools of the official SDK's server that ask the client something, wait to be cancelled, or return a session id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp_types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel

__all__ = ["add_questions"]


class Person(BaseModel):
    """The fields of a form."""

    name: str


def ask_model() -> Sample:
    """Ask the client's model; the same question in every round."""
    question = SamplingMessage(role="user", content=TextContent(type="text", text="What is it?"))
    return Sample([question], max_tokens=16)


def ask_name() -> Elicit[Person]:
    """Ask the client's user."""
    return Elicit("Who are you?", Person)


def ask_roots() -> ListRoots:
    """Ask for the client's roots."""
    return ListRoots()


def add_questions(server: MCPServer, note: Callable[[str], None]) -> None:
    """Add the tools; the SDK asks within the call in the handshake era, and in rounds in the stateless one."""

    @server.tool()
    def sample(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
        """Return what the client's model says."""
        return answer.content.text if isinstance(answer.content, TextContent) else ""

    @server.tool()
    def elicit(person: Annotated[Person, Resolve(ask_name)]) -> str:
        """Return the name that the client's user gives."""
        return person.name

    @server.tool()
    def roots(listed: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
        """Return the client's first root."""
        return str(listed.roots[0].uri)

    @server.tool()
    async def hold() -> str:
        """Never return; record the cancellation."""
        note("hold")
        try:
            await anyio.sleep_forever()
        finally:
            note("let go")
        return ""

    @server.tool()
    def session_id(ctx: Context) -> str:  # type: ignore[type-arg]
        """Return the id of the HTTP session that the call belongs to, or nothing."""
        return (ctx.headers or {}).get("mcp-session-id", "")
