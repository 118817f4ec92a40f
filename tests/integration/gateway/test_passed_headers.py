"""Header fields of clients that servers behind the gateway get: those that are named, and never of another request."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from support.calls import CALM
from support.era_server import Response
from support.exchanging import ExchangingServer
from support.gateway_clients import RawClient

from mcp_manager import ConfigError
from mcp_manager.gateway.gateway import Gateway
from mcp_manager.testing.scripted import Request

HANDSHAKE, STATELESS = "2025-11-25", "2026-07-28"


@pytest.mark.parametrize("speaks", [HANDSHAKE, STATELESS])
async def test_values_of_requests_at_the_same_time_do_not_mix(speaks: str) -> None:
    credentials = {"a": {"pass_headers": ["X-Tenant"], "authorization_header": "X-A-Authorization"}}
    with ExchangingServer(speaks, open=True) as server:
        server.keeps = ("x-tenant", "x-other", "authorization")
        serve: dict[str, Any] = {"listen": "127.0.0.1:0", "sessions": "shared", "credentials": credentials}
        fleet = {"servers": {"a": {"url": server.url, **CALM, "connect": "lazy"}}}
        async with Gateway(fleet, serve=serve) as gateway, aiohttp.ClientSession() as http:
            clients = [
                RawClient(
                    http,
                    f"{gateway.url}/servers/a/mcp",
                    era,
                    token=f"sentinel-{tenant}",
                    headers={"X-Tenant": tenant, "X-Other": "sentinel", "X-A-Authorization": f"Bearer of-{tenant}"},
                )
                for era in (HANDSHAKE, STATELESS)
                for tenant in ("red", "blue", "green")
            ]
            await asyncio.gather(*(each.begin() for each in clients))
            calls = [(each, each.call("echo", text="x")) for each in clients for _ in range(4)]
            replies = await asyncio.gather(*(call for _, call in calls))
            for (client, _), reply in zip(calls, replies, strict=True):
                said = reply["result"]["_meta"]["caller"]
                tenant = client.headers["X-Tenant"]
                assert (said["x-tenant"], said["x-other"]) == (tenant, None)
                assert said["authorization"] == f"Bearer of-{tenant}"
            assert all(len(each) == 1 for each in server.seen.values())
            assert "sentinel" not in server.bytes_seen()
            # Without it, the credentials of nobody else are sent.
            del clients[-1].headers["X-A-Authorization"]
            error = (await clients[-1].call("echo", text="x"))["error"]
            assert (error["code"], error["data"]["delivery"]) == (-32014, "not_sent")
            assert "X-A-Authorization" in error["data"]["hint"]


@pytest.mark.parametrize("speaks", [HANDSHAKE, STATELESS])
async def test_tokens_of_clients_are_passed_on_if_the_gateway_checks_none(speaks: str) -> None:
    with ExchangingServer(speaks, open=True) as server:
        server.keeps = ("authorization",)
        serve = {"listen": "127.0.0.1:0", "credentials": {"a": {"pass_client_token": True}}}
        own = {"type": "bearer", "token": "sentinel-of-the-gateway"}
        fleet = {"servers": {"a": {"url": server.url, "auth": own, **CALM, "connect": "lazy"}}}
        async with Gateway(fleet, serve=serve) as gateway, aiohttp.ClientSession() as http:
            clients = [
                RawClient(http, f"{gateway.url}{path}", era, token=f"of-{who}")
                for era in (HANDSHAKE, STATELESS)
                for who in ("alice", "bob")
                for path in ("/servers/a/mcp", "/mcp")
            ]
            await asyncio.gather(*(each.begin() for each in clients))
            replies = await asyncio.gather(
                *(each.call("a__echo" if each.url.endswith(f"{gateway.port}/mcp") else "echo") for each in clients)
            )
            for client, reply in zip(clients, replies, strict=True):
                assert reply["result"]["_meta"]["caller"]["authorization"] == f"Bearer {client.token}"
            assert all(len(each) == 1 for each in server.seen.values())
            # One without a token does not get what the gateway itself may do, or what it may do in another's session.
            for client in clients[-2:]:
                calls = len(server.requests_of("tools/call"))
                client.token = None
                error = (await client.call("a__echo" if client.url.endswith(f"{gateway.port}/mcp") else "echo"))[
                    "error"
                ]
                assert (error["code"], error["data"]["delivery"]) == (-32014, "not_sent")
                assert len(server.requests_of("tools/call")) == calls


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"credentials": {"p": {"pass_headers": ["X-Tenant"]}}}, "a program"),
        ({"credentials": {"a": {"pass_headers": ["Authorization"]}}}, "never passed on"),
        ({"credentials": {"a": {"pass_headers": ["Cookie"]}}}, "never passed on"),
        ({"credentials": {"a": {"pass_headers": ["X-API-Key"]}}}, "never passed on"),
        ({"credentials": {"a": {"pass_headers": ["Mcp-Session-Id"]}}}, "set by the gateway"),
        ({"credentials": {"a": {"pass_headers": ["mcp-manager-principal"]}}}, "set by the gateway"),
        ({"credentials": {"a": {"pass_headers": ["Host"]}}}, "set by the gateway"),
        ({"credentials": {"a": {"type": "exchange"}}}, "needs it"),
        (
            {"credentials": {"a": {"type": "exchange", "token_endpoint": "https://i.example/t", "client_id": "g"}}},
            "set serve.auth.type",
        ),
        (
            {
                "credentials": {"a": {"pass_client_token": True}},
                "auth": {"type": "jwt", "issuer": "https://i.example", "audience": ["https://g.example"]},
            },
            "use type 'exchange'",
        ),
    ],
)
def test_what_cannot_work_is_refused(serve: dict[str, Any], said: str) -> None:
    fleet = {"servers": {"a": {"url": "http://127.0.0.1:1/mcp"}, "p": {"command": "true"}}}
    with pytest.raises(ConfigError, match=said):
        Gateway(fleet, serve=serve)


async def test_a_server_may_call_itself_something_else_for_each_client() -> None:
    class Named(ExchangingServer):
        def answer(self, request: Request) -> Response:
            status, headers, reply = super().answer(request)
            if request.method == "initialize" and reply is not None:
                reply["result"]["serverInfo"]["name"] = f"server of {request.headers.get('x-tenant')}"
            return status, headers, reply

    with Named(HANDSHAKE, open=True) as server:
        serve = {"listen": "127.0.0.1:0", "credentials": {"a": {"pass_headers": ["X-Tenant"]}}}
        fleet = {"servers": {"a": {"url": server.url, **CALM, "connect": "lazy"}}}
        async with Gateway(fleet, serve=serve) as gateway, aiohttp.ClientSession() as http:
            url = f"{gateway.url}/servers/a/mcp"
            for tenant in ("red", "blue"):
                client = RawClient(http, url, STATELESS, headers={"X-Tenant": tenant})
                for reply in (
                    await client.call("echo", text="x"),
                    await client.begin(),
                    await client.ask("tools/list"),
                ):
                    told = reply["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]
                    assert told["name"] == f"server of {tenant}"
