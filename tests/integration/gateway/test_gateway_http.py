"""The HTTP side of the gateway over real sockets: endpoints, refusals, streams, keep-alives, health and metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from support.certificates import make_context
from support.session_clients import MovedServer, SessionClient, events_of

from mcp_manager import ConfigError, ServeConfig
from mcp_manager.gateway import Gateway

pytestmark = pytest.mark.both_loops

ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
ID = "a b/ü"


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


def made(server: MovedServer, **serve: Any) -> Gateway:
    servers = {"s": {"url": server.url, "protocol_version": "2025-11-25"}}
    return Gateway({"servers": servers, "views": {"few": {"servers": ["s"]}}}, serve={"listen": "127.0.0.1:0", **serve})


@pytest.fixture
async def gateway(server: MovedServer) -> AsyncIterator[Gateway]:
    async with made(server) as gateway:
        yield gateway


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=ACCEPT, timeout=aiohttp.ClientTimeout(total=10)) as http:
        yield http


async def test_endpoints_come_and_go_with_their_servers(
    gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession
) -> None:
    async def status(path: str) -> int:
        async with http.post(f"{gateway.url}{path}", json=INITIALIZE) as response:
            return response.status

    assert await status("/mcp") == 200
    assert await status("/mcp/few") == 200
    assert await status("/servers/s/mcp") == 200
    encoded = f"/servers/{quote(ID, safe='')}/mcp"
    assert await status(encoded) == 404
    await gateway.manager.deploy(ID, url=server.url)
    assert await status(encoded) == 200
    await gateway.manager.undeploy(ID)
    assert await status(encoded) == 404
    for path in ("/", "/mcp/", "/mcp/other", "/servers/s", "/servers/%ff/mcp", f"/servers/{'x' * 3000}/mcp"):
        assert await status(path) == 404, path


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "evil.example.com"}, 403),
        ({"Host": "127.0.0.1.evil.example.com"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "gateway.example.com"}, 200),
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost@evil.example.com"}, 403),
        ({"Origin": "http://localhost:5173"}, 200),
        ({"Origin": "https://app.example.com"}, 200),
        ({"Accept": "text/html"}, 406),
        ({"Accept": "application/json;q=0, text/event-stream;q=0"}, 406),
        ({"Accept": "application/json"}, 200),
        ({"Accept": "*/*"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "application/jsonp"}, 415),
    ],
)
async def test_header_fields_decide(
    server: MovedServer, http: aiohttp.ClientSession, fields: dict[str, str], status: int
) -> None:
    allowed = {"allowed_hosts": ["gateway.example.com"], "allowed_origins": ["https://app.example.com"]}
    async with made(server, **allowed) as gateway:
        # The first connection is served by compiled code. On the other one, a GET came first, so it is aiohttp's.
        for connector in (None, await _handed_over(gateway)):
            own = http if connector is None else connector
            headers = {"Content-Type": "application/json", **fields}
            async with own.post(f"{gateway.url}/mcp", data=json.dumps(INITIALIZE), headers=headers) as response:
                assert response.status == status
                reply = await response.json()
                if status != 200:
                    assert "id" not in reply
                    assert reply["error"]["data"]["source"] == "gateway"
                origin = fields.get("Origin") if status == 200 else None
                assert response.headers.get("Access-Control-Allow-Origin") == origin
        await own.close()


async def _handed_over(gateway: Gateway) -> aiohttp.ClientSession:
    """Return a client whose only connection has served a GET."""
    http = aiohttp.ClientSession(headers=ACCEPT, connector=aiohttp.TCPConnector(limit=1))
    async with http.get(f"{gateway.url}/health") as response:
        assert response.status == 200
    return http


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"1", -32600),
        (b"[]", -32600),
        (b'{"id":1}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(
    gateway: Gateway, http: aiohttp.ClientSession, body: bytes, code: int
) -> None:
    headers = {"Content-Type": "application/json"}
    async with http.post(f"{gateway.url}/mcp", data=body, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, code)


async def test_a_body_that_is_too_long_is_refused(server: MovedServer) -> None:
    async with made(server, max_request_bytes=2_000) as gateway:
        for http in (aiohttp.ClientSession(headers=ACCEPT), await _handed_over(gateway)):
            async with http, http.post(f"{gateway.url}/mcp", json={**INITIALIZE, "x": "y" * 2_000}) as response:
                assert response.status == 413


async def test_methods_have_their_answers(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    url = f"{gateway.url}/mcp"
    async with http.put(url) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, POST, DELETE, OPTIONS")
    async with http.get(url, headers={"MCP-Protocol-Version": "2026-07-28"}) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST, OPTIONS")
    async with http.get(url, headers={"Accept": "application/json"}) as response:
        assert response.status == 406
    async with http.get(url) as response:
        assert response.status == 400
    asked = {"Origin": "http://localhost:1", "Access-Control-Request-Headers": "mcp-session-id, content-type"}
    async with http.options(url, headers=asked) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
        assert response.headers["Access-Control-Allow-Headers"] == "mcp-session-id, content-type"
        assert "Mcp-Session-Id" in response.headers["Access-Control-Expose-Headers"]
    async with http.options(url, headers={**asked, "Origin": "http://evil.example.com"}) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno field\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /other HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_not_logged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.split()[1] in (b"400", b"431")
    assert b"aiohttp" not in head
    assert json.loads(body)["error"]["data"] == {"source": "gateway"}
    assert not caplog.records


async def test_no_response_names_the_software(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    for method, path in (("GET", "/"), ("GET", "/health"), ("GET", "/no"), ("OPTIONS", "/mcp"), ("POST", "/mcp")):
        async with http.request(method, f"{gateway.url}{path}") as response:
            assert "Server" not in response.headers, path


async def test_a_session_begins_listens_and_ends(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    stream = await client.listen()
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert "Server" not in stream.response.headers
    assert (await client.end()).status == 200
    assert (await client.post("ping")).status == 404
    stream.close()
    client.close()


async def test_a_long_call_gets_a_stream_and_comments(server: MovedServer, http: aiohttp.ClientSession) -> None:
    async with made(server, keepalive_s=0.05) as gateway:
        client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
        standing = await client.listen()
        assert await standing.response.content.readuntil(b":\n\n")
        posting = asyncio.ensure_future(client.post("tools/call", {"name": "slow", "arguments": {}}))
        call = await server.call("slow")
        response = await posting
        assert await response.content.readuntil(b":\n\n")
        assert await response.content.readuntil(b":\n\n")
        call.reply("at last")
        message = await events_of(response).message()
        assert message["result"]["content"][0]["text"] == "at last"
        assert await response.content.read() in (b"", b":\n\n")
        standing.close()
        client.close()


async def test_a_long_call_of_a_client_without_streams_gets_json(
    server: MovedServer, http: aiohttp.ClientSession
) -> None:
    async with made(server, keepalive_s=0.02) as gateway:
        client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
        call_body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "slow", "arguments": {}}}
        posting = asyncio.ensure_future(client.send(call_body, Accept="application/json"))
        call = await server.call("slow")
        call.send("notifications/progress", {"progressToken": 1, "progress": 1})
        # Several intervals of keep-alives pass.
        ticks = gateway._keep_alives.ticks
        while gateway._keep_alives.ticks < ticks + 4:
            await asyncio.sleep(0.01)
        call.reply()
        assert (await (await posting).json())["id"] == 7
        client.close()


async def test_a_client_that_accepts_only_streams_gets_one(
    server: MovedServer, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
    async with http.post(f"{gateway.url}/servers/s/mcp", data=json.dumps(INITIALIZE), headers=headers) as response:
        assert response.headers["Mcp-Session-Id"]
        assert (await events_of(response).message())["id"] == 1


async def test_bodies_of_a_megabyte_pass(server: MovedServer, gateway: Gateway, http: aiohttp.ClientSession) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    text = "x" * 1_000_000
    posting = asyncio.ensure_future(client.post("tools/call", {"name": "big", "arguments": {"text": text}}))
    call = await server.call("big")
    assert call.message["params"]["arguments"]["text"] == text
    call.reply(text)
    reply = await (await posting).json()
    assert reply["result"]["content"][0]["text"] == text


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_fault_of_the_gateway_is_logged_and_answered(
    gateway: Gateway,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_sent: bool,
) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the secret of the gateway")

    gateway._reception.sent.is_enabled = is_sent

    async def broken_work(*_: object, **__: object) -> None:
        broken()

    name, replacement = ("begin", broken) if is_sent else ("take", broken_work)
    monkeypatch.setattr(gateway._eras.handshake._messages, name, replacement)
    reply = await client.request("tools/call", {"name": "x"}, "seven")
    assert (reply["id"], reply["error"]["code"]) == ("seven", -32603)
    assert "secret" not in json.dumps(reply)
    assert "ZeroDivisionError" in caplog.text


async def test_health_readiness_and_metrics(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    async def get(path: str, **fields: str) -> tuple[int, str]:
        async with http.get(f"{gateway.url}{path}", headers=fields) as response:
            return response.status, await response.text()

    assert await get("/health") == (200, '{"status": "ok"}')
    assert await get("/ready") == (200, '{"ready": true}')
    await gateway.manager.set_maintenance("s", on=True)
    status, text = await get("/ready")
    assert status == 503
    assert json.loads(text)["reasons"][0] == "0 of 1 servers are ready, and 1 must be"
    # Probes have the address of the machine; what they may not see is which servers there are.
    assert await get("/ready", Host="10.0.0.1") == (503, '{"ready": false}')
    assert (await get("/metrics", Host="10.0.0.1"))[0] == 403
    await gateway.manager.set_maintenance("s", on=False)
    await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    assert (await get("/nowhere"))[0] == 404
    status, page = await get("/metrics")
    assert 'mcp_gateway_requests_total{endpoint="server/s",era="handshake",status="200"} 1.0' in page
    assert 'mcp_gateway_requests_total{endpoint="",era="",status="404"} 1.0' in page
    assert "mcp_build_info" in page
    status, page = await get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert page.count("# EOF") == 1
    assert page.endswith("# EOF\n")
    described = json.loads((await get("/"))[1])
    assert described["endpoints"] == ["/mcp", "/mcp/few"]
    assert described["servers"] == ["/servers/s/mcp"]


async def test_a_unix_socket_is_private_and_removed(server: MovedServer, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with made(server, listen=f"unix:{path}") as gateway:
        assert gateway.url == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector, headers=ACCEPT) as http,
            http.post("http://localhost/mcp", json=INITIALIZE) as response,
        ):
            assert response.status == 200
        with pytest.raises(ConfigError, match="in use"):
            async with made(server, listen=f"unix:{path}"):
                pass
    assert not path.exists()


async def test_tls_ends_at_the_gateway(server: MovedServer, tmp_path: Path) -> None:
    _, certificate = make_context(tmp_path)
    files = {"cert_file": str(certificate), "key_file": str(tmp_path / "key.pem")}
    trusted = ssl.create_default_context(cafile=certificate)
    with pytest.raises(ConfigError, match=r"serve\.cert_file"):
        made(server, cert_file=str(tmp_path / "missing.pem"))
    async with made(server, **files) as gateway:
        url = gateway.url
        assert url.startswith("https://127.0.0.1:")
        connector = aiohttp.TCPConnector(ssl=trusted, force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=ACCEPT) as http:
            async with http.post(f"{url}/mcp", json=INITIALIZE) as response:
                assert response.status == 200
            async with http.get(f"{url}/health") as response:
                assert response.status == 200


async def test_views_are_replaced_while_it_serves(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    few, many = f"{gateway.url}/mcp/few", f"{gateway.url}/mcp/many"
    client = await SessionClient(http, few).begin()
    with pytest.raises(ConfigError, match=r"views\.many\.names"):
        gateway.replace_views({"many": {"names": "any"}})
    gateway.replace_views({"many": {}})
    assert (await client.post("ping")).status == 404
    await SessionClient(http, many).begin()


async def test_an_address_that_is_taken_is_told(server: MovedServer, gateway: Gateway) -> None:
    with pytest.raises(ConfigError, match=r"Failed to listen on 127.0.0.1:\d+: Address already in use"):
        async with made(server, listen=f"127.0.0.1:{gateway.port}"):
            pass


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "gateway.example.com:80"])
async def test_other_machines_are_not_let_in(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"clients on other machines would not have to authenticate \(set serve.auth"):
        Gateway({}, serve=ServeConfig(listen=listen))


async def test_sockets_of_systemd_are_taken(server: MovedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = made(server, listen="systemd")
    with pytest.raises(ConfigError, match="passes no socket to this process"):
        await gateway.start()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
async def test_a_client_that_vanishes_is_noticed_within_a_minute(
    gateway: Gateway, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[socket.socket] = []
    accept = socket.socket.accept

    def noted(self: socket.socket) -> tuple[socket.socket, Any]:
        connection, address = accept(self)
        accepted.append(connection.dup())
        return connection, address

    monkeypatch.setattr(socket.socket, "accept", noted)
    listening = gateway._listener._sockets[0].dup()
    async with http.get(f"{gateway.url}/health"):
        pass
    with listening:
        limits = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for each in (listening, *accepted)]
    for each in accepted:
        each.close()
    assert limits == [60_000] * len(limits)


async def test_it_is_not_ready_before_its_servers_are_deployed(server: MovedServer) -> None:
    gateway = made(server, min_ready=5)
    assert await gateway.reasons() == ["0 of 1 servers are ready, and 1 must be"]
    async with gateway:
        assert await gateway.reasons() == []
    async with Gateway({}, serve={"listen": "127.0.0.1:0"}) as empty:
        assert await empty.reasons() == []


async def test_a_gateway_stops_in_the_midst_of_its_start(server: MovedServer) -> None:
    servers = {"s": {"url": server.url, "protocol_version": "2025-11-25"}}
    for passes in range(12):
        gateway = Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"})
        starting = asyncio.ensure_future(gateway.start())
        for _ in range(passes):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await gateway.stop()
