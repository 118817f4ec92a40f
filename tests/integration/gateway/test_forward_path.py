"""Calls that compiled code forwards: whatever is known of them holds no longer than it is true."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from support.catalog_server import CatalogServer, tool
from support.era_server import EraServer
from support.forwarding_site import Site, call, forwarding_site, text_of
from support.serve_changes import serve_with
from support.session_clients import SessionClient

from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with forwarding_site(tmp_path) as site:
        yield site


async def test_what_is_known_ends_with_what_it_is_of(site: Site) -> None:
    gateway = site.gateway
    anna, berta = await site.client("anna"), await site.client("berta")
    for client in (anna, berta):
        await site.forwarded(client, "crm__find")

    # Another session, and another endpoint, on the same connection
    other, mine = await site.client("anna"), await site.client("anna", "/mcp/mine")
    await site.forwarded(other, "wiki__find")
    await site.forwarded(mine, "find")
    await site.forwarded(other, "wiki__find")
    async with aiohttp.ClientSession(headers=site.http["anna"].headers) as http:
        # A request of this kind takes its connection away from compiled code.
        assert (await http.delete(other.url, headers=other.headers)).status == 200
    assert (await other.post("tools/call", {"name": "wiki__find"})).status == 404
    assert text_of(await call(anna, "crm__find")) == "find"

    # The rules
    await gateway.replace_serve(
        serve_with(gateway, allow=[{"principals": ["anna"]}, {"principals": ["berta"], "servers": ["wiki"]}])
    )
    assert "error" in await call(berta, "crm__find")
    assert text_of(await call(anna, "crm__find")) == "find"
    await gateway.replace_serve(serve_with(gateway, allow=[]))
    await site.forwarded(berta, "crm__find")

    # The view
    await site.forwarded(mine, "find")
    gateway.replace_views({"mine": {"servers": ["wiki"], "names": "short"}})
    await site.client("berta", "/mcp/mine")
    before = len(site.servers["crm"].requests)
    assert text_of(await call(mine, "find")) == "find"
    assert len(site.servers["crm"].requests) == before

    # The server
    with CatalogServer({"tools": [tool("find"), tool("more")]}) as moved:
        await gateway.manager.redeploy("crm", {"url": moved.url, "protocol_version": "2025-11-25"})
        assert text_of(await call(anna, "crm__find")) == "find"
        assert [each.method for each in moved.requests if each.method == "tools/call"] == ["tools/call"]
        await site.forwarded(anna, "crm__find")
        single = await site.client("anna", "/servers/crm/mcp")
        await site.forwarded(single, "find")
        with EraServer() as modern:
            await gateway.manager.redeploy("crm", {"url": modern.url})
            await call(single, "find")
            assert modern.requests[-1].params["_meta"]
            assert text_of(await call(single, "echo", text="hi")) == "hi"
        await gateway.manager.redeploy("crm", {"url": moved.url, "protocol_version": "2025-11-25"})
        await site.forwarded(single, "find")
        await gateway.manager.undeploy("crm")
        await gateway.manager.deploy("crm", {"url": site.servers["wiki"].url, "protocol_version": "2025-11-25"})
        before = len(moved.requests)
        assert text_of(await call(single, "find")) == "find"
        assert len(moved.requests) == before
    await gateway.manager.undeploy("crm")
    assert "error" in await call(anna, "crm__find")

    # The credentials
    await site.forwarded(berta, "wiki__find")
    write_keys(str(site.audit.with_name("keys")), [made_key("anna")[1]])
    await gateway.replace_serve(gateway.serve)
    assert (await berta.post("tools/call", {"name": "wiki__find"})).status == 401


async def test_a_connection_of_several_clients(site: Site) -> None:
    """A proxy sends the requests of many clients on one connection: each is who its own fields say."""
    await site.gateway.replace_serve(
        serve_with(site.gateway, allow=[{"principals": ["anna"]}, {"principals": ["berta"], "servers": ["wiki"]}])
    )
    anna, berta, second = [await site.client(name) for name in ("anna", "berta", "anna")]
    tokens = {name: http.headers["Authorization"] for name, http in site.http.items()}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        for client in anna, berta, second:
            client.http = http

        async def status_of(client: SessionClient, **fields: str) -> tuple[int, bool]:
            body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "crm__find"}}
            async with await client.send(body, **fields) as response:
                return response.status, "result" in await response.json()

        mine = {"Authorization": tokens["anna"]}
        for _ in range(3):
            before = site.path.forwarded
            assert await status_of(anna, **mine) == (200, True)
        assert site.path.forwarded == before + 1
        for fields, status in (
            ({"Authorization": tokens["berta"]}, 404),
            ({"Authorization": tokens["anna"] + "x"}, 401),
            ({}, 401),
            (mine | {"Origin": "http://elsewhere.example"}, 403),
            (mine | {"Host": "elsewhere.example"}, 403),
            (mine | {"Accept": "text/html"}, 406),
            (mine | {"Content-Type": "text/plain"}, 415),
            (mine | {"MCP-Protocol-Version": "1999-01-01"}, 400),
        ):
            assert await status_of(anna, **fields) == (status, False)
            assert await status_of(anna, **mine) == (200, True)
        assert await status_of(berta, Authorization=tokens["berta"]) == (200, False)
        assert await status_of(berta, **mine) == (404, False)
        # Not even two sessions of one principal are the same client.
        async with aiohttp.ClientSession(headers=mine) as other:
            assert (await other.delete(second.url, headers=second.headers)).status == 200
        for _ in range(2):
            assert await status_of(second, **mine) == (404, False)
            assert await status_of(anna, **mine) == (200, True)


async def test_calls_that_a_client_sends_at_once_are_answered_in_order(site: Site) -> None:
    """The answer to each lets the next one go, on the connection to the server that has just become free."""
    anna = await site.client("anna")
    await site.forwarded(anna, "crm__find")
    url = urlsplit(anna.url)
    fields = {"Host": url.netloc, "Content-Type": "application/json", **site.http["anna"].headers, **anna.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    def request(number: int) -> bytes:
        params = {"name": "crm__find", "arguments": {"text": "x" * number}}
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        return f"POST {url.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:

        async def answer() -> Any:
            async with asyncio.timeout(10):
                answered = await reader.readuntil(b"\r\n\r\n")
                size = int(answered.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                return json.loads(await reader.readexactly(size))

        writer.write(request(0) + request(1))
        assert [(await answer())["id"] for _ in range(2)] == [0, 1]
        before = site.path.forwarded
        writer.write(b"".join(map(request, range(2, 20))))
        replies = [await answer() for _ in range(2, 20)]
        assert [(each["id"], text_of(each)) for each in replies] == [(number, "find") for number in range(2, 20)]
        assert site.path.forwarded == before + 18
        # It goes while its calls are under way.
        writer.write(b"".join(map(request, range(20, 25))))
    finally:
        writer.close()
    await site.forwarded(anna, "crm__find")


async def test_stateless_clients_and_wrapped_calls(site: Site) -> None:
    # Of one connection, each call says what its client can do.
    asking = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    for name in ("crm__find", "wiki__drop", "crm__find", "crm__find", "wiki__drop"):
        before = site.path.forwarded
        reply = await site.stateless("anna", name)
        assert (reply["id"], reply["result"]["resultType"], text_of(reply)) == ("é", "complete", name.split("__")[1])
        assert reply["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]
    assert site.path.forwarded == before + 1
    assert text_of(await site.stateless("anna", "crm__find", **asking)) == "find"
    assert site.path.forwarded == before + 1
    sent = [each for each in site.servers["crm"].requests if each.method == "tools/call"]
    assert all(each.params == {"name": "find", "arguments": {"x": [1, {"_meta": 2}]}} for each in sent)

    # Where a call goes that names its tool in its arguments is not known from its name.
    searching = await site.client("anna", "/mcp/searched")
    for name in ("crm__find", "wiki__drop", "crm__drop", "wiki__find", "crm__find"):
        found = await call(searching, "call_tool", name=name, arguments={})
        assert text_of(found) == name.split("__")[1]
    assert len([each for each in site.servers["wiki"].requests if each.method == "tools/call"]) == 4


async def test_each_call_is_counted_and_recorded(site: Site) -> None:
    berta = await site.client("berta")
    await call(berta, "crm__find")
    await site.forwarded(berta, "crm__find")
    replies = [await call(berta, "crm__drop") for _ in range(5)]
    assert [text_of(each) for each in replies] == ["drop", "drop", "drop", "", ""]
    assert [each["error"]["data"]["source"] for each in replies[3:]] == ["gateway", "gateway"]
    await site.gateway._security.accounting.aclose()
    lines = [json.loads(line) for line in site.audit.read_text().splitlines()]
    calls = [line for line in lines if line["method"] == "tools/call"]
    dropping = [(line["outcome"], line["server"], line["server_name"]) for line in calls if line["name"] == "crm__drop"]
    assert dropping == [("ok", "crm", "drop")] * 3 + [("refused", "crm", "drop")] * 2
    assert len(calls) == len([each for each in site.servers["crm"].requests if each.method == "tools/call"]) + 2
    assert {line["session"] for line in calls} == {calls[0]["session"]}


async def test_large_replies_in_the_terms_of_the_client(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large to be copied has the members of the client's era nevertheless, and is otherwise the same."""
    text = "x" * 300_000
    results: list[dict[str, Any]] = [
        {"content": [{"type": "text", "text": text}]},
        {"content": [{"type": "text", "text": text}], "resultType": "complete"},
        {"resultType": "complete", "content": [{"type": "text", "text": text}]},
        {"content": [{"type": "text", "text": text}], "_meta": {"a": 1}, "structuredContent": {}},
    ]
    crm = site.servers["crm"]
    for _ in range(3):
        before = site.path.forwarded
        await site.stateless("anna", "find", "/servers/crm/mcp")
    assert site.path.forwarded == before + 1
    for result in results:
        monkeypatch.setattr(crm, "_result", lambda request, result=result: crm._reply(request, result))
        reply = await site.stateless("anna", "find", "/servers/crm/mcp")
        assert reply == {"jsonrpc": "2.0", "id": "é", "result": {**result, "resultType": "complete"}}
    assert site.path.forwarded == before + 1 + len(results)


async def test_a_reply_that_its_client_does_not_read_yet_stays_as_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a long reply is used again, but not before it is sent."""
    crm = site.servers["crm"]

    def result(request: Any) -> Any:
        text = request.params["arguments"]["text"] * 4_000_000
        return crm._reply(request, {"content": [{"type": "text", "text": text}]})

    anna = await site.client("anna")
    await site.forwarded(anna, "crm__find")
    monkeypatch.setattr(crm, "_result", result)
    url = urlsplit(anna.url)
    fields = {"Host": url.netloc, "Content-Type": "application/json", **site.http["anna"].headers, **anna.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    params = {"name": "crm__find", "arguments": {"text": "a"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    try:
        for _ in range(2):
            before = site.path.forwarded
            writer.write(f"POST {url.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answered = (await reader.readuntil(b"\r\n\r\n")).lower()
            for text in ("b", "c"):
                assert text_of(await call(anna, "crm__find", text=text)) == text * 4_000_000
            size = int(answered.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            assert text_of(json.loads(await reader.readexactly(size))) == "a" * 4_000_000
        assert site.path.forwarded == before + 3
    finally:
        writer.close()
