"""A sample of what users write, for the type checkers alone: `make types` checks it in their strict modes.

Nothing here is cast, and nothing is annotated beyond what a careful user would annotate.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, assert_never

import msgspec
from fastmcp import FastMCP
from pydantic import BaseModel

import mcp_manager
from mcp_manager import (
    AudioContent,
    Caller,
    CallError,
    CallToolResult,
    ChildExited,
    CircuitChanged,
    CircuitOpenError,
    ConfigError,
    ElicitationRequest,
    EmbeddedResource,
    Event,
    FileTokenStore,
    Handlers,
    ImageContent,
    LogMessage,
    ManagerConfig,
    McpManager,
    McpManagerError,
    NotReadyError,
    OverloadedError,
    Progress,
    PyHealthStatus,
    PyMcpManager,
    ResourceLink,
    RpcError,
    SamplingRequest,
    Selector,
    ServerConfig,
    ServerExitedError,
    ServerState,
    ServerStateChanged,
    ServerView,
    TextContent,
    Tool,
    ToolError,
    UnknownContent,
    load_manager_config,
)

log = logging.getLogger("service")


class Weather(TypedDict):
    """What a tool returns."""

    city: str
    celsius: float


class Service:
    """A service that owns a manager, as one in a web framework does."""

    def __init__(self, path: Path | None = None) -> None:
        config = load_manager_config(path) if path is not None else ManagerConfig()
        self.manager = McpManager(
            config,
            handlers=Handlers(elicitation=self.ask, sampling=sample, logging=lambda server_id, params: print(params)),
            token_store=FileTokenStore(Path("tokens.json")),
            on_state_change=self.noted,
        )
        self.changes: list[ServerStateChanged] = []

    async def ask(self, server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        answer = await asyncio.to_thread(input, f"{server_id}: {request.message} ")
        return request.accept({"answer": answer}) if answer else request.decline()

    def noted(self, change: ServerStateChanged) -> None:
        self.changes.append(change)
        if change.state is ServerState.UNHEALTHY:
            log.warning("%s is down: %s", change.server_id, ", ".join(change.reasons))

    async def __aenter__(self) -> Service:
        await self.manager.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.manager.stop()

    async def weather(self, cities: Sequence[str]) -> list[Weather]:
        calls = [self.manager.call_tool("weather", "today", {"city": city}, timeout=5) for city in cities]
        results = await asyncio.gather(*calls, return_exceptions=True)
        found: list[Weather] = []
        for city, result in zip(cities, results, strict=True):
            if isinstance(result, BaseException):
                log.error("%s: %s", city, result)
                continue
            structured = result.structured_content
            if structured is not None:
                found.append(Weather(city=city, celsius=float(structured["celsius"])))
        return found

    async def follow(self) -> AsyncIterator[str]:
        async for event in self.manager.events(kinds=[ServerStateChanged]):
            yield told(event)


async def sample(server_id: str, request: SamplingRequest) -> dict[str, Any]:
    text = f"{server_id} asked for {request.max_tokens} tokens after {len(request.messages)} messages"
    return {"role": "assistant", "content": {"type": "text", "text": text}, "model": "none"}


def told(event: Event) -> str:
    match event:
        case ServerStateChanged(server_id=server_id, state=state, previous=previous):
            return f"{server_id}: {previous.value} -> {state.value}"
        case _:
            return type(event).__name__


def shown(result: CallToolResult) -> str:
    """Return a result as text."""
    parts: list[str] = []
    for block in result.content:
        match block:
            case TextContent(text=text):
                parts.append(text)
            case ImageContent(data=data, mime_type=kind):
                parts.append(f"<{kind}, {len(data)} characters>")
            case _:
                parts.append(f"<{block.type}>")
    return "\n".join(parts)


@asynccontextmanager
async def fleet(urls: Iterable[str]) -> AsyncGenerator[McpManager]:
    """Run a manager with a server for each URL, and a program."""
    async with McpManager() as manager:
        for number, url in enumerate(urls):
            spec = {"url": url, "tags": ["docs", "production"], "priority": number, "limits": {"max_concurrent": 8}}
            await manager.deploy(f"docs-{number}", spec)
        await manager.deploy("files", {"command": "npx", "args": ["-y", "files"], "env": {"ROOT": "/srv"}})
        await manager.deploy("typed", ServerConfig(url="https://typed.example.com/mcp", server_type="search"))
        await manager.deploy("text", json.dumps({"url": "https://text.example.com/mcp"}))
        try:
            await manager.wait_ready(2, timeout=10)
        except NotReadyError as late:
            print(late.hint or late.message, sorted(late.missing))
        yield manager


async def careful(manager: McpManager, question: str) -> str | None:
    """Call a tool and treat each kind of failure by itself."""
    try:
        result = await manager.call_tool(Selector(tag="docs"), "search", {"query": question}, key=question)
    except OverloadedError as error:
        await asyncio.sleep(error.retry_after_s or 1.0)
        return await careful(manager, question)
    except CircuitOpenError:
        return None
    except ServerExitedError as error:
        log.error("exit status %s", error.exit_code)
        return None
    except RpcError as error:
        return f"{error.code}: {error.message}"
    except CallError as error:
        if error.delivery == "not_sent" and error.retryable:
            return await careful(manager, question)
        raise
    return None if result.is_error else shown(result)


async def with_progress(manager: McpManager) -> list[float]:
    seen: list[float] = []
    await manager.call_tool("files", "index", on_progress=lambda done, total, message: seen.append(done))
    return seen


async def tools_for_a_model(manager: McpManager) -> list[dict[str, Any]]:
    catalog = await manager.list_all_tools()
    return [{"name": each.name, "parameters": each.tool.input_schema} for each in catalog.tools]


async def for_a_user(manager: McpManager, token: str) -> list[Tool]:
    caller = Caller("user-17", headers={"Authorization": f"Bearer {token}"})
    return await manager.for_caller(caller).list_tools("docs-0")


def in_threads(config_path: str) -> PyHealthStatus:
    """Use the manager without asyncio."""
    with PyMcpManager(config_path) as manager:
        try:
            manager.deploy_server("files", {"command": "uvx", "args": ["files"], "tags": ["local"]})
        except ConfigError as error:
            for problem in error.problems:
                print(problem.line, problem.message)
        reply = json.loads(manager.execute("files", json.dumps({"method": "tools/list"}), timeout=3))
        names: list[str] = [tool["name"] for tool in reply["result"]["tools"]]
        for server in manager.list_servers():
            if server.state != mcp_manager.SERVER_STATE_HEALTHY:
                print(server.id, server.state, names)
        return manager.get_health_status()


async def on_the_own_loop() -> str:
    async with PyMcpManager() as manager:
        await manager.deploy_server_async("docs", {"url": "http://localhost:8001"})
        await manager.scale_server_async("docs", 2)
        try:
            return await manager.execute_async("docs", '{"method": "ping"}')
        except McpManagerError as error:
            return str(error)


@dataclass
class Sum:
    """What a tool returns, as a dataclass."""

    total: int


class Page(BaseModel):
    """What a tool returns, as a model of pydantic."""

    title: str
    words: list[str] = []


class Point(msgspec.Struct):
    """What a tool returns, as a struct."""

    x: float
    y: float


async def typed(manager: McpManager) -> tuple[int, float, str, float, list[str]]:
    """Decode results into one's own types; the checkers know them."""
    sum_ = (await manager.call_tool("calc", "add", {"a": 1, "b": 2}, into=Sum)).data
    weather = (await manager.call_tool("weather", "today", into=Weather)).raise_for_error().data
    page = (await manager.call_fleet_tool("docs__page", {"url": "x"}, into=Page)).data
    point = (await manager.call_tool(Selector(tags=["maps", "europe"]), "find", into=Point)).data
    names = (await manager.call_tool("files", "list", into=list[str])).data
    number: int = (await manager.call_tool("calc", "one", into=int)).data
    return sum_.total + number, weather["celsius"], page.title.upper(), point.x, [name.strip() for name in names]


