"""What servers get a little wrong: it costs no call, it is counted, and a refusal is told in the server's own words."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, text_of
from support.stdio import opened

from mcp_manager import (
    AuthError,
    CallError,
    ManagerConfig,
    McpManager,
    OverloadedError,
    ProtocolError,
    RpcError,
    UnknownContent,
)
from mcp_manager.testing.faults import SseEvents
from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer, encode, event

JSON = "application/json"
NO_MESSAGE = "an event that is not JSON-RPC"
CONTENT = {"content": [{"type": "text", "text": "é"}]}


class Answer:
    """Answer with a text in which ``%ID%`` is the request's id, with status 200 as an event where the server has those."""

    def __init__(
        self,
        body: bytes | str,
        content_type: str | None = JSON,
        status: int = 200,
        *,
        encoding: str = "utf-8",
        challenge: str = "",
    ) -> None:
        self._body, self._encoding = body, encoding
        self._content_type, self._status, self._challenge = content_type, status, challenge

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        request_id = str(request.id)
        if isinstance(self._body, str):
            body = self._body.replace("%ID%", request_id).encode(self._encoding)
        else:
            body = self._body.replace(b"%ID%", request_id.encode())
        if connection.server.sse and self._status == 200:
            await connection.open_stream()
            await connection.write_chunk(b"data: " + body + b"\n\n")
            await connection.write_chunk(b"")
            return
        headers = {"WWW-Authenticate": self._challenge} if self._challenge else {}
        if self._content_type is not None:
            headers["Content-Type"] = self._content_type
        await connection.respond(self._status, headers, body)


