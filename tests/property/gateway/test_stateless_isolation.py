"""Two principals without sessions do anything in any order: nothing that is meant for one of them reaches the other."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.principals import Keys, http_for
from support.questioning import StatelessClient
from support.session_clients import HeldCall, MovedServer

from mcp_manager.gateway.gateway import Gateway

ASKABLE: dict[str, Any] = {"sampling": {}, "elicitation": {"form": {}}, "roots": {}}
LOG = "notifications/message"


class Party:
    """One principal, what it has seen, and its calls; everything that is meant for it carries its name as a mark."""

    def __init__(self, name: str, http: aiohttp.ClientSession, url: str) -> None:
        self.name = name
        self.mark = f"<{name}>"
        self.client = StatelessClient(http, url, **ASKABLE)
        self.seen: list[str] = []
        self.calls: list[HeldCall] = []
        self.states: list[tuple[str, str, list[str]]] = []
        self.answers: list[asyncio.Future[Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.newest: dict[str, asyncio.Task[Any]] = {}

    def begin(self, method: str, **params: Any) -> None:
        task = asyncio.create_task(self._sent(method, params))
        self.tasks.append(task)
        self.newest[str(params.get("name"))] = task

    async def _sent(self, method: str, params: dict[str, Any]) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.client.post(method, params) as response:
                async for line in response.content:
                    text = line.decode()
                    self.seen.append(text)
                    if "requestState" in text:
                        result = json.loads(text.removeprefix("data: "))["result"]
                        self.states.append((params["name"], result["requestState"], list(result["inputRequests"])))


class Play:
    """Let the principals and the server act."""

    def __init__(self, chance: random.Random, server: MovedServer) -> None:
        self.chance = chance
        self.server = server
        self.number = 0

    async def act(self, one: Party, other: Party) -> None:
        acts = [self.call, self.call, self.tell, self.ask, self.ask, self.answer, self.forge, self.reply]
        await self.chance.choice([*acts, self.listen, self.update, self.break_off])(one, other)

    async def call(self, one: Party, other: Party) -> None:
        self.number += 1
        name = f"t{self.number}"
        # Both use the same tokens, and the same ids.
        one.begin("tools/call", name=name, arguments={}, _meta={"progressToken": 1, **_level(self.chance)})
        one.calls.append(await self.server.call(name))

    async def tell(self, one: Party, other: Party) -> None:
        for call in one.calls[-2:]:
            call.send(LOG, {"level": "error", "data": one.mark})
            token = call.message["params"]["_meta"]["progressToken"]
            call.send("notifications/progress", {"progressToken": token, "progress": 1, "message": one.mark})

    async def ask(self, one: Party, other: Party) -> None:
        if one.calls:
            call = one.calls[-1]
            one.answers.append(call.ask("elicitation/create", {"message": one.mark, "requestedSchema": {}}))
            # The request ends with the question.
            await asyncio.wait({one.newest[call.name]}, timeout=5)

    async def answer(self, one: Party, other: Party) -> None:
        """Go on with calls that ask: each state is good for one round."""
        for name, state, keys in one.states[-2:]:
            given = {key: {"action": "accept", "content": {"mark": one.mark}} for key in keys}
            one.begin("tools/call", name=name, arguments={}, requestState=state, inputResponses=given)

    async def forge(self, one: Party, other: Party) -> None:
        """Answer what the other is asked."""
        for name, state, keys in other.states[-2:]:
            given = {key: {"action": "accept", "content": {"mark": one.mark}} for key in keys}
            params = {"name": name, "arguments": {}, "requestState": state, "inputResponses": given}
            reply = await one.client.send("tools/call", params)
            one.seen.append(json.dumps(reply.message))
            assert reply.error["code"] == -32602

    async def reply(self, one: Party, other: Party) -> None:
        if one.calls:
            one.calls.pop(self.chance.randrange(len(one.calls))).reply(one.mark)

    async def listen(self, one: Party, other: Party) -> None:
        one.begin("subscriptions/listen", notifications={"resourceSubscriptions": [f"r://{one.name}"]})

    async def update(self, one: Party, other: Party) -> None:
        session = next((name for name, each in self.server.received if each.get("method") == "resources/subscribe"), "")
        if session in self.server.standing:
            params = {"uri": f"r://{one.name}", "title": one.mark}
            told = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}
            self.server.standing[session].put_nowait(told)

    async def break_off(self, one: Party, other: Party) -> None:
        if one.tasks:
            one.tasks[self.chance.randrange(len(one.tasks))].cancel()


def _level(chance: random.Random) -> dict[str, str]:
    return {"io.modelcontextprotocol/logLevel": "debug"} if chance.random() < 0.7 else {}


@pytest.mark.parametrize(("seed", "sessions"), [(1, "per_client"), (2, "per_client"), (3, "shared"), (4, "shared")])
async def test_nothing_of_one_principal_reaches_another(seed: int, sessions: str, tmp_path: Path) -> None:
    keys = Keys(tmp_path, "anna", "bert")
    async with (
        MovedServer().running() as server,
        http_for(keys, "anna") as of_anna,
        http_for(keys, "bert") as of_bert,
    ):
        servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
        serve = {"listen": "127.0.0.1:0", "auth": keys.auth, "sessions": sessions}
        async with Gateway({"servers": servers}, serve=serve) as gateway:
            url = f"{gateway.url}/servers/a/mcp"
            anna, bert = parties = Party("anna", of_anna, url), Party("bert", of_bert, url)
            play = Play(random.Random(seed), server)
            for one, other in ((anna, bert), (bert, anna)):
                await play.call(one, other)
                await play.ask(one, other)
            for _ in range(50):
                await play.act(*play.chance.sample(parties, 2))
            for party in parties:
                for call in party.calls:
                    call.reply(party.mark)
                # Whatever was sent before has arrived.
                await party.client.send("tools/list")
            for party in parties:
                for task in party.tasks:
                    task.cancel()
                await asyncio.gather(*party.tasks, return_exceptions=True)
            for one, other in ((anna, bert), (bert, anna)):
                assert any(one.mark in text for text in one.seen) and one.states
                assert all(other.mark not in text for text in one.seen)
                answers = [each.result() for each in one.answers if each.done() and not each.cancelled()]
                assert all(other.mark not in json.dumps(each) for each in answers)
            if sessions == "per_client":
                received = [json.dumps(message) for _, message in server.received if "result" in message]
                assert not [text for text in received if anna.mark in text and bert.mark in text]
