"""The official SDK's server with the tools, resources and prompts that the tests call."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
from _sdk_questions import add_questions
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

__all__ = ["build_server"]


class Ledger:
    """The executed calls, in memory and, so that they survive a crash, in a file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self.entries: list[str] = []

    def note(self, entry: str) -> None:
        self.entries.append(entry)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(entry + "\n")


def build_server(ledger_path: str = "") -> MCPServer:
    """Build the server; every call is recorded in the ledger before its tool runs."""
    server = MCPServer("scripted-tools", version="1.2.3", instructions="for tests", log_level="ERROR")
    ledger = Ledger(ledger_path)

    @server.tool()
    def echo(text: str) -> str:
        """Return the text."""
        ledger.note(f"echo {text}")
        return text

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two integers."""
        ledger.note(f"add {a} {b}")
        return a + b

    @server.tool()
    async def sleep(seconds: float, text: str = "slept") -> str:
        """Return after some seconds."""
        ledger.note(f"sleep {text}")
        await anyio.sleep(seconds)
        return text

    @server.tool()
    def fail(message: str = "failed on purpose") -> str:
        """Fail, which the protocol reports as a result with isError."""
        ledger.note(f"fail {message}")
        raise ToolError(message)

    @server.tool()
    def crash() -> str:
        """End the process without an answer."""
        ledger.note("crash")
        os._exit(3)

    @server.tool()
    async def progress(steps: int, ctx: Context) -> str:  # type: ignore[type-arg]
        """Report progress that many times."""
        ledger.note(f"progress {steps}")
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
        return f"{steps} steps"

    @server.tool()
    def big(n: int) -> str:
        """Return a text of n characters."""
        ledger.note(f"big {n}")
        return "x" * n

    @server.tool(name="ledger")
    def read_ledger() -> list[str]:
        """Return the calls executed by this process."""
        return ledger.entries

    add_questions(server, ledger.note)
    _add_resources_and_prompts(server)
    return server


def _add_resources_and_prompts(server: MCPServer) -> None:
    @server.resource("test://greeting")
    def greeting() -> str:
        """A fixed text."""
        return "hello"

    @server.resource("test://item/{name}")
    def item(name: str) -> str:
        """A text by name."""
        return f"item {name}"

    @server.prompt()
    def ask(topic: str) -> str:
        """Ask about a topic."""
        return f"What about {topic}?"
