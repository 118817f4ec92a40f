"""Following a task on a simulated clock: it always ends, asks each question once, and cancels an abandoned task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.jsonrpc import ERROR, Message, scan_reply
from mcp_manager.errors import (
    CallError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    OverloadedError,
    ProtocolError,
    ServerExitedError,
    TaskError,
)
from mcp_manager.protocol.tasks import TaskState, poll_delay_s
from mcp_manager.session.tasks import TaskFollower

S = 10**9
QUESTION = {"method": "elicitation/create", "params": {}}


class FakeRequests:
    """Stand-in for :class:`ServerRequests`: answers questions, and runs work in the background."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked: list[str] = []
        self.left: list[Coroutine[Any, Any, None]] = []

    async def fulfil(self, asked: Any, deadline_ns: int, listener: object = None) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.asked += asked
        return {key: {"action": "accept"} for key in asked}

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.left.append(work)


class World:
    """A server with a list of answers to ``tasks/get``, and a clock that advances only in pauses."""

    def __init__(self, answers: list[Any], failure: Exception | None = None) -> None:
        self.now = 0
        self.answers = answers
        self.requests = FakeRequests(failure)
        self.sent: list[tuple[str, Any]] = []
        self.polled_at: list[int] = []
        self.stopped_at: int | None = None
        self.refuses_updates = False
        self.follower = TaskFollower("s", self.ask, self.requests, self.pause, lambda: self.now)  # type: ignore[arg-type]

    async def ask(self, method_raw: bytes, params: bytes, deadline_ns: int) -> Message:
        method, decoded = json.loads(method_raw), json.loads(params)
        self.sent.append((method, decoded))
        if method == "tasks/update" and self.refuses_updates:
            return refusal(-32602)
        if method != "tasks/get":
            return reply({"resultType": "complete"})
        self.polled_at.append(self.now)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Message) else reply(answer)

    async def pause(self, delay_s: float) -> None:
        assert delay_s >= 0
        self.now += round(delay_s * S)
        if self.stopped_at is not None and self.now >= self.stopped_at:
            raise ConnectionLostError("stopped")

    def follow(self, created: Any, deadline_ns: int = 3600 * S) -> Message:
        async def run() -> Message:
            try:
                return await self.follower.follow(json.dumps(created).encode(), deadline_ns)
            finally:
                for work in self.requests.left:
                    await work

        return asyncio.run(run())

    @property
    def cancelled(self) -> bool:
        return ("tasks/cancel", {"taskId": "t"}) in self.sent


def reply(result: Any) -> Message:
    return scan_reply(json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode())


def refusal(code: int) -> Message:
    return scan_reply(json.dumps({"jsonrpc": "2.0", "id": 0, "error": {"code": code, "message": "no"}}).encode())


def state(status: str, **members: Any) -> dict[str, Any]:
    return {"taskId": "t", "status": status, "pollIntervalMs": 1000, **members}


DONE = state("completed", result={"content": []})


def test_the_result_of_a_task_is_that_of_the_call() -> None:
    world = World([state("working"), state("working"), DONE])
    final = world.follow(state("working"))
    assert json.loads(final.result or b"") == {"content": []}
    assert len(world.polled_at) == 3
    assert not world.cancelled


def test_a_failed_task_is_an_error_of_the_call() -> None:
    world = World([state("failed", error={"code": -32603, "message": "broke"})])
    final = world.follow(state("working"))
    assert (final.kind, final.error_code) == (ERROR, -32603)
    assert not world.cancelled


def test_a_task_may_be_over_when_it_is_told_of() -> None:
    world = World([DONE])
    assert world.follow(DONE).result is not None
    assert world.sent == []
    # Valid except that the result is missing.
    assert World([DONE]).follow(state("completed")).result is not None


def test_a_task_that_the_server_cancelled_is_an_error_of_its_own() -> None:
    world = World([state("cancelled")])
    with pytest.raises(TaskError) as caught:
        world.follow(state("working"))
    assert caught.value.delivery == "unknown"
    assert not world.cancelled


def test_an_unknown_task_is_the_servers_own_error() -> None:
    assert World([refusal(-32602)]).follow(state("working")).error_code == -32602


@pytest.mark.parametrize(
    "answer",
    [
        state("completed", result={"resultType": "input_required"}),
        state("completed", result={"resultType": "task", "taskId": "u"}),
        state("completed", result=5),
        state("completed", result=None),
        state("completed"),
        state("failed"),
        {"status": "working"},
        state("strange"),
        [],
        state("failed", error=3),
    ],
)
def test_nonsense_ends_the_call_and_the_task(answer: Any) -> None:
    world = World([answer])
    with pytest.raises(ProtocolError):
        world.follow(state("working"))
    assert world.cancelled


def test_the_deadline_ends_the_call_and_the_task() -> None:
    world = World([state("working")])
    with pytest.raises(DeadlineExceededError) as caught:
        world.follow(state("working"), 10 * S)
    assert caught.value.delivery == "unknown"
    assert world.now == 10 * S
    assert world.cancelled


def test_each_question_is_asked_once_however_often_it_is_seen() -> None:
    both = state("input_required", inputRequests={"a": QUESTION, "b": QUESTION})
    more = state("input_required", inputRequests={"b": QUESTION, "c": QUESTION})
    world = World([both, both, more, more, DONE])
    world.follow(state("input_required", inputRequests={"a": QUESTION}))
    assert world.requests.asked == ["a", "b", "c"]
    updates = [params["inputResponses"] for method, params in world.sent if method == "tasks/update"]
    assert [sorted(each) for each in updates] == [["a"], ["b"], ["c"]]


