"""Callers of clients, and what servers send that belongs to no call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager import Caller, RpcError
from mcp_manager.auth.caller import calling
from mcp_manager.gateway import callers
from mcp_manager.gateway.callers import CallersOfClients, session_of
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.sessions.known_tasks import KnownTasks
from mcp_manager.gateway.unattributed import Unattributed
from mcp_manager.protocol.revisions import Era

ASKED: dict[str, Any] = {"elicitation": {}}


def client(principal: str = "p", session: str = "s", **capabilities: Any) -> Client:
    era = Era.HANDSHAKE if session else Era.STATELESS
    return Client(era, "2025-11-25", capabilities, principal, session)


def test_a_session_has_one_caller() -> None:
    known = CallersOfClients()
    first = known.of(client(elicitation={}), "a")
    assert known.of(client(elicitation={}), "b") is first
    assert session_of(first) == "s"
    forgotten = known.forget("p", "s")
    assert forgotten is not None
    assert (forgotten.caller, forgotten.servers) == (first, {"a", "b"})
    assert known.forget("p", "s") is None


def test_no_two_principals_or_sessions_share_a_caller() -> None:
    known = CallersOfClients()
    clients = [
        client("p", "s", elicitation={}),
        client("p", "t", elicitation={}),
        client("q", "s", elicitation={}),
        client("p", "", elicitation={}),
        client("p", "", elicitation={}, sampling={}),
        client("q", "", elicitation={}),
    ]
    made = [known.of(each, "a") for each in clients]
    assert len({each.session_key for each in made}) == len(clients)
    assert [known.of(each, "a") for each in clients] == made


def test_the_callers_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MOST_KNOWN", 2)
    known = CallersOfClients()
    first, second = (known.of(client(session=each), "a") for each in "12")
    assert known.of(client(session="1"), "a") is first
    known.of(client(session="3"), "a")
    assert len(known) == 2
    assert known.of(client(session="1"), "a") is first
    again = known.of(client(session="2"), "a")
    assert (again is second, again.session_key) == (False, second.session_key)


class Sessions:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, Any]] = []

    def tell(self, session: str, method: str, params: bytes) -> bool:
        self.told.append((session, method, json.loads(params)))
        return True

    def shows(self, session: str, server_id: str) -> bool:
        return server_id != "hidden"

    async def ask(self, session: str, method: str, params: bytes) -> bytes:
        self.told.append((session, method, json.loads(params)))
        return b'{"action":"decline"}'


CALLER = Caller("p\0s", capabilities=ASKED)


async def test_servers_that_a_client_may_not_see_reach_it_neither_with_questions_nor_with_news() -> None:
    sessions = Sessions()
    handlers = Unattributed(sessions, KnownTasks()).handlers()
    with calling(CALLER):
        with pytest.raises(RpcError):
            await handlers["elicitation/create"]("hidden", {"message": "?"})
        handlers["notifications/message"]("hidden", {"level": "error", "data": "x"})
    assert not sessions.told


async def test_a_question_goes_to_the_session_that_it_is_meant_for() -> None:
    sessions = Sessions()
    ask = Unattributed(sessions, KnownTasks()).handlers()["elicitation/create"]
    with calling(CALLER):
        assert bytes(await ask("a", {"message": "?"})) == b'{"action":"decline"}'
    assert sessions.told == [("s", "elicitation/create", {"message": "?"})]


@pytest.mark.parametrize(
    ("caller", "method", "code"),
    [
        (None, "elicitation/create", -32600),
        (Caller("p\0", capabilities=ASKED), "elicitation/create", -32600),
        (CALLER, "sampling/createMessage", -32602),
        (CALLER, "roots/list", -32602),
    ],
)
async def test_a_question_that_nobody_can_answer_is_refused(caller: Caller | None, method: str, code: int) -> None:
    sessions = Sessions()
    ask = Unattributed(sessions, KnownTasks()).handlers()[method]
    with pytest.raises(RpcError) as caught:
        if caller is None:
            await ask("a", {})
        else:
            with calling(caller):
                await ask("a", {})
    assert caught.value.code == code
    assert sessions.told == []


async def test_log_messages_go_to_their_session_or_nowhere() -> None:
    sessions = Sessions()
    tell = Unattributed(sessions, KnownTasks()).handlers()["notifications/message"]
    tell("a", {"level": "info"})
    assert sessions.told == []
    with calling(CALLER):
        tell("a", {"level": "info"})
    assert sessions.told == [("s", "notifications/message", {"level": "info"})]