@pytest.fixture(params=[False, True], ids=["json", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
    with ScriptedServer(sse=request.param) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


async def warmed_up(manager: McpManager, server: ScriptedServer, **settings: Any) -> None:
    """Deploy the server and make one call, so that the next one may take the quickest way there is."""
    await manager.deploy("s", {"url": server.url, **CALM, **settings})
    assert text_of(await manager.execute_raw("s", echo("warm"))) == "warm"


# Events that are no messages


@pytest.mark.parametrize(
    ("noise", "count"),
    [
        (b"data: ping\n\n", 1),
        (b'data: {"type":"heartbeat","timestamp":"x"}\n\n', 1),
        (b"data: {}\n\ndata: [DONE]\n\n", 2),
        (b'data: {"jsonrpc":"2.0","id":1,"result":{"cut\n\n', 1),
        (b"event: ping\ndata: ping\n\n: comment\n\ndata:\n\nid: 7\ndata\n\n", 0),
        (b"event: Message\ndata: 1\n\nretry: soon\n\nfoo: bar\n\n", 0),
    ],
)
async def test_an_event_that_is_no_message_is_counted_and_read_past(
    plain: ScriptedServer, manager: McpManager, noise: bytes, count: int
) -> None:
    await warmed_up(manager, plain)
    told = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
    for events in ((noise,), (told, noise), (noise[:3], noise[3:])):
        plain.script("tools/call", SseEvents(events))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert manager.server("s").faults == ({NO_MESSAGE: 3 * count} if count else {})


async def test_noise_after_the_reply_harms_nobody(plain: ScriptedServer, manager: McpManager) -> None:
    class Done:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            _, _, reply = connection.server.answer(request)
            await connection.open_stream()
            await connection.write_chunk(event(reply) + b"data: [DONE]\n\n")
            await connection.write_chunk(b"")

    await warmed_up(manager, plain)
    plain.script("tools/call", Done())
    assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert text_of(await manager.execute_raw("s", echo("y"))) == "y"


async def test_an_event_that_was_meant_to_be_the_reply_ends_the_wait(
    plain: ScriptedServer, manager: McpManager
) -> None:
    class Broken:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            await connection.open_stream()
            await connection.write_chunk(b'data: {"jsonrpc":"2.0","id":%d,"result":nothing}\n\n' % request.id)
            await connection.hang()

    await warmed_up(manager, plain)
    plain.script("tools/call", Broken())
    with pytest.raises(ProtocolError, match="not JSON-RPC: expected a JSON value"):
        await manager.call_tool("s", "echo", {"text": "x"}, timeout=60)


# Replies that are not quite JSON-RPC

REPLY = '"id":%ID%,"result":{"content":[{"type":"text","text":"é"}]}'
ODD_REPLIES = {
    "a member that is null and should be absent": '{"jsonrpc":"2.0","error":null,' + REPLY + "}",
    "an id that came back as text": '{"jsonrpc":"2.0",' + REPLY.replace("%ID%", '"%ID%"') + "}",
    "an id that came back as a fraction": '{"jsonrpc":"2.0",' + REPLY.replace("%ID%", "%ID%.0") + "}",
    "a message without jsonrpc": "{" + REPLY + "}",
    "a message of another jsonrpc version": '{"jsonrpc":"1.0",' + REPLY + "}",
    "a reply with a method": '{"jsonrpc":"2.0","method":"tools/call",' + REPLY + "}",
    "a byte order mark": '\ufeff{"jsonrpc":"2.0",' + REPLY + "}",
    "NaN or Infinity, which are not JSON": '{"jsonrpc":"2.0","x":NaN,' + REPLY + "}",
}


@pytest.mark.parametrize("fault", ODD_REPLIES)
async def test_an_odd_reply_is_an_answer_and_counted(server: ScriptedServer, manager: McpManager, fault: str) -> None:
    await warmed_up(manager, server)
    for _ in range(2):
        server.script("tools/call", Answer(ODD_REPLIES[fault].encode()), Answer(ODD_REPLIES[fault].encode()))
        assert (await manager.call_tool("s", "echo", {"text": "x"})).text == "é"
        reply = json.loads(await manager.execute_raw("s", b'{"id":"mine","method":"tools/call","params":{}}'))
        assert reply.pop("x", None) is None
        assert reply == {"jsonrpc": "2.0", "id": "mine", "result": CONTENT}
    assert manager.server("s").faults == {fault: 4}


async def test_a_null_result_beside_an_error_is_an_error(server: ScriptedServer, manager: McpManager) -> None:
    await warmed_up(manager, server)
    odd = b'{"jsonrpc":"2.0","id":%ID%,"result":null,"error":{"code":"-32001","message":"no","data":{"a":"\\ud83d"}}}'
    server.script("tools/call", Answer(odd), Answer(odd))
    with pytest.raises(RpcError) as caught:
        await manager.call_tool("s", "echo", {})
    assert (caught.value.code, caught.value.message, caught.value.data) == (-32001, "no", {"a": "\ufffd"})
    reply = json.loads(await manager.execute_raw("s", b'{"id":5,"method":"tools/call","params":{}}'))
    assert (reply["id"], reply["error"]["code"], "result" in reply) == (5, -32001, False)


async def test_replies_that_came_back_as_text_reach_their_own_callers_on_a_pipe() -> None:
    async with opened() as subject:
        waiting = [asyncio.create_task(subject.call("keep")) for _ in range(3)]
        await asyncio.sleep(0)
        odd = [
            '{"jsonrpc":"2.0","id":"3","result":{"n":3}}',
            '{"jsonrpc":"2.0","id":"01","result":{"n":"wrong"}}',
            '{"jsonrpc":"2.0","id":2.0,"result":{"n":2},"error":null}',
            '{"id":1,"result":{"n":1,"x":"\\ud83d","y":1e400,"z":NaN}}',
        ]
        await subject.say("\n".join(odd) + "\n")
        results = await asyncio.gather(*waiting)
        assert [result["n"] for result in results] == [1, 2, 3]
        assert subject.sink.faults.counts == {
            "an id that came back as text": 1,
            "a reply that nobody waits for": 1,
            "an id that came back as a fraction": 1,
            "a message without jsonrpc": 1,
            "NaN or Infinity, which are not JSON": 1,
        }


async def test_a_broken_line_that_was_meant_to_be_the_reply_ends_the_wait() -> None:
    async with opened() as subject:
        waiting = asyncio.create_task(subject.call("keep"))
        await asyncio.sleep(0)
        await subject.say('DEBUG {"id":1,"method":"keep"}\n{"level":"info","id":1}\n')
        assert not waiting.done()
        await subject.say('{"jsonrpc":"2.0","id":1,"result":{"a":undefined}}\n')
        with pytest.raises(ProtocolError, match="the reply is not JSON-RPC: expected a JSON value"):
            await waiting


# Content types


@pytest.mark.parametrize(
    ("content_type", "encoding", "fault"),
    [
        ("application/json;charset=utf-8", "utf-8", None),
        ('Application/JSON; charset="UTF-8"', "utf-8", None),
        ("application/json; charset=iso-8859-1", "latin-1", "JSON that is not in UTF-8"),
        (JSON, "utf-16", "JSON that is not in UTF-8"),
        (None, "utf-8", "JSON of another content type"),
        ("text/plain; charset=utf-8", "utf-8", "JSON of another content type"),
        ("text/json", "utf-8", "JSON of another content type"),
        ("application/vnd.api+json", "utf-8", "JSON of another content type"),
        ("text/html", "utf-8-sig", "JSON of another content type"),
    ],
)
async def test_json_is_json_whatever_it_is_called(
    plain: ScriptedServer, manager: McpManager, content_type: str | None, encoding: str, fault: str | None
) -> None:
    await warmed_up(manager, plain)
    plain.script("tools/call", Answer('\r\n {"jsonrpc":"2.0",' + REPLY + "}\n", content_type, encoding=encoding))
    assert (await manager.call_tool("s", "echo", {"text": "x"})).text == "é"
    counts = manager.server("s").faults
    assert fault in counts if fault is not None else counts == {}


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"<html><title>Sign in</title></html>", "text/html", "content type 'text/html'.*: Sign in"),
        (b"Welcome\nto this page", "text/plain", "content type 'text/plain'.*: Welcome "),
        (b"Upstream is gone", JSON, "not JSON-RPC: expected a JSON object at byte 0: Upstream is gone"),
        (b'{"jsonrpc":"2.0","id":%ID%,"error":"boom"}', JSON, "error must be an object at byte .*: boom"),
        (b'{"detail":"no such route"}', JSON, "neither method, result nor error.*: no such route"),
        ('{"a":"é"}'.encode("utf-16-le"), JSON, "UTF-16 or UTF-32, but JSON must be in UTF-8"),
    ],
)
async def test_what_is_no_reply_is_quoted(
    plain: ScriptedServer, manager: McpManager, body: bytes, content_type: str, said: str
) -> None:
    await warmed_up(manager, plain)
    plain.script("tools/call", Answer(body, content_type))
    with pytest.raises(ProtocolError, match=said):
        await manager.call_tool("s", "echo", {"text": "x"})


