"""The gateway as the command of a client: the official client, and the ways in which a process ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, MCPError, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from support.processes import PROGRAMS, sdk_stdio

FLEET = {"servers": {"a": {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}}}
PROGRAM = str(PROGRAMS / "gateway_stdio.py")


async def test_the_official_client_starts_it() -> None:
    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    # Nobody authenticates here, so that a file of keys in another directory does not matter.
    idp = "http://127.0.0.1:1"
    auth = {"type": "jwt", "issuer": idp, "audience": ["x"], "keys_file": "of-another-directory.jsonl"}
    exchange = {"type": "exchange", "token_endpoint": f"{idp}/token", "client_id": "x", "client_secret": "x"}
    allow = [{"principals": ["anonymous"], "servers": ["b", "personal"]}]
    servers = {"b": sdk_stdio().config(), "personal": {"url": f"{idp}/mcp", "connect": "lazy"}}
    fleet = {"servers": servers, "serve": {"auth": auth, "allow": allow, "credentials": {"personal": exchange}}}
    args = [PROGRAM, json.dumps(fleet)]
    # The client would leave out what a tree that is not installed needs.
    command = StdioServerParameters(command=sys.executable, args=args, env=dict(os.environ))
    async with stdio_client(command) as (read, write):
        async with ClientSession(read, write, elicitation_callback=answer) as session:
            await session.initialize()
            assert "b__elicit" in [tool.name for tool in (await session.list_tools()).tools]
            assert (await session.call_tool("b__elicit", {})).structured_content == {"result": "Ada"}
            # There is no token to exchange.
            with pytest.raises(MCPError) as refused:
                await session.call_tool("personal__echo", {})
            assert (refused.value.error.code, refused.value.error.data["delivery"]) == (-32014, "not_sent")


async def started(**streams: Any) -> asyncio.subprocess.Process:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, json.dumps(FLEET), "/servers/a/mcp", **{**pipes, **streams}
    )


async def initialized(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    info = {"name": "client", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).encode())
    process.stdin.write(b"\n")
    assert json.loads(await process.stdout.readline())["id"] == 0


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Return the exit code, and what stands on standard error."""
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_sigterm_ends_it_with_a_call_under_way() -> None:
    process = await started()
    await initialized(process)
    assert process.stdin is not None
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "nothing", "arguments": {}}}
    process.stdin.write(json.dumps(call).encode() + b"\n")
    await process.stdin.drain()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    assert process.stdout is not None
    assert await process.stdout.read() == b""
    process.stdin.close()
    await process.communicate()


async def test_a_client_that_is_gone_ends_it() -> None:
    process = await started()
    await initialized(process)
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    assert b"Traceback" not in await process.stderr.read()
    assert process.stdin is not None
    process.stdin.close()


async def test_files_serve_as_well_as_pipes(tmp_path: Path) -> None:
    info = {"name": "client", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    lines = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    ]
    given, answers = tmp_path / "given", tmp_path / "answers"
    given.write_text("\n".join(json.dumps(each) for each in lines))
    with given.open() as source, answers.open("w") as target:
        process = await started(stdin=source, stdout=target)
        code, errors = await ended(process)
    assert code == 0
    assert "Traceback" not in errors
    # What else the program prints.
    assert "not a message" in errors
    assert [json.loads(each)["id"] for each in answers.read_text().splitlines()] == [0, 1]
