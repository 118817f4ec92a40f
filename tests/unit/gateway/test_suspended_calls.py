"""Calls that wait for input between two requests: they end, and what they keep is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from mcp_manager.calls.exchange_listener import OnMessage, ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway.eras import suspended_calls
from mcp_manager.gateway.eras.request_state import Place
from mcp_manager.gateway.eras.suspended_calls import SuspendedCall, SuspendedCalls

PLACE = Place("ana", "fleet", "tools/call", "ask")
CAN: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
DONE = b'{"jsonrpc":"2.0","id":1,"result":{}}'
YES = b'{"input_1":{"action":"accept","content":{}}}'


def question(method: str = "elicitation/create", params: dict[str, Any] | None = None, key: str = "") -> ServerMessage:
    return ServerMessage(method, json.dumps(params or {}).encode(), True, key)


class Server:
    """Answers one call, after its questions."""

    def __init__(self, *asked: ServerMessage, response: bytes = DONE) -> None:
        self.asked = asked
        self.response = response
        self.answers: list[Any] = []
        self.refusals: list[RpcError] = []
        self.is_cancelled = False

    async def __call__(self, on_message: OnMessage) -> bytes:
        try:
            for each in self.asked:
                try:
                    self.answers.append(await cast("Awaitable[bytes]", on_message(each)))
                except RpcError as refusal:
                    self.refusals.append(refusal)
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return self.response


@pytest.fixture
async def calls() -> AsyncIterator[SuspendedCalls]:
    calls = SuspendedCalls(60.0)
    yield calls
    await calls.aclose()
    assert (len(calls), calls.kept_bytes) == (0, 0)


def start(calls: SuspendedCalls, send: Callable[[OnMessage], Awaitable[bytes]], **capabilities: Any) -> SuspendedCall:
    return calls.start(PLACE, "server", capabilities or CAN, lambda _: None, send)


async def ended(calls: SuspendedCalls) -> None:
    while calls._tasks:
        await asyncio.sleep(0)


async def test_a_call_without_questions_leaves_nothing(calls: SuspendedCalls) -> None:
    assert await start(calls, Server()).come() == DONE
    await ended(calls)


async def test_a_call_is_found_by_its_place_only(calls: SuspendedCalls) -> None:
    call = start(calls, Server(question()))
    assert await call.come() is None
    assert list(calls.keep(call)) == ["input_1"]
    assert calls.find(call.key, PLACE) is call
    for key, place in (("x", PLACE), (call.key, Place("ben", "fleet", "tools/call", "ask"))):
        with pytest.raises(RpcError, match="has ended"):
            calls.find(key, place)
    call.resume(YES, lambda _: None)
    assert await call.come() == DONE


async def test_nobody_else_continues_a_call_at_the_same_time(calls: SuspendedCalls) -> None:
    call = start(calls, Server(question(), question()))
    assert await call.come() is None
    calls.keep(call)
    call.resume(YES, lambda _: None)
    with pytest.raises(RpcError, match="already"):
        call.resume(YES, lambda _: None)
    assert await call.come() is None
    calls.keep(call)
    call.resume(b'{"input_2":{"action":"cancel"}}', lambda _: None)
    assert await call.come() == DONE


async def test_a_client_that_does_not_come_back_cancels_its_call() -> None:
    calls, server = SuspendedCalls(0.0), Server(question())
    call = start(calls, server)
    assert await call.come() is None
    calls.keep(call)
    await ended(calls)
    assert server.is_cancelled
    assert (len(calls), calls.kept_bytes) == (0, 0)
    with pytest.raises(RpcError, match="has ended"):
        calls.find(call.key, PLACE)


async def test_a_client_that_goes_while_it_waits_cancels_its_call(calls: SuspendedCalls) -> None:
    server = Server(question())
    answered = asyncio.Event()

    async def slow(on_message: OnMessage) -> bytes:
        await server(on_message)
        answered.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.is_cancelled = True
        return DONE

    call = start(calls, slow)
    assert await call.come() is None
    calls.keep(call)
    call.resume(YES, lambda _: None)
    waiting = asyncio.ensure_future(call.come())
    await answered.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    await ended(calls)
    assert server.is_cancelled


async def test_the_end_of_the_gateway_is_told_to_who_waits() -> None:
    calls = SuspendedCalls(60.0)

    async def never(on_message: OnMessage) -> bytes:
        await asyncio.Event().wait()
        return DONE

    waiting = asyncio.ensure_future(start(calls, never).come())
    await asyncio.sleep(0)
    await calls.aclose()
    with pytest.raises(RpcError, match="ended this call"):
        await waiting


@pytest.mark.parametrize("response", [b'{"id":1,"error":{"code":1,"message":""}}', b'{"result":{"isError":true}}'])
async def test_what_the_client_cannot_do_is_told_if_the_call_fails(calls: SuspendedCalls, response: bytes) -> None:
    server = Server(question("sampling/createMessage"), question(), response=response)
    call = start(calls, server, elicitation={})
    assert await call.come() is None
    assert list(calls.keep(call)) == ["input_1"]
    call.resume(YES, lambda _: None)
    with pytest.raises(RpcError) as caught:
        await call.come()
    assert caught.value.data == {"requiredCapabilities": {"sampling": {}}}
    await ended(calls)


async def test_one_principal_has_a_part_of_the_calls_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspended_calls, "_MOST_CALLS_OF_ONE", 1)
    calls = SuspendedCalls(60.0)
    for principal, asked in (("ana", 1), ("ana", 0), ("ben", 1), ("anonymous", 1), ("anonymous", 1)):
        call = calls.start(
            Place(principal, "fleet", "tools/call", "ask"), "server", CAN, lambda _: None, Server(question())
        )
        assert await call.come() == (None if asked else DONE)
        if asked:
            calls.keep(call)
    await calls.aclose()
    await ended(calls)
    assert not calls._of_principals


async def test_unknown_questions_are_refused(calls: SuspendedCalls) -> None:
    server = Server(question("tools/call"))
    assert await start(calls, server).come() == DONE
    assert len(server.refusals) == 1


async def test_input_that_came_with_the_call_is_used(calls: SuspendedCalls) -> None:
    server = Server(question(key="who"), question(key="who"))
    call = start(calls, server)
    call.expected = suspended_calls.read_responses(b'{"who":{"action":"decline"},"other":1}')
    assert await call.come() is None
    assert server.answers == [b'{"action":"decline"}']
    assert list(calls.keep(call)) == ["who"]


@pytest.mark.parametrize(
    ("method", "answer", "fits"),
    [
        ("elicitation/create", b'{"action":"accept","content":{"a":1}}', True),
        ("elicitation/create", b'{"action":"maybe"}', False),
        ("elicitation/create", b'{"action":"accept","content":[]}', False),
        ("elicitation/create", b"12345", False),
        ("sampling/createMessage", b'{"role":"assistant","content":{"type":"text","text":"x"},"model":"m"}', True),
        ("sampling/createMessage", b'{"role":"assistant"}', False),
        ("roots/list", b'{"roots":[]}', True),
        ("roots/list", b'{"roots":{}}', False),
    ],
)
async def test_only_answers_of_the_right_form_are_passed_on(
    calls: SuspendedCalls, method: str, answer: bytes, fits: bool
) -> None:
    call = start(calls, Server(question(method)))
    assert await call.come() is None
    calls.keep(call)
    call.resume(b'{"input_1":' + answer + b"}", lambda _: None)
    assert await call.come() == (DONE if fits else None)


async def test_questions_and_kept_responses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = SuspendedCalls(60.0)
    monkeypatch.setattr(suspended_calls, "_MOST_BYTES", 100)
    small, large = Server(question()), Server(question(params={"message": "x" * 100}))
    waiting = start(calls, small)
    assert await waiting.come() is None
    calls.keep(waiting)
    assert await start(calls, large).come() == DONE
    assert [each.code for each in large.refusals] == [-32603]
    monkeypatch.setattr(suspended_calls, "_MOST_CALLS", 1)
    one_more = Server(question())
    assert await start(calls, one_more).come() == DONE
    assert len(one_more.refusals) == 1
    await calls.aclose()
    await ended(calls)
    assert calls.kept_bytes == 0


async def test_a_response_waits_for_a_client_whose_question_was_withdrawn(calls: SuspendedCalls) -> None:
    is_kept = asyncio.Event()

    async def withdrawn(on_message: OnMessage) -> bytes:
        asking = asyncio.ensure_future(cast("Awaitable[bytes]", on_message(question())))
        await is_kept.wait()
        asking.cancel()
        await asyncio.wait({asking})
        return DONE

    call = start(calls, withdrawn)
    assert await call.come() is None
    calls.keep(call)
    is_kept.set()
    while call.response is None:
        await asyncio.sleep(0.01)
    assert calls.kept_bytes == len(DONE)
    call.resume(None, lambda _: None)
    assert await call.come() == DONE
