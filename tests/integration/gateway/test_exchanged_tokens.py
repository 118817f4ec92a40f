"""Servers behind the gateway that get a token of their own for each client: exchanged, kept, renewed and refused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from mcp import ClientSession
from mcp.client.sse import sse_client
from support.calls import CALM
from support.exchanging import AuthorizationServer, ExchangingServer
from support.gateway_clients import RawClient
from support.principals import Keys
from support.session_clients import MovedServer, SessionClient
from support.token_issuer import AUDIENCE, TokenIssuer, made_key
from support.worker_gateways import WorkerGateways

from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.security import exchanged_tokens

HANDSHAKE, STATELESS = "2025-11-25", "2026-07-28"
ERAS = pytest.mark.parametrize("era", [HANDSHAKE, STATELESS])
SERVERS = pytest.mark.parametrize("server", ["old", "new"])


class Fleet:
    """A gateway, its servers, the issuer of the tokens of clients, and the authorization server that exchanges them."""

    def __init__(
        self, issuer: TokenIssuer, idp: AuthorizationServer, old: ExchangingServer, new: ExchangingServer
    ) -> None:
        self.issuer = issuer
        self.idp = idp
        self.old, self.new = old, new
        self.gateway: Gateway

    def serve(self, **more: Any) -> dict[str, Any]:
        exchange = {
            "type": "exchange",
            "token_endpoint": f"{self.idp.origin}/token",
            "client_id": "gateway",
            "client_secret": "sentinel-secret",
            "scopes": ["tools"],
        }
        return {
            "listen": "127.0.0.1:0",
            "auth": {"type": "jwt", "issuer": self.issuer.origin, "audience": [AUDIENCE]},
            "credentials": {"old": exchange, "new": {**exchange, "audience": "new"}},
            **more,
        }

    def servers(self) -> dict[str, Any]:
        lazy = {**CALM, "connect": "lazy"}
        return {"servers": {"old": {"url": self.old.url, **lazy}, "new": {"url": self.new.url, **lazy}}}

    def server(self, name: str) -> ExchangingServer:
        return self.old if name == "old" else self.new

    def token(self, who: str, **claims: Any) -> str:
        return self.issuer.token("one", sub=who, **claims)


@pytest.fixture(scope="module")
def idp() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as idp:
        yield idp


@pytest.fixture
async def fleet(idp: AuthorizationServer) -> AsyncIterator[Fleet]:
    idp.forms.clear()
    idp.refusal, idp.lifetime_s = None, 3600
    with ExchangingServer(HANDSHAKE) as old, ExchangingServer(STATELESS, audience="new") as new:
        async with TokenIssuer() as issuer:
            issuer.keys["one"] = made_key("ES256")
            fleet = Fleet(issuer, idp, old, new)
            async with Gateway(fleet.servers(), serve=fleet.serve()) as gateway:
                fleet.gateway = gateway
                yield fleet


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@ERAS
async def test_each_client_calls_with_a_token_of_its_own(fleet: Fleet, http: aiohttp.ClientSession, era: str) -> None:
    tokens = {who: fleet.token(who) for who in ("alice", "bob")}
    clients = [
        RawClient(http, f"{fleet.gateway.url}/servers/{server}/mcp", era, token=tokens[who])
        for server in ("old", "new")
        for who in ("alice", "bob")
    ]
    await asyncio.gather(*(each.begin() for each in clients))
    results = await asyncio.gather(*(each.call("echo", text="x") for each in clients for _ in range(5)))
    who = [each["result"]["_meta"]["caller"]["who"] for each in results]
    assert who == ["alice"] * 5 + ["bob"] * 5 + ["alice"] * 5 + ["bob"] * 5
    # One exchange for each principal and server, however many calls.
    asked = {(each["subject_token"], each.get("audience", "")) for each in fleet.idp.forms}
    assert asked == {(token, audience) for token in tokens.values() for audience in ("", "new")}
    assert len(fleet.idp.forms) == 4
    form = next(each for each in fleet.idp.forms if "resource" in each)
    assert (form["resource"], form["scope"], form["client"]) == (fleet.old.url, "tools", "gateway:sentinel-secret")
    assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    # Nothing of one is used by the other.
    assert all(len(each) == 1 for each in fleet.old.seen.values())
    for server in (fleet.old, fleet.new):
        # The gateway has no credentials of its own, and tries without.
        assert {each.partition("@")[0] for each in server.tokens()} <= {"", "alice", "bob"}
        for part in (part for token in tokens.values() for part in token.split(".")):
            assert part not in server.bytes_seen()
    for each in clients:
        await each.end()


@SERVERS
@ERAS
async def test_a_token_that_the_server_refuses_is_exchanged_anew_once(
    fleet: Fleet, http: aiohttp.ClientSession, era: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanged_tokens, "_REFUSED_PAUSE_S", 0.0)
    client = RawClient(http, f"{fleet.gateway.url}/servers/{server}/mcp", era, token=fleet.token("alice"))
    await client.begin()
    first = (await client.call("echo", text="x"))["result"]["_meta"]["caller"]["token"]
    fleet.server(server).refused.add(first)
    again = (await client.call("echo", text="x"))["result"]["_meta"]["caller"]
    assert again["who"] == "alice"
    assert again["token"] != first
    assert len(fleet.idp.forms) == 2


@ERAS
async def test_failures_of_the_authorization_server_say_what_to_do(
    fleet: Fleet, http: aiohttp.ClientSession, era: str
) -> None:
    url = f"{fleet.gateway.url}/servers/new/mcp"
    for who, refusal, code in (
        ("alice", (400, "invalid_grant"), -32014),
        ("bob", (400, "invalid_request"), -32014),
        ("carol", (503, "temporarily_unavailable"), -32015),
        ("dave", (401, "invalid_client"), -32005),
    ):
        fleet.idp.refusal = refusal
        client = RawClient(http, url, era, token=fleet.token(who))
        await client.begin()
        response = await client.call("echo", text="x")
        error = response["error"]
        assert (error["code"], error["data"]["delivery"], error["data"]["server"]) == (code, "not_sent", "new")
        assert ("log in again" in error["data"]["hint"]) is (code == -32014)
        assert ("retryAfterMs" in error["data"]) is (code == -32015)
        assert "sentinel" not in str(response)
    # Newer credentials are tried at once.
    fleet.idp.refusal = None
    client = RawClient(http, url, era, token=fleet.token("alice", jti="2"))
    await client.begin()
    assert (await client.call("echo", text="x"))["result"]["_meta"]["caller"]["who"] == "alice"


async def test_the_server_is_introduced_to_each_client_and_missing_in_merged_lists(
    fleet: Fleet, http: aiohttp.ClientSession
) -> None:
    client = RawClient(http, f"{fleet.gateway.url}/servers/new/mcp", HANDSHAKE, token=fleet.token("alice"))
    assert (await client.begin())["result"]["serverInfo"]["name"] == "era"
    tools = (await client.ask("tools/list"))["result"]["tools"]
    assert "of_alice" in {each["name"] for each in tools}
    merged = RawClient(http, f"{fleet.gateway.url}/mcp", HANDSHAKE, token=fleet.token("alice"))
    await merged.begin()
    listed = (await merged.ask("tools/list"))["result"]
    assert listed["tools"] == []
    assert "/servers/new/mcp" in listed["_meta"]["mcp-manager/missing"]["new"]
    assert (await merged.call("new__echo", text="x"))["result"]["_meta"]["caller"]["who"] == "alice"


async def test_an_api_key_cannot_be_exchanged(fleet: Fleet, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    keys = Keys(tmp_path, "carol")
    auth = {**fleet.serve()["auth"], "keys_file": str(keys.path)}
    await fleet.gateway.replace_serve(fleet.serve(auth=auth))
    for era, server in itertools.product((HANDSHAKE, STATELESS), ("old", "new")):
        client = RawClient(http, f"{fleet.gateway.url}/servers/{server}/mcp", era, token=keys.of["carol"])
        said = await client.begin()
        assert "an API key cannot be exchanged" in said["result"]["instructions"]
        error = (await client.call("echo", text="x"))["error"]
        assert (error["code"], error["data"]["delivery"], error["data"]["server"]) == (-32014, "not_sent", server)
        assert "an API key cannot be exchanged" in error["data"]["hint"]
    assert fleet.idp.forms == []
    assert keys.of["carol"] not in fleet.old.bytes_seen() + fleet.new.bytes_seen()


@SERVERS
async def test_clients_of_http_sse_call_with_tokens_of_their_own(
    fleet: Fleet, http: aiohttp.ClientSession, server: str
) -> None:
    async def called(who: str) -> set[str]:
        fields = {"Authorization": f"Bearer {fleet.token(who)}"}
        async with sse_client(f"{gateway.url}/servers/{server}/sse", headers=fields) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                results = [await session.call_tool("echo", {"text": "x"}) for _ in range(3)]
                assert all(result.meta for result in results)
                return {result.meta["caller"]["who"] for result in results if result.meta}

    async with Gateway(fleet.servers(), serve=fleet.serve(legacy_sse=True)) as gateway:
        assert list(await asyncio.gather(called("alice"), called("bob"))) == [{"alice"}, {"bob"}]
    assert all(len(each) == 1 for each in fleet.server(server).seen.values())


async def test_a_worker_that_gets_a_request_of_another_exchanges_the_token_of_its_client(
    fleet: Fleet, http: aiohttp.ClientSession
) -> None:
    serve = {name: value for name, value in fleet.serve().items() if name != "listen"}
    serve["credentials"]["old"]["pass_headers"] = ["X-Tenant"]
    fleet.old.keeps = ("x-tenant",)
    async with WorkerGateways.running(fleet.servers(), **serve) as workers:
        clients = [
            RawClient(
                http,
                f"{workers.urls[0]}/servers/old/mcp",
                HANDSHAKE,
                token=fleet.token(who),
                # One that can be asked has a session of its own at the server, which one worker keeps.
                capabilities={"elicitation": {}},
                headers={"X-Tenant": f"of-{who}"},
            )
            for who in ("alice", "bob")
        ]
        await asyncio.gather(*(each.begin() for each in clients))
        sessions = set()
        for url in workers.urls:
            for who, client in zip(("alice", "bob"), clients, strict=True):
                client.url = f"{url}/servers/old/mcp"
                said = (await client.call("echo", text="x"))["result"]["_meta"]["caller"]
                assert (said["who"], said["x-tenant"]) == (who, f"of-{who}")
                sessions.add(said["session"])
        assert len(sessions) == 2
    assert all(len(each) == 1 for each in fleet.old.seen.values())


class OwnedServer(MovedServer):
    """Know with which token each of its sessions is used."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[str, set[str]] = {}

    async def _post(self, request: web.Request) -> web.StreamResponse:
        session = request.headers.get("Mcp-Session-Id", "")
        self.owners.setdefault(session, set()).add(request.headers.get("Authorization", "").partition("@")[0])
        return await super()._post(request)

    def at(self, method: str) -> dict[str, str]:
        """Return the sessions that a request came in, by their owners."""
        return {"".join(self.owners[session]): session for session, each in self.received if each["method"] == method}


