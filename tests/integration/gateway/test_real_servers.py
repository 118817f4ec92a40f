"""Servers of others behind the gateway: a session does what it does with the server itself, and lists have the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
import pytest
from support.calls import CALM
from support.node import node_unavailable
from support.real_peer_cases import PATIENCE_S, SESSION_CASES
from support.real_peers import ANSWERS, HANDSHAKE, PEERS, STATELESS, Peer, Running

from mcp_manager import McpManager
from mcp_manager.gateway import Gateway

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
NAMED: Final = ("tools/list", "prompts/list")
SETTINGS: Final = {**CALM, "connect_timeout_s": PATIENCE_S, "request_timeout_s": PATIENCE_S}
# These have a session of their own for each client, which no other one disturbs.
BEHIND: Final = tuple(peer for peer in PEERS if peer.transport != "sse" and peer.name != "sdk-http-sessionless")
# After a call that is given up, nobody can tell for a while whom a program asks.
IN_TURN: Final = (*(case for case in SESSION_CASES if case != "cancel"), "cancel")
LEFT_OUT: Final = {
    (
        name,
        "roots",
        STATELESS,
    ): "the server asks once, outside of any call, when no client of this revision can be asked"
    for name in ("everything-stdio", "everything-http")
}
SHOWS_LESS: Final = frozenset({"everything-http"})
"""Servers with tools for clients that can be asked alone: the list of all servers is that of a session that all share."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries = msgspec.json.Decoder(list[msgspec.Raw])

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """The servers that the chosen tests share, each started once, by the name of the peer."""
    with contextlib.ExitStack() as stack:
        yield {
            peer.name: stack.enter_context(peer.start(tmp_path_factory.mktemp("peer")))
            for peer in BEHIND
            if not (peer.needs_node and node_unavailable())
        }


def answering(method: str) -> Callable[[str, Any], Awaitable[Any]]:
    async def give(_: str, __: Any) -> Any:
        return ANSWERS[method]

    return give


@contextlib.asynccontextmanager
async def gateway_before(servers: dict[str, Running]) -> AsyncIterator[Gateway]:
    configs = {name: {**running.config, **SETTINGS} for name, running in servers.items()}
    async with Gateway({"servers": configs}, serve={"listen": "127.0.0.1:0"}) as gateway:
        await gateway.manager.wait_ready()
        yield gateway


@contextlib.asynccontextmanager
async def client_of(config: dict[str, Any], revision: str = "auto") -> AsyncIterator[McpManager]:
    async with McpManager(handlers={method: answering(method) for method in ANSWERS}) as manager:
        await manager.deploy("peer", {**config, **SETTINGS, "protocol_version": revision})
        yield manager


async def entries_of(manager: McpManager, method: str) -> list[bytes]:
    """Return the entries of a list, each as JSON; nothing if the server has no such list."""
    found: list[bytes] = []
    params: dict[str, Any] = {}
    while True:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = _members.decode(await manager.exchange("peer", msgspec.json.encode(request)))
        if "error" in reply:
            return found
        result = _members.decode(reply["result"])
        found += [bytes(each) for each in _entries.decode(result[LISTS[method]])]
        if "nextCursor" not in result:
            return found
        params = {"cursor": msgspec.json.decode(result["nextCursor"])}


def renamed(entry: bytes, server_id: str) -> bytes:
    """Return an entry with the name that it has among all servers."""
    name = bytes(_members.decode(entry)["name"])
    assert entry.count(b'"name":' + name) + entry.count(b'"name": ' + name) == 1
    return entry.replace(name, b'"%b__%b' % (server_id.encode(), name[1:]), 1)


async def test_lists_have_the_bytes_of_their_servers(servers: dict[str, Running]) -> None:
    async with gateway_before(servers) as gateway:
        merged: dict[str, list[bytes]] = {}
        async with client_of({"url": f"{gateway.url}/mcp"}) as client:
            for method in NAMED:
                merged[method] = await entries_of(client, method)

        async def compare(name: str, direct_config: dict[str, Any]) -> None:
            url = f"{gateway.url}/servers/{name}/mcp"
            async with client_of(direct_config) as direct, client_of({"url": url}) as by:
                for method in LISTS:
                    expected = await entries_of(direct, method)
                    assert await entries_of(by, method) == expected, (name, method)
                    if method in NAMED and name not in SHOWS_LESS:
                        assert {renamed(each, name) for each in expected} <= set(merged[method]), (name, method)
                assert await entries_of(direct, "tools/list"), name

        async with asyncio.TaskGroup() as comparisons:
            for name, running in servers.items():
                comparisons.create_task(compare(name, running.config))


@pytest.mark.parametrize("revision", [HANDSHAKE, STATELESS])
async def test_sessions_do_what_they_do_without_the_gateway(servers: dict[str, Running], revision: str) -> None:
    async with gateway_before(servers) as gateway:
        failed: dict[str, BaseException] = {}
        for peer in BEHIND:
            if peer.name not in servers:
                continue
            async with client_of({"url": f"{gateway.url}/servers/{peer.name}/mcp"}, revision) as client:
                for case in IN_TURN:
                    if reason_for(gateway, peer, case, revision) is None:
                        try:
                            await SESSION_CASES[case](client, peer, servers[peer.name])
                        except Exception as error:
                            failed[f"{peer.name}: {case}"] = error
        assert failed == {}


def reason_for(gateway: Gateway, peer: Peer, case: str, revision: str) -> str | None:
    """Return why a case is left out, by the revisions that the gateway speaks with the server and with the client."""
    spoken = gateway.manager.server(peer.name).protocol_version
    assert spoken is not None
    return LEFT_OUT.get((peer.name, case, revision)) or peer.reason(case, spoken)
