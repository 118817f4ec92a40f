"""Other clients, each used as its documentation says, with one shared session."""

from __future__ import annotations

import contextlib
import importlib
import itertools
from types import ModuleType
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.calls import bare_lane
from benchmarks.calls.cases import Expected
from benchmarks.calls.client import ARGUMENTS, AwaitedClient, WrongReplyError

__all__ = ["AiohttpClient", "BareLaneClient", "FastMcpClient", "HttpxClient", "SdkClient"]

_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_INITIALIZE: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}


class _JsonRpc:
    """What plain HTTP clients must do themselves: ids, encoding, decoding, the headers of the session."""

    def __init__(self) -> None:
        self.headers = dict(_HEADERS)
        self._ids = itertools.count(1)

    def request(self, method: str, params: object) -> bytes:
        return orjson.dumps({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})

    def opened(self, headers: Any) -> bytes:
        """Store the session's headers, and return the notification that completes the handshake."""
        self.headers["Mcp-Session-Id"] = headers["Mcp-Session-Id"]
        self.headers["MCP-Protocol-Version"] = "2025-11-25"
        return orjson.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self) -> bytes:
        return self.request("tools/call", {"name": "echo", "arguments": ARGUMENTS})


def _result(body: bytes, event_stream: bool) -> Any:
    if event_stream:
        (body,) = (line[5:] for line in body.split(b"\n") if line.startswith(b"data:"))
    return orjson.loads(body)["result"]


def _check(result: Any, expected: Expected) -> None:
    rows = result["structuredContent"]["rows"] if expected.rows else ()
    _check_sizes(sum(len(item["text"]) for item in result["content"]), len(rows), expected)


def _check_sizes(letters: int, rows: int, expected: Expected) -> None:
    if letters != expected.letters or rows != expected.rows:
        raise WrongReplyError(f"{letters} letters and {rows} rows, not {expected.letters} and {expected.rows}")


class AiohttpClient(AwaitedClient):
    """aiohttp with one shared ``ClientSession`` and its default options; JSON by orjson."""

    name = "aiohttp + orjson"

    async def connect(self, url: str, expected: Expected) -> None:
        self._url, self._expected, self._rpc = url, expected, _JsonRpc()
        self._session = aiohttp.ClientSession()
        async with self._session.post(
            url, data=self._rpc.request("initialize", _INITIALIZE), headers=self._rpc.headers
        ) as response:
            await response.read()
        async with self._session.post(
            url, data=self._rpc.opened(response.headers), headers=self._rpc.headers
        ) as response:
            await response.read()

    async def call(self) -> None:
        async with self._session.post(self._url, data=self._rpc.call(), headers=self._rpc.headers) as response:
            body = await response.read()
        _check(_result(body, response.content_type == "text/event-stream"), self._expected)

    async def aclose(self) -> None:
        await self._session.close()


class HttpxClient(AwaitedClient):
    """httpx with one shared ``AsyncClient``; its pool has no limit, since with one it fails at 256 calls in flight."""

    name = "httpx + orjson"

    async def connect(self, url: str, expected: Expected) -> None:
        httpx = _first("httpx2", "httpx")
        self._url, self._expected, self._rpc = url, expected, _JsonRpc()
        self._client = httpx.AsyncClient(limits=httpx.Limits())
        response = await self._client.post(
            url, content=self._rpc.request("initialize", _INITIALIZE), headers=self._rpc.headers
        )
        await self._client.post(url, content=self._rpc.opened(response.headers), headers=self._rpc.headers)

    async def call(self) -> None:
        response = await self._client.post(self._url, content=self._rpc.call(), headers=self._rpc.headers)
        _check(_result(response.content, response.headers["Content-Type"] == "text/event-stream"), self._expected)

    async def aclose(self) -> None:
        await self._client.aclose()


class SdkClient(AwaitedClient):
    """The official SDK: ``ClientSession`` over ``streamable_http_client``."""

    name = "mcp"

    async def connect(self, url: str, expected: Expected) -> None:
        session = importlib.import_module("mcp").ClientSession
        http = importlib.import_module("mcp.client.streamable_http")
        self._expected = expected
        async with contextlib.AsyncExitStack() as stack:
            read, write, *_ = await stack.enter_async_context(http.streamable_http_client(url))
            self.session = await stack.enter_async_context(session(read, write))
            await self.session.initialize()
            self._stack = stack.pop_all()

    async def call(self) -> None:
        result = await self.session.call_tool("echo", ARGUMENTS)
        _check_result(result, self._expected)

    async def aclose(self) -> None:
        await self._stack.aclose()


class FastMcpClient(AwaitedClient):
    """FastMCP's ``Client``."""

    name = "fastmcp"

    async def connect(self, url: str, expected: Expected) -> None:
        self._expected = expected
        # Chosen explicitly, since a URL with "sse" in it would select the transport of 2024.
        http = importlib.import_module("fastmcp.client.transports").StreamableHttpTransport
        self._client = importlib.import_module("fastmcp").Client(http(url))
        await self._client.__aenter__()

    async def call(self) -> None:
        result = await self._client.call_tool("echo", ARGUMENTS)
        _check_result(result, self._expected)

    async def aclose(self) -> None:
        await self._client.__aexit__(None, None, None)


class BareLaneClient(AwaitedClient):
    """This package's HTTP lane alone: it returns the body of a reply without looking at it."""

    name = "bare lane"

    async def connect(self, url: str, expected: Expected) -> None:
        self._ending, self._least = expected.ending.encode(), expected.letters
        self._request = _JsonRpc().call()
        self._lane = await bare_lane.connect(url)

    async def call(self) -> None:
        body = await self._lane.post(self._request)
        # In an event stream, the end of the event follows the message.
        if len(body) < self._least or self._ending not in body[-len(self._ending) - 2 :]:
            raise WrongReplyError(f"the reply ends with {body[-20:]!r}")

    async def aclose(self) -> None:
        await self._lane.aclose()


def _check_result(result: Any, expected: Expected) -> None:
    """Check a result that is an object; the generations of the SDK name its members differently."""
    rows = 0
    if expected.rows:
        content = getattr(result, "structured_content", None) or result.structuredContent
        rows = len(content["rows"])
    _check_sizes(sum(len(item.text) for item in result.content), rows, expected)


def _first(*names: str) -> ModuleType:
    """Import the first of several modules that exists."""
    *tried, last = names
    for name in tried:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return importlib.import_module(last)
