"""Each check that compiled code makes before it forwards a call: one thing changes, and the general path takes the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.catalog_server import CatalogServer, tool
from support.era_server import STATE, EraServer
from support.forwarding_site import Site, call, forwarding_site, text_of
from support.gateway_pipes import stateless_meta
from support.serve_changes import serve_with
from support.session_clients import MovedServer, SessionClient, events_of

from mcp_manager.gateway.http import direct_calls
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.security.pins_file import write_pins

ERA = {"protocol_version": "2025-11-25"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with forwarding_site(tmp_path, session_ttl_s=60) as site:
        yield site


async def is_forwarded(site: Site, client: SessionClient, name: str) -> bool:
    """Tell whether compiled code forwards a call, which succeeds."""
    before = site.path.forwarded
    assert text_of(await call(client, name))
    return site.path.forwarded > before


def calls_of(server: CatalogServer) -> int:
    return len([each for each in server.requests if each.method == "tools/call"])


async def test_where_a_call_goes(site: Site) -> None:
    gateway, crm, wiki = site.gateway, site.servers["crm"], site.servers["wiki"]
    anna, mine = await site.client("anna"), await site.client("anna", "/mcp/mine")

    # A session belongs to one endpoint, whatever was sent on the connection before.
    await site.forwarded(anna, "crm__find")
    anna.url, url = f"{gateway.url}/mcp/mine", anna.url
    assert (await anna.post("tools/call", {"name": "crm__find"})).status == 404
    anna.url = url

    # A route that is no longer surely the same
    await site.forwarded(anna, "crm__find")
    fleet: Any = gateway._paths.find("/mcp")
    fleet._know_routes(0.0)
    assert not await is_forwarded(site, anna, "crm__find")
    fleet._know_routes(60.0)
    assert await is_forwarded(site, anna, "crm__find")

    # A view that was removed, and another one of its name
    await site.forwarded(mine, "find")
    gateway.replace_views({})
    assert (await mine.post("tools/call", {"name": "find"})).status == 404
    gateway.replace_views({"mine": {"servers": ["wiki"], "names": "short"}})
    # From now on, the path leads to another endpoint.
    await site.client("berta", "/mcp/mine")
    before = calls_of(crm)
    assert text_of(await call(mine, "find")) == "find"
    assert calls_of(crm) == before

    # The rules of a server's tools
    single = await site.client("anna", "/servers/crm/mcp")
    await site.forwarded(single, "drop")
    await gateway.manager.redeploy("crm", {"url": crm.url, **ERA, "tools": {"allow": ["find"]}})
    for _ in range(2):
        assert not await is_forwarded(site, single, "find")
    before = calls_of(crm)
    assert "error" in await call(single, "drop")
    assert calls_of(crm) == before
    await gateway.manager.redeploy("crm", {"url": crm.url, **ERA})

    # Credentials of clients that a server gets from now on
    await site.forwarded(anna, "wiki__find")
    await site.forwarded(anna, "crm__find")
    await gateway.replace_serve(serve_with(site.gateway, credentials={"wiki": {"pass_headers": ["X-Team"]}}))
    assert text_of(await call(anna, "crm__find")) == "find"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wiki__find"}}
    async with await anna.send(body, **{"X-Team": "blue"}) as response:
        assert text_of(await response.json()) == "find"
    assert wiki.requests[-1].headers["x-team"] == "blue"

    # What drains
    await site.forwarded(anna, "crm__find")
    gateway._reception.sent.is_enabled = False
    assert not await is_forwarded(site, anna, "crm__find")


async def test_a_server_that_drains_and_another_one_of_its_id(site: Site) -> None:
    manager = site.gateway.manager
    async with MovedServer().running() as old:
        old.replies_json = True
        await manager.deploy("moved", {"url": old.url, **ERA})
        await manager.wait_ready()
        client, other = [
            await SessionClient(site.http[name], f"{site.gateway.url}/servers/moved/mcp").begin()
            for name in ("anna", "berta")
        ]

        async def answered(client: SessionClient) -> None:
            calling = asyncio.create_task(call(client, "hold"))
            (await old.call("hold")).reply()
            assert text_of(await calling) == "done"

        for _ in range(3):
            before = site.path.forwarded
            await answered(client)
        assert site.path.forwarded == before + 1
        holding = asyncio.create_task(call(other, "hold"))
        held = await old.call("hold")
        ending = asyncio.create_task(manager.undeploy("moved"))
        while "moved" in manager._servers:
            await asyncio.sleep(0)
        with CatalogServer({"tools": [tool("hold")]}) as new:
            await manager.deploy("moved", {"url": new.url, **ERA})
            assert text_of(await call(client, "hold")) == "hold"
            assert calls_of(new) == 1
            held.reply()
            assert text_of(await holding) == "done"
            await ending
            await manager.undeploy("moved")


async def test_who_calls(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = await site.client("anna")
    await site.forwarded(anna, "crm__find")
    # Credentials are looked at again before long: here, with each call.
    monkeypatch.setattr(direct_calls, "_BELIEVED_S", 0.0)
    second = await site.client("anna")
    for _ in range(4):
        assert not await is_forwarded(site, second, "crm__find")
    monkeypatch.undo()

    # Sessions end.
    monkeypatch.setattr(type(site.gateway._eras.handshake.ids), "valid_until_ns", lambda *_: 0)
    third = await site.client("anna")
    for _ in range(4):
        assert not await is_forwarded(site, third, "crm__find")
    monkeypatch.undo()

    # Who the client is may depend on another field.
    key = site.http["berta"].headers["Authorization"].removeprefix("Bearer ")
    async with aiohttp.ClientSession(headers={"X-API-Key": key}, connector=aiohttp.TCPConnector(limit=1)) as http:
        shown = await SessionClient(http, f"{site.gateway.url}/mcp").begin()
        for _ in range(4):
            assert not await is_forwarded(site, shown, "crm__find")
        async with await shown.send(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "crm__find"}},
            **{"X-API-Key": "mcpm_nobody"},
        ) as response:
            assert response.status == 401


async def test_stateless_calls_whose_arguments_are_repeated(site: Site) -> None:
    parameters = site.gateway._eras.stateless.parameters
    for _ in range(4):
        before = site.path.forwarded
        assert text_of(await site.stateless("anna", "crm__find")) == "find"
    assert site.path.forwarded == before + 1
    # Whether an argument is repeated in a header field is not known, and then it is one that is.
    fleet = site.gateway._paths.find("/mcp")
    assert fleet is not None
    known = parameters.known.pop(fleet.key)
    assert text_of(await site.stateless("anna", "crm__find")) == "find"
    assert site.path.forwarded == before + 1
    parameters.known[fleet.key] = {**known, "crm__find": {}}
    await site.stateless("anna", "crm__find")
    assert site.path.forwarded == before + 1


async def test_pins_that_block(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "pins"
    write_pins(str(pins), {})
    anna = await site.client("anna")
    await site.forwarded(anna, "crm__find")
    await site.gateway.replace_serve(serve_with(site.gateway, pins={"path": str(pins), "mode": "block"}))
    before = site.path.forwarded
    for _ in range(4):
        assert "error" in await call(anna, "crm__find")
    assert site.path.forwarded == before
    # Not even what is as it was pinned is known for long.
    await site.gateway.replace_serve(serve_with(site.gateway, pins={}))
    await site.forwarded(anna, "crm__find")
    monkeypatch.setattr(Pins, "blocks", True)
    await site.gateway.replace_serve(serve_with(site.gateway, allow=[{"principals": ["*"]}]))
    for _ in range(4):
        assert not await is_forwarded(site, anna, "crm__find")


@pytest.fixture
async def moved(site: Site) -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        server.replies_json = True
        await site.gateway.manager.deploy("moved", {"url": server.url, **ERA})
        await site.gateway.manager.wait_ready()
        yield server
        await site.gateway.manager.undeploy("moved")


async def session_of(server: MovedServer, client: SessionClient) -> str:
    """Make a call; return the session of the server that it comes in."""
    calling = asyncio.create_task(call(client, "hold"))
    held = await server.call("hold")
    held.reply()
    assert text_of(await calling) == "done"
    return held.session


async def test_a_server_that_begins_to_keep_tasks(site: Site, moved: MovedServer) -> None:
    """It has a session for each principal from then on (2025-11-25, tasks, security)."""
    url = f"{site.gateway.url}/servers/moved/mcp"
    clients = [await SessionClient(site.http[name], url).begin() for name in ("anna", "berta")]
    for _ in range(3):
        before = site.path.forwarded
        assert await session_of(moved, clients[0]) == await session_of(moved, clients[1])
    assert site.path.forwarded == before + 2
    moved.capabilities = {**moved.capabilities, "tasks": {"list": {}}}
    moved.sessions.clear()
    # The first call finds out that the session was lost.
    await session_of(moved, clients[0])
    for _ in range(3):
        before = site.path.forwarded
        found = [await session_of(moved, each) for each in clients]
        assert found[0] != found[1]
    # Compiled code uses these sessions as well.
    assert site.path.forwarded == before + 2


async def test_clients_that_have_sessions_of_their_own(site: Site, moved: MovedServer) -> None:
    url = f"{site.gateway.url}/servers/moved/mcp"
    anna, other = [await SessionClient(site.http["anna"], url).begin({"elicitation": {}}) for _ in range(2)]
    sessions = []
    for client in anna, other:
        before = site.path.forwarded
        used = {await session_of(moved, client) for _ in range(4)}
        assert site.path.forwarded > before
        sessions += used
    assert len(sessions) == 2

    # Its server forgets the session: the call goes to the next one.
    del moved.sessions[sessions[0]]
    renewed = await session_of(moved, anna)
    assert renewed not in sessions
    assert await session_of(moved, anna) == renewed

    # The client ends its session during a call: the server's ends with that call.
    for _ in range(3):
        await session_of(moved, other)
    before, calling = site.path.forwarded, asyncio.create_task(other.post("tools/call", {"name": "hold"}))
    held = await moved.call("hold")
    assert site.path.forwarded == before + 1
    async with aiohttp.ClientSession(headers=site.http["anna"].headers) as http:
        assert (await http.delete(other.url, headers=other.headers)).status == 200
    held.reply()
    assert (await calling).status in (200, 202)
    await moved.until(lambda: sessions[1] in moved.ended)
    assert renewed not in moved.ended


async def test_questions_in_forwarded_calls(site: Site, moved: MovedServer) -> None:
    moved.replies_json = False
    async with aiohttp.ClientSession(headers=site.http["anna"].headers) as http:
        client = await SessionClient(http, f"{site.gateway.url}/servers/moved/mcp").begin({"elicitation": {}})
        for _ in range(4):
            before, posting = site.path.forwarded, asyncio.create_task(client.post("tools/call", {"name": "hold"}))
            held = await moved.call("hold")
            asked = held.ask("elicitation/create", {"message": "?", "requestedSchema": {"type": "object"}})
            events = events_of(await posting)
            question = await events.message()
            assert question["method"] == "elicitation/create"
            assert (await client.answer(question["id"], {"action": "decline"})).status == 202
            assert (await asked)["result"] == {"action": "decline"}
            held.reply()
            assert [text_of(each) for each in await events.rest()] == ["done"]
            client.responses.clear()
        assert site.path.forwarded == before + 1


async def test_servers_of_both_eras(site: Site) -> None:
    """What a server of 2026-07-28 gets and gives is that of the client; another era is never taken for granted."""
    with EraServer() as modern:
        await site.gateway.manager.deploy("modern", {"url": modern.url})
        await site.gateway.manager.wait_ready()
        path = "/servers/modern/mcp"
        for _ in range(3):
            before = site.path.forwarded
            reply = await site.stateless("anna", "echo", path)
            assert reply["result"]["resultType"] == "complete" and "content" in reply["result"], reply
            reply = await site.stateless("anna", "crm__find")
            assert text_of(reply) == "find"
        assert site.path.forwarded == before
        for _ in range(3):
            before = site.path.forwarded
            again = await site.stateless("anna", "echo", path)
            assert again["result"]["resultType"] == "complete"
        assert site.path.forwarded == before + 1
        meta = modern.requests[-1].params["_meta"]
        assert meta["io.modelcontextprotocol/clientInfo"] == stateless_meta()["io.modelcontextprotocol/clientInfo"]

        # It asks the client, which has to come again with the state that the gateway has sealed.
        can_be_asked = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
        for _ in range(3):
            asked = await site.stateless("anna", "ask", path, **can_be_asked)
            assert asked["result"]["resultType"] == "input_required", asked
            assert STATE not in asked["result"]["requestState"]

        # A server of the other era takes its place, and the endpoint has not heard of it yet.
        crm, paths = site.servers["crm"], site.gateway._paths.by_path
        crm.lists["tools"].append(tool("echo"))
        for url, server, era in ((crm.url, crm, ERA), (modern.url, modern, {})):
            for _ in range(3):
                before = site.path.forwarded
                await site.stateless("anna", "echo", path)
            assert site.path.forwarded == before + 1
            known = paths[path]
            await site.gateway.manager.redeploy("modern", {"url": url, **era})
            paths[path] = known
            reply = await site.stateless("anna", "echo", path)
            assert reply["result"]["resultType"] == "complete"
            sent = server.requests[-1]
            assert sent.method == "tools/call"
            assert ("_meta" in sent.params) == (server is modern)
        await site.gateway.manager.undeploy("modern")
