"""Handlers that answer, raise, hang, or return unusable values: each affects only its own request."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.calls import eventually
from support.contained import containment

from mcp_manager import RpcError
from mcp_manager._core.jsonrpc import scan
from mcp_manager.errors import ConnectionLostError, DeadlineExceededError, InputRequiredError
from mcp_manager.protocol.multi_round import InputRequest
from mcp_manager.session.handlers import HandlerMap
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.session.server_requests import ServerRequests, _error_frame, _result_frame

WAIT_S = 15.0
ASK = "roots/list"
TELL = "notifications/message"
ALL = {"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}}


class Subject:
    """The server requests of one session, and the frames that were sent to its server."""

    def __init__(self, handlers: HandlerMap, timeout_s: float, capabilities: dict[str, Any]) -> None:
        self.faults = PeerFaults("server", time.monotonic_ns)
        self.sent: list[dict[str, Any]] = []
        self.held: asyncio.Event | None = None
        self.requests = ServerRequests(
            containment("server"), handlers, capabilities, self.faults, self._send, timeout_s
        )

    def ask(self, request_id: Any = 1, method: str = ASK, params: Any = None) -> None:
        frame: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if params is not None:
            frame["params"] = params
        self.requests.answer(scan(json.dumps(frame).encode()), method)

    def tell(self, method: str = TELL, **params: Any) -> None:
        self.requests.take_notification(method, json.dumps(params).encode())

    async def replies(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many replies, and return them sorted by id."""
        await eventually(lambda: len(self.sent) >= count, f"{count} replies")
        assert len(self.sent) == count
        return sorted(self.sent, key=lambda reply: str(reply["id"]))

    async def error(self) -> tuple[int, str]:
        """Wait for a single reply, which must be an error, and return its code and message."""
        [reply] = await self.replies(1)
        return reply["error"]["code"], reply["error"]["message"]

    async def _send(self, frame: bytes) -> None:
        if self.held is not None:
            await self.held.wait()
        assert b"\n" not in frame
        self.sent.append(json.loads(frame))


@contextlib.asynccontextmanager
async def serving(
    handlers: HandlerMap, *, timeout_s: float = WAIT_S, capabilities: dict[str, Any] | None = None
) -> AsyncIterator[Subject]:
    subject = Subject(handlers, timeout_s, ALL if capabilities is None else capabilities)
    try:
        yield subject
    finally:
        tasks = subject.requests.close()
        if tasks:
            await asyncio.wait(tasks)


