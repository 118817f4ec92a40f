"""A gateway whose clients authenticate, and whose compiled code forwards what they repeat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.catalog_server import CatalogServer, tool
from support.gateway_pipes import stateless_meta
from support.session_clients import SessionClient

from mcp_manager._core.forward_path import ForwardPath
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys

__all__ = ["FIELDS", "TOOLS", "Site", "call", "forwarding_site", "text_of"]

TOOLS = {"tools": [tool("find"), tool("drop")]}
FIELDS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
}


class Site:
    """A gateway, the connections of its clients by principal, and the servers behind it."""

    def __init__(self, gateway: Gateway, http: Mapping[str, aiohttp.ClientSession], servers: dict[str, CatalogServer]):
        self.gateway = gateway
        self.http = http
        self.servers = servers
        self.audit: Path = Path()

    @property
    def path(self) -> ForwardPath:
        return self.gateway._direct.path

    async def client(self, principal: str, path: str = "/mcp") -> SessionClient:
        client = await SessionClient(self.http[principal], f"{self.gateway.url}{path}").begin()
        await client.request("tools/list")
        return client

    async def forwarded(self, client: SessionClient, name: str) -> None:
        """Call a tool until compiled code does."""
        for _ in range(20):
            before = self.path.forwarded
            assert text_of(await call(client, name))
            if self.path.forwarded > before:
                return
        pytest.fail("no call was forwarded")

    async def stateless(self, principal: str, name: str, path: str = "/mcp", **meta: Any) -> Any:
        """Make a call of 2026-07-28; return its reply."""
        params = {"_meta": stateless_meta() | meta, "name": name, "arguments": {"x": [1, {"_meta": 2}]}}
        body = json.dumps({"jsonrpc": "2.0", "id": "é", "method": "tools/call", "params": params})
        url = f"{self.gateway.url}{path}"
        async with self.http[principal].post(url, data=body, headers=FIELDS | {"Mcp-Name": name}) as response:
            return await response.json()


async def call(client: SessionClient, tool_name: str, **arguments: Any) -> Any:
    return await client.request("tools/call", {"name": tool_name, "arguments": arguments})


def text_of(reply: Any) -> str:
    """Return the text of a result; "" for an error."""
    return str(reply["result"]["content"][0]["text"]) if "result" in reply else ""


@asynccontextmanager
async def forwarding_site(tmp_path: Path, **more: Any) -> AsyncIterator[Site]:
    """Run a gateway with the servers ``crm`` and ``wiki`` and the clients ``anna`` and ``berta``.

    Parameters
    ----------
    tmp_path
        An empty directory.
    more
        Further fields of ``serve``.
    """
    keys = {name: made_key(name) for name in ("anna", "berta")}
    write_keys(str(tmp_path / "keys"), [kept for _, kept in keys.values()])
    with ExitStack() as stack:
        servers = {name: stack.enter_context(CatalogServer(TOOLS)) for name in ("crm", "wiki")}
        fleet = {name: {"url": server.url, "protocol_version": "2025-11-25"} for name, server in servers.items()}
        serve = {
            "listen": "127.0.0.1:0",
            "auth": {"type": "api_key", "keys_file": str(tmp_path / "keys")},
            "audit": {"path": str(tmp_path / "audit")},
            "limits": [{"principals": ["berta"], "tools": ["crm__drop"], "rate": 0.001, "burst": 3}],
            **more,
        }
        views = {"mine": {"servers": ["crm"], "names": "short"}, "searched": {"discovery": "search"}}
        async with AsyncExitStack() as opened:
            gateway = await opened.enter_async_context(Gateway({"servers": fleet, "views": views}, serve=serve))
            http = {
                name: await opened.enter_async_context(
                    aiohttp.ClientSession(
                        headers={"Authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=1)
                    )
                )
                for name, (key, _) in keys.items()
            }
            await gateway.manager.wait_ready()
            made = Site(gateway, http, servers)
            made.audit = tmp_path / "audit"
            yield made
            assert gateway.under_way == 0
            assert not gateway._keep_alives.waiting and not gateway._sessions.calls.running
            limits = gateway._security.accounting.limits
            accounts = [*limits._newer.values(), *limits._older.values()]
            assert not any(each.is_used or any(limit.running for limit in each.counters) for each in accounts)
