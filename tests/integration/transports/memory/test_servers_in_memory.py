"""Servers in memory: objects of the SDK and of fastmcp in this process, from the first call to the end of all tasks."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import mcp.types as types
import pytest
from fastmcp import Context, FastMCP
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from support.calls import CALM, SWIFT, eventually

from mcp_manager import (
    Caller,
    CallError,
    ConfigError,
    DeadlineExceededError,
    Handlers,
    InvalidRequestError,
    McpManager,
    ProtocolError,
    PyMcpManager,
    ServerConfig,
    ServerExitedError,
    ServerView,
    current_caller,
)

WAIT_S = 15.0
ERAS = ["handshake", "stateless"]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def of_fastmcp() -> FastMCP:
    server: FastMCP = FastMCP("adder")
    server.tool(add)
    return server


def of_the_sdk() -> MCPServer:
    server = MCPServer("adder")
    server.tool()(add)
    return server


def of_the_low_level() -> Server[Any]:
    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
        return types.ListToolsResult(tools=[types.Tool(name="add", input_schema=schema)])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        total = sum((params.arguments or {}).values())
        return types.CallToolResult(content=[types.TextContent(type="text", text=str(total))])

    return Server("adder", on_list_tools=list_tools, on_call_tool=call_tool)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("make", [of_fastmcp, of_the_sdk, of_the_low_level])
@pytest.mark.both_loops
async def test_every_kind_of_object_answers_in_both_eras(make: Callable[[], Any], era: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", server=make(), protocol_version=era)
        result = await manager.call_tool("a", "add", {"a": 2, "b": 3}, timeout=WAIT_S)
        view = manager.server("a")
        tools = await manager.list_tools("a")
    assert result.text == "5"
    assert (view.transport, view.pids, view.faults) == ("memory", (), {})
    assert ServerView.from_dict(view.to_dict()) == view
    assert view.protocol_version == ("2025-11-25" if era == "handshake" else "2026-07-28")
    assert [each.name for each in tools] == ["add"]


async def test_a_manager_of_one_object_names_the_server_after_it() -> None:
    async with McpManager(of_fastmcp()) as manager:
        assert (await manager.call_tool("adder", "add", {"a": 1, "b": 1})).text == "2"
        assert manager.snapshot().servers[0].instances[0].where == "FastMCP"


def test_a_manager_on_a_thread_runs_the_object_on_its_own_loop() -> None:
    with PyMcpManager({"calculator": of_the_sdk()}) as manager:
        response = manager.execute(
            "calculator", '{"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}'
        )
    assert '"3"' in response


def asking() -> FastMCP:
    """A server whose tools ask, report, block and send much."""
    server: FastMCP = FastMCP("asking")

    @server.tool
    async def report(context: Context) -> str:
        for step in range(3):
            await context.report_progress(step + 1, 3)
        return "done"

    @server.tool
    async def greet(context: Context) -> str:
        answer: Any = await context.elicit("Who are you?", response_type=str)
        return f"Hello {answer.data}"

    @server.tool
    async def never() -> None:
        server.began.set()  # type: ignore[attr-defined]
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            server.cancelled.set()  # type: ignore[attr-defined]
            raise

    @server.tool
    def large(size: int) -> str:
        return "x" * size

    server.began, server.cancelled = asyncio.Event(), asyncio.Event()  # type: ignore[attr-defined]
    return server


@contextlib.asynccontextmanager
async def deployed(server: Any, handlers: Handlers | None = None, **fields: Any) -> AsyncIterator[McpManager]:
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("a", ServerConfig(server=server, **{**CALM, **fields}))
        yield manager


@pytest.mark.parametrize("era", ERAS)
async def test_progress_reaches_the_caller(era: str) -> None:
    seen: list[float] = []
    async with deployed(asking(), protocol_version=era) as manager:
        result = await manager.call_tool(
            "a", "report", {}, on_progress=lambda report, *_: seen.append(1), timeout=WAIT_S
        )
    assert (result.text, len(seen)) == ("done", 3)


async def test_questions_reach_the_handlers() -> None:
    handlers = Handlers(elicitation=lambda server_id, request: {"action": "accept", "content": {"value": "Ada"}})
    async with deployed(asking(), handlers, protocol_version="handshake") as manager:
        assert (await manager.call_tool("a", "greet", {}, timeout=WAIT_S)).text == "Hello Ada"


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_call_is_cancelled_in_the_server(era: str) -> None:
    server: Any = asking()
    async with deployed(server, protocol_version=era) as manager:
        call = asyncio.create_task(manager.call_tool("a", "never", {}))
        await asyncio.wait_for(server.began.wait(), WAIT_S)
        call.cancel()
        await asyncio.wait_for(server.cancelled.wait(), WAIT_S)
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_call_that_is_not_answered_ends_at_its_deadline() -> None:
    server: Any = asking()
    async with deployed(server) as manager:
        with pytest.raises(DeadlineExceededError) as caught:
            await manager.call_tool("a", "never", {}, timeout=0.05)
        assert caught.value.delivery == "unknown"
        await asyncio.wait_for(server.cancelled.wait(), WAIT_S)


async def test_stopping_fails_the_calls_under_way_and_ends_the_server() -> None:
    server: Any = asking()
    async with deployed(server, shutdown_grace_s=0.05) as manager:
        call = asyncio.create_task(manager.call_tool("a", "never", {}))
        await asyncio.wait_for(server.began.wait(), WAIT_S)
        await manager.undeploy("a")
        with pytest.raises(CallError, match="stopped"):
            await call
    # The check for leaks finds a task that is left.


async def test_tools_know_the_caller_and_take_no_credentials() -> None:
    server: FastMCP = FastMCP("knowing")

    @server.tool
    def who() -> str:
        caller = current_caller()
        return "nobody" if caller is None else caller.principal

    async with deployed(server) as manager:
        assert (await manager.for_caller(Caller("alice")).call_tool("a", "who")).text == "alice"
        with pytest.raises(InvalidRequestError, match=r"carried to a server in memory.*current_caller"):
            await manager.for_caller(Caller("alice", auth="token")).call_tool("a", "who")


async def test_a_reply_over_the_limit_fails_its_own_call_alone() -> None:
    async with deployed(asking(), max_response_bytes=100_000) as manager:
        with pytest.raises(ProtocolError, match=r"max_response_bytes is 100000") as caught:
            await manager.call_tool("a", "large", {"size": 200_000})
        assert caught.value.delivery == "answered"
        assert len((await manager.call_tool("a", "large", {"size": 1_000})).text) == 1_000


async def test_changed_lists_are_announced() -> None:
    server = of_fastmcp()

    @server.tool
    async def grow(context: Context) -> str:
        server.tool(lambda: "new", name="fresh")
        await context.send_notification(types.ToolListChangedNotification())
        return "grown"

    changed = asyncio.Event()
    handlers = Handlers(on_tools_changed=lambda server_id: changed.set())
    async with deployed(server, handlers, protocol_version="handshake") as manager:
        await manager.call_tool("a", "grow", {})
        await asyncio.wait_for(changed.wait(), WAIT_S)
        assert {each.name for each in await manager.list_tools("a")} == {"add", "grow", "fresh"}


async def test_instances_are_sessions_that_share_one_lifespan() -> None:
    entered: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, Any]]:
        entered.append("began")
        yield {}
        entered.append("ended")

    server: FastMCP = FastMCP("shared", lifespan=lifespan)
    server.tool(add)
    async with deployed(server, instances=3) as manager:
        assert manager.server("a").ready == 3
        await asyncio.gather(*(manager.call_tool("a", "add", {"a": each, "b": 1}) for each in range(9)))
        await manager.scale("a", 1)
        assert entered == ["began"]
    assert entered == ["began", "ended"]


class Database:
    """What a lifespan opens and closes."""

    is_open = False

    @contextlib.asynccontextmanager
    async def lifespan(self, server: Any) -> AsyncIterator[dict[str, Any]]:
        assert not self.is_open
        self.is_open = True
        yield {}
        await asyncio.sleep(0)
        self.is_open = False

    def read(self) -> str:
        assert self.is_open
        return "read"


def with_database() -> tuple[FastMCP, Database]:
    database = Database()
    server: FastMCP = FastMCP("data", lifespan=database.lifespan)
    server.tool(database.read)
    return server, database


async def test_the_lifespan_goes_on_when_the_session_that_began_it_ends() -> None:
    server, database = with_database()
    async with McpManager({"b": server}) as other:
        async with deployed(server) as manager:
            await other.undeploy("b")
            assert (await manager.call_tool("a", "read")).text == "read"
            await manager.redeploy("a", server=server)
            assert (await manager.call_tool("a", "read")).text == "read"
            await manager.undeploy("a")
            assert not database.is_open
            await asyncio.gather(manager.deploy("a", server=server), other.deploy("b", server=server))
            assert (await manager.call_tool("a", "read")).text == "read"
    assert not database.is_open


async def test_a_lifespan_that_fails_fails_all_sessions_and_is_entered_again() -> None:
    entered: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, Any]]:
        entered.append("began")
        if len(entered) < 2:
            raise RuntimeError("no database")
        yield {}
        raise RuntimeError("no end")

    server: FastMCP = FastMCP("failing", lifespan=lifespan)
    server.tool(add)
    async with McpManager() as manager:
        await manager.deploy("a", server=server, instances=2, **SWIFT)
        await eventually(lambda: manager.server("a").ready == 2, "two sessions")
        assert (await manager.call_tool("a", "add", {"a": 1, "b": 2})).text == "3"
    assert entered == ["began", "began"]


async def test_a_lifespan_that_never_begins_or_ends_is_cancelled() -> None:
    cancelled: list[str] = []
    began = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, Any]]:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise
        yield {}

    async with McpManager() as manager:
        deploying = asyncio.create_task(manager.deploy("a", server=FastMCP("slow", lifespan=lifespan)))
        await asyncio.wait_for(began.wait(), WAIT_S)
        await manager.undeploy("a")
        await deploying
    assert cancelled == ["cancelled"]


async def test_a_server_that_fails_is_an_error_with_its_reason_and_starts_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starts: list[float] = []

    server = of_the_sdk()
    low: Any = server._lowlevel_server
    run = low.run

    async def failing(*arguments: Any, **options: Any) -> None:
        starts.append(time.monotonic())
        if len(starts) < 3:
            raise RuntimeError("the model is missing")
        await run(*arguments, **options)

    low.run = failing
    async with McpManager() as manager:
        await manager.deploy("a", server=server, **SWIFT)
        assert "RuntimeError: the model is missing" in str(manager.server("a").last_error)
        await eventually(lambda: manager.server("a").ready == 1, "a session")
        assert (await manager.call_tool("a", "add", {"a": 1, "b": 2})).text == "3"
    assert len(starts) == 3
    # Each run has a transport of its own; and there is no program that has stderr.
    assert caplog.text.count("an unexpected failure") == 1
    assert "program" not in caplog.text


async def test_a_server_that_ends_in_the_middle_of_a_call_says_so() -> None:
    server: Any = of_fastmcp()
    low = server._mcp_server
    run = low.run

    class FailingOnCalls:
        """The stream of the server, which breaks with the first call of a tool."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            item = await anext(self._stream)
            if item.message.method == "tools/call":
                raise RuntimeError("out of memory")
            return item

    async def fragile(read: Any, *arguments: Any) -> None:
        await run(FailingOnCalls(read), *arguments)

    low.run = fragile
    async with deployed(server) as manager:
        with pytest.raises(ServerExitedError, match="in memory failed: RuntimeError: out of memory") as caught:
            await manager.call_tool("a", "add", {"a": 1, "b": 2}, timeout=WAIT_S)
        assert caught.value.delivery == "unknown"


