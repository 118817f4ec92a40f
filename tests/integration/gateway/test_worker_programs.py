"""Programs of a fleet that several workers serve: each runs once, and every worker reaches it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.ledger import noting_stdio, read_ledger
from support.processes import PROGRAMS
from support.session_clients import EventReader, SessionClient
from support.worker_gateways import WorkerGateways, stateless_call

from mcp_manager.gateway.workers.ownership import owner_of

ASKABLE = {"elicitation": {"form": {}}}
FORM = {"type": "object", "properties": {}}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


async def test_a_program_runs_once_and_every_worker_reaches_it(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    names = [f"s{number}" for number in range(4)]
    ledgers = {name: tmp_path / name for name in names}
    config = {"servers": {name: noting_stdio(ledgers[name]).config() for name in names}}
    async with WorkerGateways.running(config) as workers:
        for name in names:
            for url in workers.urls:
                client = SessionClient(http, f"{url}/servers/{name}/mcp")
                await client.begin()
                listed = await client.request("tools/list")
                assert [tool["name"] for tool in listed["result"]["tools"]] == ["note", "look"]
                called = await client.request("tools/call", {"name": "note", "arguments": {"call": url[-5:]}})
                assert called["result"]["content"][0]["text"] == url[-5:]
        for gateway in workers.gateways:
            number = gateway._worker.assignment.number
            for view in gateway.manager.servers():
                assert view.transport == ("stdio" if owner_of(view.id, 2) == number else "http")
        async with http.get(f"{workers.urls[0]}/ready") as ready:
            assert await ready.json() == {"ready": True}
    for ledger in ledgers.values():
        entries = read_ledger(ledger)
        assert len(entries) == 2
        assert len({entry.pid for entry in entries}) == 1


@pytest.mark.parametrize("era", ["stateless", "handshake"])
async def test_a_program_asks_clients_of_every_worker(era: str, http: aiohttp.ClientSession) -> None:
    asking = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), era]}
    question = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": FORM}, "state": "mine"}
    answer = {"action": "accept", "content": {}}
    async with WorkerGateways.running({"servers": {"asking": asking}}) as workers:
        urls = [f"{url}/servers/asking/mcp" for url in workers.urls]
        for first, second in itertools.product(urls, urls):
            call = {"name": "ask", "arguments": question}
            asked = await stateless_call(http, first, call)
            [key] = asked["inputRequests"]
            state = asked["requestState"]
            result = await stateless_call(
                http, second, {**call, "requestState": state, "inputResponses": {key: answer}}
            )
            learned = result["structuredContent"]
            assert learned["answer"]["result"] == answer
            assert learned.get("state", "mine") == "mine"
            client = await SessionClient(http, first).begin(ASKABLE)
            events = EventReader(await client.post("tools/call", call))
            asked = await events.message()
            client.url = second
            assert (await client.answer(asked["id"], answer)).status == 202
            [reply] = await events.rest()
            assert reply["result"]["structuredContent"]["answer"]["result"] == answer


async def test_a_merged_list_is_paged_by_any_worker(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    servers = {f"s{number}": noting_stdio(tmp_path / "ledger").config() for number in range(3)}
    async with WorkerGateways.running({"servers": servers}, page_size=1) as workers:
        client = await SessionClient(http, f"{workers.urls[0]}/mcp").begin()
        names, params = [], {}
        for number in itertools.cycle((1, 0)):
            client.url = f"{workers.urls[number]}/mcp"
            page = (await client.request("tools/list", params))["result"]
            names += [tool["name"] for tool in page["tools"]]
            if "nextCursor" not in page:
                break
            params = {"cursor": page["nextCursor"]}
        assert sorted(names) == sorted(f"{server}__{tool}" for server in servers for tool in ("note", "look"))
