"""The embedded demo servers keep the protocol's rules, and never outlive whoever started them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from support.orphans import no_orphans

from mcp_manager.cli.demo_servers._tools import answer, sleep_seconds
from mcp_manager.cli.demo_servers.processes import HttpServerProcess, stdio_server_config

MODULES = "mcp_manager.cli.demo_servers"
STDIO = [sys.executable, "-P", "-m", f"{MODULES}.stdio_server"]
HTTP = [sys.executable, "-P", "-m", f"{MODULES}.http_server"]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = HttpServerProcess()
    await server.start()
    yield server.url
    await server.aclose()


async def initialize(client: aiohttp.ClientSession, url: str, revision: str) -> tuple[str, str]:
    """Open a session; return its id and the revision the server chose."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": revision}}
    async with client.post(url, json=message) as response:
        reply = await response.json()
        return response.headers["Mcp-Session-Id"], reply["result"]["protocolVersion"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_the_official_client_is_served(url: str, transport: str, mode: str) -> None:
    stdio = StdioServerParameters(command=STDIO[0], args=STDIO[1:])
    async with Client(url if transport == "http" else stdio, mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "add", "sleep"]
        slept, echoed = await asyncio.gather(
            client.call_tool("sleep", {"seconds": 0.2}), client.call_tool("echo", {"text": "grüß dich"})
        )
        assert [slept.content[0].text, echoed.content[0].text] == ["slept 0.2 s", "grüß dich"]
        assert (await client.call_tool("add", {"a": 40, "b": 2})).content[0].text == "42"
        assert (await client.call_tool("add", {"a": 40})).is_error
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("subtract", {})


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("2024-11-05", "2025-11-25"), ("?", "2025-11-25")],
)
async def test_a_revision_is_taken_or_counter_offered(url: str, offered: str, chosen: str) -> None:
    async with aiohttp.ClientSession() as client:
        assert (await initialize(client, url, offered))[1] == chosen


async def test_a_session_ends_with_delete(url: str) -> None:
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with aiohttp.ClientSession() as client:
        session, _ = await initialize(client, url, "2025-11-25")
        headers = {"Mcp-Session-Id": session}
        statuses = []
        for method in ("POST", "DELETE", "POST", "DELETE"):
            async with client.request(
                method, url, json=ping if method == "POST" else None, headers=headers
            ) as response:
                statuses.append(response.status)
        assert statuses == [200, 204, 404, 404]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b'{"jsonrpc": "2.0", "method": "notifications/initialized"}', 202),
        ({"Origin": "http://localhost:3000"}, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', 200),
        ({"Origin": "http://attacker.example"}, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', 403),
        ({"MCP-Protocol-Version": "1999-01-01"}, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', 400),
        ({"Mcp-Session-Id": "unknown"}, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', 404),
        ({}, b"[]", 400),
        ({}, b"{", 400),
        ({}, b"\xff", 400),
        ({}, b"[" * 100_000, 400),
    ],
)
async def test_http_statuses(url: str, headers: dict[str, str], body: bytes, status: int) -> None:
    async with aiohttp.ClientSession() as client:
        session, _ = await initialize(client, url, "2025-11-25")
        async with client.post(url, data=body, headers={"Mcp-Session-Id": session, **headers}) as response:
            assert response.status == status


async def test_a_request_without_a_session_is_refused_and_a_stream_is_not_offered(url: str) -> None:
    async with aiohttp.ClientSession() as client:
        async with client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"}) as response:
            assert response.status == 400
        async with client.get(url, headers={"Accept": "text/event-stream"}) as response:
            assert response.status == 405


def test_the_stdio_server_answers_malformed_lines_and_goes_on() -> None:
    lines = [
        "{",
        "[]",
        "",
        "\x00",
        '{"method": "ping"}',
        '{"id": 1.5, "method": "ping"}',
        '{"id": 7, "method": "ping"}',
    ]
    done = subprocess.run(STDIO, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=30, check=True)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [reply.get("error", {}).get("code") for reply in replies] == [-32700, -32600, -32700, -32600, None]
    assert replies[-1] == {"jsonrpc": "2.0", "id": 7, "result": {}}
    assert done.stderr == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
numbers = st.integers() | st.floats() | st.just(10**400)
tool_params = st.fixed_dictionaries(
    {"name": st.sampled_from(["echo", "add", "sleep", "other"]) | json_values},
    optional={
        "arguments": st.fixed_dictionaries(
            {}, optional={name: numbers | json_values for name in ("a", "b", "text", "seconds")}
        )
        | json_values
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | st.text() | json_values,
        "method": st.sampled_from(["initialize", "ping", "tools/list", "tools/call"]) | json_values,
        "params": tool_params | json_values,
    },
)


@given(message=messages)
@example(message={"id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 10**400, "b": 0.5}}})
def test_whatever_a_message_holds_its_answer_is_a_json_rpc_response(message: dict[str, Any]) -> None:
    assert 0.0 <= sleep_seconds(message) <= 300.0
    reply = answer(message, "demo")
    if "id" in message and "method" in message:
        assert reply is not None
        assert ("result" in reply) != ("error" in reply)
        assert "error" not in reply or isinstance(reply["error"]["code"], int)
        json.dumps(reply)
    else:
        assert reply is None


@pytest.mark.parametrize("command", [HTTP, STDIO], ids=["http", "stdio"])
def test_a_server_ends_with_its_input(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_call_that_still_sleeps_does_not_keep_the_stdio_server() -> None:
    call = {"id": 1, "method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": 120}}}
    done = subprocess.run(STDIO, input=json.dumps(call), capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with subprocess.Popen(HTTP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        port = first.stdout.readline().rsplit(":", 1)[1].split("/")[0]
        second = subprocess.run([*HTTP, "--port", port], capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert second.stderr.startswith(f"http_server: cannot listen on port {port}")
        assert second.stderr.count("\n") == 1


KILLED_PARENT = """
import asyncio, os, signal
from mcp_manager import McpManager
from mcp_manager.cli.demo_servers.processes import HttpServerProcess, stdio_server_config

async def main():
    server = HttpServerProcess()
    await server.start()
    async with McpManager() as manager:
        await manager.deploy("child", stdio_server_config())
        assert manager.server("child").pids
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_the_servers_of_a_killed_process_end_by_themselves() -> None:
    with no_orphans():
        done = subprocess.run([sys.executable, "-P", "-c", KILLED_PARENT], timeout=60, check=False)
        assert done.returncode == -9


def test_the_stdio_configuration_runs_this_very_package() -> None:
    config = stdio_server_config()
    code = "import mcp_manager; print(mcp_manager.__file__)"
    seen = [
        subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        for env in (None, config["env"])
    ]
    assert seen[0] == seen[1]