async def test_resources_are_subscribed_to_for_each_client(fleet: Fleet) -> None:
    def updated(uri: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}

    exchange = fleet.serve()["credentials"]["new"]
    async with OwnedServer().running() as server, AsyncExitStack() as stack:
        servers = {"servers": {"a": {"url": server.url, **CALM, "connect": "lazy"}}}
        serve = fleet.serve(credentials={"a": exchange})
        gateway = await stack.enter_async_context(Gateway(servers, serve=serve))
        clients, streams = {}, {}
        for who in ("alice", "bob"):
            fields = {"Authorization": f"Bearer {fleet.token(who)}"}
            http = await stack.enter_async_context(aiohttp.ClientSession(headers=fields))
            clients[who] = await SessionClient(http, f"{gateway.url}/servers/a/mcp").begin()
            stack.callback(clients[who].close)
            streams[who] = await clients[who].listen()
            assert (await clients[who].request("resources/subscribe", {"uri": "test://x"}))["result"] == {}
        sessions = server.at("resources/subscribe")
        assert set(sessions) == {"Bearer alice", "Bearer bob"}
        await server.until(lambda: set(sessions.values()) <= set(server.standing))
        server.standing[sessions["Bearer alice"]].put_nowait(updated("test://x/of-alice"))
        assert await streams["alice"].message() == updated("test://x/of-alice")
        # What comes first to the other one is its own.
        server.standing[sessions["Bearer bob"]].put_nowait(updated("test://x/of-bob"))
        assert await streams["bob"].message() == updated("test://x/of-bob")
        assert (await clients["alice"].request("resources/unsubscribe", {"uri": "test://x"}))["result"] == {}
        assert server.at("resources/unsubscribe") == {"Bearer alice": sessions["Bearer alice"]}
        server.standing[sessions["Bearer bob"]].put_nowait(updated("test://x"))
        assert await streams["bob"].message() == updated("test://x")


