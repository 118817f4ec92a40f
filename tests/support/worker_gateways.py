"""Gateways that are workers of one address, on one loop, each with a port of its own: tests choose the worker."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import aiohttp

from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.workers.assignment import Assignment
from mcp_manager.gateway.workers.listeners import Listeners
from mcp_manager.gateway.workers.worker import Worker

__all__ = ["SECRET", "WorkerGateways", "stateless_call"]

SECRET = "a secret of the workers only"
_KEY = "a key that seals session ids, for tests only"


class WorkerGateways:
    """Some gateways that know each other.

    Attributes
    ----------
    gateways
        The gateways by their numbers.
    urls
        The URLs of their roots.
    """

    def __init__(self) -> None:
        self.gateways: list[Gateway] = []
        self.urls: list[str] = []
        self._start: Callable[[int], tuple[str, Gateway]]

    @classmethod
    @asynccontextmanager
    async def running(cls, config: Mapping[str, Any], count: int = 2, **serve: Any) -> AsyncIterator[WorkerGateways]:
        """Run them, connected to each other's programs."""
        made = cls()
        with ExitStack() as opened:
            directory = opened.enter_context(Listeners(("127.0.0.1", 0), count))

            def start(number: int) -> tuple[str, Gateway]:
                public = socket.create_server(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{public.getsockname()[1]}"
                ours, theirs = socket.socketpair()
                opened.enter_context(ours)
                opened.enter_context(theirs)
                siblings = os.dup(directory.siblings[number].fileno())
                assignment = Assignment(number, count, directory.directory, SECRET, (_KEY,), public.detach(), siblings)
                return url, Gateway(config, serve={"listen": "127.0.0.1:0", **serve}, worker=Worker(assignment, theirs))

            made._start = start
            try:
                for number in range(count):
                    url, gateway = start(number)
                    made.urls.append(url)
                    made.gateways.append(gateway)
                    await gateway.start()
                for gateway in made.gateways:
                    assert gateway._worker is not None
                    await gateway._worker.connect(gateway.manager)
                yield made
            finally:
                for gateway in reversed(made.gateways):
                    await gateway.stop()

    async def restart(self, number: int) -> None:
        """End one of them, and start another in its place, as the parent of workers does."""
        await self.gateways[number].stop()
        self.urls[number], self.gateways[number] = self._start(number)
        await self.gateways[number].start()


async def stateless_call(http: aiohttp.ClientSession, url: str, params: dict[str, Any]) -> Any:
    """Call a tool as a client of 2026-07-28, and return the result."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    }
    fields = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": params["name"],
    }
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": meta}}
    async with http.post(url, json=request, headers=fields) as response:
        answer = await response.json()
        assert "result" in answer, answer
        return answer["result"]
