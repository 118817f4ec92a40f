"""Several principals at one gateway: who shows no credentials gets nothing, and nobody gets what is another's."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.calls import CALM
from support.catalog_server import tool
from support.principals import Keys, http_for
from support.questioning import QuestioningServer, StatelessClient
from support.session_clients import EventReader, MovedServer, SessionClient
from support.stateless_server import StatelessServer, Task, task_result
from support.worker_gateways import SECRET, WorkerGateways

from mcp_manager import ConfigError
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.workers.assignment import socket_path

ASKABLE: dict[str, Any] = {"elicitation": {"form": {}}, "roots": {}}
ANN = {"action": "accept", "content": {"name": "Ann"}}
TASKS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


class Place:
    """A gateway that asks for API keys, its servers, and HTTP clients of two principals and of nobody."""

    def __init__(self, keys: Keys, gateway: Gateway, moved: MovedServer, clients: list[aiohttp.ClientSession]) -> None:
        self.keys = keys
        self.gateway = gateway
        self.moved = moved
        self.ann, self.bob, self.nobody = clients

    def url(self, server: str) -> str:
        return f"{self.gateway.url}/servers/{server}/mcp"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    keys = Keys(tmp_path, "ann", "bob")
    async with AsyncExitStack() as stack:
        moved = await stack.enter_async_context(MovedServer().running())
        asking = await stack.enter_async_context(QuestioningServer())
        results = {
            "tools/list": {"resultType": "complete", "tools": [tool("slow")]},
            "tools/call": task_result("t/1", {"status": "working"}, "task"),
        }
        tasks = stack.enter_context(StatelessServer(results=results))
        tasks.tasks["t/1"] = Task([{"status": "working"}])
        servers = {
            "moved": {"url": moved.url, "protocol_version": "2025-11-25"},
            "asking": {"url": asking.url, **CALM},
            "tasks": {"url": tasks.url, **CALM},
        }
        config = {"servers": servers, "views": {"few": {"servers": ["moved"]}}}
        serve = {"listen": "127.0.0.1:0", "legacy_sse": True, "keepalive_s": 30.0, "auth": keys.auth}
        gateway = await stack.enter_async_context(Gateway(config, serve=serve))
        clients = [
            await stack.enter_async_context(each)
            for each in (http_for(keys, "ann"), http_for(keys, "bob"), aiohttp.ClientSession())
        ]
        yield Place(keys, gateway, moved, clients)


async def test_nobody_learns_what_there_is(place: Place) -> None:
    """Whatever a client without credentials asks for, the answer is the same whether it exists or not."""

    async def answer(method: str, path: str, http: aiohttp.ClientSession = place.nobody, **more: Any) -> Any:
        async with http.request(method, place.gateway.url + path, **more) as response:
            body = await response.read()
            told = {name: value for name, value in response.headers.items() if name != "Date"}
            return response.status, body.replace(path.encode(), b"PATH"), told

    paths = ("/mcp", "/mcp/few", "/mcp/none", "/servers/moved/mcp", "/servers/none/mcp")
    for method, more in (("POST", {"json": PING, "headers": ACCEPT}), ("GET", {}), ("DELETE", {}), ("PUT", {})):
        answers = [await answer(method, path, **more) for path in paths]
        assert answers[0][0] == 401 and "WWW-Authenticate" in answers[0][2]
        assert all(each == answers[0] for each in answers), method
    for path in ("/", "/metrics", "/sse", "/servers/moved/sse", "/none"):
        assert (await answer("GET", path))[0] == 401, path
    assert (await answer("POST", "/messages?session=0.x", json=PING))[0] == 401
    origin = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    preflights = [await answer("OPTIONS", path, headers=origin) for path in paths]
    assert preflights[0][0] == 204 and all(each == preflights[0] for each in preflights)
    refused = await answer("POST", "/mcp", json=PING, headers=origin)
    assert refused[2]["Access-Control-Allow-Origin"] == "http://localhost"
    assert "WWW-Authenticate" in refused[2]["Access-Control-Expose-Headers"]
    assert (await answer("GET", "/health"))[0] == (await answer("GET", "/ready"))[0] == 200
    assert (await answer("POST", "/mcp?access_token=" + place.keys.of["ann"], json=PING, headers=ACCEPT))[0] == 401
    # With credentials, what does not exist is not found.
    found = [await answer("POST", path, place.ann, json=PING, headers=ACCEPT) for path in paths]
    assert [each[0] for each in found] == [400, 400, 404, 400, 404]
    assert (await answer("GET", "/", place.ann))[0] == (await answer("GET", "/metrics", place.ann))[0] == 200


async def test_credentials_stay_in_the_gateway(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = place.keys.of["ann"]
    by_field = {"X-API-Key": key}
    async with aiohttp.ClientSession(headers=by_field) as http:
        client = await SessionClient(http, place.url("moved")).begin(ASKABLE)
        calling = asyncio.create_task(client.request("tools/call", {"name": "hold"}))
        (await place.moved.call("hold")).reply()
        assert "result" in await calling
        await client.end()
        shown = [await client.request("tools/call", {"name": "hold", "arguments": {}})]
        assert "error" in shown[0]
        for path in ("/", "/metrics"):
            async with http.get(place.gateway.url + path) as response:
                assert response.status == 200
                shown.append(await response.text())
    assert len(place.moved.headers) > 2
    for text in (
        *place.moved.headers,
        json.dumps(place.moved.received),
        json.dumps(shown),
        caplog.text,
        repr(place.gateway.serve),
    ):
        assert key not in text and key[5:20] not in text


async def test_a_session_belongs_to_its_principal(place: Place) -> None:
    ann = await SessionClient(place.ann, place.url("moved")).begin(ASKABLE)
    thief = SessionClient(place.bob, place.url("moved"))
    thief.session_id = ann.session_id
    standing = await ann.listen()
    calling = asyncio.create_task(ann.post("tools/call", {"name": "hold"}))
    held = await place.moved.call("hold")
    asked = held.ask("elicitation/create", {"message": "<ann>", "requestedSchema": {}})
    reader = EventReader(await calling)
    question = await reader.message()
    stolen = reader.last_id
    for response in (
        await thief.post("ping"),
        await thief.send([PING]),
        await thief.answer(question["id"], ANN),
        await thief.notify("notifications/cancelled", {"requestId": 1}),
        await thief.get(),
        await thief.get(stolen),
        await thief.end(),
    ):
        assert response.status == 404, await response.text()
    # In a session of its own, the thief has no use either for what it knows of another's.
    bob = await SessionClient(place.bob, place.url("moved")).begin(ASKABLE)
    assert (await bob.get(stolen)).status == 400
    await bob.answer(question["id"], {"action": "accept", "content": {"name": "Bob"}})
    assert not asked.done()
    assert (await ann.answer(question["id"], ANN)).status == 202
    assert (await asked)["result"] == ANN
    held.reply("<ann>")
    assert (await reader.message())["result"]["content"][0]["text"] == "<ann>"
    assert "result" in await ann.request("ping")
    standing.close()


async def test_states_and_tasks_belong_to_their_principal(place: Place) -> None:
    ann = StatelessClient(place.ann, place.url("asking"), **ASKABLE)
    asked = await ann.call("ask")
    key = next(iter(asked.result["inputRequests"]))
    bob = StatelessClient(place.bob, place.url("asking"), **ASKABLE)
    refused = await bob.again("ask", asked, **{key: ANN})
    assert (refused.status, refused.error["code"]) == (400, -32602)
    done = await ann.again("ask", asked, **{key: ANN})
    assert done.result["structuredContent"] == {"answers": [ANN]}

    fleet = f"{place.gateway.url}/mcp"
    ann = StatelessClient(place.ann, fleet, **TASKS)
    task_id = (await ann.send("tools/call", {"name": "tasks__slow", "arguments": {}})).result["taskId"]
    bob = StatelessClient(place.bob, fleet, **TASKS)
    for method in ("tasks/get", "tasks/cancel"):
        reply = await bob.send(method, {"taskId": task_id}, {"Mcp-Name": task_id})
        assert reply.error["code"] == -32602
    assert (await ann.send("tasks/get", {"taskId": task_id})).result["status"] == "working"


async def test_streams_of_http_sse_belong_to_their_principal(place: Place) -> None:
    root = place.gateway.url
    async with place.ann.get(f"{root}/servers/moved/sse") as stream:
        assert stream.status == 200
        lines = [(await stream.content.readline()).decode() for _ in range(3)]
        url = root + lines[1].removeprefix("data: ").strip()
        async with place.bob.post(url, json=PING) as response:
            assert response.status == 404
        async with place.nobody.post(url, json=PING) as response:
            assert response.status == 401
        async with place.ann.post(url, json=PING) as response:
            assert response.status == 202


async def test_streams_end_when_the_key_is_revoked(place: Place) -> None:
    session = await SessionClient(place.ann, place.url("moved")).begin()
    standing = await session.listen()
    ann = StatelessClient(place.ann, place.url("moved"))
    listening = await ann.post("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    sse = await place.ann.get(f"{place.gateway.url}/servers/moved/sse")
    others = await SessionClient(place.bob, place.url("moved")).begin()
    kept = await others.listen()
    calling = asyncio.create_task(session.request("tools/call", {"name": "hold"}))
    held = await place.moved.call("hold")
    place.keys.revoke("ann")
    place.gateway._security.authentication.reread_keys()
    place.gateway._security.leases.look_at_all()
    assert await standing.rest() == []
    ended = await listening.text()
    assert '"resultType":"complete"' in ended
    await sse.content.read()
    assert (await session.post("ping")).status == 401
    # A call that was under way finishes.
    held.reply("late")
    assert (await calling)["result"]["content"][0]["text"] == "late"
    assert len(place.gateway._security.leases) == 1
    kept.close()


async def test_access_changes_while_the_gateway_serves(place: Place, tmp_path: Path) -> None:
    gateway, keys = place.gateway, place.keys
    ann = await SessionClient(place.ann, f"{gateway.url}/mcp").begin()
    rules = [{"principals": ["bob"], "servers": ["moved"]}]
    await gateway.replace_serve({"auth": keys.auth, "allow": rules})
    assert (await ann.post("ping")).status == 404
    bob = await SessionClient(place.bob, f"{gateway.url}/mcp").begin()
    assert "result" in await bob.request("ping")
    assert (await SessionClient(place.bob, place.url("asking")).post("ping")).status == 404
    async with place.bob.get(f"{gateway.url}/") as response:
        told = await response.json()
        assert (told["endpoints"], told["servers"]) == (["/mcp", "/mcp/few"], ["/servers/moved/mcp"])
    async with place.bob.get(f"{gateway.url}/metrics") as response:
        assert response.status == 403
    await gateway.replace_serve({"auth": {**keys.auth, "operators": ["b*"]}, "allow": rules})
    async with place.bob.get(f"{gateway.url}/metrics") as response:
        assert response.status == 200
    # What cannot be used changes nothing.
    before = gateway.serve
    missing = {"type": "api_key", "keys_file": str(tmp_path / "missing")}
    with pytest.raises(ConfigError, match="cannot be read"):
        await gateway.replace_serve({"auth": missing})
    assert gateway.serve is before
    assert "result" in await bob.request("ping")
    # Sessions of nobody in particular are not those of principals.
    await gateway.replace_serve({})
    async with aiohttp.ClientSession() as http:
        anybody = await SessionClient(http, f"{gateway.url}/mcp").begin()
        assert (await bob.post("ping")).status == 404
        await gateway.replace_serve({"auth": keys.auth})
        assert (await anybody.post("ping")).status == 401
    assert "result" in await bob.request("ping")


async def test_clients_of_other_machines_need_credentials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(tmp_path, "ann")
    serve = {"listen": "0.0.0.0:0", "auth": keys.auth}
    async with Gateway({}, serve=serve) as gateway:
        assert [each for each in caplog.messages if "clear text" in each]
        url = f"http://127.0.0.1:{gateway.port}/mcp"
        async with http_for(keys, "ann") as http, http.post(url, json=PING, headers=ACCEPT) as response:
            assert response.status == 400
        async with aiohttp.request("POST", url, json=PING, headers=ACCEPT) as response:
            assert response.status == 401
        with pytest.raises(ConfigError, match="would not have to authenticate"):
            await gateway.replace_serve({})
        async with aiohttp.request("POST", url, json=PING, headers=ACCEPT) as response:
            assert response.status == 401
    caplog.clear()
    async with Gateway({}, serve={**serve, "behind_tls_proxy": True}):
        assert not [each for each in caplog.messages if "clear text" in each]
    # Nor does a socket that a program passes let others in.
    reached = socket.create_server(("0.0.0.0", 0))
    gateway = Gateway({}, serve={"listen": "127.0.0.1:0"})
    with pytest.raises(ConfigError, match="would not have to authenticate"):
        await gateway.start([reached])
    assert reached.fileno() == -1


async def test_workers_authenticate_what_they_pass_to_each_other(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    async with (
        MovedServer().running() as moved,
        WorkerGateways.running(
            {"servers": {"s": {"url": moved.url, "protocol_version": "2025-11-25"}}}, auth=keys.auth
        ) as workers,
        http_for(keys, "ann") as of_ann,
        http_for(keys, "bob") as of_bob,
    ):
        ann = await SessionClient(of_ann, f"{workers.urls[0]}/servers/s/mcp").begin(ASKABLE)
        # Another worker passes it to the one that has the session.
        ann.url = f"{workers.urls[1]}/servers/s/mcp"
        standing = await ann.listen()
        assert "result" in await ann.request("ping")
        for url in workers.urls:
            thief = SessionClient(of_bob, f"{url}/servers/s/mcp")
            thief.session_id = ann.session_id
            assert [(await thief.get()).status, (await thief.post("ping")).status] == [404, 404]
        # The secret of the workers alone says nothing of whom a request is for.
        forged = {"mcp-manager-sibling": SECRET, "mcp-manager-principal": "ann"}
        assert (await thief.send(PING, **forged)).status == 404
        place_of_worker = socket_path(workers.gateways[1]._worker.assignment.directory, 1)
        async with aiohttp.ClientSession(
            headers=of_bob.headers, connector=aiohttp.UnixConnector(place_of_worker)
        ) as local:
            thief = SessionClient(local, "http://localhost/servers/s/mcp")
            thief.session_id = ann.session_id
            assert (await thief.send(PING, **forged)).status == 403
        standing.close()
