"""Tasks that are there for their owners alone, and what servers say of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mcp_manager._core.jsonrpc import scan
from mcp_manager.calls.exchange_listener import ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.endpoints.owned_tasks import EndpointTasks, OwnedTasks, is_of_tasks
from mcp_manager.gateway.sessions import known_tasks
from mcp_manager.gateway.sessions.known_tasks import TASK_STATUS, KnownTasks
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.gateway.unattributed import Unattributed
from mcp_manager.protocol.revisions import Era

RELATED = "io.modelcontextprotocol/related-task"


def of(principal: str) -> Client:
    return Client(Era.HANDSHAKE, "2025-11-25", {}, principal, f"session of {principal}")


ANN, BOB, NOBODY = of("ann"), of("bob"), of(ANONYMOUS)


def made(tasks: EndpointTasks, client: Client, task_id: str) -> str:
    asks = scan(b'{"id":1,"method":"tools/call","params":{"name":"x","task":{}}}')
    adapt = tasks.creating(asks, client, "s", None)
    assert adapt is not None
    response = {"jsonrpc": "2.0", "id": 1, "result": {"task": {"taskId": task_id}, "_meta": {"x": 1}}}
    result = json.loads(adapt(json.dumps(response).encode()))["result"]
    assert result == {**response["result"], "task": result["task"]}  # type: ignore[dict-item]
    name: str = result["task"]["taskId"]
    return name


def message(method: str, wants_answer: bool = False, **params: Any) -> ServerMessage:
    return ServerMessage(method, json.dumps(params).encode(), wants_answer)


def test_what_a_server_says_of_a_task_is_for_its_owner() -> None:
    owned = OwnedTasks(Sealer())
    tasks = owned.at("server/s", is_merged=False)
    name = made(tasks, ANN, "t1")
    status = message(TASK_STATUS, taskId="t1", status="working")
    told = tasks.told(ANN, "s", status)
    assert told is not None and told.params == {"taskId": name, "status": "working"}
    related = message("notifications/message", data="x", _meta={RELATED: {"taskId": "t1"}})
    told = tasks.told(ANN, "s", related)
    assert told is not None and told.params == {"data": "x", "_meta": {RELATED: {"taskId": name}}}
    for said in (status, related, message(TASK_STATUS, taskId="unknown"), message(TASK_STATUS, taskId=1)):
        assert tasks.told(BOB, "s", said) is None
    assert tasks.told(BOB, "s", message("notifications/message", data="t1")) is not None
    # Its owner answers in the terms of the server.
    answer = json.dumps({"action": "accept", "_meta": {RELATED: {"taskId": name}}}).encode()
    converted = tasks.answer(ANN, answer)
    assert isinstance(converted, bytes)
    assert json.loads(converted) == {"action": "accept", "_meta": {RELATED: {"taskId": "t1"}}}
    # Without authentication, all clients are one.
    assert tasks.told(NOBODY, "s", status) is status


def test_the_state_of_a_task_reaches_the_session_that_has_made_it() -> None:
    sent: list[tuple[str, str, Any]] = []

    class Sessions:
        def tell(self, session: str, method: str, params: bytes) -> bool:
            sent.append((session, method, json.loads(params)))
            return True

        def shows(self, session: str, server_id: str) -> bool:
            return True

        async def ask(self, session: str, method: str, params: bytes) -> bytes:
            raise AssertionError

    owned = OwnedTasks(Sealer())
    name = made(owned.at("fleet", is_merged=True), ANN, "t1")
    handler = Unattributed(Sessions(), owned.known).handlers()[TASK_STATUS]
    for task_id in ("t1", "other", None):
        handler("s", {"taskId": task_id, "status": "failed"})
    handler("elsewhere", {"taskId": "t1"})
    assert sent == [(ANN.session, TASK_STATUS, {"taskId": name, "status": "failed"})]


def test_a_malformed_list_shows_nothing() -> None:
    owned = OwnedTasks(Sealer())
    tasks = owned.at("server/s", is_merged=False)
    name = made(tasks, ANN, "t1")
    adapt = tasks.listing(ANN, "s", None)
    for listed, expected in (
        ('[{"taskId":"t1"},{"taskId":"t2"},{}]', [{"taskId": name}]),
        ('[{"taskId":"t1"},7]', []),
        ('{"taskId":"t1"}', []),
    ):
        response = b'{"jsonrpc":"2.0","id":1,"result":{"tasks":%b}}' % listed.encode()
        assert json.loads(adapt(response))["result"] == {"tasks": expected}
    # A server that gets the credentials of each client knows itself what it may show.
    owned.is_personal = lambda _: True
    response = b'{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"t2"}]}}'
    [shown] = json.loads(tasks.listing(ANN, "s", None)(response))["result"]["tasks"]
    asked = scan(b'{"id":1,"method":"tasks/get","params":%b}' % msgspec.json.encode(shown))
    assert json.loads(tasks.find(asked, ANN)[2].params or b"") == {"taskId": "t2"}


def test_one_principal_cannot_make_the_tasks_of_others_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_tasks, "_MOST", 12)
    monkeypatch.setattr(known_tasks, "_MOST_OF_ONE", 5)
    known = KnownTasks()
    known.note("s", "of both", ANN, "a")
    known.note("s", "of both", BOB, "b")
    for number in range(20):
        known.note("s", f"t{number}", BOB, "x")
    assert len(known) == 6
    assert known.of("s", "of both", "ann") is not None and known.of("s", "of both", "bob") is None
    assert known.of("s", "t19", "bob") is not None
    for number in range(20):
        known.note("s", "same", of(f"p{number}"), "x")
    assert len(known) == 12 and len(known.owners("s", "same")) == 12
    known.note("s", "x" * 2_000, ANN, "a")
    assert known.of("s", "x" * 2_000, "ann") is None


def test_methods_that_may_be_taken_for_those_of_tasks_are_refused() -> None:
    tasks = OwnedTasks(Sealer()).at("server/s", is_merged=False)
    for method in ("Tasks/get", "tasks/ get", "tasks/purge", "notifications/tasks/status"):
        with pytest.raises(RpcError, match="Method not found"):
            tasks.check_method(method, ANN)
        tasks.check_method(method, NOBODY)
    for method in ("tasks/get", "tasks/list", "com.example/tasks/list", "multitasks", "tools/call"):
        tasks.check_method(method, ANN)
        assert is_of_tasks(method) is method.startswith("tasks/")
