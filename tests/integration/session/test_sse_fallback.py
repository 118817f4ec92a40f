"""When a server that knows no streamable HTTP is tried as one of 2024's HTTP+SSE, and when it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from support.era_server import HANDSHAKE, STATELESS, EraServer
from support.sessions import session_template
from support.transports import http_transport

from mcp_manager._core.call_path import RequestIds
from mcp_manager.errors import CallError
from mcp_manager.protocol.revisions import Era
from mcp_manager.session.negotiation import Negotiated, Negotiation
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.transport import HttpTransport


class Settling:
    """Negotiate with one server as the configured transport's, and with another as what HTTP+SSE would reach."""

    def __init__(self, pool: HttpPool, configured: ScriptedServer, older: ScriptedServer) -> None:
        self._pool = pool
        self._urls = {False: configured.url, True: older.url}
        # For a program there is nothing to fall back to.
        self._templates = {
            True: session_template(connect_timeout_s=5.0),
            False: session_template(command="none", connect_timeout_s=5.0),
        }
        self.made: list[bool] = []

    async def __call__(self, *, can_fall_back: bool = True) -> Negotiated:
        template = self._templates[can_fall_back]
        return await Negotiation(template, "place", self._make, RequestIds(1)).run()

    def knows(self) -> bool:
        return any(each.knowledge.eras.recall("place") for each in self._templates.values())

    def _make(self, sse: bool) -> HttpTransport:
        self.made.append(sse)
        return http_transport(self._pool, self._urls[sse])


@pytest.fixture
def configured() -> Iterator[EraServer]:
    with EraServer(HANDSHAKE) as server:
        yield server


@pytest.fixture
def older() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def settling(configured: EraServer, older: ScriptedServer) -> AsyncIterator[Settling]:
    pool = HttpPool()
    try:
        yield Settling(pool, configured, older)
    finally:
        await pool.aclose()


@pytest.mark.parametrize(
    "refusal",
    [
        faults.Status(400),
        faults.Status(404),
        faults.Status(405),
        faults.Status(415),
        faults.RpcErrorReply(-32601, status=404),
    ],
    ids=repr,
)
async def test_a_refused_greeting_leads_to_http_with_sse(
    settling: Settling, configured: EraServer, older: ScriptedServer, refusal: Fault
) -> None:
    configured.script_always("*", refusal)
    settled = await settling()
    assert settled.era is Era.HANDSHAKE and settling.made == [False, True]
    await settled.transport.aclose(0.0)
    # It is remembered, and what asks nobody is not asked again.
    before = len(configured.requests)
    await (await settling()).transport.aclose(0.0)
    assert settling.made == [False, True, True] and len(configured.requests) == before
    assert len(older.requests_of("initialize")) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        faults.Status(401),
        faults.Status(403),
        faults.Status(408),
        faults.Status(429),
        faults.Status(500),
        faults.Status(503),
        faults.RpcErrorReply(-32020, status=400),
        faults.RpcErrorReply(-32021, status=400),
        faults.RpcErrorReply(-32603, status=500),
        faults.RpcErrorReply(-32603),
        faults.Reply(b"not JSON"),
        faults.Reset(),
    ],
    ids=repr,
)
async def test_other_failures_of_the_greeting_do_not(settling: Settling, configured: EraServer, refusal: Fault) -> None:
    configured.script_always("initialize", refusal)
    with pytest.raises(CallError):
        await settling()
    assert settling.made == [False]
    assert not settling.knows()


async def test_there_may_be_no_http_with_sse(settling: Settling, configured: EraServer) -> None:
    configured.script_always("initialize", faults.Status(404))
    with pytest.raises(CallError, match="404"):
        await settling(can_fall_back=False)
    assert settling.made == [False]


async def test_what_the_configured_transport_met_is_told_when_both_fail(
    settling: Settling, configured: EraServer, older: ScriptedServer
) -> None:
    configured.script_always("initialize", faults.Status(405))
    older.script_always("initialize", faults.Status(500))
    with pytest.raises(CallError, match="405"):
        await settling()
    assert settling.made == [False, True]
    assert not settling.knows()


async def test_a_server_that_has_learnt_streamable_http_is_found_again(
    settling: Settling, configured: EraServer, older: ScriptedServer
) -> None:
    configured.script("initialize", faults.Status(404))
    await (await settling()).transport.aclose(0.0)
    older.script_always("initialize", faults.Status(410))
    configured.speaks = (STATELESS,)
    settled = await settling()
    assert settled.era is Era.STATELESS
    await settled.transport.aclose(0.0)
    assert settling.made == [False, True, True, False]
