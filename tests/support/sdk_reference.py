"""The reference for comparisons: the lists and call results that the official SDK gets from a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TextIO

from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import PaginatedRequestParams
from pydantic import BaseModel
from support.published_servers import PublishedCall

__all__ = ["Outcome", "Reference", "reference_of", "sdk_session"]

_LISTS: Final = {"tools": "tools", "resources": "resources", "resource_templates": "resources", "prompts": "prompts"}
_PATIENCE_S: Final = 60.0

Outcome = tuple[Any, ...]
"""``("result", is_error, content, structured content)`` or ``("error", code, message)``."""


@dataclass(frozen=True)
class Reference:
    """What the SDK got: the entries of each declared list, or the code of its refusal, and the outcome of each call."""

    lists: Mapping[str, list[dict[str, Any]] | int]
    outcomes: Mapping[str, Outcome]


def reference_of(config: Mapping[str, Any], calls: Mapping[str, PublishedCall]) -> Reference:
    """Connect to a server with the official SDK, read its lists, and make some calls; this blocks."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        return asyncio.run(_refer(config, calls, nowhere))


@contextlib.asynccontextmanager
async def sdk_session(config: Mapping[str, Any], errors: TextIO) -> AsyncIterator[ClientSession]:
    """Open an SDK session, not yet initialized, with the server of our configuration; its stderr goes to ``errors``."""
    streams: AbstractAsyncContextManager[Any]
    if "command" in config:
        named = {key: config[key] for key in ("command", "args", "env", "cwd") if key in config}
        streams = stdio_client(StdioServerParameters(**named), errlog=errors)
    elif config.get("transport") == "sse":
        streams = sse_client(config["url"])
    else:
        streams = streamable_http_client(config["url"])
    async with streams as (reading, writing, *_), ClientSession(reading, writing) as session:
        yield session


async def _refer(config: Mapping[str, Any], calls: Mapping[str, PublishedCall], errors: TextIO) -> Reference:
    async with asyncio.timeout(_PATIENCE_S), sdk_session(config, errors) as session:
        capabilities = (await session.initialize()).capabilities
        # Servers with the oldest SDK never answer requests for lists that they have not declared.
        declared = [name for name in _LISTS if getattr(capabilities, _LISTS[name]) is not None]
        lists = {name: await _entries(session, name) for name in declared}
        return Reference(lists, {name: await _outcome(session, call) for name, call in calls.items()})


async def _entries(session: ClientSession, name: str) -> list[dict[str, Any]] | int:
    fetch = getattr(session, f"list_{name}")
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        try:
            result = await fetch(params=PaginatedRequestParams(cursor=cursor))
        except MCPError as refusal:
            return refusal.error.code
        found += [_plain(entry) for entry in getattr(result, name)]
        cursor = result.next_cursor
        if not cursor:
            return found


async def _outcome(session: ClientSession, call: PublishedCall) -> Outcome:
    try:
        result = await session.call_tool(call.tool, dict(call.arguments))
    except MCPError as refusal:
        return "error", refusal.error.code, refusal.error.message
    assert hasattr(result, "content"), result
    content = [_plain(block) for block in result.content]
    return "result", bool(result.is_error), content, result.structured_content


def _plain(entry: BaseModel) -> dict[str, Any]:
    """Return the members that the server sent."""
    told: dict[str, Any] = entry.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return told
