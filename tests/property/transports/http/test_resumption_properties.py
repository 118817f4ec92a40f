"""Wherever and however the connections of a stream end, every event arrives once, in order, and the reply is found."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from support.calls import CALM, echo, eventually, text_of
from support.examples import examples
from support.streams import ANY, Cut, ResumedReply

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer
from mcp_manager.transports.http.reconnection import Reconnection

_CUTS = st.lists(st.builds(Cut, after=st.integers(0, 700), graceful=st.booleans()), max_size=6)


class _Both:
    """Refuse the standing stream, and go on with what was begun."""

    def __init__(self, reply: ResumedReply) -> None:
        self._reply = reply

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if request.verb == "GET" and "last-event-id" not in request.headers:
            await connection.respond(405)
        else:
            await self._reply.play(connection, request)


@given(_CUTS, st.integers(0, 6), st.booleans(), st.booleans())
@settings(max_examples=examples(60))
def test_every_event_arrives_once_and_the_reply_is_found(
    cuts: list[Cut], others: int, lanes: bool, uses_retry: bool
) -> None:
    # The first connection lasts until there is something to go on from: all before that is lost by right. One that is
    # reset may lose what it brought, so that it is the first that must not be.
    first = ResumedReply([], others, 1 if uses_retry else None).first_size
    cuts = [Cut(first + each.after, True) if at == 0 else each for at, each in enumerate(cuts)]
    asyncio.run(_run(ResumedReply(cuts, others, 1 if uses_retry else None), others, lanes))


async def _run(reply: ResumedReply, others: int, lanes: bool) -> None:
    heard: list[int] = []

    async def note(server_id: str, params: Any) -> None:
        heard.append(params["data"])

    with (
        mock.patch.object(Reconnection, "delay_s", lambda self, random: 0.0),
        # A connection may be reset before a byte of it was read: how often in a row is chance here.
        mock.patch("mcp_manager.transports.http.resumption._MAX_FAILURES", 10),
        ScriptedServer() as server,
    ):
        server.script_always("tools/call", _Both(reply))
        server.script_always("GET", _Both(reply))
        async with McpManager(ManagerConfig(http_lanes=lanes), handlers={ANY: note}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"), timeout=30)) == "x"
            await eventually(lambda: len(heard) == others, "the delivery of every notification")
            assert heard == list(range(others))
            assert manager.server("a").faults == {}
            assert server.executed == ["x"]
