"""This manager as a client, once for each way of calling a tool."""

from __future__ import annotations

from benchmarks.calls.cases import Expected
from benchmarks.calls.client import ARGUMENTS, AwaitedClient, BlockingClient, WrongReplyError
from mcp_manager.bindings.manager import PyMcpManager
from mcp_manager.manager import McpManager
from mcp_manager.results import TextContent

__all__ = ["CallToolClient", "ExecuteAsyncClient", "ExecuteClient", "ExecuteRawClient"]

_SERVER = "bench"
_REQUEST = '{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'


class ExecuteRawClient(AwaitedClient):
    """``McpManager.execute_raw``: bytes in, bytes out."""

    name = "execute_raw"

    async def connect(self, url: str, expected: Expected) -> None:
        self._ending, self._least = expected.ending.encode(), expected.letters
        self._request = _REQUEST.encode()
        self._manager = McpManager()
        await self._manager.start()
        await self._manager.deploy(_SERVER, {"url": url})

    async def call(self) -> None:
        reply = await self._manager.execute_raw(_SERVER, self._request)
        if len(reply) < self._least or not reply.endswith(self._ending):
            raise WrongReplyError(f"the reply ends with {reply[-20:]!r}")

    async def aclose(self) -> None:
        await self._manager.stop()


class ExecuteAsyncClient(AwaitedClient):
    """``PyMcpManager.execute_async`` on the caller's loop: text in, text out."""

    name = "execute_async"

    async def connect(self, url: str, expected: Expected) -> None:
        self._ending, self._least = expected.ending, expected.letters
        self._manager = PyMcpManager()
        await self._manager.start_async()
        await self._manager.deploy_server_async(_SERVER, {"url": url})

    async def call(self) -> None:
        reply = await self._manager.execute_async(_SERVER, _REQUEST)
        if len(reply) < self._least or not reply.endswith(self._ending):
            raise WrongReplyError(f"the reply ends with {reply[-20:]!r}")

    async def aclose(self) -> None:
        await self._manager.stop_async()


class ExecuteClient(BlockingClient):
    """``PyMcpManager.execute`` from plain threads, one per call in flight."""

    name = "execute"

    async def connect(self, url: str, expected: Expected) -> None:
        self._ending, self._least = expected.ending, expected.letters
        self._manager = PyMcpManager()
        self._manager.start()
        await self._manager.deploy_server_async(_SERVER, {"url": url})

    def call(self) -> None:
        reply = self._manager.execute(_SERVER, _REQUEST)
        if len(reply) < self._least or not reply.endswith(self._ending):
            raise WrongReplyError(f"the reply ends with {reply[-20:]!r}")

    async def aclose(self) -> None:
        await self._manager.stop_async()


class CallToolClient(AwaitedClient):
    """``McpManager.call_tool``: arguments in, a typed result out."""

    name = "call_tool"

    async def connect(self, url: str, expected: Expected) -> None:
        self._expected = expected
        self._manager = McpManager()
        await self._manager.start()
        await self._manager.deploy(_SERVER, {"url": url})

    async def call(self) -> None:
        result = await self._manager.call_tool(_SERVER, "echo", ARGUMENTS)
        letters = sum(len(block.text) for block in result.content if isinstance(block, TextContent))
        rows = len(result.structured_content["rows"]) if result.structured_content else 0
        if letters != self._expected.letters or rows != self._expected.rows:
            raise WrongReplyError(f"{letters} letters and {rows} rows")

    async def aclose(self) -> None:
        await self._manager.stop()