# Typed results and lists


async def test_one_malformed_tool_hides_no_other_and_is_told_once(
    plain: ScriptedServer, manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    tools = [{"name": "good", "inputSchema": {}}, {"inputSchema": {}}, None, {"name": "cut", "description": "%CUT%"}]
    body = encode({"jsonrpc": "2.0", "id": "%ID%", "result": {"tools": tools}})
    body = body.replace(b'"%ID%"', b"%ID%").replace(b"%CUT%", rb"cut \ud83d")
    plain.script_always("tools/list", Answer(body))
    await manager.deploy("s", {"url": plain.url, **CALM})
    assert [tool.name for tool in await manager.list_tools("s")] == ["good", "cut"]
    catalog = await manager.list_all_tools()
    assert [entry.tool.name for entry in catalog.tools] == ["cut", "good"] and not catalog.missing
    counts = manager.server("s").faults
    assert counts["a malformed entry was left out"] == 4 and counts["text with half a surrogate pair"] == 2
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 1 and "$.tools[1]" in told[0] and "`name`" in told[0]


async def test_one_unknown_block_hides_no_other(plain: ScriptedServer, manager: McpManager) -> None:
    await warmed_up(manager, plain)
    body = b'{"jsonrpc":"2.0","id":%ID%,"result":{"content":[{"type":"text"},{"type":"text","text":"good"}]}}'
    plain.script("tools/call", Answer(body))
    result = await manager.call_tool("s", "echo", {"text": "x"})
    assert result.text == "good" and isinstance(result.content[0], UnknownContent)
    assert manager.server("s").faults == {"a malformed content block": 1}


@pytest.mark.parametrize(
    "odd",
    [
        {"capabilities": None, "serverInfo": None, "instructions": None},
        {
            "capabilities": {"tools": True, "logging": None},
            "serverInfo": {"name": "x", "version": 1},
            "instructions": 3,
        },
        {"capabilities": [], "serverInfo": "x"},
    ],
)
async def test_a_handshake_with_nulls_is_one(plain: ScriptedServer, manager: McpManager, odd: dict[str, Any]) -> None:
    body = encode({"jsonrpc": "2.0", "id": "%ID%", "result": {"protocolVersion": "2025-11-25", **odd}})
    plain.script_always("initialize", Answer(body.replace(b'"%ID%"', b"%ID%")))
    plain.sessions = False
    await warmed_up(manager, plain)


# Refusals

REFUSALS: list[tuple[Answer, type[CallError], str]] = [
    (Answer(b"Missing X-Org-Id header\n", "text/plain", 400), ProtocolError, "Missing X-Org-Id header"),
    (Answer(b'{"detail":"no MCP in your plan"}', JSON, 403), AuthError, r"refused the request \(HTTP 403\): no MCP"),
    (Answer(b"Invalid Host header", "text/plain", 403), AuthError, r"refused the request \(HTTP 403\): Invalid Host"),
    (Answer(b'{"error":"database is locked"}', JSON, 500), ProtocolError, "database is locked"),
    (Answer(b'{"message":"quota used up"}', JSON, 429), OverloadedError, "quota used up"),
    (Answer(b"<title>Just a moment</title>", "text/html", 503), OverloadedError, "Just a moment"),
    (Answer(b'{"title":"No","detail":"way"}', "application/problem+json", 422), ProtocolError, "No: way"),
    (Answer(b'{"error":{"code":7,"message":"odd"}}', JSON, 400), ProtocolError, r"\(HTTP 400\): odd"),
    (Answer(b"", None, 401), AuthError, r"requires credentials \(HTTP 401\)"),
]


@pytest.mark.parametrize(("refusal", "kind", "said"), REFUSALS, ids=[said for *_, said in REFUSALS])
async def test_the_reason_of_a_refusal_is_told(
    plain: ScriptedServer, manager: McpManager, refusal: Fault, kind: type[CallError], said: str
) -> None:
    await warmed_up(manager, plain)
    plain.script("tools/call", refusal)
    with pytest.raises(kind, match=said) as caught:
        await manager.call_tool("s", "echo", {"text": "x"})
    if "HTTP 403" in said:
        assert "auth" not in str(caught.value)
    assert "a message without jsonrpc" not in manager.server("s").faults


async def test_a_challenge_names_the_way_out(plain: ScriptedServer, manager: McpManager) -> None:
    challenge = 'Bearer resource_metadata="https://example.test/.well-known/oauth-protected-resource"'
    for settings in ({}, {"auth": {"type": "api_key", "key": "0123456789"}}):
        await manager.deploy("s", {"url": plain.url, **CALM, **settings})
        plain.script("tools/call", Answer(b"", None, 401, challenge=challenge))
        with pytest.raises(AuthError, match=r'set auth\.type = "oauth"'):
            await manager.call_tool("s", "echo", {"text": "x"})
        await manager.undeploy("s")


async def test_no_text_of_a_server_echoes_a_credential(
    plain: ScriptedServer, manager: McpManager, caplog: pytest.LogCaptureFixture
) -> None:
    key, session = "sk-0123456789", "a-session-of-mine"
    await warmed_up(
        manager,
        plain,
        auth={"type": "bearer", "token": key},
        headers={"X-Session": session},
        url=f"{plain.url}?api_key={key}",
    )
    echoed = f"bad {key} and {session}\x1b[31m"
    error = json.dumps({"jsonrpc": "2.0", "id": "%ID%", "error": {"code": -1, "message": echoed, "data": [echoed]}})
    answers = [
        Answer(echoed.encode(), "text/plain", 400),
        Answer(json.dumps({"detail": echoed}).encode(), JSON, 403),
        Answer(error.replace('"%ID%"', "%ID%").encode()),
        Answer(error.replace('"%ID%"', "null").encode()),
        Answer(echoed.encode(), "text/plain"),
        Answer(echoed.encode()),
        Answer(json.dumps({"jsonrpc": "2.0", "id": "%ID%", "result": {"content": echoed, echoed: 1}}).encode()),
    ]
    texts = []
    for answer in answers:
        plain.script("tools/call", answer)
        try:
            await manager.call_tool("s", "echo", {"text": "x"})
        except (CallError, RpcError) as caught:
            texts.append(f"{caught} {caught!r} {caught.args} {caught.__dict__}")
            assert "\x1b" not in str(caught)
    assert len(texts) >= 6
    shown = " ".join([*texts, caplog.text, str(manager.snapshot()), str(manager.server("s"))])
    assert key not in shown and session not in shown
    assert "***" in shown


# Progress


@pytest.fixture
def no_unawaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


@pytest.mark.usefixtures("no_unawaited")
async def test_an_async_progress_callback_has_it_all_when_the_call_returns(plain: ScriptedServer) -> None:
    class Progress:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            token = request.params["_meta"]["progressToken"]
            await connection.open_stream()
            for number in range(20):
                params = {"progressToken": token, "progress": str(number) if number == 5 else number, "total": 20}
                note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
                await connection.write_chunk(event(note))
            _, _, reply = connection.server.answer(request)
            await connection.write_chunk(event(reply))
            await connection.write_chunk(b"")

    seen: list[float] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        await asyncio.sleep(0)
        seen.append(progress)
        if progress == 3:
            raise ValueError("a user's fault")

    async with McpManager() as manager:
        await warmed_up(manager, plain)
        plain.script_always("tools/call", Progress())
        assert (await manager.call_tool("s", "echo", {"text": "x"}, on_progress=told)).text == "x"
        assert seen == list(range(20))
        assert manager.server("s").faults == {"a malformed progress notification": 1}

        begun, over = asyncio.Event(), []

        async def endless(progress: float, total: float | None, message: str | None) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                over.append(progress)

        cancelled = asyncio.create_task(manager.call_tool("s", "echo", {"text": "x"}, on_progress=endless))
        await begun.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert over == [0]
        # A callback that never ends costs no more than the deadline.
        assert (await manager.call_tool("s", "echo", {"text": "y"}, on_progress=endless, timeout=0.5)).text == "y"


# Trace context


@pytest.mark.parametrize("lanes", [True, False])
async def test_a_server_with_handshakes_sees_where_requests_come_from(plain: ScriptedServer, lanes: bool) -> None:
    trace = {"traceparent": "00-1-2-01"}
    async with McpManager(ManagerConfig(http_lanes=lanes), trace_context=lambda: trace) as manager:
        await warmed_up(manager, plain)
        await manager.call_tool("s", "echo", {"text": "x"}, meta={"mine": 1, "traceparent": "own"})
        await manager.call_tool("s", "echo", {"text": "x"})
        await manager.list_tools("s")
        await manager.execute_raw("s", b'{"method":"tools/call","params":{"name":"echo","_meta":7}}')
        trace.clear()
        await manager.call_tool("s", "echo", {"text": "x"})
        calls = [request.params for request in plain.requests_of("tools/call")]
        assert [params.get("_meta") for params in calls] == [
            {"traceparent": "00-1-2-01"},
            {"traceparent": "own", "mine": 1},
            {"traceparent": "00-1-2-01"},
            7,
            None,
        ]
        assert [request.headers.get("traceparent") for request in plain.requests_of("tools/call")] == [
            "00-1-2-01",
            "own",
            "00-1-2-01",
            "00-1-2-01",
            None,
        ]
        (listing,) = plain.requests_of("tools/list")
        assert listing.params == {"_meta": {"traceparent": "00-1-2-01"}}


async def test_a_trace_context_that_fails_costs_no_call(plain: ScriptedServer) -> None:
    def failing() -> dict[str, str]:
        raise RuntimeError("no tracer")

    async with McpManager(trace_context=failing) as manager:
        await warmed_up(manager, plain)
        assert (await manager.call_tool("s", "echo", {"text": "x"})).text == "x"
        await eventually(lambda: manager.server("s").faults == {}, "nothing to be wrong")
