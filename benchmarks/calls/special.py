"""Clients that only single targets need: scanners, tool lists, revisions, fleets of many servers."""

from __future__ import annotations

import importlib
import random
from abc import abstractmethod
from typing import Any, ClassVar
from urllib.parse import urlsplit

from benchmarks.calls.cases import Expected
from benchmarks.calls.client import AwaitedClient, WrongReplyError
from benchmarks.calls.ours import ExecuteRawClient
from benchmarks.calls.peers import SdkClient
from benchmarks.calls.replies import STATELESS, render
from mcp_manager._core import jsonrpc
from mcp_manager.manager import McpManager

_SEED = 1
_ACTIVE = 10


class _Scanner(AwaitedClient):
    """Find the envelope of the reply that the server would send; nothing is sent."""

    async def connect(self, url: str, expected: Expected) -> None:
        endpoint = render(urlsplit(url).path.encode())
        assert endpoint is not None
        (suffix,) = (each.suffix for each in endpoint.answers if each.method == b'"tools/call"')
        self.frame = endpoint.prefix + b"1234" + suffix
        self.prepare()

    async def aclose(self) -> None:
        pass

    @abstractmethod
    def prepare(self) -> None:
        """Make what all scans share."""


class ScanClient(_Scanner):
    """This package's scanner of replies."""

    name = "scan"

    def prepare(self) -> None:
        self._scan = getattr(jsonrpc, "scan_reply", jsonrpc.scan)

    async def call(self) -> None:
        if not self._scan(self.frame):
            raise WrongReplyError("no message")


class MsgspecScanClient(_Scanner):
    """msgspec with a ``Struct`` of the envelope whose result stays ``Raw``."""

    name = "msgspec Raw"

    def prepare(self) -> None:
        msgspec = importlib.import_module("msgspec")
        raw = msgspec.Raw
        members = [("jsonrpc", str), ("id", int), ("result", raw, raw()), ("error", raw, raw())]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Envelope", members)).decode

    async def call(self) -> None:
        if not self._decode(self.frame).result:
            raise WrongReplyError("no result")


class SdkToolsClient(SdkClient):
    """The official SDK's ``list_tools``."""

    name = "mcp list_tools"

    async def call(self) -> None:
        _check_tools((await self.session.list_tools()).tools)


class ToolsClient(AwaitedClient):
    """This manager's ``list_tools``."""

    name = "list_tools"

    async def connect(self, url: str, expected: Expected) -> None:
        self._manager = McpManager()
        await self._manager.start()
        await self._manager.deploy("bench", {"url": url})

    async def call(self) -> None:
        _check_tools(await self._manager.list_tools("bench"))

    async def aclose(self) -> None:
        await self._manager.stop()


class HandshakeClient(ExecuteRawClient):
    """``execute_raw`` to a server with a handshake."""

    name = "2025-11-25"


class StatelessClient(ExecuteRawClient):
    """``execute_raw`` to a stateless server: requests carry metadata, replies their type."""

    name = "2026-07-28"

    async def connect(self, url: str, expected: Expected) -> None:
        await super().connect(url + STATELESS, expected)


class Fleet10Client(AwaitedClient):
    """``execute_raw`` on servers drawn at random from the active ones of a fleet."""

    name = "fleet of 10"
    servers: ClassVar[int] = 10
    active: ClassVar[int] = _ACTIVE

    async def connect(self, url: str, expected: Expected) -> None:
        self._request = b'{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'
        self._ending = expected.ending.encode()
        self._manager = McpManager()
        await self._manager.start()
        for number in range(self.servers):
            await self._manager.deploy(f"server-{number}", {"url": url, "connect": "lazy"})
        self._draw = random.Random(_SEED)
        self._names = [f"server-{number}" for number in self._draw.sample(range(self.servers), self.active)]
        for name in self._names:
            await self._manager.execute_raw(name, self._request)

    async def call(self) -> None:
        reply = await self._manager.execute_raw(self._draw.choice(self._names), self._request)
        if not reply.endswith(self._ending):
            raise WrongReplyError(f"the reply ends with {reply[-20:]!r}")

    async def aclose(self) -> None:
        await self._manager.stop()


class Fleet10000Client(Fleet10Client):
    """Ten active servers of 10,000."""

    name = "fleet of 10,000"
    servers = 10_000


class BusyFleetClient(Fleet10Client):
    """All of 10,000 servers active, each with a session."""

    name = "fleet of 10,000, all called"
    servers = 10_000
    active = 10_000
    # Three calls per server on average, since the clients before have displaced them from the processor's caches.
    warm_up = 30_000


def _check_tools(tools: Any) -> None:
    if len(tools) != 1000 or tools[0].name != "echo":
        raise WrongReplyError(f"{len(tools)} tools")
