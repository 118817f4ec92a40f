"""Several workers at one address: whatever a client sends to one of them is answered as if there were only one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.session_clients import EventReader, MovedServer, SessionClient
from support.worker_gateways import SECRET, WorkerGateways, stateless_call

pytestmark = pytest.mark.both_loops

ASKABLE = {"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": True}}
BEGINNING = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
FORM = {"type": "object", "properties": {}}
HOLD = {"name": "hold", "arguments": {}}


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


@pytest.fixture
async def workers(server: MovedServer) -> AsyncIterator[WorkerGateways]:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with WorkerGateways.running({"servers": servers}) as workers:
        yield workers


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


@pytest.fixture
def client(workers: WorkerGateways, http: aiohttp.ClientSession) -> SessionClient:
    return SessionClient(http, f"{workers.urls[0]}/servers/a/mcp")


def move(client: SessionClient, workers: WorkerGateways, number: int) -> None:
    """Let a client send its next requests to another worker, as over another connection."""
    client.url = f"{workers.urls[number]}/servers/a/mcp"


def calls_at(workers: WorkerGateways, number: int) -> int:
    return workers.gateways[number]._reception.under_way


async def test_a_question_and_its_answer_find_each_other(
    client: SessionClient, workers: WorkerGateways, server: MovedServer
) -> None:
    await client.begin(ASKABLE)
    move(client, workers, 1)
    calling = asyncio.create_task(client.post("tools/call", {**HOLD, "_meta": {"progressToken": "t"}}))
    call = await server.call("hold")
    call.send(
        "notifications/progress", {"progressToken": call.message["params"]["_meta"]["progressToken"], "progress": 1}
    )
    answer = call.ask("elicitation/create", {"message": "Who?", "requestedSchema": {}})
    events = EventReader(await calling)
    assert (await events.message())["params"] == {"progressToken": "t", "progress": 1}
    question = await events.message()
    assert question["id"].startswith("0.")
    assert (await client.answer(question["id"], {"action": "accept", "content": {}})).status == 202
    assert (await answer)["result"]["action"] == "accept"
    call.reply("done")
    [reply] = await events.rest()
    assert reply["result"]["content"][0]["text"] == "done"
    # The server has seen one client that it can ask: both workers as one.
    assert len([each for each in server.sessions.values() if "elicitation" in each]) == 1


async def test_a_session_without_capabilities_is_served_where_it_arrives(
    client: SessionClient, workers: WorkerGateways, server: MovedServer
) -> None:
    await client.begin()
    move(client, workers, 1)
    calling = asyncio.create_task(client.request("tools/call", HOLD))
    call = await server.call("hold")
    assert (calls_at(workers, 0), calls_at(workers, 1)) == (0, 1)
    call.reply()
    await calling


@pytest.mark.parametrize("capabilities", [{}, ASKABLE], ids=["plain", "askable"])
async def test_a_call_is_cancelled_through_another_worker(
    client: SessionClient, workers: WorkerGateways, server: MovedServer, capabilities: dict[str, Any]
) -> None:
    await client.begin(capabilities)
    calling = asyncio.create_task(client.post("tools/call", HOLD, 7))
    await server.call("hold")
    move(client, workers, 1)
    assert (await client.notify("notifications/cancelled", {"requestId": 7})).status == 202
    await server.until(lambda: "notifications/cancelled" in server.methods())
    (await calling).close()


@pytest.mark.parametrize("capabilities", [{}, ASKABLE], ids=["plain", "askable"])
async def test_a_session_that_ends_has_ended_everywhere(
    client: SessionClient, workers: WorkerGateways, capabilities: dict[str, Any]
) -> None:
    await client.begin(capabilities)
    for number in (1, 0):
        move(client, workers, number)
        assert (await client.post("ping")).status == 200
    move(client, workers, 1)
    assert (await client.end()).status == 200
    await asyncio.gather(*workers.gateways[1]._worker.siblings._telling)
    for number in (1, 0):
        move(client, workers, number)
        assert (await client.post("ping")).status == 404


@pytest.mark.parametrize("capabilities", [{}, ASKABLE], ids=["plain", "askable"])
async def test_the_standing_stream_is_that_of_the_session(
    client: SessionClient, workers: WorkerGateways, server: MovedServer, capabilities: dict[str, Any]
) -> None:
    await client.begin(capabilities)
    move(client, workers, 1)
    events = await client.listen()
    primed = await events.next()
    assert primed is not None
    assert primed.id.startswith("0.")
    # There is one for both workers.
    move(client, workers, 0)
    assert (await client.get()).status == 409
    news = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    await server.until(lambda: server.standing)
    for each in server.standing.values():
        each.put_nowait(news)
    assert (await events.message())["method"] == news["method"]
    events.close()


async def test_a_stream_is_resumed_through_another_worker(
    client: SessionClient, workers: WorkerGateways, server: MovedServer
) -> None:
    await client.begin()
    move(client, workers, 1)
    calling = asyncio.create_task(client.post("tools/call", {**HOLD, "_meta": {"progressToken": "t"}}))
    call = await server.call("hold")
    token = call.message["params"]["_meta"]["progressToken"]
    call.send("notifications/progress", {"progressToken": token, "progress": 1})
    events = EventReader(await calling)
    assert (await events.message())["params"]["progress"] == 1
    assert events.last_id.startswith("1.")
    events.close()
    move(client, workers, 0)
    resumed = await client.listen(events.last_id)
    call.send("notifications/progress", {"progressToken": token, "progress": 2})
    call.reply("done")
    assert (await resumed.message())["params"]["progress"] == 2
    assert (await resumed.message())["result"]["content"][0]["text"] == "done"
    resumed.close()


async def test_a_call_that_waits_for_input_is_continued_through_another_worker(
    workers: WorkerGateways, server: MovedServer, http: aiohttp.ClientSession
) -> None:
    async def send(number: int, **more: Any) -> Any:
        return await stateless_call(http, f"{workers.urls[number]}/servers/a/mcp", {**HOLD, **more})

    sending = asyncio.create_task(send(0))
    call = await server.call("hold")
    answer = call.ask(
        "elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
    )
    asked = await sending
    assert asked["resultType"] == "input_required"
    [key] = asked["inputRequests"]
    given = {key: {"action": "accept", "content": {}}}
    sending = asyncio.create_task(send(1, requestState=asked["requestState"], inputResponses=given))
    assert (await answer)["result"] == given[key]
    call.reply("done")
    assert (await sending)["content"][0]["text"] == "done"


async def test_a_message_finds_its_stream_of_the_old_transport(
    server: MovedServer, http: aiohttp.ClientSession
) -> None:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with WorkerGateways.running({"servers": servers}, legacy_sse=True, max_request_bytes=4096) as workers:
        async with http.get(f"{workers.urls[0]}/servers/a/sse", headers={"Accept": "text/event-stream"}) as stream:
            assert await stream.content.readline() == b"event: endpoint\n"
            place = (await stream.content.readline()).decode().removeprefix("data: ").strip()
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": BEGINNING}
            for message in (initialize, ping):
                async with http.post(f"{workers.urls[1]}{place}", json=message) as accepted:
                    assert accepted.status == 202
            events = EventReader(stream)
            assert [(await events.message())["id"] for _ in range(2)] == [0, 1]
            for url in workers.urls:
                async with http.post(f"{url}{place}", json={"a": "x" * 5000}) as refused:
                    assert (refused.status, refused.content_type) == (413, "application/json")
        wrong = place.replace("session=0", "session=7")
        async with http.post(f"{workers.urls[1]}{wrong}", json=ping) as refused:
            assert refused.status == 404


async def test_a_level_of_logs_holds_for_all_workers(
    client: SessionClient, workers: WorkerGateways, server: MovedServer
) -> None:
    await client.begin()
    assert (await client.request("logging/setLevel", {"level": "error"}))["result"] == {}
    await asyncio.gather(*workers.gateways[0]._worker.siblings._telling)
    move(client, workers, 1)
    calling = asyncio.create_task(client.request("tools/call", HOLD))
    call = await server.call("hold")
    call.send("notifications/message", {"level": "debug", "data": "x"})
    call.reply()
    assert "result" in await calling


async def test_fields_of_workers_mean_nothing_from_outside(
    client: SessionClient, workers: WorkerGateways, http: aiohttp.ClientSession
) -> None:
    await client.begin(ASKABLE)
    move(client, workers, 1)
    forged = {"Mcp-Manager-Sibling": "forged", "Mcp-Manager-Principal": "somebody"}
    answered = await client.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, **forged)
    assert answered.status == 200
    for path in ("/siblings/metrics", "/siblings/ready"):
        async with http.get(f"{workers.urls[0]}{path}", headers=forged) as refused:
            assert refused.status == 404
        # The secret itself opens nothing over a network, but what siblings reach.
        async with http.get(f"{workers.urls[0]}{path}", headers={"Mcp-Manager-Sibling": SECRET}) as refused:
            assert refused.status == 404
        found = await workers.gateways[1]._worker.siblings.get(path, 10.0)
        assert found.keys() == {0}


async def test_one_worker_tells_the_metrics_of_all(
    client: SessionClient, workers: WorkerGateways, http: aiohttp.ClientSession
) -> None:
    await client.begin()
    async with http.get(f"{workers.urls[1]}/metrics") as page:
        families = {each.name: each for each in text_string_to_metric_families(await page.text())}
    requests = families["mcp_gateway_requests"].samples
    assert {(each.labels["worker"], each.labels["status"], each.value) for each in requests} == {
        ("0", "200", 1.0),
        ("0", "202", 1.0),
    }
    servers = {each.labels["worker"] for each in families["mcp_servers"].samples}
    assert servers == {"0", "1"}
    assert SECRET not in str(families)
