"""What servers send to clients of the handshake era, over real HTTP: on streams of calls, and on standing streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.era_server import EraServer
from support.session_clients import EventReader, HeldCall, MovedServer, SessionClient, events_of

from mcp_manager.gateway.gateway import Gateway

ASKABLE = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}}
HOLD = {"name": "hold", "arguments": {}}
LOG = "notifications/message"
Begin = Callable[..., Awaitable[SessionClient]]


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


@pytest.fixture
async def gateway(server: MovedServer) -> AsyncIterator[Gateway]:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway:
        yield gateway


@pytest.fixture
async def begin(gateway: Gateway) -> AsyncIterator[Begin]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        clients: list[SessionClient] = []

        async def begun(capabilities: dict[str, Any] | None = None, revision: str = "2025-11-25") -> SessionClient:
            clients.append(SessionClient(http, f"{gateway.url}/servers/a/mcp", revision))
            return await clients[-1].begin(capabilities)

        yield begun
        for client in clients:
            client.close()


async def held(client: SessionClient, server: MovedServer, **meta: Any) -> tuple[HeldCall, asyncio.Task[Any]]:
    """Begin a call, and return it as the server sees it."""
    params = {**HOLD, "_meta": meta} if meta else HOLD
    calling = asyncio.create_task(client.post("tools/call", params))
    return await server.call("hold"), calling


# Questions during a call


@pytest.mark.parametrize(
    "method, params, result",
    [
        ("sampling/createMessage", {"messages": [], "maxTokens": 1}, {"role": "assistant", "model": "m"}),
        ("elicitation/create", {"message": "Who?", "requestedSchema": {}}, {"action": "accept", "content": {"n": "é"}}),
        ("elicitation/create", {"mode": "url", "url": "https://x", "elicitationId": "1"}, {"action": "decline"}),
        ("roots/list", {}, {"roots": [{"uri": "file:///x"}]}),
    ],
)
async def test_a_question_reaches_the_client_of_the_call_and_its_answer_the_server(
    begin: Begin, server: MovedServer, method: str, params: Any, result: Any
) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    answer = call.ask(method, params)
    events = events_of(await calling)
    question = await events.message()
    assert (question["method"], question["params"]) == (method, params)
    assert isinstance(question["id"], str) and question["id"].startswith("0.")
    assert (await client.answer(question["id"], result)).status == 202
    assert (await answer)["result"] == result
    call.reply("done")
    [reply] = await events.rest()
    assert reply["result"]["content"][0]["text"] == "done"


async def test_a_refusal_of_the_client_reaches_the_server(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    answer = call.ask("roots/list", {})
    question = await events_of(await calling).message()
    refusal = {"code": -1, "message": "no", "data": {"why": "not now"}}
    assert (await client.send({"jsonrpc": "2.0", "id": question["id"], "error": refusal})).status == 202
    error = (await answer)["error"]
    assert (error["code"], error["message"]) == (-1, "no")


async def test_who_has_declared_nothing_is_not_asked(begin: Begin, server: MovedServer) -> None:
    client = await begin({"elicitation": {"form": {}}})
    call, calling = await held(client, server)
    for method, params in (("sampling/createMessage", {}), ("elicitation/create", {"mode": "url"}), ("odd/method", {})):
        assert (await call.ask(method, params))["error"]["code"] in (-32601, -32602)
    call.reply()
    assert (await (await calling).json())["result"]["content"][0]["text"] == "done"


async def test_an_answer_counts_once_and_from_the_session_that_was_asked_only(
    begin: Begin, server: MovedServer
) -> None:
    client, other = await begin(ASKABLE), await begin(ASKABLE)
    call, calling = await held(client, server)
    answer = call.ask("roots/list", {})
    question = await events_of(await calling).message()
    for wrong in (question["id"] + "x", 7, "0.1", None):
        response = await client.answer(wrong, {"roots": ["wrong"]})
        assert response.status in (202, 400)
    assert (await other.answer(question["id"], {"roots": ["foreign"]})).status == 202
    assert not answer.done()
    for result in ({"roots": ["right"]}, {"roots": ["late"]}):
        assert (await client.answer(question["id"], result)).status == 202
    assert (await answer)["result"] == {"roots": ["right"]}


async def test_a_question_ends_with_its_call(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    call.ask("roots/list", {})
    events = events_of(await calling)
    question = await events.message()
    call.reply("without it")
    withdrawn, reply = await events.rest()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == question["id"]
    assert reply["result"]["content"][0]["text"] == "without it"
    assert (await client.answer(question["id"], {"roots": []})).status == 202


async def test_the_server_can_withdraw_its_question(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    call.ask("roots/list", {})
    events = events_of(await calling)
    question = await events.message()
    call.send("notifications/cancelled", {"requestId": next(iter(server.asked)), "reason": "never mind"})
    withdrawn = await events.message()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == question["id"]


async def test_the_client_reports_progress_on_a_question(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    call.ask("sampling/createMessage", {"messages": [], "maxTokens": 1, "_meta": {"progressToken": "tok"}})
    question = await events_of(await calling).message()
    token = question["params"]["_meta"]["progressToken"]
    report = {"progressToken": token, "progress": 1}
    for wrong in ({}, {"progressToken": "other", "progress": 1}):
        await client.notify("notifications/progress", wrong)
    assert (await client.notify("notifications/progress", report)).status == 202
    await server.until(lambda: "notifications/progress" in server.methods(call.session))
    [sent] = [each for _, each in server.received if each.get("method") == "notifications/progress"]
    assert sent["params"]["progressToken"] == "tok"


async def test_an_unanswered_question_ends_after_a_while(server: MovedServer) -> None:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    serve = {"listen": "127.0.0.1:0", "input_wait_s": 0.05}
    async with Gateway({"servers": servers}, serve=serve) as gateway, aiohttp.ClientSession() as http:
        client = await SessionClient(http, f"{gateway.url}/servers/a/mcp").begin(ASKABLE)
        call, calling = await held(client, server)
        answer = call.ask("roots/list", {})
        events = events_of(await calling)
        question = await events.message()
        assert "has not answered within" in (await answer)["error"]["message"]
        assert (await events.message())["params"]["requestId"] == question["id"]
        client.close()


async def test_a_server_of_2026_asks_a_client_of_2025(begin: Begin, gateway: Gateway) -> None:
    with EraServer() as era:
        await gateway.manager.deploy("new", {"url": era.url})
        client = await begin(ASKABLE)
        client.url = f"{gateway.url}/servers/new/mcp"
        await client.begin(ASKABLE)
        calling = asyncio.create_task(client.post("tools/call", {"name": "ask", "arguments": {}}, "x"))
        events = events_of(await calling)
        question = await events.message()
        assert question["method"] == "elicitation/create" and question["params"]["message"] == "Who?"
        await client.answer(question["id"], {"action": "accept", "content": {"name": "Ada"}})
        [reply] = await events.rest()
        assert reply == {
            "jsonrpc": "2.0",
            "id": "x",
            "result": {"content": [{"type": "text", "text": "Ada"}], "isError": False},
        }
        await client.end()


# Notifications during a call


async def test_progress_and_log_messages_come_on_the_stream_of_the_call(begin: Begin, server: MovedServer) -> None:
    client = await begin()
    call, calling = await held(client, server, progressToken=17)
    token = call.message["params"]["_meta"]["progressToken"]
    call.send("notifications/progress", {"progressToken": token, "progress": 1})
    call.send(LOG, {"level": "debug", "data": "x"})
    call.reply()
    progress, log, reply = await events_of(await calling).rest()
    assert progress["params"] == {"progressToken": 17, "progress": 1}
    assert log == {"jsonrpc": "2.0", "method": LOG, "params": {"level": "debug", "data": "x"}}
    assert "result" in reply


async def test_log_messages_are_filtered_by_the_level_of_the_session(begin: Begin, server: MovedServer) -> None:
    client, other = await begin(), await begin()
    assert (await client.request("logging/setLevel", {"level": "loud"}))["error"]["code"] == -32602
    assert (await client.request("logging/setLevel", {"level": "error"}))["result"] == {}
    assert (await other.request("logging/setLevel", {"level": "info"}))["result"] == {}
    levels = [each["params"]["level"] for _, each in server.received if each.get("method") == "logging/setLevel"]
    assert levels == ["error", "info"]
    seen = []
    for asker in (client, other):
        call, calling = await held(asker, server)
        for level in ("debug", "info", "error", "emergency"):
            call.send(LOG, {"level": level, "data": level})
        call.reply()
        seen.append([each["params"]["level"] for each in (await events_of(await calling).rest())[:-1]])
    assert seen == [["error", "emergency"], ["info", "error", "emergency"]]


async def test_the_level_reaches_the_sessions_that_servers_keep_for_the_client(
    begin: Begin, server: MovedServer
) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    assert (await client.request("logging/setLevel", {"level": "notice"}))["result"] == {}
    assert server.methods(call.session).count("logging/setLevel") == 1
    call.reply()
    await calling


async def test_a_client_that_accepts_no_stream_gets_json_and_is_not_asked(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": HOLD}
    calling = asyncio.create_task(client.send(request, Accept="application/json"))
    call = await server.call("hold")
    call.send(LOG, {"level": "error", "data": "x"})
    assert "accepts no event stream" in (await call.ask("roots/list", {}))["error"]["message"]
    call.reply()
    assert (await (await calling).json())["id"] == 1


# Resumption


async def test_a_broken_stream_is_resumed_where_it_broke(begin: Begin, server: MovedServer) -> None:
    client = await begin(ASKABLE)
    call, calling = await held(client, server)
    call.send(LOG, {"level": "info", "data": 0})
    events = events_of(await calling)
    first = await events.next()
    assert first is not None and first.message is None and first.retry is not None
    assert (await events.message())["params"]["data"] == 0
    events.close()
    call.send(LOG, {"level": "info", "data": 1})
    answer = call.ask("roots/list", {})
    resumed = await client.listen(events.last_id)
    assert (await resumed.message())["params"]["data"] == 1
    question = await resumed.message()
    assert (await client.answer(question["id"], {"roots": []})).status == 202
    assert (await answer)["result"] == {"roots": []}
    # Once more, from before, while the connection is open.
    again = await client.listen(events.last_id)
    assert await resumed.rest() == []
    assert (await again.message())["params"]["data"] == 1
    assert (await again.message())["id"] == question["id"]
    call.reply("at last")
    [reply] = await again.rest()
    assert reply["result"]["content"][0]["text"] == "at last"
    late = await client.listen(again.last_id.rpartition(".")[0] + ".3")
    assert [each["result"]["content"][0]["text"] for each in await late.rest()] == ["at last"]


async def test_a_call_that_takes_long_can_be_resumed_though_nothing_was_sent(server: MovedServer) -> None:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    serve = {"listen": "127.0.0.1:0", "keepalive_s": 0.02}
    async with Gateway({"servers": servers}, serve=serve) as gateway, aiohttp.ClientSession() as http:
        client = await SessionClient(http, f"{gateway.url}/servers/a/mcp").begin()
        call, calling = await held(client, server)
        events = events_of(await calling)
        first = await events.next()
        assert first is not None and first.id and first.message is None
        events.close()
        call.reply("in the end")
        [reply] = await (await client.listen(first.id)).rest()
        assert reply["result"]["content"][0]["text"] == "in the end"
        client.close()


async def test_unknown_and_foreign_events_are_refused_and_the_session_stays(begin: Begin, server: MovedServer) -> None:
    client, other = await begin(), await begin()
    call, calling = await held(client, server)
    call.send(LOG, {"level": "info", "data": 0})
    events = events_of(await calling)
    await events.message()
    assert (await other.get(events.last_id)).status == 400
    for wrong in ("x", "0.x.1", events.last_id + "0"):
        assert (await client.get(wrong)).status == 400
    assert (await client.request("ping"))["result"] == {}
    call.reply()
    assert len(await events.rest()) == 1


@pytest.mark.parametrize("revision, primed, resumable", [("2025-06-18", False, True), ("2024-11-05", False, False)])
async def test_events_are_as_the_revision_has_them(
    begin: Begin, server: MovedServer, revision: str, primed: bool, resumable: bool
) -> None:
    client = await begin(revision=revision)
    call, calling = await held(client, server)
    call.send(LOG, {"level": "info", "data": 0})
    call.reply()
    events = events_of(await calling)
    first = await events.next()
    assert first is not None and (first.message is None) == primed and bool(first.id) == resumable
    assert len(await events.rest()) == 1


# Standing streams


async def test_list_changes_and_updates_come_on_the_standing_stream(begin: Begin, server: MovedServer) -> None:
    client = await begin()
    standing = await client.listen()
    assert (await client.get()).status == 409
    assert (await client.request("resources/subscribe", {"uri": "test://x"}))["result"] == {}
    assert (await client.request("resources/subscribe", {}))["error"]["code"] == -32602
    await server.until(lambda: server.standing)
    [upstream] = server.standing.values()
    upstream.put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert (await standing.message())["method"] == "notifications/tools/list_changed"
    updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "test://x"}}
    upstream.put_nowait(updated)
    assert await standing.message() == updated
    assert (await client.request("resources/unsubscribe", {"uri": "test://x"}))["result"] == {}
    await server.until(lambda: "resources/unsubscribe" in server.methods())


async def test_a_standing_stream_is_resumed(begin: Begin, gateway: Gateway, server: MovedServer) -> None:
    client = await begin()
    tasks = len(asyncio.all_tasks())
    standing = await client.listen()
    await standing.next()
    assert len(asyncio.all_tasks()) == tasks, "an idle stream has a task"
    assert gateway._connections is not None
    assert gateway._connections._pool.handed_over == 0
    assert gateway._keep_alives.streams == 1
    await server.until(lambda: server.standing)
    [upstream] = server.standing.values()
    standing.close()
    upstream.put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    resumed = await client.listen(standing.last_id)
    assert (await resumed.message())["method"] == "notifications/tools/list_changed"
    assert (await client.get()).status == 409


async def test_a_standing_stream_that_is_forgotten_is_replaced(
    begin: Begin, gateway: Gateway, server: MovedServer
) -> None:
    client = await begin()
    standing = await client.listen()
    await standing.next()
    gateway._sessions.logs.close()
    again = await client.listen(standing.last_id)
    await server.until(lambda: server.standing)
    [upstream] = server.standing.values()
    upstream.put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert (await again.message())["method"] == "notifications/tools/list_changed"
    assert (await client.get(standing.last_id)).status == 409


async def test_messages_of_no_call_come_on_the_standing_stream_of_their_session(
    begin: Begin, server: MovedServer
) -> None:
    client, other = await begin(ASKABLE), await begin(ASKABLE)
    standing, others = await client.listen(), await other.listen()
    call, calling = await held(client, server)
    await server.until(lambda: call.session in server.standing)
    server.asked[5] = asyncio.get_running_loop().create_future()
    upstream = server.standing[call.session]
    upstream.put_nowait({"jsonrpc": "2.0", "id": 5, "method": "roots/list"})
    upstream.put_nowait({"jsonrpc": "2.0", "method": LOG, "params": {"level": "info", "data": "mine"}})
    answer = server.asked[5]
    found = [await standing.message(), await standing.message()]
    [question] = [each for each in found if "id" in each]
    assert {each["method"] for each in found} == {"roots/list", LOG}
    await client.answer(question["id"], {"roots": []})
    assert (await answer)["result"] == {"roots": []}
    call.reply()
    await calling
    await other.end()
    assert await others.rest() == []


async def test_changed_roots_are_told_to_the_sessions_of_the_client(begin: Begin, server: MovedServer) -> None:
    client, other = await begin(ASKABLE), await begin(ASKABLE)
    sessions = []
    for each in (client, other):
        call, calling = await held(each, server)
        sessions.append(call.session)
        call.reply()
        await calling
    assert (await client.notify("notifications/roots/list_changed")).status == 202
    await server.until(lambda: "notifications/roots/list_changed" in server.methods(sessions[0]))
    assert "notifications/roots/list_changed" not in server.methods(sessions[1])


async def test_standing_streams_end_when_the_gateway_does(server: MovedServer) -> None:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with aiohttp.ClientSession() as http:
        async with Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway:
            client = await SessionClient(http, f"{gateway.url}/servers/a/mcp").begin()
            standing: EventReader = await client.listen()
            await standing.next()
        assert await standing.rest() == []
