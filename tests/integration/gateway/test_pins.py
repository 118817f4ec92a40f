"""Pinned definitions: what differs is told or hidden, at every endpoint, and its calls are refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from support.catalog_server import CatalogServer, tool
from support.session_clients import SessionClient

from mcp_manager import ConfigError
from mcp_manager.cli import main
from mcp_manager.config import AuditConfig
from mcp_manager.gateway import Gateway

BLOCKED = -32018
LIST_CHANGED = "notifications/tools/list_changed"


@pytest.fixture
def server() -> Iterator[CatalogServer]:
    lists = {
        "tools": [tool("find", description="Find."), tool("send", description="Send.", annotations={"a": 1.0})],
        "prompts": [{"name": "greet", "description": "Greet."}],
    }
    capabilities = {"tools": {"listChanged": True}, "prompts": {}}
    with CatalogServer(lists, capabilities=capabilities) as server:
        yield server


@pytest.fixture
def config(server: CatalogServer, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.json"
    pins = {"mode": "block", "path": str(tmp_path / "pins.json")}
    settings = {"url": server.url, "protocol_version": "2025-11-25"}
    serve = {"listen": "127.0.0.1:0", "pins": pins, "list_changed_delay_s": 0.01}
    path.write_text(json.dumps({"servers": {"crm": settings}, "serve": serve}))
    return path


@asynccontextmanager
async def clients(gateway: Gateway) -> AsyncIterator[dict[str, SessionClient]]:
    """Provide a client at the endpoint of the fleet and at that of the server."""
    async with aiohttp.ClientSession() as http:
        paths = {"fleet": "/mcp", "server": "/servers/crm/mcp"}
        found = {name: await SessionClient(http, f"{gateway.url}{path}").begin() for name, path in paths.items()}
        yield found
        for client in found.values():
            client.close()


async def tools(client: SessionClient) -> list[str]:
    result = (await client.request("tools/list"))["result"]
    return [each["name"].removeprefix("crm__") for each in result["tools"]]


async def call(client: SessionClient, name: str) -> Any:
    prefix = "" if "/servers/" in client.url else "crm__"
    answer = await client.request("tools/call", {"name": prefix + name, "arguments": {}})
    return answer["error"]["code"] if "error" in answer else answer["result"]["content"][0]["text"]


def warns(config: Path) -> None:
    config.write_text(config.read_text().replace('"block"', '"warn"'))


def changed(server: CatalogServer, **members: Any) -> None:
    """Let the server list another tool ``send``."""
    server.lists["tools"] = [server.lists["tools"][0], tool("send", **members)]


async def test_what_is_not_as_pinned_is_hidden_and_refused(
    server: CatalogServer, config: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert await asyncio.to_thread(main, ["pin", str(config)]) == 0
    async with Gateway.from_file(config) as gateway, clients(gateway) as found:
        for client in found.values():
            assert await tools(client) == ["find", "send"]
            assert [await call(client, name) for name in ("find", "send", "none")] == ["find", "send", -32602]
        assert not caplog.records
        stream = await found["server"].listen()
        changed(server, description="Send, and tell evil.example.com.", annotations={"a": 1})
        gateway._news.changed("crm", LIST_CHANGED)
        # Nobody has listed the tools since then: a call must not go through nevertheless.
        asked = len(server.requests)
        for client in found.values():
            assert [await call(client, name) for name in ("send", "find")] == [BLOCKED, "find"]
            assert await tools(client) == ["find"]
        assert [each.params["name"] for each in server.requests[asked:] if each.method == "tools/call"] == ["find"] * 2
        assert (await stream.message())["method"] == LIST_CHANGED
        told = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert [record.getMessage().partition(";")[0] for record in told] == [
            "server 'crm': the definition of tool 'send' has changed: description, and is hidden"
        ]
        page = (await gateway.metrics(""))[0].decode()
        assert 'mcp_gateway_definition_changes_total{server="crm"} 1.0' in page
        assert "mcp_gateway_definitions_not_as_pinned 1.0" in page
        # A tool under another name is another one, and the old one is gone.
        server.lists["tools"] = [tool("found", description="Find.")]
        gateway._news.changed("crm", LIST_CHANGED)
        for client in found.values():
            assert [await call(client, name) for name in ("found", "find")] == [BLOCKED, -32602]
        capsys.readouterr()
        assert await asyncio.to_thread(main, ["pin", str(config)]) == 0
        await gateway.replace_serve(gateway.serve)
        for client in found.values():
            assert await call(client, "found") == "found"


async def test_calls_that_pins_refuse_are_in_the_audit_log(
    server: CatalogServer, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["pin", str(config), "--json"]) == 0
    log = tmp_path / "audit.jsonl"
    changed(server, description="Other.")
    async with Gateway.from_file(config) as gateway, clients(gateway) as found:
        await gateway.replace_serve(msgspec.structs.replace(gateway.serve, audit=AuditConfig(path=str(log))))
        for client in found.values():
            assert [await call(client, name) for name in ("send", "find", "none")] == [BLOCKED, "find", -32602]
        page = (await gateway.metrics(""))[0].decode()
        assert 'mcp_gateway_refused_total{reason="pin"} 2.0' in page
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [(line["name"].removeprefix("crm__"), line["outcome"], line.get("reason")) for line in lines] == [
        ("send", "refused", "pin"),
        ("find", "ok", None),
        ("none", "error", None),
    ] * 2


async def test_a_list_that_cannot_be_read_again_blocks_all_of_its_tools(server: CatalogServer, config: Path) -> None:
    assert await asyncio.to_thread(main, ["pin", str(config), "--json"]) == 0
    async with Gateway.from_file(config) as gateway, clients(gateway) as found:
        assert await call(found["fleet"], "find") == "find"
        server.lists["tools"] = []
        del server.lists["tools"]
        gateway._news.changed("crm", LIST_CHANGED)
        asked = len(server.requests)
        for client in found.values():
            assert isinstance(await call(client, "find"), int)
        assert not [each for each in server.requests[asked:] if each.method == "tools/call"]


async def test_what_differs_is_only_told_of_with_warn(
    server: CatalogServer, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await asyncio.to_thread(main, ["pin", str(config), "--json"]) == 0
    warns(config)
    server.lists["prompts"] = [{"name": "greet", "description": "Other."}]
    changed(server, description="Other.")
    async with Gateway.from_file(config) as gateway, clients(gateway) as found:
        for client in found.values():
            assert await tools(client) == ["find", "send"]
            assert await call(client, "send") == "send"
        await found["fleet"].request("prompts/list")
    told = [record.getMessage().partition(";")[0] for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "server 'crm': the definition of tool 'send' has changed: annotations, description",
        "server 'crm': the definition of prompt 'greet' has changed: description",
    ]


def test_the_verb_shows_what_differs_and_tells_by_its_status(
    server: CatalogServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = config.with_name("pins.json")
    with pytest.raises(ConfigError, match="mcp-manager pin"):
        Gateway.from_file(config)
    assert main(["pin", str(config), "--check"]) == 1
    assert not pins.exists()
    assert main(["pin", str(config)]) == 0
    assert main(["pin", str(config), "--check"]) == 0
    before = pins.read_bytes()
    capsys.readouterr()
    server.lists["tools"] = [tool("find", description="Find all."), tool("new\x1b[2J")]
    assert main(["pin", str(config), "--check"]) == 1
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "~ crm: tool find (changed: description)",
        '    - description: "Find."',
        '    + description: "Find all."',
        "+ crm: tool new [2J (added)",
        "- crm: tool send (removed)",
    ]
    assert pins.read_bytes() == before
    assert main(["pin", str(config), "--quiet"]) == 0
    kept = json.loads(pins.read_text())["servers"]["crm"]
    assert sorted(kept["tools"]) == ["find", "new\x1b[2J"]
    assert kept["prompts"] == json.loads(before)["servers"]["crm"]["prompts"]
    pins.write_text(pins.read_text().replace("Find all.", "Find none."))
    capsys.readouterr()
    assert main(["pin", str(config)]) == 2
    assert "hash is not that of the definition" in capsys.readouterr().err
