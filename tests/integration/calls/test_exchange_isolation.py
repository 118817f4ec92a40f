"""Exchanges beside each other: no answer, token, late question or failing function of one affects another."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from support.calls import CALM, eventually, tool_call
from support.processes import PROGRAMS
from support.stateless_server import StatelessServer
from support.streams import HttpSseServer, OpenStream

from mcp_manager import ConnectionLostError, DeadlineExceededError, Handlers, McpManager, PyMcpManager, ServerMessage
from mcp_manager.testing.faults import Hold, Reset

ELICIT = "elicitation/create"
QUESTION = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
MANAGERS_OWN = {"action": "accept", "content": {"name": "the manager's"}}
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


def command(program: str, *arguments: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(PROGRAMS / program), *arguments]}


def handlers() -> Handlers:
    return Handlers(elicitation=lambda server_id, request: request.accept(MANAGERS_OWN["content"]))


def progress(token: object, **arguments: Any) -> bytes:
    params = {"name": "progress", "arguments": arguments, "_meta": {"progressToken": token}}
    return json.dumps({"id": 1, "method": "tools/call", "params": params}).encode()


def ask() -> bytes:
    return tool_call("ask", {"method": ELICIT, "params": QUESTION}, 1)


def learned(reply: bytes) -> Any:
    return json.loads(reply)["result"]["structuredContent"]


def answer_as(name: str) -> Any:
    return lambda message: {"action": "accept", "content": {"name": name}} if message.wants_answer else None


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    """A manager whose server ``a`` is a program of 2025-11-25."""
    async with McpManager(handlers=handlers()) as manager:
        await manager.deploy("a", command("asking_stdio.py", "handshake"))
        yield manager


# Answers


@pytest.mark.parametrize("given", [b'{"action": "accept"},"id":"ask-2"', b"{", b"[]", b"", b'{"a": 1} {}'])
async def test_an_answer_in_json_cannot_change_the_message_around_it(manager: McpManager, given: bytes) -> None:
    reply = await manager.exchange("a", ask(), on_message=lambda message: given, timeout=15)
    assert learned(reply)["answer"]["error"]["message"] == "The client's handler failed"
    reply = await manager.exchange("a", ask(), on_message=lambda message: b'{"action":\n"decline"}', timeout=15)
    assert learned(reply)["answer"] == {"result": {"action": "decline"}}


# Progress tokens


async def test_whoever_knows_its_own_token_does_not_know_the_next(manager: McpManager) -> None:
    for _ in range(2):
        await manager.exchange("a", progress("mine"), on_message=lambda message: None)
    received = learned(await manager.exchange("a", tool_call("received", {}, 1)))["received"]
    first, second = (each["params"]["_meta"]["progressToken"] for each in received[-2:])
    assert sum(mine == next_one for mine, next_one in zip(first, second, strict=True)) < 16


async def test_a_token_that_is_null_is_none(manager: McpManager) -> None:
    seen: list[ServerMessage] = []
    await manager.exchange("a", progress(None), on_message=seen.append)
    received = learned(await manager.exchange("a", tool_call("received", {}, 1)))["received"]
    assert received[-1]["params"]["_meta"] == {"progressToken": None}
    assert [each.method for each in seen] == ["notifications/message"]


async def test_progress_whose_text_was_cut_arrives(manager: McpManager) -> None:
    seen: list[ServerMessage] = []
    await manager.exchange("a", progress(5, cut=True), on_message=seen.append)
    assert seen[-1].params == {"progressToken": 5, "progress": 1, "total": 2, "message": "\ufffd"}


# Odd notifications


async def test_notifications_of_odd_shapes(manager: McpManager) -> None:
    seen: list[ServerMessage] = []
    odd = '{"jsonrpc":"2.0","method":"notifications/message","params":[1]}'
    cut = '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"\\ud83d"}}'
    for text in (odd, cut):
        await manager.exchange("a", tool_call("say", {"text": text}, 1), on_message=seen.append)
    assert [each.params for each in seen] == [{"data": "\ufffd"}]
    assert manager.server("a").faults["a notification whose params are not an object"] == 1


async def test_notifications_that_a_slow_function_cannot_take_are_counted(manager: McpManager) -> None:
    gate = asyncio.Event()
    seen: list[Any] = []

    async def take(message: ServerMessage) -> None:
        await gate.wait()
        seen.append(message.params["data"])

    lines = [{"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": each}} for each in range(300)]
    flood = tool_call("say", {"text": "\n".join(map(json.dumps, lines))}, 1)
    making = asyncio.ensure_future(manager.exchange("a", flood, on_message=take))
    await eventually(lambda: manager.server("a").faults.get("too many notifications at once", 0) > 40, "the fault")
    gate.set()
    await making
    assert seen[-256:] == list(range(44, 300))


# Functions


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_nothing_that_a_function_raises_ends_the_reading(
    manager: McpManager, error: type[BaseException], is_async: bool
) -> None:
    seen: list[str] = []

    def take(message: ServerMessage) -> None:
        seen.append(message.method)
        raise error

    async def take_later(message: ServerMessage) -> None:
        take(message)

    await manager.exchange("a", progress(1), on_message=take_later if is_async else take, timeout=15)
    assert seen == ["notifications/message", "notifications/progress"]
    assert learned(await manager.exchange("a", ask(), on_message=answer_as("Ada"), timeout=15))["answer"]["result"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_runs_in_the_context_of_its_exchange(manager: McpManager, is_async: bool) -> None:
    seen: list[tuple[str, str]] = []

    def take(message: ServerMessage) -> Any:
        seen.append((message.method, WHO.get()))
        return answer_as("Ada")(message)

    async def take_later(message: ServerMessage) -> Any:
        return take(message)

    token = WHO.set("alice")
    for request in (progress(1), ask()):
        await manager.exchange("a", request, on_message=take_later if is_async else take)
    WHO.reset(token)
    methods = ("notifications/message", "notifications/progress", ELICIT)
    assert seen == [(method, "alice") for method in methods]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_that_wants_to_end_the_program_does_not_end_the_servers(is_async: bool) -> None:
    def leave(message: ServerMessage) -> None:
        sys.exit(3)

    async def leave_later(message: ServerMessage) -> None:
        sys.exit(3)

    with PyMcpManager(handlers=handlers()) as manager:
        manager.deploy_server("a", command("asking_stdio.py", "handshake"))
        on_message = leave_later if is_async else leave
        assert learned(manager.exchange("a", progress(1), on_message=on_message, timeout=15)) == {}
        failed = learned(manager.exchange("a", ask(), on_message=on_message, timeout=15))
        assert failed["answer"]["error"]["message"] == "The client's handler failed"
        assert learned(manager.exchange("a", ask(), timeout=15))["answer"]["result"] == MANAGERS_OWN


# HTTP+SSE: one stream for all


async def test_a_question_of_a_call_that_was_given_up_reaches_no_other_over_http_sse() -> None:
    async def asked(stream: OpenStream, question_id: str) -> Any:
        def given() -> list[Any]:
            return [each.message for each in server.requests if (each.message or {}).get("id") == question_id]

        question = {"jsonrpc": "2.0", "id": question_id, "method": ELICIT, "params": QUESTION}
        await asyncio.to_thread(stream.say, question)
        await server.wait_until(lambda: bool(given()))
        return given()[0]["result"]["content"]["name"]

    with HttpSseServer() as server:
        async with McpManager(handlers=handlers()) as manager:
            await manager.deploy("a", {"url": server.url, "transport": "sse", **CALM})
            server.script("tools/call", Hold(), Hold())
            with pytest.raises(DeadlineExceededError):
                await manager.exchange("a", tool_call("echo", {"text": "1"}), on_message=answer_as("1"), timeout=0.3)
            making = asyncio.ensure_future(
                manager.exchange("a", tool_call("echo", {"text": "2"}), on_message=answer_as("2"))
            )
            await server.wait_until(lambda: len(server.requests_of("tools/call")) == 2)
            stream = server.streams[0]
            assert await asked(stream, "q1") == "the manager's"
            # The late reply ends the doubt.
            first = server.requests_of("tools/call")[0].id
            await asyncio.to_thread(stream.say, {"jsonrpc": "2.0", "id": first, "result": {}})
            assert await asked(stream, "q2") == "2"
            making.cancel()


# Tasks of 2025-11-25


async def test_a_question_of_a_task_reaches_whoever_waits_for_its_result() -> None:
    async with McpManager(handlers=handlers()) as manager:
        await manager.deploy("a", command("task_stdio.py"))
        slow, other = tool_call("slow", {}, 1), tool_call("other", {}, 1)
        reply = await manager.exchange("a", slow, on_message=answer_as("Ada"), answers_input=True)
        assert learned(reply)["content"] == {"name": "Ada"}
        by_hand = b'{"id":1,"method":"tasks/result","params":{"taskId":"t1"}}'
        reply = await manager.exchange("a", by_hand, on_message=answer_as("Grace"))
        assert learned(reply)["content"] == {"name": "Grace"}
        for request in (other, by_hand.replace(b"t1", b"t2")):
            assert learned(await manager.exchange("a", request, on_message=answer_as("wrong"))) == MANAGERS_OWN


# Fallbacks


async def test_a_result_that_asks_for_input_is_no_fallback() -> None:
    with StatelessServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "fallback": {"stale_s": 60.0}})
            request = b'{"id":1,"method":"prompts/get","params":{"name":"x"}}'
            server.results["prompts/get"] = lambda params: {"resultType": "input_required", "requestState": "alice's"}
            assert b"input_required" in await manager.exchange("a", request)
            server.script_always("prompts/get", Reset())
            with pytest.raises(ConnectionLostError):
                await manager.exchange("a", request, timeout=5)
