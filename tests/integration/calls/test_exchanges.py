"""Exchanges: what a server sends for one request reaches whoever made it, and nobody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import queue
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import deployed
from support.guarded import ALICE, BOB, OWN, TOKENS, GuardedServer, is_apart
from support.processes import PROGRAMS, HttpServerProcess, sdk_http

from mcp_manager import (
    Caller,
    DeadlineExceededError,
    Handlers,
    InvalidRequestError,
    McpManager,
    PyMcpManager,
    RpcError,
    ServerMessage,
    ServerNotFoundError,
)
from mcp_manager.testing.scripted.stateless import HANDSHAKE

ASKED: dict[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
ELICIT = "elicitation/create"


def never(server_id: str, request: Any) -> Any:
    raise AssertionError("the handler of the manager was called")


def call(tool: str, request_id: object = 7, meta: dict[str, Any] | None = None, **arguments: Any) -> bytes:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if meta is not None:
        params["_meta"] = meta
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}).encode()


def result_of(reply: bytes, request_id: object = 7) -> Any:
    decoded = json.loads(reply)
    assert decoded["id"] == request_id
    return decoded["result"]


class Listener:
    """Keep what comes, and fill in each form with one name."""

    def __init__(self, name: str = "Ada") -> None:
        self.name = name
        self.messages: list[ServerMessage] = []

    def __call__(self, message: ServerMessage) -> dict[str, Any] | None:
        self.messages.append(message)
        if message.method == ELICIT:
            return {"action": "accept", "content": {"name": self.name}}
        return None

    def methods(self) -> list[str]:
        return [each.method for each in self.messages]


@pytest.fixture(scope="module")
def sdk() -> Iterator[HttpServerProcess]:
    with sdk_http() as server:
        yield server


@pytest.fixture
async def old(sdk: HttpServerProcess) -> AsyncIterator[McpManager]:
    """A manager whose server ``a`` speaks 2025-11-25 over HTTP."""
    handlers = Handlers(elicitation=never, sampling=never, logging=never, progress=never)
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("a", {"url": sdk.url, "protocol_version": HANDSHAKE, "connect_timeout_s": 10.0})
        yield manager


@pytest.fixture
async def new(sdk: HttpServerProcess) -> AsyncIterator[McpManager]:
    """A manager whose server ``a`` speaks 2026-07-28 over HTTP."""
    handlers = Handlers(elicitation=never, sampling=never, logging=never, progress=never)
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("a", {"url": sdk.url, "connect_timeout_s": 10.0})
        yield manager


@pytest.fixture
async def program() -> AsyncIterator[McpManager]:
    """A manager whose server ``a`` is a program of 2025-11-25."""
    seen: list[Any] = []

    def answer(server_id: str, request: Any) -> Any:
        seen.append(request)
        return request.accept({"name": "the manager's"})

    async with McpManager(handlers=Handlers(elicitation=answer)) as manager:
        await manager.deploy("a", {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]})
        yield manager


# Questions


async def test_a_question_reaches_the_exchange_that_it_belongs_to(old: McpManager) -> None:
    names = [f"user-{number}" for number in range(8)]
    listeners = [Listener(name) for name in names]
    replies = await asyncio.gather(*(old.exchange("a", call("elicit"), on_message=each) for each in listeners))
    assert [result_of(each)["structuredContent"] for each in replies] == [{"result": name} for name in names]
    assert [each.methods() for each in listeners] == [[ELICIT]] * 8
    asked = listeners[0].messages[0]
    assert asked.wants_answer
    assert asked.params["message"] == "Who are you?"
    assert json.loads(asked.raw_params) == asked.params


async def test_questions_of_callers_reach_them_on_sessions_with_their_capabilities(sdk: HttpServerProcess) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"url": sdk.url, "protocol_version": HANDSHAKE, "connect_timeout_s": 10.0})
        listeners = [Listener(name) for name in ("alice", "bob")]
        replies = await asyncio.gather(
            *(
                manager.exchange("a", call("elicit"), caller=Caller(each.name, capabilities=ASKED), on_message=each)
                for each in listeners
            )
        )
        assert [result_of(each)["structuredContent"]["result"] for each in replies] == ["alice", "bob"]
        # Without capabilities, the server is told that it cannot ask.
        silent = Listener()
        refused = json.loads(await manager.exchange("a", call("elicit"), caller=Caller("eve"), on_message=silent))
        assert "elicitation" in refused["error"]["message"]
        assert silent.messages == []


async def test_an_answer_may_come_later_and_as_json(old: McpManager) -> None:
    asked = asyncio.Event()
    given: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def answer(message: ServerMessage) -> bytes:
        asked.set()
        return await given

    making = asyncio.ensure_future(old.exchange("a", call("elicit"), on_message=answer))
    await asyncio.wait_for(asked.wait(), 15)
    given.set_result(b'{"action": "accept", "content": {"name": "Grace"}}')
    assert result_of(await making)["structuredContent"] == {"result": "Grace"}


async def test_a_refusal_reaches_the_server(old: McpManager) -> None:
    def refuse(message: ServerMessage) -> None:
        raise RpcError(-32001, "not today")

    refused = json.loads(await old.exchange("a", call("elicit"), on_message=refuse))
    assert refused["error"] == {"code": -32001, "message": "not today"}


async def test_a_function_that_fails_costs_one_question(old: McpManager, caplog: pytest.LogCaptureFixture) -> None:
    def fail(message: ServerMessage) -> None:
        raise KeyError("broken")

    with caplog.at_level(logging.ERROR, "mcp_manager"):
        failed = json.loads(await old.exchange("a", call("elicit"), on_message=fail))
    assert failed["error"]["message"] == "The client's handler failed"
    assert "elicitation/create failed" in caplog.text
    assert result_of(await old.exchange("a", call("elicit"), on_message=Listener()))["structuredContent"]


async def test_an_exchange_that_is_cancelled_gives_its_question_up(old: McpManager) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def hang(message: ServerMessage) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    making = asyncio.ensure_future(old.exchange("a", call("elicit"), on_message=hang))
    await asyncio.wait_for(asked.wait(), 15)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    await asyncio.wait_for(over.wait(), 15)
    assert result_of(await old.exchange("a", call("add", a=1, b=2)))["structuredContent"] == {"result": 3}


async def test_a_question_that_nobody_answers_ends_with_the_deadline(old: McpManager) -> None:
    asked: list[str] = []

    async def hang(message: ServerMessage) -> None:
        asked.append(message.method)
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceededError) as caught:
        await old.exchange("a", call("elicit"), on_message=hang, timeout=1.0)
    assert (caught.value.delivery, asked) == ("unknown", [ELICIT])


# Results that do not complete the request


async def test_a_result_that_asks_for_input_is_returned_as_it_came(new: McpManager) -> None:
    listener = Listener()
    for caller in (None, Caller("alice")):
        meta = {"io.modelcontextprotocol/clientCapabilities": ASKED}
        first = result_of(await new.exchange("a", call("elicit", meta=meta), caller=caller, on_message=listener))
        assert first["resultType"] == "input_required"
        ((name, question),) = first["inputRequests"].items()
        assert question["params"]["message"] == "Who are you?"
        params = {
            "name": "elicit",
            "arguments": {},
            "_meta": meta,
            "requestState": first["requestState"],
            "inputResponses": {name: {"action": "accept", "content": {"name": "Ada"}}},
        }
        again = json.dumps({"id": "x", "method": "tools/call", "params": params}).encode()
        assert result_of(await new.exchange("a", again, caller=caller), "x")["structuredContent"] == {"result": "Ada"}
    assert listener.messages == []


async def test_input_is_given_by_the_exchange_if_it_wants_that(new: McpManager) -> None:
    listener = Listener("Grace")
    reply = await new.exchange("a", call("elicit"), on_message=listener, answers_input=True)
    assert result_of(reply)["structuredContent"] == {"result": "Grace"}
    assert listener.methods() == [ELICIT]


async def test_a_demand_to_visit_a_url_is_returned_as_it_came(program: McpManager) -> None:
    reply = json.loads(await program.exchange("a", call("visit"), on_message=Listener()))
    assert reply["error"]["code"] == -32042
    assert reply["error"]["data"]["elicitations"][0]["elicitationId"] == "e-1"


# Progress and log messages


@pytest.mark.parametrize("era", ["old", "new", "program"])
async def test_progress_has_the_token_of_its_exchange(
    era: str, old: McpManager, new: McpManager, program: McpManager
) -> None:
    manager = {"old": old, "new": new, "program": program}[era]
    listeners = [Listener() for _ in range(4)]
    meta, arguments = {"progressToken": 5, "example.org/x": 1.0}, {} if era == "program" else {"steps": 3}
    replies = await asyncio.gather(
        *(manager.exchange("a", call("progress", meta=meta, **arguments), on_message=each) for each in listeners)
    )
    assert len(replies) == 4
    for each in listeners:
        reports = [message.params for message in each.messages if message.method == "notifications/progress"]
        assert [report["progress"] for report in reports] == ([1] if era == "program" else [1, 2, 3])
        assert {report["progressToken"] for report in reports} == {5}
        assert not any(message.wants_answer for message in each.messages)


async def test_log_messages_of_a_program_reach_its_only_exchange(program: McpManager) -> None:
    listener = Listener()
    await program.exchange("a", call("progress", meta={"progressToken": "t"}), on_message=listener)
    assert listener.methods() == ["notifications/message", "notifications/progress"]
    assert listener.messages[0].params == {"level": "info", "data": "working"}


# Programs: one channel for all


async def test_a_question_of_a_program_reaches_the_only_exchange(program: McpManager) -> None:
    params = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
    listener = Listener("Ada")
    reply = await program.exchange("a", call("ask", method=ELICIT, params=params), on_message=listener)
    answer = result_of(reply)["structuredContent"]["answer"]
    assert answer == {"result": {"action": "accept", "content": {"name": "Ada"}}}


async def test_a_question_that_may_be_of_another_exchange_reaches_neither(program: McpManager) -> None:
    params = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
    waiting, asking = Listener("wrong"), Listener("wrong, too")
    other = asyncio.ensure_future(program.exchange("a", call("nothing"), on_message=waiting))
    # Its pipe is read in order: the other call is there before this one.
    await program.exchange("a", call("level"))
    reply = await program.exchange("a", call("ask", method=ELICIT, params=params), on_message=asking)
    answer = result_of(reply)["structuredContent"]["answer"]
    assert answer["result"]["content"] == {"name": "the manager's"}
    await program.exchange("a", call("answer_late"))
    await other
    assert waiting.messages == asking.messages == []


async def test_the_questions_of_a_call_that_was_given_up_reach_no_other(program: McpManager) -> None:
    with pytest.raises(DeadlineExceededError):
        await program.exchange("a", call("nothing"), timeout=0.2)
    params = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
    asking = Listener("wrong")
    asked = call("ask", method=ELICIT, params=params)
    answer = result_of(await program.exchange("a", asked, on_message=asking))["structuredContent"]["answer"]
    assert answer["result"]["content"] == {"name": "the manager's"}
    # Its late answer ends the doubt.
    await program.exchange("a", call("answer_late"))
    answer = result_of(await program.exchange("a", asked, on_message=Listener("Ada")))["structuredContent"]["answer"]
    assert answer["result"]["content"] == {"name": "Ada"}


# Callers, requests and errors


async def test_callers_use_their_credentials_and_sessions() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            for caller, seen in ((ALICE, "Bearer alice"), (BOB, "Bearer bob"), (None, "Bearer own-token")) * 2:
                result = result_of(await manager.exchange("a", call("echo", text="x"), caller=caller))
                assert result["_meta"] == {"caller": seen}
            assert is_apart(server)


async def test_a_notification_has_no_reply(old: McpManager) -> None:
    assert await old.exchange("a", b'{"method":"notifications/roots/list_changed"}') == b"null"


@pytest.mark.parametrize(
    ("request_", "options", "message"),
    [
        (b"[]", {}, "Invalid request"),
        (b'{"id": 1}', {}, "neither method, result nor error"),
        (b'{"id": 1, "result": {}}', {}, "it has no method"),
        ("text", {}, "Invalid request"),
        (b'{"method": "ping"}', {"on_message": 5}, "on_message must be a function"),
        (b'{"method": "ping"}', {"caller": "alice"}, "it must be a Caller"),
        (b'{"method": "ping"}', {"timeout": "5"}, "timeout"),
        (b'{"method": "ping"}', {"key": 5}, "key"),
    ],
)
async def test_wrong_arguments_are_told(program: McpManager, request_: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await program.exchange("a", request_, **options)


async def test_an_unknown_server_is_told(program: McpManager) -> None:
    with pytest.raises(ServerNotFoundError):
        await program.exchange("b", call("echo"))


async def test_a_caller_with_credentials_cannot_be_carried_to_a_program(program: McpManager) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be carried to a stdio server"):
        await program.exchange("a", call("echo"), caller=Caller("x", auth="t"))


# Threads


def test_a_thread_makes_exchanges_and_may_block_to_answer(sdk: HttpServerProcess) -> None:
    threads: list[int] = []

    def answer(message: ServerMessage) -> dict[str, Any] | None:
        threads.append(threading.get_ident())
        return {"action": "accept", "content": {"name": asked.get(timeout=15)}} if message.wants_answer else None

    asked: queue.Queue[str] = queue.Queue()
    with PyMcpManager() as manager:
        manager.deploy_server("a", {"url": sdk.url, "protocol_version": HANDSHAKE, "connect_timeout_s": 10.0})
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            caller = Caller("alice", capabilities=ASKED)
            making = pool.submit(manager.exchange, "a", call("elicit"), caller=caller, on_message=answer)
            # The manager's loop is free meanwhile.
            assert result_of(manager.exchange("a", call("add", a=1, b=2)))["structuredContent"] == {"result": 3}
            asked.put("Ada")
            assert result_of(making.result(15))["structuredContent"] == {"result": "Ada"}
    assert len(threads) == 1


async def test_another_loop_awaits_an_exchange(sdk: HttpServerProcess) -> None:
    with PyMcpManager() as manager:
        settings = {"url": sdk.url, "protocol_version": HANDSHAKE, "connect_timeout_s": 10.0}
        await manager.deploy_server_async("a", settings)
        listener = Listener("Ada")
        caller = Caller("alice", capabilities=ASKED)
        reply = await manager.exchange_async("a", call("elicit"), caller=caller, on_message=listener)
        assert result_of(reply)["structuredContent"] == {"result": "Ada"}


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_the_name_of_a_question_is_the_one_that_the_server_gave_it(era: str) -> None:
    seen = Listener()
    capabilities = {"elicitation": {}, "sampling": {}, "roots": {}}
    with HttpServerProcess("conformance_http.py", "--era", era) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url})
            request = call("test_input_required_result_multiple_inputs")
            caller = Caller("one", capabilities=capabilities)
            await manager.exchange("a", request, caller=caller, on_message=seen, answers_input=True)
    assert {each.key for each in seen.messages} == {"user_name", "greeting", "client_roots"}
