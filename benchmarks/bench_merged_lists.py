"""Measures the fleet as one endpoint: a page of a list of 10,000 tools, the route of a call, and making the list anew.

Run as ``pytest benchmarks/bench_merged_lists.py --benchmark-only``. It measures CPU time, user and system, of all
threads. The lists of the servers are known already: nothing is sent. Every measured call repeats that :data:`REPEAT`
times, but for making the list.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.catalogue import Pages, catalogue_of
from mcp_manager.gateway.endpoints.kinds import TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Listing, Lists, read_entries
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.endpoints.owned_tasks import OwnedTasks
from mcp_manager.gateway.endpoints.parts import Parts
from mcp_manager.gateway.endpoints.selection import Selection
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.gateway.tool_search.tool_indexes import ToolIndexes
from mcp_manager.protocol.revisions import Era

REPEAT = 1_000
SERVERS, TOOLS_EACH = 10, 1_000
CLIENT = Client(Era.HANDSHAKE, "2025-11-25")


class KnownListings:
    """Lists that were read already; see :class:`~mcp_manager.gateway.endpoints.listings.Listings`."""

    version = 1

    def __init__(self, lists: dict[str, Listing]) -> None:
        self.lists = lists
        self.indexes = ToolIndexes()
        self.pins = Pins()

    def servers(self) -> list[str]:
        return list(self.lists)

    def is_deployed(self, server_id: str) -> bool:
        return server_id in self.lists

    def priority(self, server_id: str) -> int:
        return 0

    async def of(self, server_ids: list[str], kind: Kind, patience_s: float | None = None) -> Lists:
        return Lists({server_id: self.lists[server_id] for server_id in server_ids}, {})


def tool(number: int) -> msgspec.Raw:
    schema = {
        "type": "object",
        "properties": {f"field{each}": {"type": "string", "description": "What it is for."} for each in range(5)},
    }
    entry = {"name": f"tool_{number}", "description": "Do something useful. " * 5, "inputSchema": schema}
    return msgspec.Raw(json.dumps(entry).encode())


def request(method: str, **params: Any) -> Message:
    return scan(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())


@pytest.fixture(scope="module")
def lists() -> dict[str, Listing]:
    return {
        f"server{number}": read_entries([tool(each) for each in range(TOOLS_EACH)], TOOLS) for number in range(SERVERS)
    }


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def fleet(lists: dict[str, Listing]) -> MergedEndpoint:
    # Nothing else than the lists is asked for.
    known: Any = KnownListings(lists)
    sealer = Sealer()
    return MergedEndpoint(Parts(known, known, known, sealer, OwnedTasks(sealer)), Selection())


def repeated(loop: asyncio.AbstractEventLoop, fleet: MergedEndpoint, message: Message) -> None:
    async def ask() -> None:
        for _ in range(REPEAT):
            if await fleet.own_result(message, CLIENT) is None:
                await fleet.route(message, CLIENT)

    loop.run_until_complete(ask())


@pytest.mark.benchmark(timer=time.process_time, warmup=True)
@pytest.mark.parametrize("what", ["first page", "next page", "route"])
def test_request(benchmark: Any, loop: asyncio.AbstractEventLoop, fleet: MergedEndpoint, what: str) -> None:
    page = loop.run_until_complete(fleet.own_result(request("tools/list"), CLIENT))
    assert page is not None
    messages = {
        "first page": request("tools/list"),
        "next page": request("tools/list", cursor=json.loads(page)["nextCursor"]),
        "route": request("tools/call", name="server7__tool_500", arguments={"field1": "x"}),
    }
    benchmark.extra_info["calls"] = REPEAT
    benchmark(repeated, loop, fleet, messages[what])


@pytest.mark.benchmark(timer=time.process_time)
def test_making_the_list(benchmark: Any, lists: dict[str, Listing]) -> None:
    sealer = Sealer()

    def make() -> None:
        catalogue = catalogue_of(TOOLS, lists, Selection(), lambda server_id: (0, server_id))
        assert len(Pages(catalogue, {}, sealer, "fleet", 1_000)) == SERVERS * TOOLS_EACH // 1_000

    benchmark(make)
