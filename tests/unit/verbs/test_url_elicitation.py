"""Which refusals are worth another try once a URL was visited, whenever the news of it comes."""

from __future__ import annotations

import asyncio
import json
import time
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from support.contained import containment

from mcp_manager._core.jsonrpc import Message, scan_reply
from mcp_manager.errors import RpcError, UrlElicitationRequiredError
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.verbs.url_elicitation import UrlElicitations

WAIT_S = 15.0


def visit(number: int = 1) -> dict[str, Any]:
    return {"mode": "url", "message": "go", "url": f"http://127.0.0.1/{number}", "elicitationId": f"e-{number}"}


def refusal(data: Any, code: int = -32042) -> Message:
    error = {"code": code, "message": "no", "data": data}
    return scan_reply(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode())


def soon(seconds: float = WAIT_S) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


class Subject:
    """What drives the refusals of one manager, whose user says the same to everything."""

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answer = {"action": "accept"} if answer is None else answer
        self.was_asked = asyncio.Event()
        self.elicitations = UrlElicitations(self._ask, time.monotonic_ns)

    def _ask(self, server_id: str, params: Any) -> Any:
        self.asked.append((server_id, params["elicitationId"]))
        self.was_asked.set()
        return self.answer

    def complete(self, number: Any, server_id: str = "a") -> None:
        self.elicitations.completed(server_id, {"elicitationId": f"e-{number}"})

    async def satisfied(self, *numbers: int, server_id: str = "a", seconds: float = WAIT_S) -> bool:
        data = {"elicitations": [visit(number) for number in numbers]}
        return await asyncio.wait_for(
            self.elicitations.satisfied(containment(server_id), refusal(data), soon(seconds)), WAIT_S
        )

    def is_idle(self) -> bool:
        return not self.elicitations._waiting


async def test_all_of_several_urls_must_be_visited() -> None:
    subject = Subject()
    waiting = asyncio.create_task(subject.satisfied(1, 2))
    await subject.was_asked.wait()
    subject.complete(2)
    subject.complete(1, server_id="another")
    subject.complete("?")
    await asyncio.sleep(0)
    assert not waiting.done()
    subject.complete(1)
    assert await waiting
    assert subject.asked == [("a", "e-1"), ("a", "e-2")]
    assert subject.is_idle()


async def test_the_news_may_be_there_before_anybody_waits() -> None:
    subject = Subject()
    subject.complete(1)
    assert await subject.satisfied(1)
    # It was used up: another refusal with the same id is another visit.
    assert not await subject.satisfied(1, seconds=0.02)
    assert subject.is_idle()


async def test_what_is_kept_of_news_that_concerns_nobody_is_bounded() -> None:
    subject = Subject()
    for number in range(300):
        subject.complete(number)
    assert len(subject.elicitations._completed) == 256
    assert await subject.satisfied(299)
    for params in ({}, {"elicitationId": 1}, {"elicitationId": None}):
        subject.elicitations.completed("a", params)
    assert len(subject.elicitations._completed) == 255


async def test_two_calls_may_wait_for_one_visit() -> None:
    subject = Subject()
    calls = [asyncio.create_task(subject.satisfied(1)) for _ in range(2)]
    await asyncio.sleep(0)
    while len(subject.asked) < 2:
        await asyncio.sleep(0)
    subject.complete(1)
    assert await asyncio.gather(*calls) == [True, True]
    assert subject.is_idle()


async def test_a_call_that_gives_up_takes_the_news_from_nobody() -> None:
    subject = Subject()
    calls = [asyncio.create_task(subject.satisfied(1)) for _ in range(2)]
    while len(subject.asked) < 2:
        await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.gather(calls[0], return_exceptions=True)
    subject.complete(1)
    assert await calls[1]
    assert subject.is_idle()


