"""Real MCP servers, each its own process: deploy, call, kill, recover, undeploy, over both transports and loops."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.calls import CALM, SWIFT, eventually, failure_of, text_of, tool_call
from support.processes import (
    HttpServerProcess,
    StdioCommand,
    fastmcp_http,
    git_stdio,
    sdk_http,
    sdk_stdio,
    time_stdio,
)

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.errors import (
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    RpcError,
    ServerExitedError,
    ServerNotFoundError,
)
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.types import ServerState

# A program takes its time to import what it is made of, the more the busier the machine.
PATIENT: dict[str, Any] = {**CALM, "connect_timeout_s": 30.0}


@dataclass(frozen=True)
class Peer:
    """A real server: how to reach it, and one tool of it with what its answer contains."""

    where: dict[str, Any]
    tool: str
    arguments: dict[str, Any]
    answer: str
    tools: frozenset[str]
    process: HttpServerProcess | None = None

    def call(self, request_id: object = None) -> bytes:
        return tool_call(self.tool, self.arguments, request_id)

    def config(self, **settings: Any) -> dict[str, Any]:
        return {**self.where, **PATIENT, **settings}


def http_peer(process: HttpServerProcess) -> Peer:
    tools = frozenset({"echo", "add", "sleep", "fail", "crash"})
    return Peer({"url": process.url}, "echo", {"text": "hello"}, "hello", tools, process)


def stdio_peer(command: StdioCommand, tool: str, arguments: dict[str, Any], answer: str, *tools: str) -> Peer:
    return Peer(command.config(), tool, arguments, answer, frozenset({tool, *tools}))


def git_repository(path: Path) -> Path:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    repository = path / "repository"
    subprocess.run([git, "init", "--quiet", "--initial-branch=trunk", str(repository)], check=True)
    return repository


@contextlib.contextmanager
def started_peer(name: str, path: Path) -> Iterator[Peer]:
    """Start a peer by name (over stdio the manager does that) and end it."""
    with contextlib.ExitStack() as stack:
        match name:
            case "sdk-http-sse":
                yield http_peer(stack.enter_context(sdk_http()))
            case "sdk-http-json":
                yield http_peer(stack.enter_context(sdk_http(json_replies=True)))
            case "sdk-sse":
                yield http_peer(stack.enter_context(sdk_http(sse=True)))
            case "fastmcp-http":
                yield http_peer(stack.enter_context(fastmcp_http()))
            case "sdk-stdio":
                yield stdio_peer(sdk_stdio(), "echo", {"text": "hello"}, "hello", "add", "sleep", "fail", "crash")
            case "time-stdio":
                yield stdio_peer(time_stdio(), "get_current_time", {"timezone": "UTC"}, '"UTC"', "convert_time")
            case "git-stdio":
                repository = git_repository(path)
                arguments = {"repo_path": str(repository)}
                yield stdio_peer(git_stdio(repository), "git_status", arguments, "On branch trunk", "git_log")
            case _:
                raise AssertionError(name)


# The slow ones are of the same kinds again, and take a second to import what they are made of.
PEERS = [
    *("sdk-http-sse", "fastmcp-http", "sdk-stdio"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdk-http-json", "sdk-sse", "time-stdio", "git-stdio")),
]


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One real server for every test that leaves it alive."""
    with started_peer(request.param, tmp_path_factory.mktemp("peer")) as peer:
        yield peer


@pytest.fixture(params=PEERS)
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    """One real server for one test."""
    with started_peer(request.param, tmp_path) as peer:
        yield peer


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


# Alive


@pytest.mark.both_loops
async def test_a_server_from_deployment_to_removal(peer: Peer, manager: McpManager) -> None:
    before = children()
    await manager.deploy("peer", peer.config(name="Peer", server_type="real", priority=7))

    view = manager.server("peer")
    assert (view.state, view.circuit, view.ready) == (ServerState.HEALTHY, "Closed", 1)
    assert (view.name, view.server_type, view.priority) == ("Peer", "real", 7)
    assert {tool.name for tool in await manager.list_tools("peer")} >= peer.tools
    result = await manager.call_tool("peer", peer.tool, peer.arguments)
    assert not result.is_error
    assert peer.answer in result.text
    assert len(children() - before) == (0 if peer.process else 1)

    await manager.undeploy("peer")
    assert manager.servers() == []
    assert children() <= before
    with pytest.raises(ServerNotFoundError):
        await manager.execute_raw("peer", peer.call())


async def test_calls_of_one_deployment(peer: Peer, manager: McpManager) -> None:
    # A program takes a second to start: it is started once for all of these.
    await manager.deploy("peer", peer.config())
    await replies_carry_the_callers_id(peer, manager)
    await a_json_rpc_error_is_returned_and_raised_by_typed_calls(peer, manager)
    await fifty_calls_at_once(peer, manager)