class Stubborn:
    """A handler that ignores its cancellation."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.released = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, server_id: str, params: Any) -> Any:
        self.begun.set()
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return {"late": True}


async def hang(server_id: str, params: Any) -> Any:
    await asyncio.Event().wait()


# Answers


@pytest.mark.parametrize("answer", [{"roots": []}, None, {}])
async def test_a_plain_function_and_a_coroutine_function_answer(answer: Any) -> None:
    async def coroutine(server_id: str, params: Any) -> Any:
        await asyncio.sleep(0)
        return answer

    def plain(server_id: str, params: Any) -> Any:
        return answer

    for handler in (coroutine, plain):
        async with serving({ASK: handler}) as subject:
            subject.ask("id-1")
            assert await subject.replies(1) == [{"jsonrpc": "2.0", "id": "id-1", "result": answer or {}}]


async def test_ping_and_what_nobody_handles_are_answered() -> None:
    async with serving({}) as subject:
        subject.ask(1, "ping")
        subject.ask(2, "x/y")
        pong, error = await subject.replies(2)
        assert (pong["result"], error["error"]["code"]) == ({}, -32601)


def raising(error: BaseException) -> Callable[[str, Any], Any]:
    def handler(server_id: str, params: Any) -> Any:
        # A copy, because test parameters outlive the test, and a traceback holds frames.
        raise copy.copy(error)

    return handler


@pytest.mark.parametrize(
    ("handler", "code", "message"),
    [
        (raising(ValueError("a secret")), -32603, "The client's handler failed"),
        (raising(TimeoutError("a secret")), -32603, "The client's handler failed"),
        (raising(asyncio.CancelledError()), -32603, "The client's handler failed"),
        (raising(GeneratorExit()), -32603, "The client's handler failed"),
        (raising(BaseExceptionGroup("many", [GeneratorExit()])), -32603, "The client's handler failed"),
        (raising(RpcError(-1, "the user rejected it", {"x": 1})), -1, "the user rejected it"),
        (raising(RpcError(-1, "with odd data", object())), -1, "with odd data"),
        (raising(RpcError(-1, "no file \udcff here")), -1, "no file ? here"),
        (raising(RpcError(-1, "no file \udcff here", object())), -1, "no file ? here"),
        (raising(RpcError("-1", "no code")), -32603, "The client's handler failed"),  # type: ignore[arg-type]
        (raising(RpcError(-1, b"no text")), -32603, "The client's handler failed"),  # type: ignore[arg-type]
        (lambda *_: "text", -32603, "The client's handler failed"),
        (lambda *_: [1], -32603, "The client's handler failed"),
        (lambda *_: object(), -32603, "The client's handler failed"),
        (lambda *_: {"x": object()}, -32603, "The client's handler failed"),
        (lambda *_: {"x": "\ud800"}, -32603, "The client's handler failed"),
        (lambda: {}, -32603, "The client's handler failed"),
    ],
)
async def test_a_handler_that_fails_costs_one_error_reply(handler: Any, code: int, message: str) -> None:
    async with serving({ASK: handler}) as subject:
        subject.ask(params={"q": 1})
        assert await subject.error() == (code, message)
        subject.ask(2, "ping")
        await subject.replies(2)
        assert subject.faults.counts == {}


async def test_a_handler_that_hangs_is_cancelled_and_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def handler(server_id: str, params: Any) -> Any:
        try:
            await hang(server_id, params)
        finally:
            ended.set()

    async with serving({ASK: handler}, timeout_s=0.02) as subject:
        subject.ask()
        assert await subject.error() == (-32603, "The client's handler took too long")
        await asyncio.wait_for(ended.wait(), WAIT_S)
    assert "took more than 0.02 s" in caplog.text


async def test_the_late_answer_of_a_handler_that_cannot_be_cancelled_goes_nowhere() -> None:
    stubborn = Stubborn()
    async with serving({ASK: stubborn}, timeout_s=0.02) as subject:
        subject.ask()
        assert await subject.error() == (-32603, "The client's handler took too long")
        subject.ask(2, "ping")
        await subject.replies(2)
        stubborn.released.set()
        await eventually(lambda: not subject.requests._handling, "the end of the handler")
    assert len(subject.sent) == 2
    assert stubborn.cancelled == 1


@pytest.mark.parametrize("params", ["[]", "[{}]", '{"a":nan}', "{" * 3000 + "}" * 3000])
async def test_a_handler_never_sees_what_is_no_object(params: str) -> None:
    seen: list[Any] = []
    async with serving({ASK: lambda *news: seen.append(news), TELL: lambda *news: seen.append(news)}) as subject:
        frame = f'{{"jsonrpc":"2.0","id":1,"method":"{ASK}","params":{params}}}'
        try:
            message = scan(frame.encode())
        except ValueError:
            message = scan(f'{{"jsonrpc":"2.0","id":1,"method":"{ASK}","params":[]}}'.encode())
        subject.requests.answer(message, ASK)
        subject.requests.take_notification(TELL, message.params)
        assert (await subject.error())[0] == -32602
        await eventually(lambda: len(subject.faults.counts) == 2, "the second fault")
        assert seen == []
        assert subject.faults.counts == {
            "a request whose params are not an object": 1,
            "a notification whose params are not an object": 1,
        }


async def test_what_was_not_declared_is_refused_and_reaches_no_handler() -> None:
    seen: list[Any] = []
    handlers = {"elicitation/create": lambda *news: seen.append(news)}
    async with serving(handlers, capabilities={"elicitation": {}}) as subject:
        subject.ask(1, "elicitation/create", {"mode": "url", "url": "https://example.com"})
        assert (await subject.error())[0] == -32602
        assert subject.faults.counts == {"a request for an undeclared capability": 1}
        subject.ask(2, "elicitation/create", {"message": "?"})
        await subject.replies(2)
        assert seen == [("server", {"message": "?"})]


# Floods


async def test_a_flood_of_requests_is_refused_beyond_a_bound_and_the_rest_answered() -> None:
    release = asyncio.Event()
    running = 0

    async def handler(server_id: str, params: Any) -> Any:
        nonlocal running
        running += 1
        await release.wait()
        return {}

    async with serving({ASK: handler}) as subject:
        for number in range(100):
            subject.ask(number)
        refused = await subject.replies(36)
        assert {reply["error"]["message"] for reply in refused} == {"Too many requests at once"}
        assert running == 64
        assert subject.faults.counts == {"too many requests at once": 36}
        release.set()
        await subject.replies(100)
        subject.ask(100)
        await subject.replies(101)


async def test_a_flood_of_notifications_is_bounded_though_none_has_begun() -> None:
    seen: list[Any] = []

    async def handler(server_id: str, params: Any) -> None:
        seen.append(params["n"])

    async with serving({TELL: handler}) as subject:
        for number in range(1500):
            subject.tell(n=number)
        await eventually(lambda: not subject.requests._notifications, "the end of what was taken")
        # Some began at once; of those that wait, the oldest are dropped.
        begun = 1500 - 1024 - subject.faults.counts["too many notifications at once"]
        assert 0 < begun <= 64
        assert seen == [*range(begun), *range(1500 - 1024, 1500)]
        subject.tell(n=-1)
        await eventually(lambda: seen[-1] == -1, "the next one")


async def test_handlers_that_go_on_though_cancelled_are_bounded() -> None:
    release = asyncio.Event()
    running = 0

    async def stubborn(server_id: str, params: Any) -> Any:
        nonlocal running
        running += 1
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with serving({ASK: stubborn, TELL: stubborn}) as subject, contextlib.AsyncExitStack() as stack:
        stack.callback(release.set)
        for number in range(1200):
            subject.ask(number)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            subject.tell("notifications/cancelled", requestId=number)
            await asyncio.sleep(0)
        subject.tell()
        await eventually(lambda: "too many notifications at once" in subject.faults.counts, "the fault")
        assert running == 64 + 1024
        await eventually(lambda: len(subject.sent) == 1200 - running, "the refusals")
        assert subject.faults.counts == {"too many requests at once": 112, "too many notifications at once": 1}
        release.set()
        await eventually(lambda: not subject.requests._handling, "the end of the handlers")
        subject.ask(-1)
        await eventually(lambda: len(subject.sent) == 113, "the next answer")


async def test_replies_that_a_server_does_not_take_do_not_pile_up() -> None:
    async with serving({}) as subject:
        subject.held = asyncio.Event()
        for number in range(2000):
            subject.ask(number, "ping" if number % 2 else "x/y")
        dropped = subject.faults.counts["replies that the server does not read"]
        begun = 2000 - 1024 - dropped
        assert 0 < begun <= 4
        subject.held.set()
        replies = await subject.replies(1024 + begun)
        assert {reply["id"] for reply in replies} == {*range(begun), *range(2000 - 1024, 2000)}
        subject.ask(9999, "ping")
        await subject.replies(1024 + begun + 1)


async def test_an_id_that_cannot_be_answered_is_a_fault() -> None:
    async with serving({ASK: hang}) as subject:
        subject.ask(None)
        subject.ask(1)
        subject.ask(1)
        assert await subject.error() == (-32600, "Invalid request: its id is in use")
        assert subject.faults.counts == {"a request whose id is null": 1, "a request with an id in use": 1}


# Cancellation


@pytest.mark.parametrize("request_id", [7, "seven"])
async def test_a_server_cancels_its_own_request_and_no_other(request_id: Any) -> None:
    ended: list[Any] = []
    begun: list[Any] = []

    async def handler(server_id: str, params: Any) -> Any:
        begun.append(params["n"])
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(params["n"])

    async with serving({ASK: handler}) as subject:
        subject.ask(request_id, params={"n": "mine"})
        subject.ask(8, params={"n": "other"})
        await eventually(lambda: len(begun) == 2, "both handlers")
        for unknown in (9, "7", None, [7]):
            subject.tell("notifications/cancelled", requestId=unknown)
        subject.tell("notifications/cancelled", requestId=request_id)
        await eventually(lambda: ended == ["mine"], "the end of the handler")
        subject.tell("notifications/cancelled")
        subject.ask(request_id, params={"n": "again"})
        await eventually(lambda: len(begun) == 3, "the id being free again")
        assert (subject.sent, ended) == ([], ["mine"])
        assert subject.faults.counts == {"a malformed cancellation": 1}


async def test_a_server_cancels_a_request_whose_handler_has_not_begun() -> None:
    seen: list[Any] = []
    async with serving({ASK: lambda *news: seen.append(news)}) as subject:
        subject.ask(1)
        subject.tell("notifications/cancelled", requestId=1)
        subject.ask(2, "ping")
        await subject.replies(1)
        assert seen == []


async def test_the_end_of_the_session_cancels_handlers_and_sends_nothing() -> None:
    stubborn = Stubborn()
    async with serving({ASK: hang, TELL: hang, "x/y": stubborn}) as subject:
        subject.ask(1)
        subject.ask(2, "x/y")
        subject.tell()
        await asyncio.wait_for(stubborn.begun.wait(), WAIT_S)
        tasks = subject.requests.close()
        _, pending = await asyncio.wait(tasks, timeout=0.5)
        assert len(pending) == 1
        stubborn.released.set()
        subject.ask(3, "ping")
        subject.ask(4)
        subject.tell()
        await asyncio.wait(pending)
        assert subject.sent == []


# Questions of multi-round requests


def soon(seconds: float = WAIT_S) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


async def test_questions_are_answered_together() -> None:
    both = asyncio.Barrier(2)

    async def handler(server_id: str, params: Any) -> Any:
        await both.wait()
        return {"echo": params}

    async with serving({ASK: handler}) as subject:
        asked = {"a": InputRequest(ASK, {"n": 1}), "b": InputRequest(ASK, {"n": 2})}
        answers = await subject.requests.fulfil(asked, soon())
        assert {key: json.loads(bytes(answer)) for key, answer in answers.items()} == {
            "a": {"echo": {"n": 1}},
            "b": {"echo": {"n": 2}},
        }
        assert subject.sent == []


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (raising(ValueError("a secret")), "its handler failed"),
        (raising(RpcError(-1, "the user rejected it")), "the user rejected it"),
        (lambda *_: "text", "its handler failed"),
        (hang, "its handler took too long"),
    ],
)
async def test_a_question_without_an_answer_fails_its_call_alone(handler: Any, told: str) -> None:
    stubborn = Stubborn()
    async with serving({ASK: handler, "sampling/createMessage": stubborn}, timeout_s=0.05) as subject:
        asked = {"a": InputRequest(ASK), "b": InputRequest("sampling/createMessage", {})}
        with pytest.raises(InputRequiredError, match=told) as caught:
            await asyncio.wait_for(subject.requests.fulfil(asked, soon()), WAIT_S)
        assert "a secret" not in str(caught.value)
        stubborn.released.set()


async def test_the_first_question_without_an_answer_cancels_the_others() -> None:
    ended = asyncio.Event()

    async def handler(server_id: str, params: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail(server_id: str, params: Any) -> Any:
        raise ValueError("handler bug")

    async with serving({ASK: handler, "sampling/createMessage": fail}, timeout_s=3600.0) as subject:
        asked = {"a": InputRequest(ASK), "b": InputRequest("sampling/createMessage")}
        with pytest.raises(InputRequiredError):
            await asyncio.wait_for(subject.requests.fulfil(asked, soon(3600.0)), WAIT_S)
        await asyncio.wait_for(ended.wait(), WAIT_S)


async def test_a_question_for_what_was_not_declared_fails_its_call() -> None:
    async with serving({"elicitation/create": lambda *_: {}}, capabilities={"elicitation": {}}) as subject:
        with pytest.raises(InputRequiredError, match="did not declare"):
            await subject.requests.fulfil({"a": InputRequest("elicitation/create", {"mode": "url"})}, soon())


async def test_a_handler_that_cannot_be_cancelled_holds_no_call_beyond_its_deadline() -> None:
    stubborn = Stubborn()
    async with serving({ASK: stubborn}) as subject:
        with pytest.raises(DeadlineExceededError) as caught:
            await asyncio.wait_for(subject.requests.fulfil({"a": InputRequest(ASK)}, soon(0.05)), WAIT_S)
        assert caught.value.delivery == "answered"
        stubborn.released.set()


async def test_a_call_given_up_cancels_its_questions() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(server_id: str, params: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving({ASK: handler}) as subject:
        call = asyncio.create_task(subject.requests.fulfil({"a": InputRequest(ASK)}, soon()))
        await asyncio.wait_for(begun.wait(), WAIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), WAIT_S)


async def test_the_end_of_the_session_is_no_failure_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def handler(server_id: str, params: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async with serving({ASK: handler}) as subject:
        call = asyncio.create_task(subject.requests.fulfil({"a": InputRequest(ASK)}, soon()))
        await asyncio.wait_for(begun.wait(), WAIT_S)
        subject.requests.close()
        with pytest.raises(ConnectionLostError, match="stopped"):
            await call
        # No handler starts after the end.
        begun.clear()
        with pytest.raises(ConnectionLostError, match="stopped"):
            await subject.requests.fulfil({"a": InputRequest(ASK)}, soon())
        assert not begun.is_set()
    assert caplog.records == []


async def test_no_more_questions_than_the_bound_are_asked_at_once() -> None:
    running = most = 0

    async def handler(server_id: str, params: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return {}

    async with serving({ASK: handler}) as subject:
        asked = {str(number): InputRequest(ASK) for number in range(64)}
        await asyncio.gather(*(subject.requests.fulfil(asked, soon()) for _ in range(3)))
        assert most == 64


# Notifications


async def test_a_notification_handler_that_fails_harms_none_after_it(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    async def handler(server_id: str, params: Any) -> None:
        if params["n"] == 0:
            raise ValueError("handler bug")
        if params["n"] == 1:
            await asyncio.Event().wait()
        seen.append(params["n"])

    async with serving({TELL: handler}, timeout_s=0.02) as subject:
        for number in range(4):
            subject.tell(n=number)
        await eventually(lambda: "took more than" in caplog.text, "the end of the one that hangs")
        assert seen == [2, 3]
        assert subject.faults.counts == {}
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_a_notification_of_the_wrong_shape_is_the_servers_fault() -> None:
    async with serving({TELL: raising(RpcError(-32602, "Invalid params: no level"))}) as subject:
        subject.tell()
        await eventually(lambda: bool(subject.faults.counts), "the fault")
        assert subject.faults.counts == {"a malformed notification": 1}


@pytest.mark.parametrize("request_id", [b"1", b'"a\\"b"', b"-1.5e3"])
def test_the_frames_are_messages_whatever_their_id(request_id: bytes) -> None:
    assert scan(_result_frame(request_id, b"{}")).id_raw == request_id
    assert scan(_error_frame(request_id, -1, "x", {"y": 1})).id_raw == request_id
