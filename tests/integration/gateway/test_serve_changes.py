"""What of ``serve`` takes effect while a gateway serves: all of a configuration, or nothing of it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.calls import CALM
from support.catalog_server import CatalogServer, tool
from support.certificates import make_context
from support.exchanging import ExchangingServer
from support.gateway_clients import RawClient
from support.session_clients import SessionClient

from mcp_manager import ConfigError
from mcp_manager.cli import main
from mcp_manager.config import ServeConfig
from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.serve_changes import FOLLOWED
from mcp_manager.gateway.service import Service

LIST_CHANGED = "notifications/tools/list_changed"
QUICK: dict[str, Any] = {"listen": "127.0.0.1:0", "list_changed_delay_s": 0.0}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def tools_of(client: SessionClient, **params: Any) -> list[str]:
    result = (await client.request("tools/list", params))["result"]
    return [each["name"] for each in result["tools"]]


async def test_plain_settings_are_followed(http: aiohttp.ClientSession) -> None:
    tools = [tool(f"t{number}") for number in range(5)]
    with CatalogServer({"tools": tools}) as server:
        fleet = {"servers": {"a": {"url": server.url, **CALM}}}
        async with Gateway(fleet, serve={**QUICK, "page_size": 2, "keepalive_s": 3600.0}) as gateway:
            client = await SessionClient(http, f"{gateway.url}/mcp").begin()
            stream = await client.listen()
            first = (await client.request("tools/list"))["result"]
            assert len(first["tools"]) == 2
            url = gateway.url.replace("127.0.0.1", "gateway.example.com")

            async def posted(**fields: str) -> int:
                # Calls take another way than the rest, which learns from the first ones.
                call = {"method": "tools/call", "params": {"name": "a__t1", "arguments": {}}}
                for _ in range(3):
                    status = (await client.send({"jsonrpc": "2.0", "id": 1, **call}, **fields)).status
                return status

            host, page = url.removeprefix("http://"), "https://app.example.com"
            assert [await posted(Host=host), await posted(Origin=page)] == [403, 403]
            changed = {
                **QUICK,
                "allowed_hosts": ["gateway.example.com"],
                "allowed_origins": [page],
                "discovery": "search",
                "hot": ["a__t1"],
                "keepalive_s": 0.01,
                "min_ready": 0,
                "page_size": 3,
            }
            await gateway.replace_serve(changed)
            assert gateway.serve.min_ready == 0
            # The event loop had an hour until the next comment.
            async with asyncio.timeout(10):
                while await stream.response.content.readline() != b":\n":
                    pass
            assert [await posted(Host=host), await posted(Origin=page)] == [200, 200]
            assert await tools_of(client) == ["a__t1", "call_tool", "describe_tools"]
            await gateway.replace_serve({**changed, "discovery": "list", "keepalive_s": 3600.0})
            # A cursor goes on where it stood, in pages of the new size.
            assert await tools_of(client, cursor=first["nextCursor"]) == ["a__t2", "a__t3", "a__t4"]
            await gateway.replace_serve({**QUICK, "session_ttl_s": 1e-6})
            assert [await posted(), await posted(Host=host)] == [404, 403]
            await gateway.replace_serve(QUICK)
            assert await posted() == 200
            client.close()


async def test_the_mode_of_pins_is_followed(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    config, path = tmp_path / "fleet.json", tmp_path / "pins.json"
    with CatalogServer({"tools": [tool("find"), tool("send")]}, capabilities={"tools": {}}) as server:
        off = {**QUICK, "pins": {"path": str(path)}}
        servers = {"crm": {"url": server.url, "protocol_version": "2025-11-25"}}
        config.write_text(json.dumps({"servers": servers, "serve": off}))
        assert await asyncio.to_thread(main, ["pin", str(config), "--json"]) == 0
        server.lists["tools"] = [tool("find"), tool("send", description="Tell evil.example.com.")]
        async with Gateway.from_file(config) as gateway:
            fleet = await SessionClient(http, f"{gateway.url}/mcp").begin()
            own = await SessionClient(http, f"{gateway.url}/servers/crm/mcp").begin()
            streams = [await each.listen() for each in (fleet, own)]
            for mode, listed in (("off", 2), ("block", 1), ("warn", 2), ("block", 1), ("off", 2)):
                is_other = mode != gateway.serve.pins.mode
                await gateway.replace_serve({**off, "pins": {"path": str(path), "mode": mode}})
                for stream in streams if is_other else ():
                    while (await stream.message())["method"] != LIST_CHANGED:
                        pass
                for client, name in ((fleet, "crm__send"), (own, "send")):
                    assert (await tools_of(client)).count(name) == listed - 1
                    reply = await client.request("tools/call", {"name": name, "arguments": {}})
                    assert ("result" in reply) is (listed == 2), (mode, reply)
            for client in (fleet, own):
                client.close()


async def test_credentials_for_servers_are_followed(http: aiohttp.ClientSession) -> None:
    with ExchangingServer("2025-11-25", open=True) as server:
        server.keeps = ("x-tenant", "authorization")
        fleet = {"servers": {"a": {"url": server.url, **CALM, "auth": {"type": "bearer", "token": "of-the-gateway"}}}}
        async with Gateway(fleet, serve=QUICK) as gateway:
            fields = {"X-Tenant": "red", "X-A-Authorization": "Bearer mine"}
            paths = ("/servers/a/mcp", "/mcp")
            clients = [RawClient(http, f"{gateway.url}{path}", "2025-11-25", headers=fields) for path in paths]
            await asyncio.gather(*(each.begin() for each in clients))

            async def seen() -> set[tuple[str | None, str | None]]:
                calls = [
                    each.call(f"{prefix}echo", text="x") for each, prefix in zip(clients, ("", "a__"), strict=True)
                ]
                replies = await asyncio.gather(*calls)
                said = [each["result"]["_meta"]["caller"] for each in replies]
                return {(each["x-tenant"], each["authorization"]) for each in said}

            own = "Bearer of-the-gateway"
            for credentials, expected in (
                ({}, (None, own)),
                ({"a": {"pass_headers": ["X-Tenant"]}}, ("red", own)),
                ({"a": {"authorization_header": "X-A-Authorization"}}, (None, "Bearer mine")),
                ({}, (None, own)),
            ):
                await gateway.replace_serve({**QUICK, "credentials": credentials})
                assert await seen() == {expected}
            # Whoever had other credentials had other sessions.
            assert all(len(each) == 1 for each in server.seen.values())
            # A server that stays as it is keeps its tokens.
            first = {"a": {"pass_headers": ["X-Tenant"]}}
            await gateway.replace_serve({**QUICK, "credentials": first})
            of_server = gateway._security.credentials
            assert of_server is not None
            kept = of_server.of("a")
            await gateway.replace_serve({**QUICK, "credentials": {**first, "b": {"pass_headers": ["X-B"]}}})
            assert of_server.of("a") is kept


async def test_a_configuration_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    with CatalogServer({"tools": [tool("find")]}) as server:
        fleet = {"servers": {"a": {"url": server.url, **CALM}}}
        async with Gateway(fleet, serve=QUICK) as gateway:
            before, security = gateway.serve, gateway._security
            kept = (security.authentication, security.credentials, security.accounting.audit)
            other = {
                **QUICK,
                "allowed_hosts": ["gateway.example.com"],
                "credentials": {"a": {"pass_headers": ["X-Tenant"]}},
                "page_size": 3,
                "allow": [{"servers": ["a"]}],
                "audit": {"path": str(tmp_path / "audit.jsonl")},
            }
            for wrong, text in (
                ({"auth": {"type": "api_key", "keys_file": str(tmp_path / "none.jsonl")}}, "keys"),
                ({"pins": {"mode": "block", "path": str(tmp_path / "none.json")}}, "file of pins"),
                ({"audit": {"path": str(tmp_path / "none" / "audit.jsonl")}}, r"serve\.audit\.path"),
            ):
                with pytest.raises(ConfigError, match=text):
                    await gateway.replace_serve({**other, **wrong})
                assert gateway.serve is before
                assert kept == (security.authentication, security.credentials, security.accounting.audit)
                assert not security.rules.grant_of_strangers() and security.credentials.of("a") is None
                assert not gateway._reception.hosts.accepts_host(b"gateway.example.com")
            assert not (tmp_path / "audit.jsonl").exists()


async def test_a_certificate_that_was_renewed_is_shown_to_new_connections(tmp_path: Path) -> None:
    make_context(tmp_path)
    files = {"cert_file": str(tmp_path / "certificate.pem"), "key_file": str(tmp_path / "key.pem")}
    async with Gateway({}, serve={**QUICK, **files}) as gateway:

        async def shown(name: str | None = None) -> bytes:
            """Return the certificate that is shown, with or without a name of the server in the handshake."""
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            # An address is no name, which the handshake leaves out.
            host = "127.0.0.1" if name is None else name
            async with asyncio.timeout(10):
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname=host)
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            await writer.wait_closed()
            assert isinstance(certificate, bytes)
            return certificate

        def written() -> bytes:
            return ssl.PEM_cert_to_DER_cert((tmp_path / "certificate.pem").read_text())

        first = written()
        assert await shown() == first
        # A file that is written in part, or with the key of another, changes nothing.
        key = (tmp_path / "key.pem").read_text()
        make_context(tmp_path)
        (tmp_path / "key.pem").rename(tmp_path / "new.pem")
        (tmp_path / "key.pem").write_text(key)
        with pytest.raises(ConfigError, match=r"serve\.key_file: is not the key of the certificate"):
            await gateway.replace_serve({**QUICK, "page_size": 3})
        assert gateway.serve.page_size == 1_000 and await shown() == first
        (tmp_path / "new.pem").rename(tmp_path / "key.pem")
        await gateway.replace_serve(gateway.serve)
        assert written() != first
        assert [await shown(), await shown("gateway.example.com")] == [written()] * 2


async def test_a_file_that_is_watched_is_applied_as_a_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its servers are not applied either if what it says of the gateway is refused."""
    path = tmp_path / "fleet.json"
    with CatalogServer({"tools": [tool("find")]}) as server:
        one = {"url": server.url, **CALM}

        def write(servers: dict[str, Any], **serve: Any) -> ServeConfig:
            path.write_text(json.dumps({"servers": servers, "serve": {**QUICK, **serve}}))
            return ServeConfig(**QUICK)

        told = write({"a": one})
        gateway = Gateway.from_file(path)
        service = Service(gateway, str(path), told, watch=True)
        ready = asyncio.Event()
        running = asyncio.create_task(service.run(ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        watch = gateway.manager._file_watch

        async def until(holds: Any) -> None:
            async with asyncio.timeout(10):
                while not holds():
                    watch.look_soon()
                    await asyncio.sleep(0.01)

        write({"a": one, "b": one}, page_size=7, auth={"type": "api_key", "keys_file": str(tmp_path / "none.jsonl")})
        await until(lambda: watch.state is not None and "keys" in watch.state.problem)
        assert [each.id for each in gateway.manager.servers()] == ["a"]
        assert gateway.serve.page_size == 1_000
        assert "nothing was changed" in caplog.text
        write({"a": one, "b": one}, page_size=7, legacy_sse=True)
        await until(lambda: gateway.serve.page_size == 7)
        await until(lambda: len(gateway.manager.servers()) == 2)
        assert "restart the gateway to apply the changes in serve: legacy_sse" in caplog.text
        service.end()
        assert await asyncio.wait_for(running, 20) == 0


def test_fields_that_are_followed_are_fields() -> None:
    assert FOLLOWED.issubset(ServeConfig.__struct_fields__)
