"""A web service over a fleet of MCP servers.

Run it in this folder: ``uvicorn service:app --log-config logging.json``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, TypedDict

from anyio import from_thread
from dependencies import Manager, Timeout, cancel_with_client
from fastapi import APIRouter, Depends, FastAPI
from operations import operations
from problems import PROBLEMS, answer_with_problems
from pydantic import BaseModel, FiniteFloat, RootModel

from mcp_manager import CallToolResult, McpManager

FLEET: Final = os.environ.get("FLEET_FILE", Path(__file__).with_name("fleet.toml"))


class State(TypedDict):
    """What requests find in ``request.state``."""

    manager: McpManager


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[State]:
    """Run the fleet while the service runs.

    At the end, uvicorn has answered all requests before the fleet stops.
    """
    async with McpManager.from_file(FLEET) as manager:
        yield {"manager": manager}


tools = APIRouter(responses=PROBLEMS)


class Numbers(BaseModel):
    """The arguments of the tool ``add``."""

    a: FiniteFloat
    b: FiniteFloat


class Sum(RootModel[FiniteFloat]):
    """Its result, which JSON has only if it is finite. A tool with an output schema has a model with fields here."""


@tools.post("/sums", dependencies=[Depends(cancel_with_client, scope="function")])
async def add(numbers: Numbers, manager: Manager, timeout: Timeout) -> Sum:
    """Add two numbers: a tool with types of its own."""
    result = await manager.call_tool("calculator", "add", numbers, into=Sum, timeout=timeout)
    return result.data


@tools.post("/servers/{server_id}/tools/{tool}", dependencies=[Depends(cancel_with_client, scope="function")])
async def call(
    server_id: str, tool: str, arguments: dict[str, Any], manager: Manager, timeout: Timeout
) -> CallToolResult:
    """Call any tool of any server, and return its result as it is."""
    result = await manager.call_tool(server_id, tool, arguments, timeout=timeout)
    return result.raise_for_error()


@tools.post("/digests")
def digest(text: str, manager: Manager, timeout: Timeout) -> str:
    """Return a digest of what a tool returns.

    This takes processor time, so it is a plain function, which FastAPI runs in a thread. The call itself is made on the
    loop of the manager.
    """
    echo = functools.partial(manager.call_tool, "notes", "echo", {"text": text}, into=str, timeout=timeout)
    return hashlib.scrypt(from_thread.run(echo).data.encode(), salt=b"recipe", n=2**14, r=8, p=1).hex()


app = FastAPI(title="A fleet of MCP servers", lifespan=lifespan)
answer_with_problems(app)
app.include_router(tools)
app.include_router(operations)
