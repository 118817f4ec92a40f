"""Lists of several pages, where a server runs more than once or forgets a session: cursors are not for another session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM

from mcp_manager import McpManager, RpcError
from mcp_manager.testing.scripted import Request, ScriptedServer

PAGES = 6


class PagingServer(ScriptedServer):
    """Lists one tool a page; a cursor is good for the session that it was given to.

    ``expires_after`` is the page after which every session is forgotten, so often as ``expiries`` says.
    """

    def __init__(self, *, expires_after: int = -1, expiries: int = 0) -> None:
        super().__init__()
        self.expires_after = expires_after
        self.expiries = expiries

    def _result(self, request: Request) -> dict[str, Any]:
        if request.method != "tools/list":
            return super()._result(request)
        session = request.headers["mcp-session-id"]
        owner, _, page = ((request.params or {}).get("cursor") or f"{session}/0").partition("/")
        if owner != session:
            return {"jsonrpc": "2.0", "id": request.id, "error": {"code": -32602, "message": "unknown cursor"}}
        number = int(page)
        tools = [{"name": f"{owner}-{number}", "inputSchema": {"type": "object"}}]
        more = {"nextCursor": f"{session}/{number + 1}"} if number < PAGES - 1 else {}
        if number == self.expires_after and self.expiries:
            self.expiries -= 1
            self.expire_sessions()
        return {"jsonrpc": "2.0", "id": request.id, "result": {"tools": tools, **more}}


@pytest.fixture
def server() -> Iterator[PagingServer]:
    with PagingServer() as running:
        yield running


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as running:
        yield running


@pytest.mark.parametrize("connect", ["eager", "lazy"])
async def test_all_pages_come_from_one_instance(server: PagingServer, manager: McpManager, connect: str) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "instances": 4, "connect": connect})
    for _ in range(5):
        names = [tool.name for tool in await manager.list_tools("a")]
        assert len(names) == PAGES
        assert len({name.rpartition("-")[0] for name in names}) == 1
    # None was refused and read again.
    assert len(server.requests_of("tools/list")) == 5 * PAGES
    calls = [
        line for line in manager.metrics_text().splitlines() if 'method="tools/list"' in line and "_total{" in line
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in calls if 'status="success"' in line) == 5 * PAGES


@pytest.mark.parametrize("instances", [1, 3])
async def test_a_list_whose_session_is_lost_is_read_from_the_start(manager: McpManager, instances: int) -> None:
    with PagingServer(expires_after=2, expiries=1) as server:
        await manager.deploy("a", {"url": server.url, **CALM, "instances": instances})
        names = [tool.name for tool in await manager.list_tools("a")]
        assert len(names) == PAGES
        assert len({name.rpartition("-")[0] for name in names}) == 1
        await manager.undeploy("a")


async def test_a_list_goes_on_nowhere_else_when_its_instance_is_gone(server: PagingServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "instances": 2})
    last = manager._servers["a"].instances[-1]
    reply, place = await manager._page("a", "tools/list", None, (last, last.generation), None)
    assert (reply.result, place) != (None, None)
    await manager.scale("a", 1)
    with pytest.raises(RpcError, match="gone"):
        await manager._page("a", "tools/list", {"cursor": "x"}, place, None)
    assert len(server.requests_of("tools/list")) == 1