async def replies_carry_the_callers_id(peer: Peer, manager: McpManager) -> None:
    for request_id in (0, -1, 2**70, "mine", "", 'quo"te\\ \u00e9\n'):
        reply = json.loads(await manager.execute_raw("peer", peer.call(request_id), timeout=10))
        assert reply["jsonrpc"] == "2.0"
        assert reply["id"] == request_id
        assert type(reply["id"]) is type(request_id)
        assert peer.answer in reply["result"]["content"][0]["text"]


async def a_json_rpc_error_is_returned_and_raised_by_typed_calls(peer: Peer, manager: McpManager) -> None:
    reply = json.loads(await manager.execute_raw("peer", b'{"method":"no/such/method","id":5}', timeout=10))
    assert reply["id"] == 5
    assert "result" not in reply
    assert isinstance(reply["error"]["code"], int)
    with pytest.raises(RpcError) as failure:
        await manager.request("peer", "no/such/method")
    assert failure.value.code == reply["error"]["code"]
    assert failure.value.delivery == "answered"


async def fifty_calls_at_once(peer: Peer, manager: McpManager) -> None:
    replies = await asyncio.gather(*(manager.execute_raw("peer", peer.call(n), timeout=20) for n in range(50)))
    assert [json.loads(reply)["id"] for reply in replies] == list(range(50))
    assert all(peer.answer in text_of(reply) for reply in replies)
    assert manager.server("peer").state is ServerState.HEALTHY


def test_the_documented_class_from_threads(peer: Peer) -> None:
    before = children()
    manager = PyMcpManager()
    manager.start()
    try:
        manager.deploy_server("peer", json.dumps(peer.config()))
        assert manager.get_server_state("peer") == "Healthy"
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            texts = [peer.call(number).decode() for number in range(24)]
            replies = list(threads.map(lambda text: manager.execute("peer", text), texts))
        assert [json.loads(reply)["id"] for reply in replies] == list(range(24))
        health = manager.get_health_status()
        assert (health.total_servers, health.healthy_servers) == (1, 1)
        [info] = manager.list_servers()
        assert (info.id, info.state) == ("peer", "Healthy")
    finally:
        manager.stop()
    assert children() <= before


async def test_two_sessions_of_one_server(peer: Peer, manager: McpManager) -> None:
    await manager.deploy("peer", peer.config(instances=2))
    assert manager.server("peer").ready == 2
    replies = await asyncio.gather(*(manager.execute_raw("peer", peer.call(n), timeout=20) for n in range(10)))
    assert [json.loads(reply)["id"] for reply in replies] == list(range(10))


# What the official SDK's server shows beside that


@pytest.fixture(scope="module", params=["http-sse", pytest.param("http-json", marks=pytest.mark.slow), "stdio"])
def sdk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The official SDK's server with its tools, resources and prompts: where it is."""
    if request.param == "stdio":
        yield sdk_stdio().config(**PATIENT)
        return
    with sdk_http(json_replies=request.param == "http-json") as process:
        yield {"url": process.url, **PATIENT}


@pytest.mark.both_loops
async def test_replies_find_their_callers_out_of_order(sdk: dict[str, Any], manager: McpManager) -> None:
    await manager.deploy("sdk", sdk)
    delays = [0.2, 0.0, 0.1, 0.05, 0.15, 0.0, 0.1, 0.02]
    calls = [
        manager.execute_raw("sdk", tool_call("sleep", {"seconds": delay, "text": f"text {n}"}, n), timeout=10)
        for n, delay in enumerate(delays)
    ]
    assert [text_of(reply) for reply in await asyncio.gather(*calls)] == [f"text {n}" for n in range(len(delays))]


async def test_resources_prompts_results_and_progress(
    request: pytest.FixtureRequest, sdk: dict[str, Any], manager: McpManager
) -> None:
    await manager.deploy("sdk", sdk)
    await resources_and_prompts(manager)
    await a_failing_tool_is_a_result(manager)
    await a_large_reply_arrives_whole(manager)
    # With plain JSON replies there is no stream that a report could travel on.
    streams = request.node.callspec.params["sdk"] != "http-json"
    await progress_is_reported_to_the_call_that_asked(manager, streams=streams)


async def resources_and_prompts(manager: McpManager) -> None:
    assert [each.uri for each in await manager.list_resources("sdk")] == ["test://greeting"]
    assert [each.uri_template for each in await manager.list_resource_templates("sdk")] == ["test://item/{name}"]
    assert (await manager.read_resource("sdk", "test://item/7")).contents[0].text == "item 7"
    assert [each.name for each in await manager.list_prompts("sdk")] == ["ask"]
    prompt = await manager.get_prompt("sdk", "ask", {"topic": "tea"})
    assert [getattr(message.content, "text", None) for message in prompt.messages] == ["What about tea?"]


async def a_failing_tool_is_a_result(manager: McpManager) -> None:
    result = await manager.call_tool("sdk", "fail", {"message": "on purpose"})
    assert result.is_error
    assert "on purpose" in result.text
    assert manager.server("sdk").state is ServerState.HEALTHY