async def test_an_identity_assertion_is_exchanged_for_a_token(idp: AuthorizationServer) -> None:
    idp.forms.clear()
    idp.refusal, idp.lifetime_s = None, 3600
    async with TokenIssuer() as issuer, aiohttp.ClientSession() as http:
        issuer.keys["one"] = made_key("ES256")
        enterprise = {
            "type": "enterprise",
            "token_endpoint": f"{idp.origin}/token",
            "client_id": "gateway",
            "audience": "https://as.example.com",
            "idp_token_endpoint": f"{idp.origin}/idp",
            "idp_client_id": "at-idp",
            "idp_client_secret": "secret",
        }
        auth = {"type": "jwt", "issuer": issuer.origin, "audience": [AUDIENCE]}
        serve = {"listen": "127.0.0.1:0", "auth": auth, "credentials": {"a": enterprise}}
        with ExchangingServer(STATELESS, audience="jag") as server:
            fleet = {"servers": {"a": {"url": server.url, **CALM, "connect": "lazy"}}}
            async with Gateway(fleet, serve=serve) as gateway:
                url = f"{gateway.url}/servers/a/mcp"
                client = RawClient(http, url, STATELESS, token=issuer.token("one", sub="alice"))
                assert (await client.call("echo", text="x"))["result"]["_meta"]["caller"]["who"] == "alice"
    first, second = idp.forms
    assert (first["client"], first["audience"]) == ("at-idp:secret", "https://as.example.com")
    assert first["subject_token_type"] == "urn:ietf:params:oauth:token-type:id_token"
    assert second["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