async def test_a_server_that_hangs_is_cancelled_and_run_again() -> None:
    server: Any = of_fastmcp()
    low = server._mcp_server
    run, runs = low.run, []

    async def hanging(*arguments: Any) -> None:
        runs.append(arguments)
        if len(runs) > 1:
            await run(*arguments)
            return
        serving = asyncio.create_task(run(*arguments))
        try:
            await asyncio.wait_for(hangs.wait(), WAIT_S)
        finally:
            serving.cancel()
            await asyncio.wait({serving})
        await asyncio.Event().wait()

    low.run, hangs = hanging, asyncio.Event()
    health = {"interval_s": 0.05, "idle_interval_s": 0.05, "unhealthy_interval_s": 0.05, "timeout_s": 0.1, "fall": 2}
    async with deployed(server, health=health, restart={"initial_s": 0.01}, shutdown_grace_s=0.01) as manager:
        hangs.set()
        await eventually(lambda: len(runs) == 2, "another run")
        assert (await manager.call_tool("a", "add", {"a": 1, "b": 2}, timeout=WAIT_S)).text == "3"
        assert manager.server("a").restarts == {"hang": 1}


async def test_a_flood_of_notifications_holds_the_server_back_and_not_the_others() -> None:
    server: FastMCP = FastMCP("flooding")
    sent = 0

    @server.tool
    async def flood(context: Context) -> str:
        nonlocal sent
        for _ in range(100_000):
            await context.send_notification(types.ToolListChangedNotification())
            sent += 1
        return "all sent"

    async with deployed(server, protocol_version="handshake") as manager:
        await manager.deploy("quiet", server=of_fastmcp())
        call = asyncio.create_task(manager.call_tool("a", "flood", {}))
        await eventually(lambda: sent > 100, "a flood")
        for each in range(5):
            assert (await manager.call_tool("quiet", "add", {"a": each, "b": 0})).text == str(each)
        assert sent < 100_000
        call.cancel()


