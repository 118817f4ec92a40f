"""Requests on their way to servers: whose session they take, what servers are told, and how they are given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.processes import PROGRAMS
from support.stateless_server import StatelessServer

from mcp_manager import McpManager, ServerMessage
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.forwarding import SHARED_CAPABILITIES, Forwarding
from mcp_manager.protocol.revisions import Era
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

META = "io.modelcontextprotocol/"
ASKED: dict[str, Any] = {"elicitation": {"form": {}}, "extensions": {"com.example/e": {"x": 1}}}
FOREIGN = {"traceparent": "00-1-2-01", "com.example/foreign": {"a": [1]}, META + "logLevel": "debug"}


def old(session: str = "s", principal: str = "p", **capabilities: Any) -> Client:
    return Client(Era.HANDSHAKE, "2025-11-25", capabilities, principal, session)


def new(principal: str = "p", **capabilities: Any) -> Client:
    return Client(Era.STATELESS, "2026-07-28", capabilities, principal)


def envelope(client: Client) -> dict[str, Any]:
    return {
        META + "protocolVersion": "2026-07-28",
        META + "clientInfo": {"name": "downstream", "version": "9"},
        META + "clientCapabilities": client.capabilities,
    }


def call(meta: dict[str, Any] | None = None, tool: str = "echo", **arguments: Any) -> bytes:
    params = {"name": tool, "arguments": arguments or {"text": "x"}, **({} if meta is None else {"_meta": meta})}
    return json.dumps({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params}).encode()


@contextlib.asynccontextmanager
async def fleet(**servers: dict[str, Any]) -> AsyncIterator[McpManager]:
    async with McpManager(shared_capabilities=SHARED_CAPABILITIES) as manager:
        for server_id, config in servers.items():
            await manager.deploy(server_id, {**CALM, **config})
        yield manager


async def forward(forwarding: Forwarding, client: Client, request: bytes | None = None, **options: Any) -> Any:
    request = call(envelope(client) if client.era is Era.STATELESS else None) if request is None else request
    response = json.loads(await forwarding.forward(Route("a", request), b'"c"', client, **options))
    assert response["id"] == "c"
    return response


def session_of_last_call(server: ScriptedServer) -> str:
    return server.requests_of("tools/call")[-1].headers["mcp-session-id"]


# Whose session


async def test_clients_that_can_be_asked_have_sessions_of_their_own() -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            forwarding = Forwarding(manager)
            used = {}
            for name, client in {
                "nobody": old(),
                "nobody else": old("t"),
                "s": old("s", elicitation={}),
                "s again": old("s", elicitation={}),
                "t": old("t", elicitation={}),
                "q": old("s", "q", elicitation={}),
                "modern": new(elicitation={}),
                "modern q": new("q", elicitation={}),
                "modern nobody": new(),
            }.items():
                assert "result" in await forward(forwarding, client)
                used[name] = session_of_last_call(server)
            assert used["nobody"] == used["nobody else"] == used["modern nobody"]
            assert used["s"] == used["s again"]
            assert len(set(used.values())) == 6
            told = [each.params["capabilities"] for each in server.requests_of("initialize")]
            assert told == [{}, *[{"elicitation": {}}] * 5]


async def test_stateful_servers_keep_every_client_apart_and_shared_ones_none() -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            for options, apart in (({"stateful": ["a"]}, True), ({"sessions": "shared", "stateful": ["a"]}, False)):
                forwarding = Forwarding(manager, **options)  # type: ignore[arg-type]
                used = set()
                for client in (old("s"), old("t"), old("u", elicitation={})):
                    await forward(forwarding, client)
                    used.add(session_of_last_call(server))
                assert len(used) == (3 if apart else 1)


async def test_the_end_of_a_session_ends_those_at_servers() -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            forwarding = Forwarding(manager)
            client = old(elicitation={})
            await forward(forwarding, client)
            mine = session_of_last_call(server)
            hold = Hold()
            server.script("tools/call", hold)
            calling = asyncio.ensure_future(forward(forwarding, client))
            await server.wait_until(lambda: len(server.requests_of("tools/call")) == 2)
            forwarding.end_session("p", "t")
            forwarding.end_session("p", "s")
            forwarding.end_session("p", "s")
            # A call under way has its session until it ends.
            assert mine in server.live_sessions
            hold.release()
            assert "result" in await calling
            await server.wait_until(lambda: mine not in server.live_sessions)
            await forward(forwarding, client)
            assert session_of_last_call(server) != mine
            forwarding.end_session("p", "s")
            await server.wait_until(lambda: len(server.live_sessions) == 1)


async def test_more_clients_than_sessions_are_refused() -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url, "max_caller_sessions": 1}) as manager:
            forwarding = Forwarding(manager)
            hold = Hold()
            server.script("tools/call", hold)
            calling = asyncio.ensure_future(forward(forwarding, old("s", elicitation={})))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            error = (await forward(forwarding, old("t", elicitation={})))["error"]
            assert (error["code"], error["data"]["delivery"]) == (-32004, "not_sent")
            assert "no free session" in error["message"]
            hold.release()
            await calling
            # An idle session makes room.
            assert "result" in await forward(forwarding, old("t", elicitation={}))


# What servers are told


@pytest.mark.parametrize("client", [old(**ASKED), new(**ASKED)], ids=["old", "new"])
async def test_a_handshake_server_gets_its_own_members_only(client: Client) -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            meta = {**FOREIGN, **(envelope(client) if client.era is Era.STATELESS else {})}
            assert "result" in await forward(Forwarding(manager), client, call(meta))
            assert server.requests_of("tools/call")[-1].params["_meta"] == FOREIGN
            assert server.requests_of("initialize")[-1].params["capabilities"] == ASKED


@pytest.mark.parametrize("client", [old(**ASKED), new(**ASKED), old(), new()], ids=["old", "new", "old_", "new_"])
async def test_a_stateless_server_is_told_what_the_client_declared(client: Client) -> None:
    with StatelessServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            meta = {**FOREIGN, **(envelope(client) if client.era is Era.STATELESS else {})}
            assert "result" in await forward(Forwarding(manager), client, call(meta))
            told = server.requests_of("tools/call")[-1].params["_meta"]
            assert told.items() >= FOREIGN.items()
            assert told[META + "protocolVersion"] == "2026-07-28"
            declared = dict(client.capabilities)
            if client.era is Era.HANDSHAKE:
                declared["extensions"] = {"io.modelcontextprotocol/tasks": {}, **declared.get("extensions", {})}
            assert told[META + "clientCapabilities"] == declared


async def test_a_program_can_ask_every_client_and_a_client_only_what_it_can() -> None:
    program = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}
    async with fleet(a=program) as manager:
        forwarding = Forwarding(manager)
        asked: list[str] = []

        def answer(sent: ServerMessage) -> dict[str, Any]:
            asked.append(sent.method)
            return {"action": "decline"}

        received = (await forward(forwarding, old(), call(None, "received", x=1)))["result"]["structuredContent"]
        (greeting,) = [each for each in received["received"] if each["method"] == "initialize"]
        assert greeting["params"]["capabilities"] == SHARED_CAPABILITIES
        for client, method in ((old(), "roots/list"), (old(elicitation={}), "elicitation/create")):
            request = call(None, "ask", method=method, params={"message": "?"})
            result = (await forward(forwarding, client, request, on_message=answer))["result"]["structuredContent"]
            assert ("error" in result["answer"]) == (method == "roots/list")
        assert asked == ["elicitation/create"]


async def test_a_question_reaches_the_only_session_whose_calls_a_program_serves() -> None:
    program = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}
    async with fleet(a=program) as manager:
        forwarding = Forwarding(manager)
        asked: list[str] = []

        def told(name: str, sent: ServerMessage) -> dict[str, Any]:
            asked.append(name)
            return {"action": "decline"}

        async def answer(session: str, name: str, tool: str = "ask") -> Any:
            request = call(None, tool, method="elicitation/create", params={"message": "?"})
            client = old(session, elicitation={})
            return await forward(forwarding, client, request, on_message=partial(told, name))

        await manager.ping("a")
        waiting = asyncio.ensure_future(answer("ana", "first", "nothing"))
        await asyncio.sleep(0)
        try:
            # The same session: it is asked on the latest of its calls.
            assert "error" not in (await answer("ana", "second"))["result"]["structuredContent"]["answer"]
            # Another one: nobody knows whom the program asks, so nobody is.
            refused = (await answer("ben", "third"))["result"]["structuredContent"]["answer"]["error"]
            assert (refused["code"], asked) == (-32601, ["second"])
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})
        # The program may still work on the call that was given up.
        assert "error" in (await answer("ben", "fourth"))["result"]["structuredContent"]["answer"]
        assert "error" not in (await answer("ana", "fifth"))["result"]["structuredContent"]["answer"]
        # On two, of two sessions: nobody is asked any more.
        given_up = asyncio.ensure_future(answer("ben", "sixth", "nothing"))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait({given_up})
        for session in ("ana", "ben"):
            assert "error" in (await answer(session, "seventh"))["result"]["structuredContent"]["answer"]
        assert asked == ["second", "fifth"]


async def test_a_server_that_was_never_connected_is_met_first() -> None:
    with StatelessServer() as server:
        async with fleet(a={"url": server.url, "connect": "lazy"}) as manager:
            assert manager.peer("a") is None
            assert "result" in await forward(Forwarding(manager), old(**ASKED))
            told = server.requests_of("tools/call")[-1].params["_meta"]
            assert told[META + "clientCapabilities"]["elicitation"] == ASKED["elicitation"]


async def test_a_server_out_of_reach_is_told_without_its_address() -> None:
    with ScriptedServer() as server:
        url = server.url
    async with fleet(a={"url": f"{url}?token=hunter2", "connect": "lazy"}) as manager:
        error = (await forward(Forwarding(manager), old()))["error"]
        assert (error["code"], error["data"]["server"]) == (-32006, "a")
        assert "hunter2" not in json.dumps(error)
        assert "127.0.0.1" not in json.dumps(error)


# Giving up


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_call_that_waits_for_its_reply_is_cancelled_once(own_session: bool) -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            client = old(**(ASKED if own_session else {}))
            server.script("tools/call", Hold())
            calling = asyncio.ensure_future(forward(Forwarding(manager), client))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await server.wait_until(lambda: bool(server.requests_of("notifications/cancelled")))
            (cancelled,) = server.requests_of("notifications/cancelled")
            assert cancelled.params["requestId"] == server.requests_of("tools/call")[0].id


async def test_a_call_to_a_stateless_server_is_cancelled_by_closing_its_response() -> None:
    with StatelessServer() as server:
        async with fleet(a={"url": server.url}) as manager:
            server.script("tools/call", Hold())
            calling = asyncio.ensure_future(forward(Forwarding(manager), new()))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            connection = server.requests_of("tools/call")[0].connection
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await eventually(lambda: not server.is_open(connection), "the connection is closed")
            assert server.requests_of("notifications/cancelled") == []


async def test_a_call_that_waits_for_a_slot_is_given_up_unsent() -> None:
    with ScriptedServer() as server:
        async with fleet(
            a={"url": server.url, "limits": {"max_concurrent": 1, "max_waiting": 1, "max_wait_s": 9.0}}
        ) as manager:
            hold = Hold()
            server.script("tools/call", hold)
            first = asyncio.ensure_future(forward(Forwarding(manager), old()))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            queued = asyncio.ensure_future(forward(Forwarding(manager), old()))
            await eventually(lambda: manager._router.server("a").waiting == 1, "the call is queued")
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued
            hold.release()
            assert "result" in await first
            assert len(server.requests_of("tools/call")) == 1
            assert server.requests_of("notifications/cancelled") == []


async def test_a_call_that_waits_for_a_connection_is_given_up_unsent() -> None:
    with ScriptedServer() as server:
        async with fleet(a={"url": server.url, "connect": "lazy", "protocol_version": "2025-11-25"}) as manager:
            hold = Hold()
            server.script("initialize", hold)
            calling = asyncio.ensure_future(forward(Forwarding(manager), old(**ASKED)))
            await server.wait_until(lambda: bool(server.requests_of("initialize")))
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            hold.release()
            assert "result" in await forward(Forwarding(manager), old(**ASKED))
            assert len(server.requests_of("tools/call")) == 1
            assert server.requests_of("notifications/cancelled") == []


async def test_a_call_whose_client_is_being_asked_is_cancelled_once() -> None:
    program = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}
    async with fleet(a=program) as manager:
        forwarding = Forwarding(manager)
        is_asked, is_over = asyncio.Event(), asyncio.Event()

        async def answer(sent: ServerMessage) -> dict[str, Any]:
            is_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                is_over.set()
            return {}

        request = call(None, "ask", method="elicitation/create", params={"message": "?"})
        calling = asyncio.ensure_future(forward(forwarding, old(**ASKED), request, on_message=answer))
        await is_asked.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.wait_for(is_over.wait(), 10)
        received = (await forward(forwarding, old(), call(None, "received", x=1)))["result"]["structuredContent"]
        methods = [each.get("method") for each in received["received"]]
        assert methods.count("notifications/cancelled") == 1
