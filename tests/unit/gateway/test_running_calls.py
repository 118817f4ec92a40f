"""Calls of sessions, step by step: whoever cancels whatever at any moment, nothing is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.calls.exchange_listener import ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.eras.batches import take_batch
from mcp_manager.gateway.eras.session_messages import SessionMessages
from mcp_manager.gateway.sessions import log_levels, table
from mcp_manager.gateway.sessions.log_levels import LogLevels
from mcp_manager.gateway.sessions.table import SessionTable
from mcp_manager.protocol.revisions import Era

CLIENT = Client(Era.HANDSHAKE, "2025-11-25", {"roots": {}}, session="s")
OTHER = Client(Era.HANDSHAKE, "2025-11-25", {"roots": {}}, session="o")


class Endpoint:
    """An endpoint without servers."""

    name = "fleet"
    path = "/mcp"

    def servers(self) -> list[str]:
        return []


class Channel:
    """The way back over a pipe."""

    can_send = True
    sender = None
    usage = None

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], object] | None = None
        self.sent: list[Any] = []
        self.replies: list[Any] = []
        self.accepted = 0

    def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def open_events(self, fields: bytes = b"") -> None:
        return None

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        self.replies.append(json.loads(message))

    def accept(self) -> None:
        self.accepted += 1


class Answering:
    """Answer after as many steps as a test wants; the first of them is a question if ``asks``."""

    def __init__(self, steps: int, asks: bool = False) -> None:
        self.steps = steps
        self.asks = asks
        self.cancelled = 0

    async def answer(
        self, endpoint: Any, message: Message, client: Client, on_message: Any, *, answers_input: bool
    ) -> bytes:
        try:
            if self.asks:
                await on_message(ServerMessage("roots/list", b"{}", True))
            for _ in range(self.steps):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except RpcError as error:
            return b'{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"x"}}' % error.code
        return b'{"jsonrpc":"2.0","id":1,"result":{}}'


def made(answering: Answering) -> tuple[SessionMessages, SessionTable]:
    sessions = SessionTable()
    return SessionMessages(answering, sessions), sessions  # type: ignore[arg-type]


def encoded(**message: Any) -> Message:
    return scan(json.dumps({"jsonrpc": "2.0", **message}).encode())


CALL = {"id": 1, "method": "tools/call", "params": {"name": "x"}}


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("step", range(6))
async def test_whoever_runs_a_call_can_cancel_it_at_any_moment(step: int, asks: bool) -> None:
    taking, sessions = made(Answering(4, asks))
    channel = Channel()
    task = asyncio.create_task(taking.take(CLIENT, Endpoint(), encoded(**CALL), channel))  # type: ignore[arg-type]
    for _ in range(step):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait({task})
    assert was_done or (task.cancelled() and channel.replies == [])
    assert len(sessions.calls) == 0 and sessions.questions.awaiting("s") == []
    assert channel.on_quiet is None


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("step", range(1, 5))
async def test_a_client_can_cancel_a_call_at_any_moment(step: int, asks: bool) -> None:
    answering = Answering(6, asks)
    taking, sessions = made(answering)
    channel = Channel()
    seen: list[int] = []

    async def run() -> None:
        await taking.take(CLIENT, Endpoint(), encoded(**CALL), channel)  # type: ignore[arg-type]
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.cancelling())

    task = asyncio.create_task(run())
    for _ in range(step):
        await asyncio.sleep(0)
    cancelled = encoded(method="notifications/cancelled", params={"requestId": 1})
    for client in (OTHER, CLIENT, CLIENT):
        await taking.take(client, Endpoint(), cancelled, Channel())  # type: ignore[arg-type]
    await task
    assert seen == [0] and channel.replies == [] and channel.accepted == 1
    assert answering.cancelled == 1
    assert len(sessions.calls) == 0 and sessions.questions.awaiting("s") == []
    if asks:
        assert [each["method"] for each in channel.sent] == ["roots/list", "notifications/cancelled"]


async def test_a_call_that_both_cancel_ends_for_whoever_runs_it() -> None:
    taking, sessions = made(Answering(6))
    channel = Channel()
    task = asyncio.create_task(taking.take(CLIENT, Endpoint(), encoded(**CALL), channel))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    cancelled = encoded(method="notifications/cancelled", params={"requestId": 1})
    await taking.take(CLIENT, Endpoint(), cancelled, Channel())  # type: ignore[arg-type]
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled() and len(sessions.calls) == 0 and channel.replies == []


async def test_a_fault_of_the_gateway_costs_one_reply() -> None:
    class Faulty(Endpoint):
        def servers(self) -> list[str]:
            raise RuntimeError("a fault")

    taking, _ = made(Answering(0))
    level = encoded(id=1, method="logging/setLevel", params={"level": "info"})
    channel = Channel()
    await take_batch(taking, [level, encoded(id=2, method="ping")], channel, CLIENT, Faulty())  # type: ignore[arg-type]
    [replies] = channel.replies
    assert {each["id"]: each.get("error", {}).get("code") for each in replies} == {1: -32603, 2: None}


async def test_the_questions_of_one_session_are_bounded() -> None:
    sessions = SessionTable()

    class Sink:
        def send(self, message: bytes) -> bool:
            return True

    sink = Sink()
    asking = [asyncio.create_task(sessions.questions.ask(CLIENT, sink, "roots/list", b"{}")) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(RpcError, match="not answered yet"):
        await sessions.questions.ask(CLIENT, sink, "roots/list", b"{}")
    other = asyncio.create_task(sessions.questions.ask(OTHER, sink, "roots/list", b"{}"))
    await asyncio.sleep(0)
    sessions.end("s")
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, RpcError) for each in outcomes)
    assert not other.done()
    [question] = sessions.questions.awaiting("o")
    assert sessions.questions.answer(OTHER, encoded(id=question.id, result={"roots": []}))
    assert json.loads(await other) == {"roots": []}


async def test_nobody_can_be_told_or_asked_who_does_not_listen() -> None:
    sessions = SessionTable()
    assert not sessions.tell("s", "notifications/message", b"{}")
    with pytest.raises(RpcError, match="listens to no stream"):
        await sessions.ask("s", "roots/list", b"{}")
    sent: list[bytes] = []
    sessions.connect(CLIENT, Endpoint(), sent.append)  # type: ignore[arg-type]
    assert sessions.tell("s", "notifications/message", b'{"level":"debug"}') and len(sent) == 1
    sessions.levels.set("s", "error")
    assert sessions.tell("s", "notifications/message", b'{"level":"debug"}') and len(sent) == 1
    assert sessions.tell("s", "notifications/message", b'{"level":"odd"}') and len(sent) == 2
    sessions.end("s")
    assert not sessions.tell("s", "notifications/message", b"{}") and len(sessions) == 0


async def test_sessions_without_a_stream_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MOST_SESSIONS", 2)
    sessions = SessionTable()
    sent: list[bytes] = []
    sessions.connect(CLIENT, Endpoint(), sent.append)  # type: ignore[arg-type]
    sessions._live_of(OTHER, Endpoint())  # type: ignore[arg-type]
    assert sessions.can_open("s") and sessions.can_open("o") and len(sessions) == 2
    assert sessions.can_open("third") and len(sessions) == 1
    sessions.connect(OTHER, Endpoint(), sent.append)  # type: ignore[arg-type]
    assert not sessions.can_open("third")
    sessions.close()


def test_levels_of_many_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_levels, "_MOST_SESSIONS", 3)
    levels = LogLevels()
    for number in range(5):
        levels.set(f"s{number}", "info")
    notice = b'{"level":"debug"}'
    assert len(levels) == 3 and not levels.wants("s4", notice) and levels.wants("s0", notice)
    levels.set("s4", "error")
    assert levels.lowest() == "info"
    levels.forget("s2")
    levels.forget("s3")
    assert levels.lowest() == "error"
    with pytest.raises(KeyError):
        levels.set("s4", "loud")


def test_the_level_of_one_principal_is_not_that_of_another() -> None:
    levels = LogLevels(is_shared=True)

    def wanted(session: str) -> list[str]:
        return [
            level for level in ("debug", "info", "error") if levels.wants(session, b'{"level":"%b"}' % level.encode())
        ]

    for level in ("error", "debug"):
        levels.set("ann", level)
        assert wanted("bob") == ["info", "error"]
        assert levels.lowest() == ("info" if level == "error" else "debug")
    assert wanted("ann") == ["debug", "info", "error"]
    # Without authentication, all clients are one.
    levels.is_shared = False
    assert wanted("bob") == ["debug", "info", "error"]