def test_a_question_that_nobody_answers_cancels_the_task() -> None:
    world = World([DONE], InputRequiredError("nobody", server_id="s"))
    with pytest.raises(InputRequiredError):
        world.follow(state("input_required", inputRequests={"a": QUESTION}))
    assert world.cancelled


def test_a_task_whose_answers_are_refused_is_cancelled() -> None:
    world = World([DONE])
    world.refuses_updates = True
    assert world.follow(state("input_required", inputRequests={"a": QUESTION})).error_code == -32602
    assert world.cancelled


def test_a_task_asks_so_many_things_at_once_and_no_more() -> None:
    world = World([DONE])
    world.follow(state("input_required", inputRequests={str(number): QUESTION for number in range(64)}))
    assert len(world.requests.asked) == 64
    world = World([DONE])
    with pytest.raises(ProtocolError, match="65 questions at once"):
        world.follow(state("input_required", inputRequests={str(number): QUESTION for number in range(65)}))
    assert (world.requests.asked, world.cancelled) == ([], True)


def test_a_task_that_asks_without_end_is_cancelled() -> None:
    asking = [state("input_required", inputRequests={str(number): QUESTION}) for number in range(100)]
    world = World(asking)
    with pytest.raises(InputRequiredError, match="32 times"):
        world.follow(state("working"))
    assert (len(world.requests.asked), world.cancelled) == (32, True)


def test_a_poll_without_an_answer_is_repeated() -> None:
    lost = [ConnectionLostError("lost"), OverloadedError("busy", retry_after_s=7.0), DeadlineExceededError("slow")]
    world = World([*lost, DONE])
    assert world.follow(state("working")).result is not None
    assert world.polled_at[2] - world.polled_at[1] >= 3.5 * S


def test_a_server_that_is_gone_is_not_asked_for_ever() -> None:
    world = World([ConnectionLostError("lost", delivery="not_sent")])
    with pytest.raises(ConnectionLostError) as caught:
        world.follow(state("working"))
    # The poll was not sent, but the call was.
    assert caught.value.delivery == "unknown"
    assert len(world.polled_at) == 5


@pytest.mark.parametrize("error", [ServerExitedError("gone"), ProtocolError("nonsense")])
def test_other_failures_end_it_at_once(error: CallError) -> None:
    world = World([error])
    with pytest.raises(type(error)):
        world.follow(state("working"))
    assert len(world.polled_at) == 1


def test_the_end_of_the_session_ends_it() -> None:
    world = World([state("working")])
    world.stopped_at = 5 * S
    with pytest.raises(ConnectionLostError):
        world.follow(state("working"))
    assert len(world.polled_at) < 6


@given(
    hint=st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(10**12), 10**12)), random=st.floats(0, 0.999)
)
def test_polls_are_bounded_and_never_before_the_server_wants(hint: float | None, random: float) -> None:
    delay_s = poll_delay_s(TaskState("t", "working", poll_interval_ms=hint), random)
    assert 0.05 <= delay_s <= 66.0
    if hint is not None and hint <= 60_000:
        assert delay_s >= hint / 1000


STATES = st.one_of(
    st.just(state("working")),
    st.builds(
        lambda keys: state("input_required", inputRequests=dict.fromkeys(keys, QUESTION)),
        st.sets(st.sampled_from("abcd")),
    ),
    st.builds(lambda ms: state("working", pollIntervalMs=ms), st.integers(-5, 200_000)),
    st.just(DONE),
    st.just(state("cancelled")),
    st.just(state("failed", error={"code": 1, "message": ""})),
    st.just(refusal(-32602)),
    st.builds(lambda kind: kind("failed"), st.sampled_from([ConnectionLostError, OverloadedError, ServerExitedError])),
    st.just({"nonsense": True}),
)


@given(answers=st.lists(STATES, min_size=1, max_size=12), deadline_s=st.integers(0, 300))
def test_it_always_ends_by_its_deadline(answers: list[Any], deadline_s: int) -> None:
    world = World(list(answers))
    over = True
    try:
        final = world.follow(state("working"), deadline_s * S + 1)
        assert final.result is not None or final.error is not None
    except TaskError:
        pass
    except CallError:
        over = False
    assert world.now <= deadline_s * S + 1
    assert len(world.requests.asked) == len(set(world.requests.asked))
    assert world.cancelled is not over


def test_a_call_that_must_be_a_task_is_one() -> None:
    world = World([{"taskId": "t", "status": "working", "pollInterval": 2000}, {"taskId": "t", "status": "completed"}])
    asked = world.ask

    async def ask(method_raw: bytes, params: bytes, deadline_ns: int, listener: object = None) -> Message:
        answer = await asked(method_raw, params, deadline_ns)
        if method_raw == b'"tools/call"':
            return reply({"task": {"taskId": "t", "status": "working", "pollInterval": 2000}})
        return reply({"content": [], "isError": False}) if method_raw == b'"tasks/result"' else answer

    world.follower = TaskFollower("s", ask, world.requests, world.pause, lambda: world.now)  # type: ignore[arg-type]
    final = asyncio.run(world.follower.run(b'{"name":"x"}', 60 * S, can_cancel=True))
    assert msgspec.json.decode(final.result or b"") == {"content": [], "isError": False}
    assert [method for method, _ in world.sent] == ["tools/call", "tasks/get", "tasks/get", "tasks/result"]
    assert world.sent[0][1] == {"name": "x", "task": {}}
    assert world.polled_at[1] - world.polled_at[0] >= 2 * S
