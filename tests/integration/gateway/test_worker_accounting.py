"""Several workers with keys, limits and an audit log: each request is authenticated, counted and recorded once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

from support.ledger import noting_stdio
from support.principals import Keys, http_for
from support.session_clients import MovedServer, SessionClient
from support.worker_gateways import SECRET, WorkerGateways

from mcp_manager.gateway import Gateway

ASKABLE = {"elicitation": {"form": {}}}
NOTE = {"name": "note", "arguments": {"call": "x"}}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def running_at(gateway: Gateway) -> int:
    """How many requests of ann are counted at a gateway."""
    limits = gateway._security.accounting.limits
    assert set(limits._newer) <= {"ann"}, "requests of a sibling are counted"
    return sum(account.running for account in limits._newer.values())


async def test_each_request_is_counted_once_whichever_worker_it_comes_to(tmp_path: Path) -> None:
    keys, path = Keys(tmp_path, "ann"), tmp_path / "audit.jsonl"
    async with (
        MovedServer().running() as moved,
        WorkerGateways.running(
            {
                "servers": {
                    "program": noting_stdio(tmp_path / "ledger").config(),
                    "moved": {"url": moved.url, "protocol_version": "2025-11-25"},
                }
            },
            auth=keys.auth,
            allow=[{"principals": ["ann"]}],
            limits=[{"max_concurrent": 2, "max_streams": 2}],
            audit={"path": str(path)},
        ) as workers,
        http_for(keys, "ann") as http,
    ):
        # A worker reaches the program that its sibling runs, though that asks for keys.
        for url in workers.urls:
            client = await SessionClient(http, f"{url}/servers/program/mcp").begin()
            assert "result" in await client.request("tools/call", NOTE)
            assert "result" in await client.request("logging/setLevel", {"level": "info"})
        # What may ask the client belongs to the worker that began the session.
        client = await SessionClient(http, f"{workers.urls[0]}/servers/moved/mcp").begin(ASKABLE)
        client.url = f"{workers.urls[1]}/servers/moved/mcp"
        calling = asyncio.create_task(client.request("tools/call", {"name": "hold"}))
        held = await moved.call("hold")
        assert [running_at(gateway) for gateway in workers.gateways] == [1, 0]
        held.reply()
        assert "result" in await calling
        # The secret means nothing to whoever comes over the network.
        forged = await http.post(client.url, json=PING, headers={"mcp-manager-sibling": SECRET})
        assert forged.status == 400
        assert (await client.end()).status == 200
        # A request that is passed on is counted where it is answered, and one that a worker makes where it comes from.
        counted = Counter[tuple[str, str]]()
        for gateway in workers.gateways:
            for (endpoint, _, status), number in gateway._reception.traffic.requests.items():
                counted[endpoint, str(status)] += number
        # Per session: initialize, the notification, and two requests, or one and a DELETE.
        assert counted == {
            ("server/program", "200"): 6,
            ("server/program", "202"): 2,
            ("server/moved", "200"): 3,
            ("server/moved", "202"): 1,
            ("server/moved", "400"): 1,
        }
        for gateway in workers.gateways:
            assert running_at(gateway) == 0
            assert gateway._security.accounting.audit is not None
            await gateway._security.accounting.audit.flush()
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        calls = [(line["endpoint"], line["principal"]) for line in lines if line["method"] == "tools/call"]
        assert sorted(calls) == [("server/moved", "ann"), *[("server/program", "ann")] * 2]
        assert all(line["client"].startswith("127.0.0.1:") for line in lines), lines
        assert [line for line in lines if line.get("reason") == "authentication"] == []
        lines = [line for line in lines if "reason" not in line]
        assert len(lines) == len({(line["method"], line["session"]) for line in lines}), lines
