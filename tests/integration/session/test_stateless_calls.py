"""Calls to servers of 2026-07-28: dressed as they must be, driven to their end, and ended as the revision has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of, tool_call
from support.era_server import META, STATE, STATELESS, EraServer, refusal

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import DeadlineExceededError, InputRequiredError, InvalidRequestError, ProtocolError, RpcError
from mcp_manager.protocol.multi_round import MAX_ROUNDS
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import encode

JSON = {"Content-Type": "application/json"}


async def accept(server_id: str, params: Any) -> dict[str, Any]:
    return {"action": "accept", "content": {"name": f"{params['message']} Ada"}}


@pytest.fixture(params=[False, True], ids=["json", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[EraServer]:
    with EraServer(sse=request.param) as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest, server: EraServer) -> AsyncIterator[McpManager]:
    handlers = {"elicitation/create": accept}
    async with McpManager(ManagerConfig(http_lanes=request.param), handlers=handlers) as manager:
        await manager.deploy("s", {"url": server.url, **CALM})
        yield manager


class Questions:
    """Answer every call with the same unfinished result."""

    def __init__(self, result: Any) -> None:
        self._result = result

    async def play(self, connection: Any, request: Any) -> None:
        body = encode({"jsonrpc": "2.0", "id": request.id, "result": self._result})
        await connection.respond(200, JSON, body)


class Refusal:
    """Refuse a request with an error that HTTP knows of, too."""

    def __init__(self, code: int, data: Any) -> None:
        self._code = code
        self._data = data

    async def play(self, connection: Any, request: Any) -> None:
        await connection.respond(400, JSON, encode(refusal(request.id, self._code, self._data)))


async def metrics_of(manager: McpManager, status: str) -> int:
    lines = manager.metrics_text().splitlines()
    counted = [line for line in lines if f'status="{status}"' in line and 'method="tools/call"' in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in counted))


# StatelessFrame


async def said_in_calls(server: EraServer, manager: McpManager, member: str) -> list[Any]:
    """Call three times, one after another so that a connection is idle, and return what each said of itself."""
    before = len(server.requests_of("tools/call"))
    for number in range(3):
        assert text_of(await manager.execute_raw("s", echo(str(number)))) == str(number)
    return [each.params["_meta"].get(f"{META}{member}") for each in server.requests_of("tools/call")[before:]]


async def test_a_new_log_level_is_in_every_request_from_then_on(server: EraServer, manager: McpManager) -> None:
    assert await said_in_calls(server, manager, "logLevel") == [None] * 3
    for level in ("debug", "error"):
        await manager.set_log_level("s", level)  # type: ignore[arg-type]
        assert await said_in_calls(server, manager, "logLevel") == [level] * 3


async def test_a_revision_that_the_server_asks_for_is_in_every_request_from_then_on(
    server: EraServer, manager: McpManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = "2027-01-01"
    # There is one such revision so far.
    monkeypatch.setattr("mcp_manager.protocol.revisions._STATELESS_ORDER", (later, STATELESS))
    await manager.execute_raw("s", echo("before"))
    server.speaks = (STATELESS, later)
    server.script("tools/call", Refusal(-32022, {"supported": [later]}))
    assert (await said_in_calls(server, manager, "protocolVersion")) == [STATELESS, later, later, later]
    assert server.executed == ["before", "0", "1", "2"]
    headers = [each.headers["mcp-protocol-version"] for each in server.requests_of("tools/call")]
    assert headers == [STATELESS, STATELESS, later, later, later]


async def test_every_request_says_for_itself_who_asks(server: EraServer, manager: McpManager) -> None:
    await manager.list_tools("s")
    await manager.execute_raw("s", echo("x"))
    await manager.ping("s")
    for request in server.requests:
        meta = request.params["_meta"]
        assert meta[META + "protocolVersion"] == request.headers["mcp-protocol-version"] == STATELESS
        assert meta[META + "clientCapabilities"]["elicitation"] == {"form": {}, "url": {}}
        assert meta[META + "clientInfo"]["name"]
        assert request.headers["mcp-method"] == request.method
        assert "application/json" in request.headers["accept"] and "text/event-stream" in request.headers["accept"]
    assert [each.method for each in server.requests] == [
        "server/discover",
        "tools/list",
        "tools/call",
        "server/discover",
    ]


async def test_the_callers_params_and_meta_arrive_as_they_were(server: EraServer, manager: McpManager) -> None:
    arguments = b'{"n": 1.50e2,"\\u0078":"\\ud83d\\ude00", "deep":[{"_meta": 1}]}'
    request = b'{"method":"tools/call","params":{"name":"echo","arguments":' + arguments + b',"_meta":{"mine":[1 ,2]}}}'
    await manager.execute_raw("s", request)
    [call] = server.requests_of("tools/call")
    assert arguments in call.body
    assert call.params["_meta"]["mine"] == [1, 2] and META + "protocolVersion" in call.params["_meta"]


@pytest.mark.parametrize("name", ["naïve", " edge", "=?base64?eA==?=", "tab\tin", "世界"])
async def test_a_name_that_is_no_header_value_is_encoded(server: EraServer, manager: McpManager, name: str) -> None:
    assert text_of(await manager.execute_raw("s", tool_call(name, {"text": "x"}))) == "x"


@pytest.mark.parametrize("params", [b"[]", b'{"arguments":{}}', b'{"name":7}'])
async def test_params_without_what_the_headers_need_are_not_sent(
    server: EraServer, manager: McpManager, params: bytes
) -> None:
    with pytest.raises(InvalidRequestError):
        await manager.execute_raw("s", b'{"method":"tools/call","params":' + params + b"}")
    assert not server.requests_of("tools/call")


async def test_a_trace_goes_along_and_a_broken_tracer_harms_no_call(server: EraServer) -> None:
    trace: Any = None

    def traced() -> Any:
        if trace is None:
            raise KeyError("no trace")
        return trace

    async with McpManager(trace_context=traced) as manager:
        await manager.deploy("s", {"url": server.url, **CALM})
        for trace in ({"traceparent": "00-1-2-01"}, {"traceparent": 7}, {}, None):  # noqa: B007  (traced() reads it)
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    seen = [each.params["_meta"].get("traceparent") for each in server.requests_of("tools/call")]
    assert seen == ["00-1-2-01", None, None, None]
    assert [each.headers.get("traceparent") for each in server.requests_of("tools/call")] == seen


# Mirrored parameters


async def test_a_mirrored_argument_goes_into_its_header(server: EraServer, manager: McpManager) -> None:
    await manager.list_tools("s")
    for region in ("west", "", " padded", "日本", None):
        arguments = {"text": "x"} if region is None else {"region": region, "text": "x"}
        assert text_of(await manager.execute_raw("s", tool_call("query", arguments))) == "x"
    assert len(server.requests_of("tools/call")) == 5
    assert "mcp-param-region" not in server.requests_of("tools/call")[-1].headers


async def test_a_mirrored_argument_goes_into_its_header_whatever_tools_are_forbidden(server: EraServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", {"url": server.url, **CALM, "tools": {"deny": ["echo"]}})
        assert "echo" not in [tool.name for tool in await manager.list_tools("s")]
        assert text_of(await manager.execute_raw("s", tool_call("query", {"region": "west", "text": "x"}))) == "x"
    assert server.requests_of("tools/call")[-1].headers["mcp-param-region"] == "west"


@pytest.mark.parametrize("listed_first", [True, False])
async def test_a_header_mismatch_is_met_by_listing_again(
    server: EraServer, manager: McpManager, listed_first: bool
) -> None:
    if listed_first:
        await manager.list_tools("s")
        server.token = "Zone"
    call = tool_call("query", {"region": "west", "text": "x"})
    assert text_of(await manager.execute_raw("s", call)) == "x"
    assert server.executed == ["x"]
    assert len(server.requests_of("tools/list")) == 1 + listed_first
    assert text_of(await manager.execute_raw("s", call)) == "x"
    assert len(server.requests_of("tools/call")) == 3


@pytest.mark.parametrize("listing", ["stays", "fails", "breaks"])
async def test_a_mismatch_that_listing_does_not_mend_is_the_answer(
    server: EraServer, manager: McpManager, listing: str
) -> None:
    server.script_always("tools/call", faults.RpcErrorReply(-32020, status=400))
    if listing != "stays":
        server.script_always("tools/list", faults.Status(503) if listing == "fails" else faults.Reply(b"{"))
    error = json.loads(await manager.execute_raw("s", echo("x", 5)))
    assert error["id"] == 5 and error["error"]["code"] == -32020
    assert len(server.requests_of("tools/call")) == (2 if listing == "stays" else 1)


async def test_a_tool_with_an_invalid_annotation_is_left_out_and_the_others_stay(
    server: EraServer, manager: McpManager
) -> None:
    server.token = "not a token"
    assert [tool.name for tool in await manager.list_tools("s")] == ["echo", "ask"]
    assert manager.server("s").faults == {"a tool with invalid header annotations": 1}


# Questions


async def test_a_question_is_answered_with_the_exact_state_and_another_id(
    server: EraServer, manager: McpManager
) -> None:
    assert text_of(await manager.execute_raw("s", tool_call("ask", {"a": 1}))) == "Who? Ada"
    first, second = server.requests_of("tools/call")
    assert first.id != second.id
    assert first.params["arguments"] == second.params["arguments"] == {"a": 1}
    assert "inputResponses" not in first.params and "requestState" not in first.params
    # The server compares the decoded state; this is as it was written.
    assert json.dumps(STATE).encode() in second.body
    # It belongs to this request alone.
    await manager.execute_raw("s", echo("x"))
    other = server.requests_of("tools/call")[-1].params
    assert "inputResponses" not in other and "requestState" not in other


async def test_questions_of_calls_at_once_do_not_mix(server: EraServer, manager: McpManager) -> None:
    calls = [manager.execute_raw("s", tool_call("ask", {"n": n})) for n in range(8)]
    calls += [manager.execute_raw("s", echo(str(n))) for n in range(8)]
    texts = [text_of(reply) for reply in await asyncio.gather(*calls)]
    assert texts == ["Who? Ada"] * 8 + [str(n) for n in range(8)]


@pytest.mark.parametrize("rounds", [1, MAX_ROUNDS, MAX_ROUNDS + 1])
async def test_the_rounds_of_a_request_are_bounded(server: EraServer, manager: McpManager, rounds: int) -> None:
    unfinished = Questions({"resultType": "input_required", "requestState": "s"})
    server.script("tools/call", unfinished, times=rounds)
    if rounds <= MAX_ROUNDS:
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    else:
        error = await failure_of(manager, "s", echo("x"), timeout=10.0)
        assert isinstance(error, InputRequiredError) and error.delivery == "answered"
        assert server.executed == []
    assert len(server.requests_of("tools/call")) == min(rounds + 1, MAX_ROUNDS + 1)


async def test_a_question_without_a_handler_fails_its_call_and_not_the_server(server: EraServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", {"url": server.url, **CALM, "breaker": {"consecutive_failures": 1}})
        error = await failure_of(manager, "s", tool_call("ask", {}))
        assert isinstance(error, InputRequiredError) and "elicitation/create" in error.message and error.hint
        assert manager.server("s").circuit == "Closed"
        assert await metrics_of(manager, "rpc_error") == 1
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"


async def test_a_slow_answer_of_ones_own_is_not_the_servers_failure(server: EraServer) -> None:
    asked = asyncio.Event()

    async def never(server_id: str, params: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with McpManager(handlers={"elicitation/create": never}) as manager:
        breaker = {"consecutive_failures": 1, "timeout_floor_s": 0.0}
        await manager.deploy("s", {"url": server.url, **CALM, "breaker": breaker})
        error = await failure_of(manager, "s", tool_call("ask", {}), timeout=0.3)
        assert isinstance(error, DeadlineExceededError) and error.delivery == "answered" and asked.is_set()
        assert manager.server("s").circuit == "Closed"


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": []},
        {"resultType": "input_required", "inputRequests": {"a": {"method": 7}}},
        {"resultType": "input_required", "requestState": {"not": "a string"}},
        {"resultType": "input_required", "inputRequests": {str(n): {"method": "roots/list"} for n in range(100)}},
        {"resultType": "marvellous", "content": []},
        {"resultType": 7},
        [],
        "text",
        None,
    ],
    ids=lambda result: json.dumps(result)[:60],
)
async def test_an_unfinished_result_that_makes_no_sense_is_an_error(
    server: EraServer, manager: McpManager, result: Any
) -> None:
    server.script("tools/call", Questions(result))
    error, reply = await asyncio.gather(
        failure_of(manager, "s", echo("x")), manager.execute_raw("s", b'{"method":"tools/list"}')
    )
    assert isinstance(error, ProtocolError) and error.delivery == "answered"
    assert "tools" in json.loads(reply)["result"]
    assert manager.server("s").faults == {"an answer that breaks the protocol": 1}
    assert len(server.requests_of("tools/call")) == 1


async def test_only_some_requests_may_be_answered_with_a_question(server: EraServer, manager: McpManager) -> None:
    server.script("completion/complete", Questions({"resultType": "input_required", "requestState": "s"}))
    error = await failure_of(manager, "s", b'{"method":"completion/complete","params":{}}')
    assert isinstance(error, ProtocolError) and "completion/complete" in error.message


async def test_a_result_without_a_type_is_complete(server: EraServer, manager: McpManager) -> None:
    server.script("tools/call", Questions({"content": [{"type": "text", "text": "old"}]}))
    assert text_of(await manager.execute_raw("s", echo("x"))) == "old"


# Errors


async def test_a_missing_capability_is_told_with_what_is_missing(server: EraServer, manager: McpManager) -> None:
    with pytest.raises(RpcError) as raised:
        await manager.call_tool("s", "picture")
    assert raised.value.code == -32021 and raised.value.data == {"requiredCapabilities": {"sampling": {}}}
    assert raised.value.delivery == "answered"
    assert await metrics_of(manager, "rpc_error") == 1
    assert manager.server("s").protocol_version == STATELESS
    assert len(server.requests_of("server/discover")) == 1


async def test_an_error_without_an_id_is_the_answer_to_the_one_request(server: EraServer, manager: McpManager) -> None:
    server.script("tools/call", faults.Status(400, JSON, encode(refusal(None, -32021))))
    reply = json.loads(await manager.execute_raw("s", echo("x", "mine")))
    assert reply["id"] == "mine" and reply["error"]["code"] == -32021


async def test_a_ping_needs_no_method_of_that_name(server: EraServer, manager: McpManager) -> None:
    await manager.ping("s")
    server.script("server/discover", faults.RpcErrorReply(-32601, status=404))
    await manager.ping("s")
    assert not server.requests_of("ping")


# The end of a call


@pytest.mark.parametrize("opened", [True, False], ids=["stream", "nothing"])
async def test_giving_up_closes_the_response_and_sends_nothing(
    server: EraServer, manager: McpManager, opened: bool
) -> None:
    server.script("tools/call", *([faults.SseNeverEnds() if opened else faults.Hold()] * 2))
    call = asyncio.create_task(manager.execute_raw("s", echo("x")))
    await server.wait_for("tools/call")
    held = server.open_connections
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.wait_until(lambda: server.open_connections < held)
    error = await failure_of(manager, "s", echo("y"), timeout=0.3)
    assert isinstance(error, DeadlineExceededError) and error.delivery == "unknown"
    await server.wait_until(lambda: server.open_connections < held)
    assert text_of(await manager.execute_raw("s", echo("z"))) == "z"
    assert not server.requests_of("notifications/cancelled")


async def test_giving_up_between_the_rounds_ends_everything(server: EraServer) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def slow(server_id: str, params: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with McpManager(handlers={"elicitation/create": slow}) as manager:
        await manager.deploy("s", {"url": server.url, **CALM})
        call = asyncio.create_task(manager.execute_raw("s", tool_call("ask", {})))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended.is_set()
        await eventually(lambda: len(server.requests_of("tools/call")) == 1, "nothing")
    assert len(server.requests_of("tools/call")) == 1