async def typed_for_a_user(manager: McpManager) -> str:
    mine = manager.for_caller(Caller("user-17"))
    found = await mine.call_tool("docs", "page", {"url": "x"}, into=Page, timeout=5)
    try:
        return found.data.title
    except ToolError as error:
        return error.to_dict()["message"] if error.tool == "page" else str(error)


def typed_in_threads(manager: PyMcpManager) -> tuple[int, list[str]]:
    """Use the methods of the manager by their names, without asyncio."""
    total = manager.call_tool("calc", "add", {"a": 1, "b": 2}, into=Sum).data.total
    tools: list[Tool] = manager.list_tools("calc")
    manager.wait_ready(1, timeout=5)
    view: ServerView = manager.server("calc")
    catalog = manager.list_all_tools(["calc"])
    return total, [*view["tags"], *(tool.name for tool in tools), *(each.name for each in catalog.tools)]


async def typed_on_the_own_loop(manager: PyMcpManager) -> int:
    result = await manager.call_tool_async("calc", "add", {"a": 1}, into=Sum, timeout=3)
    return result.data.total


def described(
    block: TextContent | ImageContent | AudioContent | ResourceLink | EmbeddedResource | UnknownContent,
) -> str:
    """Tell of every kind of content, so that a checker says which is missing."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return f"{len(block.to_bytes())} bytes of {block.mime_type}"
        case "resource_link":
            return block.uri
        case "resource":
            return block.resource.text or block.resource.uri
        case "unknown":
            return block.received_type
        case _:
            assert_never(block)


def told_in_full(event: Event) -> str | None:
    match event:
        case ServerStateChanged(state=ServerState.UNHEALTHY, reasons=reasons):
            return ", ".join(reasons)
        case CircuitChanged(server_id=server_id, circuit=state):
            return f"{server_id}: {state}"
        case ChildExited(server_id=server_id, exit_status=code) if code:
            return f"{server_id}: {code}"
        case _:
            return None


def note(server_id: str, message: LogMessage) -> None:
    print(server_id, message.level, message.data)


def count(server_id: str, report: Progress) -> None:
    print(server_id, report.progress)


def refuse(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
    return request.decline()


async def of_mappings() -> None:
    """Make managers of what is at hand."""
    tools = FastMCP("tools")
    handlers = Handlers(elicitation=refuse, logging=note, progress=count, roots=[Path("/srv")])
    async with McpManager({"docs": "https://docs.example.com/mcp", "time": ["uvx", "mcp-server-time"]}) as manager:
        await manager.deploy("search", url="https://search.example.com/mcp", tags=["docs"], priority=2)
        await manager.deploy("files", command="npx", args=["-y", "files"], env={"ROOT": "/srv"})
        await manager.deploy("keyed", url="https://k.example.com/mcp", auth={"type": "bearer", "token": "secret"})
        await manager.deploy("own", server=tools)
        await manager.redeploy("search", url="https://search.example.com/v2/mcp")
        await manager.apply({"docs": {"url": "https://docs.example.com/mcp"}})
    async with McpManager(
        {"servers": {"docs": {"url": "https://docs.example.com/mcp", "tags": ["a"]}}}, handlers=handlers
    ):
        pass
    async with McpManager(tools) as small, McpManager(["https://a.example.com/mcp", "https://b.example.com/mcp"]):
        print(small.health().to_json(), small.servers())
    async with McpManager.from_file("fleet.toml") as of_a_file:
        print(of_a_file.snapshot().to_dict())


def in_a_log(error: McpManagerError) -> dict[str, Any]:
    return {"event": "call failed", **error.to_dict()}


def misspelt() -> object:
    # mypy reports the comment as unused if it accepts any name of the package.
    return mcp_manager.McpManger()  # type: ignore[attr-defined]


async def main() -> None:
    async with fleet(["http://localhost:8001", "http://localhost:8002/mcp"]) as manager:
        print(await careful(manager, "how?"), await with_progress(manager), await tools_for_a_model(manager))
        print(await for_a_user(manager, "token"), manager.health().healthy_servers, manager.server("files").pids)
        for view in manager.servers():
            print(view.id, view.state.value, view.last_error or "no error", *view.found_endpoints)
    async with Service() as service:
        print(await service.weather(["Bern", "Basel"]))
        async for line in service.follow():
            print(line)
            break


if __name__ == "__main__":
    asyncio.run(main())