async def test_news_that_came_early_are_for_all_who_wait() -> None:
    subject = Subject()
    subject.complete(1)
    calls = [asyncio.create_task(subject.satisfied(1, seconds=5.0)) for _ in range(2)]
    assert await asyncio.gather(*calls) == [True, True]


@pytest.mark.parametrize("gone", ["a", None])
async def test_nobody_waits_for_a_server_that_is_gone(gone: str | None) -> None:
    subject = Subject()
    subject.complete(7)
    calls = [asyncio.create_task(subject.satisfied(1, server_id=each)) for each in ("a", "b")]
    while len(subject.asked) < 2:
        await asyncio.sleep(0)
    subject.elicitations.forget(gone)
    assert not await calls[0]
    # What was known of it is not known any more either.
    assert not await subject.satisfied(7, seconds=0.02)
    if gone is not None:
        subject.complete(1, server_id="b")
    assert await calls[1] is (gone is not None)
    assert subject.is_idle()


class Accepted(msgspec.Struct):
    action: str = "accept"


@pytest.mark.parametrize("answer", [Accepted(), MappingProxyType({"action": "accept"})])
async def test_consent_may_be_any_object(answer: Any) -> None:
    subject = Subject(answer)
    subject.complete(1)
    assert await subject.satisfied(1)


@pytest.mark.parametrize("answer", [{"action": "decline"}, {"action": "cancel"}, {}, "accept", [], 0])
async def test_whatever_is_no_consent_ends_it(answer: Any) -> None:
    subject = Subject(answer)
    assert not await subject.satisfied(1, 2)
    assert subject.asked == [("a", "e-1")]
    assert subject.is_idle()


async def test_a_visit_that_is_never_told_ends_with_the_deadline() -> None:
    subject = Subject()
    assert not await subject.satisfied(1, seconds=0.02)
    assert subject.is_idle()


async def test_a_handler_that_hangs_ends_with_the_deadline() -> None:
    ended = asyncio.Event()

    async def hang(server_id: str, params: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    elicitations = UrlElicitations(hang, time.monotonic_ns)
    assert not await elicitations.satisfied(containment(), refusal({"elicitations": [visit()]}), soon(0.02))
    await asyncio.wait_for(ended.wait(), WAIT_S)


async def test_a_call_given_up_waits_for_nothing() -> None:
    subject = Subject()
    call = asyncio.create_task(subject.satisfied(1))
    await subject.was_asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert subject.is_idle()


MALFORMED = [
    None,
    [],
    {},
    {"elicitations": None},
    {"elicitations": []},
    {"elicitations": ["x"]},
    {"elicitations": [{**visit(), "mode": "form"}]},
    {"elicitations": [{**visit(), "url": 5}]},
    {"elicitations": [visit(), {**visit(), "elicitationId": None}]},
    {"elicitations": [visit(number) for number in range(65)]},
]


@pytest.mark.parametrize("data", MALFORMED)
async def test_a_refusal_of_another_shape_is_an_error_like_any(data: Any) -> None:
    subject = Subject()
    reply = refusal(data)
    assert not await subject.elicitations.satisfied(containment(), reply, soon())
    assert subject.asked == []
    assert type(rpc_error("a", reply.error or b"")) is RpcError


async def test_only_its_own_code_means_a_url() -> None:
    subject = Subject()
    data = {"elicitations": [visit()]}
    assert not await subject.elicitations.satisfied(containment(), refusal(data, -32041), soon())
    assert subject.asked == []
    assert type(rpc_error("a", refusal(data, -32041).error or b"")) is RpcError
    error = rpc_error("a", refusal(data).error or b"")
    assert isinstance(error, UrlElicitationRequiredError)
    assert (error.elicitations, error.server_id, error.data) == ((visit(),), "a", data)


async def test_without_a_handler_nothing_is_asked() -> None:
    assert not await UrlElicitations(None, time.monotonic_ns).satisfied(
        containment(), refusal({"elicitations": [visit()]}), soon()
    )
