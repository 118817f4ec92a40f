"""A scripted client of the gateway on two pipes, in this process."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Self

from mcp_manager import McpManager
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.endpoints.single import SingleServer
from mcp_manager.gateway.eras.handshake import HandshakeEra
from mcp_manager.gateway.eras.stateless import StatelessEra
from mcp_manager.gateway.forwarding import Forwarding
from mcp_manager.gateway.stdio import StdioServer

__all__ = ["PipeClient", "stateless_meta"]

_META = "io.modelcontextprotocol/"


class PipeClient:
    """Serve one server of a fleet to this client.

    Parameters
    ----------
    manager
        The fleet.
    server_id
        The server.
    settings
        Those of :class:`StdioServer`.
    """

    def __init__(self, manager: McpManager, server_id: str = "a", **settings: Any) -> None:
        answering = Answering(Forwarding(manager))
        self._stateless = StatelessEra(answering)
        self._handshake = HandshakeEra(answering)
        self.server = StdioServer(self._handshake, self._stateless, SingleServer(manager, server_id), **settings)
        self._their_input, self._input = os.pipe()
        output, self._their_output = os.pipe()
        self._output = open(output, "rb", buffering=0)
        self.serving: asyncio.Task[None] | None = None
        self._reader = asyncio.StreamReader(limit=1 << 26)
        self._transport: Any = None

    async def __aenter__(self) -> Self:
        self.serving = asyncio.ensure_future(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end_input()
        self.server.stop()
        assert self.serving is not None
        await asyncio.wait({self.serving})
        self.stop_reading()
        await self._handshake.aclose()
        await self._stateless.aclose()
        await asyncio.sleep(0)
        self.serving.result()

    async def _serve(self) -> None:
        try:
            await self.server.serve(self._their_input, self._their_output)
        finally:
            os.close(self._their_input)
            os.close(self._their_output)

    def end_input(self) -> None:
        """Send nothing more."""
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def stop_reading(self) -> None:
        """Close the end that messages come from."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._output.close()

    def pause_reading(self) -> None:
        """Read nothing until :meth:`resume_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    @property
    def unsent_bytes(self) -> int:
        """How much the gateway keeps for this client."""
        assert self.server._pipes is not None
        return self.server._pipes.unsent_bytes

    def write(self, data: bytes) -> None:
        """Send bytes; it blocks while the gateway does not read."""
        while data:
            data = data[os.write(self._input, data) :]

    def send(self, *sent: dict[str, Any]) -> None:
        """Send messages."""
        for message in sent:
            self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def call(self, request_id: Any, tool: str, _meta: dict[str, Any] | None = None, **arguments: Any) -> None:
        """Call a tool."""
        params = {"name": tool, "arguments": arguments, **({} if _meta is None else {"_meta": _meta})}
        self.send({"id": request_id, "method": "tools/call", "params": params})

    async def receive(self) -> Any:
        """Return the next message; ``None`` after the last one."""
        if self._transport is None:
            protocol = asyncio.StreamReaderProtocol(self._reader)
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.connect_read_pipe(lambda: protocol, self._output)
        async with asyncio.timeout(20):
            line = await self._reader.readline()
        return json.loads(line) if line else None

    async def initialize(self, capabilities: dict[str, Any] | None = None, revision: str = "2025-11-25") -> Any:
        """Begin the session, and return the result."""
        info = {"name": "client", "version": "1"}
        params = {"protocolVersion": revision, "capabilities": capabilities or {}, "clientInfo": info}
        self.send({"id": 0, "method": "initialize", "params": params})
        result = await self.receive()
        self.send({"method": "notifications/initialized"})
        return result["result"]


def stateless_meta(capabilities: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the ``_meta`` of a request of 2026-07-28."""
    return {
        _META + "protocolVersion": "2026-07-28",
        _META + "clientInfo": {"name": "client", "version": "1"},
        _META + "clientCapabilities": capabilities or {},
        **more,
    }
