"""Two clients do anything in any order: nothing that is meant for one of them reaches the other."""

from __future__ import annotations

import asyncio
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.principals import Keys, http_for
from support.session_clients import EventReader, HeldCall, MovedServer, SessionClient

from mcp_manager.gateway.gateway import Gateway

ASKABLE = {"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": True}}
LOG = "notifications/message"


class Party:
    """One client, what it has seen, and the calls that a server holds for it.

    Everything that is meant for it, from wherever, carries its name as a mark.
    """

    def __init__(self, name: str, client: SessionClient, server: MovedServer) -> None:
        self.name = name
        self.client = client
        self.server = server
        self.seen: list[str] = []
        self.calls: list[HeldCall] = []
        self.event_ids: list[str] = []
        self.question_ids: list[Any] = []
        self.answers: list[asyncio.Future[Any]] = []
        self.readers: list[EventReader] = []
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def mark(self) -> str:
        return f"<{self.name}>"

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Keep all that a response brings, until its end."""
        if response.content_type != "text/event-stream":
            self.seen.append(await response.text())
            return
        reader = EventReader(response)
        self.readers.append(reader)
        try:
            while (event := await reader.next()) is not None:
                self.event_ids.append(event.id)
                self.seen.append(json.dumps(event.message))
                if isinstance(event.message, dict) and "id" in event.message and "method" in event.message:
                    self.question_ids.append(event.message["id"])
        except (aiohttp.ClientError, TimeoutError, AttributeError):
            # This client has broken the connection itself.
            return

    async def posted(self, message: Any) -> None:
        await self.read(await self.client.send(message))

    async def opened(self, last_event_id: str) -> None:
        await self.read(await self.client.get(last_event_id))

    def begin(self, work: Any) -> None:
        self.tasks.append(asyncio.create_task(work))


class Play:
    """Let the clients and the server act."""

    def __init__(self, chance: random.Random, parties: list[Party], server: MovedServer) -> None:
        self.chance = chance
        self.parties = parties
        self.server = server
        self.number = 0
        self.steals = random.Random(7)

    async def act(self) -> None:
        one = self.chance.choice(self.parties)
        other = next(each for each in self.parties if each is not one)
        acts = [self.call, self.log, self.ask, self.answer, self.forge, self.reply, self.cancel, self.break_off]
        others = [
            self.call,
            self.log,
            self.ask,
            self.resume,
            self.resume_of_other,
            self.listen,
            self.set_level,
            self.say,
            self.subscribe,
            self.update,
            self.change_roots,
        ]
        await self.chance.choice([*acts, *others])(one, other)

    async def call(self, one: Party, other: Party) -> None:
        self.number += 1
        # Both use the same ids.
        request_id = len(one.calls)
        name = f"t{self.number}"
        request = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call"}
        one.begin(
            one.posted({**request, "params": {"name": name, "arguments": {}, "_meta": {"progressToken": request_id}}})
        )
        one.calls.append(await self.server.call(name))

    async def log(self, one: Party, other: Party) -> None:
        for call in one.calls[-2:]:
            call.send(LOG, {"level": "error", "data": one.mark})
            token = call.message["params"]["_meta"]["progressToken"]
            call.send("notifications/progress", {"progressToken": token, "progress": 1, "message": one.mark})

    async def ask(self, one: Party, other: Party) -> None:
        if one.calls:
            one.answers.append(one.calls[-1].ask("elicitation/create", {"message": one.mark, "requestedSchema": {}}))

    async def answer(self, one: Party, other: Party) -> None:
        for question_id in one.question_ids[-2:]:
            await one.client.answer(question_id, {"action": "accept", "content": {"mark": one.mark}})

    async def forge(self, one: Party, other: Party) -> None:
        """Answer, cancel and report in the name of the other."""
        for question_id in other.question_ids[-2:]:
            await one.client.answer(question_id, {"action": "accept", "content": {"mark": one.mark}})
            await one.client.notify("notifications/cancelled", {"requestId": question_id})
        await one.client.notify("notifications/progress", {"progressToken": 0, "progress": 9, "message": one.mark})

    async def steal(self) -> None:
        """Use the session of another principal, which is not there for this one."""
        one, other = self.steals.sample(self.parties, 2)
        thief = SessionClient(one.client.http, one.client.url)
        thief.session_id = other.client.session_id
        last_event_id = self.steals.choice(["", *other.event_ids])
        response = await self.steals.choice(
            [partial(thief.get, last_event_id), partial(thief.post, "ping"), thief.end]
        )()
        assert response.status == 404
        one.seen.append(await response.text())

    async def reply(self, one: Party, other: Party) -> None:
        if one.calls:
            one.calls[self.chance.randrange(len(one.calls))].reply(one.mark)

    async def cancel(self, one: Party, other: Party) -> None:
        await one.client.notify("notifications/cancelled", {"requestId": self.chance.randrange(4)})

    async def break_off(self, one: Party, other: Party) -> None:
        if one.readers:
            one.readers.pop(self.chance.randrange(len(one.readers))).close()

    async def resume(self, one: Party, other: Party) -> None:
        if one.event_ids:
            one.begin(one.opened(self.chance.choice(one.event_ids)))

    async def resume_of_other(self, one: Party, other: Party) -> None:
        if other.event_ids:
            one.begin(one.opened(self.chance.choice(other.event_ids)))

    async def listen(self, one: Party, other: Party) -> None:
        one.begin(one.opened(""))

    async def set_level(self, one: Party, other: Party) -> None:
        await one.client.request("logging/setLevel", {"level": self.chance.choice(["debug", "error"])})

    async def say(self, one: Party, other: Party) -> None:
        """Let the server say and ask something outside of any call, on the session that it keeps for one client."""
        session = one.calls[-1].session if one.calls else ""
        if session in self.server.standing:
            outgoing = self.server.standing[session]
            outgoing.put_nowait({"jsonrpc": "2.0", "method": LOG, "params": {"level": "alert", "data": one.mark}})
            request_id = next(self.server.request_ids)
            asked = self.server.asked[request_id] = asyncio.get_running_loop().create_future()
            one.answers.append(asked)
            params = {"message": one.mark, "requestedSchema": {}}
            outgoing.put_nowait({"jsonrpc": "2.0", "id": request_id, "method": "elicitation/create", "params": params})

    async def subscribe(self, one: Party, other: Party) -> None:
        method = self.chance.choice(["resources/subscribe", "resources/unsubscribe"])
        await one.client.request(method, {"uri": f"r://{one.name}"})

    async def update(self, one: Party, other: Party) -> None:
        """Let the server say, on the session that all subscriptions are made in, that a resource has changed."""
        session = next((name for name, each in self.server.received if each.get("method") == "resources/subscribe"), "")
        if session in self.server.standing:
            params = {"uri": f"r://{one.name}", "title": one.mark}
            self.server.standing[session].put_nowait(
                {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}
            )

    async def change_roots(self, one: Party, other: Party) -> None:
        await one.client.notify("notifications/roots/list_changed", {"_meta": {"mark": one.mark}})


@pytest.mark.parametrize(
    ("seed", "sessions"), [*((seed, "per_client") for seed in range(6)), *((seed, "shared") for seed in (1, 3, 5))]
)
async def test_nothing_of_one_session_reaches_another(seed: int, sessions: str, tmp_path: Path) -> None:
    """With odd seeds, the clients are two principals, and each also tries the other's session."""
    keys = Keys(tmp_path, "anna", "bert")
    async with (
        MovedServer().running() as server,
        http_for(keys, "anna") as of_anna,
        http_for(keys, "bert") as of_bert,
    ):
        servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
        serve: dict[str, Any] = {"listen": "127.0.0.1:0", "resume": {"keep_s": 5.0}, "sessions": sessions}
        serve |= {"auth": keys.auth} if seed % 2 else {}
        async with Gateway({"servers": servers}, serve=serve) as gateway:
            parties = [
                Party(name, await SessionClient(http, f"{gateway.url}/servers/a/mcp").begin(ASKABLE), server)
                for name, http in (("anna", of_anna), ("bert", of_bert))
            ]
            play = Play(random.Random(seed), parties, server)
            for _ in range(40):
                await play.act()
                if seed % 2:
                    await play.steal()
            for party in parties:
                for call in party.calls:
                    call.reply(party.mark)
            # Whatever was sent before the answer to a ping has arrived.
            for party in parties:
                await party.client.request("ping")
                assert (await party.client.end()).status == 200
            for party in parties:
                party.client.close()
                await asyncio.gather(*party.tasks, return_exceptions=True)
            anna, bert = parties
            for one, other in ((anna, bert), (bert, anna)):
                assert any(one.mark in text for text in one.seen)
                assert all(other.mark not in text for text in one.seen)
                answers = [each.result() for each in one.answers if each.done() and not each.cancelled()]
                assert all(other.mark not in json.dumps(each) for each in answers)
                own = {call.session for call in one.calls}
                received = [message for session, message in server.received if session in own]
                if sessions == "shared":
                    # All that a session says to its server on its own: its roots are of no use to the others.
                    assert "notifications/roots/list_changed" not in [each.get("method") for each in received]
                else:
                    assert all(other.mark not in json.dumps(each) for each in received)
            is_shared = bool({call.session for call in anna.calls} & {call.session for call in bert.calls})
            assert is_shared is (sessions == "shared")
            assert len(gateway._sessions.calls) == 0 and len(gateway._sessions) == 0
            assert len(gateway._sessions.logs) == 0 and gateway._sessions.logs.bytes == 0