def test_only_server_objects_are_accepted() -> None:
    with pytest.raises(
        ConfigError, match="server: expected a server object of the package mcp or fastmcp, got a string"
    ):
        McpManager({"servers": {"a": {"server": "adder"}}})
    with pytest.raises(ConfigError, match="server: cannot be combined with url"):
        McpManager({"servers": {"a": {"server": of_fastmcp(), "url": "http://h/mcp"}}})
    with pytest.raises(ConfigError, match="headers: does not apply to a server in memory"):
        McpManager({"servers": {"a": {"server": of_fastmcp(), "headers": {"X-A": "1"}}}})


def test_a_file_cannot_name_a_server_in_memory(tmp_path: Any) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('[servers.a]\ntransport = "memory"\n[servers.b]\nserver = "adder"\n')
    with pytest.raises(ConfigError) as caught:
        McpManager.from_file(path)
    texts = [each.message for each in caught.value.problems]
    assert any("which only Python code can give as server" in each for each in texts)
    assert any("expected a server object" in each for each in texts)


def test_a_configuration_with_an_object_is_itself() -> None:
    server = of_fastmcp()
    config = ServerConfig(server=server)
    assert config == ServerConfig(server=server)
    assert config != ServerConfig(server=of_fastmcp())
    assert "server='FastMCP'" in repr(config)
    with pytest.raises(ConfigError, match="neither pickled nor copied"):
        pickle.dumps(config)