async def a_large_reply_arrives_whole(manager: McpManager) -> None:
    size = 3_000_000
    result = await manager.call_tool("sdk", "big", {"n": size}, timeout=20)
    assert result.text == "x" * size


async def progress_is_reported_to_the_call_that_asked(manager: McpManager, *, streams: bool) -> None:
    reports: dict[int, list[tuple[float, float | None, str | None]]] = {3: [], 5: []}

    async def call(steps: int) -> None:
        seen = reports[steps]
        await manager.call_tool("sdk", "progress", {"steps": steps}, on_progress=lambda *each: seen.append(each))

    await asyncio.gather(call(3), call(5))
    for steps, seen in reports.items():
        assert seen == ([(n, steps, f"step {n}") for n in range(1, steps + 1)] if streams else [])


# Dying and coming back


def victim_of(peer: Peer, before: set[psutil.Process]) -> Callable[[signal.Signals], None]:
    """Return a function that sends a signal to the server's process."""
    if peer.process is not None:
        pid = peer.process.pid
    else:
        [child] = children() - before
        pid = child.pid
    return lambda number: os.kill(pid, number)


async def test_killed_under_a_call_then_recovered(mortal: Peer, manager: McpManager) -> None:
    before = children()
    # On a busy machine, a server that is slow to answer a probe is not to be replaced before it is killed.
    await manager.deploy("mortal", {**mortal.where, **SWIFT, "health": {**SWIFT["health"], "timeout_s": 30.0}})
    send_signal = victim_of(mortal, before)
    with ScriptedServer() as neighbour:
        await manager.deploy("neighbour", {"url": neighbour.url, **PATIENT})
        # Halted, it cannot answer before it dies.
        send_signal(signal.SIGSTOP)
        call = asyncio.create_task(failure_of(manager, "mortal", mortal.call(), timeout=10))
        await manager.ping("neighbour")
        send_signal(signal.SIGKILL)
        error = await call
        if mortal.process is None:
            assert isinstance(error, ServerExitedError), repr(error)
            assert error.exit_code == -signal.SIGKILL
            assert error.delivery == "unknown"
        else:
            assert (type(error), error.delivery) in {(ConnectionLostError, "unknown"), (ConnectError, "not_sent")}
            mortal.process.kill()
            await eventually(lambda: manager.server("mortal").state is ServerState.UNHEALTHY, "Unhealthy")
            late = await failure_of(manager, "mortal", mortal.call())
            assert isinstance(late, ConnectError | CircuitOpenError)
            assert late.delivery == "not_sent"
            mortal.process.start()
        assert manager.server("neighbour").state is ServerState.HEALTHY
        await eventually(lambda: manager.server("mortal").state is ServerState.HEALTHY, "recovery")
        assert mortal.answer in text_of(await manager.execute_raw("mortal", mortal.call(), timeout=10))


async def test_halted_the_deadline_holds(peer: Peer, manager: McpManager) -> None:
    before = children()
    await manager.deploy("peer", peer.config())
    send_signal = victim_of(peer, before)
    send_signal(signal.SIGSTOP)
    try:
        error = await failure_of(manager, "peer", peer.call(), timeout=0.3)
    finally:
        send_signal(signal.SIGCONT)
    assert isinstance(error, DeadlineExceededError)
    assert isinstance(error, TimeoutError)
    assert error.delivery == "unknown"
    assert peer.answer in text_of(await manager.execute_raw("peer", peer.call(), timeout=10))


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_crash_is_not_repeated(transport: str, tmp_path: Path, manager: McpManager) -> None:
    ledger = tmp_path / "ledger"
    with contextlib.ExitStack() as stack:
        if transport == "http":
            where: dict[str, Any] = {"url": stack.enter_context(sdk_http(ledger=ledger)).url}
        else:
            where = sdk_stdio(ledger).config()
        await manager.deploy("sdk", {**where, **PATIENT})
        error = await failure_of(manager, "sdk", tool_call("crash", {}), timeout=10)
        assert isinstance(error, ServerExitedError if transport == "stdio" else ConnectionLostError)
        assert error.delivery == "unknown"
        if isinstance(error, ServerExitedError):
            assert error.exit_code == 3
    assert ledger.read_text(encoding="utf-8") == "crash\n"


@pytest.mark.parametrize("json_replies", [False, True], ids=["sse", "json"])
async def test_a_restarted_server_has_forgotten_the_session(json_replies: bool, manager: McpManager) -> None:
    with sdk_http(json_replies=json_replies) as process:
        await manager.deploy("sdk", {"url": process.url, **PATIENT})
        process.restart()
        outcomes: list[bytes | CallError] = []
        # The pooled connection is dead: whoever finds it may fail, typed; then the session is replaced unseen.
        for number in range(3):
            try:
                outcomes.append(await manager.execute_raw("sdk", tool_call("add", {"a": number, "b": 1}), timeout=10))
            except CallError as error:
                assert isinstance(error, ConnectionLostError | ConnectError)
                outcomes.append(error)
        assert [text_of(each) for each in outcomes[1:] if isinstance(each, bytes)] == ["2", "3"]
