"""Clients of 2026-07-28 in front of servers of both eras, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import mcp
import mcp_types
import pytest
from support.calls import CALM
from support.era_server import EraServer
from support.questioning import NAME, QuestioningServer, StatelessClient

from mcp_manager.gateway import Gateway

ASKABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "roots": {}}
ANN = {"action": "accept", "content": {"name": "Ann"}}
ROOTS = {"roots": [{"uri": "file:///a"}]}
SERVE = {"listen": "127.0.0.1:0", "keepalive_s": 30.0}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def old() -> AsyncIterator[QuestioningServer]:
    async with QuestioningServer() as server:
        yield server


@pytest.fixture
async def gateway(old: QuestioningServer) -> AsyncIterator[Gateway]:
    with EraServer() as new:
        servers = {"old": {"url": old.url, **CALM}, "new": {"url": new.url, **CALM}}
        async with Gateway({"servers": servers}, serve=SERVE) as gateway:
            await gateway.manager.wait_ready()
            yield gateway


def client(
    gateway: Gateway, session: aiohttp.ClientSession, server: str = "old", **capabilities: Any
) -> StatelessClient:
    return StatelessClient(session, f"{gateway.url}/servers/{server}/mcp", **capabilities)


async def test_a_question_becomes_a_result_and_the_retry_answers_it(
    gateway: Gateway, session: aiohttp.ClientSession, old: QuestioningServer
) -> None:
    ana = client(gateway, session, **ASKABLE)
    asked = await ana.call("ask")
    assert asked.result["resultType"] == "input_required"
    assert list(asked.result["inputRequests"].values()) == [{"method": "elicitation/create", "params": NAME}]
    key = next(iter(asked.result["inputRequests"]))
    done = await ana.again("ask", asked, **{key: ANN})
    assert done.result["structuredContent"] == {"answers": [ANN]}
    assert done.result["resultType"] == "complete"
    assert done.message["id"] == 2
    assert old.capabilities[-1] == ASKABLE
    assert len(old.called) == 1


async def test_questions_of_one_moment_are_asked_together_by_the_names_of_the_server(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    ana = client(gateway, session, **ASKABLE)
    asked = await ana.call("pair")
    assert set(asked.result["inputRequests"]) == {"who", "where"}
    rest = await ana.again("pair", asked, who=ANN)
    assert set(rest.result["inputRequests"]) == {"where"}
    done = await ana.again("pair", rest, where=ROOTS, extra={})
    assert done.result["structuredContent"] == {"answers": [ANN, ROOTS]}


async def test_later_questions_take_further_rounds(gateway: Gateway, session: aiohttp.ClientSession) -> None:
    ana = client(gateway, session, **ASKABLE)
    asked = await ana.call("twice")
    second = await ana.again("twice", asked, first=ANN)
    assert set(second.result["inputRequests"]) == {"second"}
    done = await ana.again("twice", second, second={"action": "decline"})
    assert done.result["structuredContent"] == {"answers": [ANN, {"action": "decline"}]}
    over = await ana.again("twice", second, second=ANN)
    assert (over.status, over.error["code"]) == (400, -32602)


@pytest.mark.parametrize("responses", [{}, {"wrong": ANN}, {"first": 7}, {"first": {"action": "no"}}])
async def test_input_that_is_missing_or_malformed_is_asked_for_again(
    gateway: Gateway, session: aiohttp.ClientSession, responses: dict[str, Any]
) -> None:
    ana = client(gateway, session, **ASKABLE)
    asked = await ana.call("twice")
    again = await ana.again("twice", asked, **responses)
    assert again.result["inputRequests"] == asked.result["inputRequests"]
    second = await ana.again("twice", again, first=ANN)
    assert set(second.result["inputRequests"]) == {"second"}


async def test_a_capability_that_is_not_declared_is_named(gateway: Gateway, session: aiohttp.ClientSession) -> None:
    refused = await client(gateway, session).call("ask")
    assert (refused.status, refused.error["code"]) == (400, -32021)
    assert refused.error["data"] == {"requiredCapabilities": {"elicitation": {}}}
    # The session of this client with the server does not declare it either.
    refused = await client(gateway, session, roots={}).call("ask")
    assert refused.error["data"] == {"requiredCapabilities": {"elicitation": {}}}
    ana = client(gateway, session, elicitation={})
    refused = await ana.again("pair", await ana.call("pair"), who=ANN)
    assert refused.error["data"] == {"requiredCapabilities": {"roots": {}}}


async def test_a_tool_may_do_without_what_the_client_does_not_declare(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    for capabilities in ({}, {"roots": {}}):
        done = await client(gateway, session, **capabilities).call("ask", arguments={"copes": True})
        assert done.result["structuredContent"] == {"answers": [{"refused": -32600}]}
    asked = await client(gateway, session, elicitation={}).call("pair", arguments={"copes": True})
    assert set(asked.result["inputRequests"]) == {"who"}
    done = await client(gateway, session, elicitation={}).again("pair", asked, who=ANN)
    assert done.result["structuredContent"] == {"answers": [ANN, {"refused": -32600}]}


@pytest.mark.parametrize("server", ["old", "new"])
async def test_a_state_that_was_changed_or_belongs_elsewhere_is_refused(
    gateway: Gateway, session: aiohttp.ClientSession, server: str
) -> None:
    ana = client(gateway, session, server, **ASKABLE)
    asked = await ana.call("ask")
    state = asked.result["requestState"]
    for name, wrong in (("ask", state + "-TAMPERED"), ("echo", state), ("ask", "x"), ("ask", "")):
        refused = await ana.call(name, requestState=wrong, inputResponses={"name": ANN})
        assert (refused.status, refused.error["code"]) == (400, -32602)
    other = client(gateway, session, "new" if server == "old" else "old", **ASKABLE)
    refused = await other.call("ask", requestState=state, inputResponses={"name": ANN})
    assert refused.error["code"] == -32602


async def test_the_state_of_a_stateless_server_comes_back_to_it_unchanged(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    ana = client(gateway, session, "new", **ASKABLE)
    asked = await ana.call("ask")
    # The server checks that it is its own state, byte for byte.
    done = await ana.again("ask", asked, name=ANN)
    assert done.result["resultType"] == "complete"


async def test_a_url_to_visit_is_asked_for_in_the_way_of_the_era(
    gateway: Gateway, session: aiohttp.ClientSession, old: QuestioningServer
) -> None:
    ana = client(gateway, session, **ASKABLE)
    asked = await ana.call("visit")
    (question,) = asked.result["inputRequests"].values()
    assert (question["method"], question["params"]["mode"]) == ("elicitation/create", "url")
    done = await ana.again("visit", asked, input_1={"action": "accept"})
    assert done.result["structuredContent"]["seen"].keys() <= {"name", "arguments", "_meta"}
    assert len(old.called) == 2


async def test_a_client_that_goes_cancels_its_call(
    gateway: Gateway, session: aiohttp.ClientSession, old: QuestioningServer
) -> None:
    for capabilities in ({}, ASKABLE):
        old.cancelled.clear()
        old.waiting.clear()
        request = asyncio.ensure_future(client(gateway, session, **capabilities).call("never"))
        await old.waiting.wait()
        request.cancel()
        await asyncio.wait({request})
        await old.cancelled.wait()


async def test_a_call_that_waits_for_input_ends_with_the_gateway(
    gateway: Gateway, session: aiohttp.ClientSession, old: QuestioningServer
) -> None:
    asked = await client(gateway, session, **ASKABLE).call("ask")
    assert asked.result["resultType"] == "input_required"
    await gateway.stop()
    await old.cancelled.wait()


async def test_progress_and_log_messages_come_on_the_stream_of_the_request(
    gateway: Gateway, session: aiohttp.ClientSession, old: QuestioningServer
) -> None:
    for capabilities in ({}, ASKABLE):
        ana = client(gateway, session, **capabilities)
        quiet = await ana.call("chatty", _meta={"progressToken": "mine"})
        assert [each["method"] for each in quiet.before] == ["notifications/progress"]
        assert quiet.before[0]["params"]["progressToken"] == "mine"
        level = {"io.modelcontextprotocol/logLevel": "info"}
        told = await ana.call("chatty", _meta={"progressToken": 7, **level})
        logged = [each["params"]["level"] for each in told.before if each["method"] == "notifications/message"]
        assert logged == ["info", "error"]
    # All sessions of the server are told, later ones when they begin.
    assert set(old.levels) == {"info"}
    # A server of the handshake era is not told what was said for the gateway.
    assert all("io.modelcontextprotocol/protocolVersion" not in params.get("_meta", {}) for params in old.called)


async def test_arguments_in_header_fields_must_agree(gateway: Gateway, session: aiohttp.ClientSession) -> None:
    ana = client(gateway, session)
    place = {"name": "located", "arguments": {"place": "Zürich"}}
    sent = {"Mcp-Param-Place": "=?base64?WsO8cmljaA==?="}
    assert (await ana.send("tools/call", place, sent)).result["resultType"] == "complete"
    for wrong in ({}, {"Mcp-Param-Place": "Bern"}, {"Mcp-Param-Place": "=?base64?WsO8cmljaA=?="}):
        refused = await ana.send("tools/call", place, wrong)
        assert (refused.status, refused.error["code"]) == (400, -32020)
    other = await ana.send("tools/call", {"name": "located", "arguments": {}}, {"Mcp-Param-Other": "x"})
    assert other.result["resultType"] == "complete"


async def test_what_is_asked_for_is_found_or_not_in_the_words_of_the_era(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    ana = client(gateway, session)
    missing = await ana.send("resources/read", {"uri": "a:b"})
    assert (missing.status, missing.error["code"], missing.error["data"]["uri"]) == (400, -32602, "a:b")
    for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "unknown/method"):
        unknown = await ana.send(method, {"uri": "a:b"})
        assert (unknown.status, unknown.error["code"]) == (404, -32601)
    async with ana.post("notifications/whatever") as response:
        assert response.status == 404
    listed = await ana.send("tools/list")
    assert (listed.result["ttlMs"], listed.result["cacheScope"]) == (0, "private")


async def test_a_gateway_introduces_its_server(gateway: Gateway, session: aiohttp.ClientSession) -> None:
    found = (await client(gateway, session).send("server/discover")).result
    assert found["supportedVersions"] == ["2026-07-28"]
    assert found["capabilities"]["tools"]["listChanged"] is True
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]
    assert (found["resultType"], found["ttlMs"], found["cacheScope"]) == ("complete", 0, "private")


async def test_the_official_client_answers_questions_of_a_server_of_the_other_era(gateway: Gateway) -> None:
    asked = []

    async def answer(context: Any, params: Any) -> mcp_types.ElicitResult:
        asked.append(params.message)
        return mcp_types.ElicitResult(action="accept", content={"name": "Ann"})

    async with mcp.Client(f"{gateway.url}/mcp", elicitation_callback=answer) as client:
        result = await client.call_tool("old__twice", {})
    assert asked == ["Who?", "Who?"]
    assert result.structured_content == {"answers": [ANN, ANN]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', 400),
        (b"{", 400),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', 400),
        (b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}', 202),
    ],
)
async def test_bodies_of_other_kinds(
    gateway: Gateway, session: aiohttp.ClientSession, body: bytes, status: int
) -> None:
    fields = {"Content-Type": "application/json", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    async with session.post(f"{gateway.url}/servers/old/mcp", data=body, headers=fields) as response:
        assert response.status == status
        assert status == 202 or "error" in await response.json()
