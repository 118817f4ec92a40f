"""Every way for an answer not to come: the documented class and delivery, in time, and nobody else is touched."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    Delivery,
    OverloadedError,
    ProtocolError,
    SessionLostError,
)
from mcp_manager.testing import Era, Faults, FaultyServer, FaultyServerFactory, assert_delivery, assert_no_hang, faults
from mcp_manager.testing.scripted import Fault
from mcp_manager.types import ServerState

SMALL_REPLIES = 64 * 1024
SHORT_S = 0.25


@pytest.fixture
def era() -> Era:
    """The era of the faulty server: that of the handshake, where a test does not ask for another."""
    return "handshake"


@pytest.fixture
def faulty(faulty_server: FaultyServerFactory, era: Era) -> FaultyServer:
    return faulty_server(era)


@pytest.fixture
def neighbour(faulty_server: FaultyServerFactory) -> FaultyServer:
    return faulty_server()


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
def mcp_fleet_config(request: pytest.FixtureRequest) -> ManagerConfig:
    """The compiled lanes, and plain aiohttp requests: their results are the same."""
    return ManagerConfig(http_lanes=request.param)


@pytest.fixture
async def manager(mcp_fleet: McpManager, faulty: FaultyServer, neighbour: FaultyServer) -> McpManager:
    await mcp_fleet.deploy("faulty", {"url": faulty.url, "max_response_bytes": SMALL_REPLIES, **CALM})
    await mcp_fleet.deploy("neighbour", {"url": neighbour.url, **CALM})
    return mcp_fleet


@dataclass(frozen=True)
class Case:
    """A fault in place of the answer to a call, and the failure that it has to become."""

    name: str
    fault: Fault
    error: type[CallError] | tuple[type[CallError], ...]
    delivery: Delivery
    timeout_s: float = 5.0
    attributes: dict[str, Any] = field(default_factory=dict)


def not_json(body: bytes, content_type: str = "application/json") -> faults.Reply:
    return faults.Reply(body, content_type)


FAILURES = [
    # The connection breaks: whether the server had executed the request is not known.
    Case("reset", faults.Reset(), ConnectionLostError, "unknown"),
    Case("close", faults.Close(), ConnectionLostError, "unknown"),
    Case("half-response", faults.HalfResponse(), ConnectionLostError, "unknown"),
    Case("body-too-short", faults.LengthMismatch(7), ConnectionLostError, "unknown"),
    Case("stream-truncated", faults.SseTruncated(), ConnectionLostError, "unknown"),
    Case("stream-cut", faults.SseTruncated(cut=True), ConnectionLostError, "unknown"),
    Case("stream-empty", faults.CutShort(), ConnectionLostError, "unknown"),
    Case("reset-after-execution", Faults.reset(after="execution"), ConnectionLostError, "unknown"),
    Case("reset-after-headers", Faults.reset(after="headers"), ConnectionLostError, "unknown"),
    Case("reset-after-half", Faults.reset(after="half"), ConnectionLostError, "unknown"),
    Case("truncated", Faults.truncate_stream(), ConnectionLostError, "unknown"),
    # What arrives is not an answer.
    Case("garbage", faults.Bytes(), ProtocolError, "unknown"),
    Case("body-too-long", faults.LengthMismatch(-7), ProtocolError, "unknown"),
    Case("bad-chunk", faults.BadChunk(), (ProtocolError, ConnectionLostError), "unknown"),
    Case("gzip-bomb", Faults.gzip_bomb(8 * 2**20), ProtocolError, "unknown"),
    Case("oversize", faults.Oversize(4 * SMALL_REPLIES), ProtocolError, "unknown"),
    Case("oversize-chunked", faults.Oversize(4 * SMALL_REPLIES, chunked=True), ProtocolError, "unknown"),
    Case("truncated-json", faults.TruncatedJson(), ProtocolError, "unknown"),
    Case("invalid-utf8", not_json(b'{"jsonrpc":"2.0","id":2,"result":{"text":"\xff\xfe"}}'), ProtocolError, "unknown"),
    Case("nested-json", not_json(b"[" * 60_000), ProtocolError, "unknown"),
    Case("json-array", not_json(b"[]"), ProtocolError, "unknown"),
    Case("json-null", not_json(b"null"), ProtocolError, "unknown"),
    Case("json-empty", not_json(b""), ProtocolError, "unknown"),
    Case("html", not_json(b"<html><body>Welcome</body></html>", "text/html"), ProtocolError, "unknown"),
    Case("wrong-id", faults.WrongId(), ProtocolError, "unknown"),
    Case("accepted", Faults.accepted_without_answer(), ProtocolError, "unknown"),
    Case("no-content", faults.Status(204), ProtocolError, "unknown"),
    Case("ok-without-body", faults.Status(200), ProtocolError, "unknown"),
    # HTTP statuses.
    Case("http-400", faults.Status(400), ProtocolError, "rejected"),
    Case("http-401", faults.Status(401, {"WWW-Authenticate": "Bearer"}), AuthError, "rejected"),
    Case("http-403", faults.Status(403), AuthError, "rejected"),
    Case("http-405", faults.Status(405), ProtocolError, "rejected"),
    Case(
        "http-429",
        faults.Status(429, {"Retry-After": "7"}),
        OverloadedError,
        "rejected",
        attributes={"retry_after_s": 7.0, "retryable": True},
    ),
    Case("http-500", faults.Status(500, {}, b"oops"), ProtocolError, "unknown"),
    Case("http-502", faults.Status(502), ConnectionLostError, "unknown"),
    Case(
        "http-503",
        faults.Status(503, {"Retry-After": "3"}),
        OverloadedError,
        "unknown",
        attributes={"retry_after_s": 3.0, "retryable": True},
    ),
    Case("http-504", faults.Status(504), ConnectionLostError, "unknown"),
    Case("redirect-303", faults.Redirect("/elsewhere", 303), ProtocolError, "rejected"),
    Case("redirect-nowhere", faults.Redirect("http://[", 308), ProtocolError, "rejected"),
    # No answer comes: the deadline ends the call.
    Case("held", faults.Hold(), DeadlineExceededError, "unknown", SHORT_S),
    Case("slow-head", faults.NeverEndingHead(), DeadlineExceededError, "unknown", SHORT_S),
    Case("silent-stream", faults.SseNeverEnds(), DeadlineExceededError, "unknown", SHORT_S),
    Case("comments-only", faults.SseComments(), DeadlineExceededError, "unknown", SHORT_S),
    # Their bytes are bounded like those of a head.
    Case("interim-for-ever", faults.InformationalFlood(10**9), ProtocolError, "unknown"),
]


@pytest.mark.parametrize("era", ["handshake", "stateless"])
@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name)
async def test_a_fault_becomes_a_typed_error(
    case: Case, manager: McpManager, faulty: FaultyServer, neighbour: FaultyServer
) -> None:
    held = faults.Hold()
    neighbour.next(held)
    under_way = asyncio.create_task(manager.execute_raw("neighbour", echo("undisturbed", 1), timeout=10))
    await neighbour.wait_for("tools/call")
    faulty.next(case.fault)

    async with assert_no_hang(within=case.timeout_s + 10):
        error = await failure_of(manager, "faulty", echo("spoilt"), timeout=case.timeout_s)

    assert isinstance(error, case.error), repr(error)
    assert_delivery(error, case.delivery)
    for name, value in case.attributes.items():
        assert getattr(error, name) == value
    if not isinstance(error, DeadlineExceededError):
        assert not isinstance(error, TimeoutError)

    expected = ["spoilt", "next"]
    if isinstance(error, OverloadedError) and error.delivery == "rejected":
        # It asked for a pause, and gets it.
        assert error.retry_after_s is not None
        refused = await failure_of(manager, "faulty", echo("next"), timeout=5)
        assert isinstance(refused, OverloadedError) and refused.delivery == "not_sent"
        assert refused.retry_after_s is not None and 0 < refused.retry_after_s <= error.retry_after_s
        expected = ["spoilt"]
    else:
        assert text_of(await manager.execute_raw("faulty", echo("next"), timeout=5)) == "next"
    assert [each.params["arguments"]["text"] for each in faulty.requests_of("tools/call")] == expected
    assert not under_way.done()
    held.release()
    assert text_of(await under_way) == "undisturbed"


@pytest.mark.parametrize(
    "fault",
    [
        faults.DuplicateReply(),
        faults.SseByteByByte(),
        faults.SseNeverEnds(with_reply=True),
        faults.InformationalFlood(50),
        faults.Compressed(),
        faults.Redirect("/elsewhere"),
        faults.Redirect("/elsewhere", 308),
        faults.SseEvents(before=(b": comment\n\n", b"data:\n\n", b"event: other\ndata: {}\n\n", b"id: 7\n\n")),
        faults.SseEvents(before=({"jsonrpc": "2.0", "id": 424242, "result": {"not": "yours"}},)),
        faults.SseEvents(before=({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}},)),
    ],
    ids=[
        "duplicate",
        "bytewise",
        "never-ends",
        "interim",
        "compressed",
        "moved-307",
        "moved-308",
        "odd-events",
        "stray-reply",
        "notification",
    ],
)
async def test_an_odd_answer_is_still_an_answer(fault: Fault, manager: McpManager, faulty: FaultyServer) -> None:
    faulty.next(fault)
    assert text_of(await manager.execute_raw("faulty", echo("odd"), timeout=5)) == "odd"
    assert text_of(await manager.execute_raw("faulty", echo("next"), timeout=5)) == "next"


async def test_requests_of_the_server_are_answered(manager: McpManager, faulty: FaultyServer) -> None:
    asked = (
        {"jsonrpc": "2.0", "id": "ask-1", "method": "ping"},
        {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}},
    )
    faulty.next(faults.SseEvents(before=asked))
    assert text_of(await manager.execute_raw("faulty", echo("asked"), timeout=5)) == "asked"

    def answers() -> dict[Any, Any]:
        messages = [each.message for each in faulty.requests if each.verb == "POST" and each.method is None]
        return {message["id"]: message for message in messages}

    await faulty.wait_until(lambda: len(answers()) == 2)
    assert answers()["ask-1"]["result"] == {}
    assert answers()[7]["error"]["code"] == -32601


async def test_a_json_rpc_error_is_an_answer(manager: McpManager, faulty: FaultyServer) -> None:
    for status in (200, 400):
        faulty.next(faults.RpcErrorReply(-32602, "bad params", status=status))
        reply = json.loads(await manager.execute_raw("faulty", echo("x", "mine"), timeout=5))
        assert reply["id"] == "mine"
        assert reply["error"] == {"code": -32602, "message": "bad params"}


async def test_a_redirect_is_not_followed(manager: McpManager, faulty: FaultyServer) -> None:
    with FaultyServer("stateless") as elsewhere:
        for status in (301, 302, 303, 307, 308):
            faulty.next(faults.Redirect(elsewhere.url, status))
            error = await failure_of(manager, "faulty", echo("secret"))
            assert isinstance(error, ProtocolError)
            assert error.delivery == "rejected"
        assert elsewhere.requests == []
        assert elsewhere.open_connections == 0


async def test_a_deadline_tells_the_server(manager: McpManager, faulty: FaultyServer) -> None:
    faulty.next(faults.Hold())
    await failure_of(manager, "faulty", echo("late"), timeout=SHORT_S)
    await faulty.wait_for("notifications/cancelled")
    [call] = faulty.requests_of("tools/call")
    [notice] = faulty.requests_of("notifications/cancelled")
    assert notice.params["requestId"] == call.id


# The connection


async def test_a_refused_connection(manager: McpManager, faulty: FaultyServer) -> None:
    faulty.refuse_connections()
    error = await failure_of(manager, "faulty", echo("refused"))
    # The pooled connection may be found dead only while it is being written to.
    assert (type(error), error.delivery) in {(ConnectError, "not_sent"), (ConnectionLostError, "unknown")}
    error = await failure_of(manager, "faulty", echo("refused"))
    assert (type(error), error.delivery) == (ConnectError, "not_sent")
    assert faulty.requests_of("tools/call") == []
    faulty.listen()
    assert text_of(await manager.execute_raw("faulty", echo("back"), timeout=5)) == "back"


async def test_a_connection_reset_before_it_is_read(manager: McpManager, faulty: FaultyServer) -> None:
    faulty.refuse_connections()
    await failure_of(manager, "faulty", echo("refused"))
    faulty.listen()
    faulty.next(Faults.reset(), on="connect")
    error = await failure_of(manager, "faulty", echo("reset"))
    assert (type(error), error.delivery) in {(ConnectError, "not_sent"), (ConnectionLostError, "unknown")}
    assert text_of(await manager.execute_raw("faulty", echo("back"), timeout=5)) == "back"
    assert [each.arguments["text"] for each in faulty.ledger.entries] == ["back"]


async def test_a_stream_that_never_ends_does_not_keep_its_connection(manager: McpManager, faulty: FaultyServer) -> None:
    for number in range(10):
        faulty.next(faults.SseNeverEnds(with_reply=True))
        assert text_of(await manager.execute_raw("faulty", echo(str(number)), timeout=5)) == str(number)
    await faulty.wait_until(lambda: faulty.open_connections <= 1)


# Sessions


@pytest.mark.parametrize("form", [404, 400, -32001])
async def test_an_expired_session_is_replaced_once_for_all(form: Any) -> None:
    with FaultyServer() as server:
        async with McpManager() as manager:
            await manager.deploy("faulty", {"url": server.url, **CALM})
            server.next(Faults.expire_session(form))
            texts = [f"call {number}" for number in range(20)]
            replies = await asyncio.gather(*(manager.execute_raw("faulty", echo(text), timeout=5) for text in texts))
            assert [text_of(reply) for reply in replies] == texts
            for text in texts:
                server.ledger.assert_executed_once("echo", {"text": text})
            assert len(server.requests_of("initialize")) == 2
            assert "mcp-session-id" not in server.requests_of("initialize")[1].headers
        assert server.live_sessions == set()


async def test_a_session_that_expires_in_an_error_of_json_rpc_is_replaced(
    manager: McpManager, faulty: FaultyServer
) -> None:
    faulty.next(Faults.expire_session(200))
    # It is an answer, and the caller's to judge.
    reply = json.loads(await manager.execute_raw("faulty", echo("lost"), timeout=5))
    assert reply["error"] == {"code": -32001, "message": "Session terminated"}
    assert text_of(await manager.execute_raw("faulty", echo("found"), timeout=5)) == "found"
    faulty.ledger.assert_executed_once("echo", {"text": "found"})
    assert len(faulty.requests_of("initialize")) == 2


async def test_a_session_lost_again_and_again_is_an_error(manager: McpManager, faulty: FaultyServer) -> None:
    faulty.always(faults.Status(404))
    faulty.always(faults.Status(404), on="ping")
    error = await failure_of(manager, "faulty", echo("lost"))
    assert isinstance(error, SessionLostError)
    assert error.delivery == "rejected"
    assert len(faulty.requests_of("tools/call")) == 2
    faulty.clear_faults()
    assert text_of(await manager.execute_raw("faulty", echo("found"), timeout=5)) == "found"


async def test_a_session_is_deleted_at_the_end(manager: McpManager, faulty: FaultyServer) -> None:
    [session_id] = faulty.live_sessions
    await manager.undeploy("faulty")
    [request] = faulty.requests_of("DELETE")
    assert request.headers["mcp-session-id"] == session_id
    assert faulty.live_sessions == set()


@pytest.mark.parametrize(
    "fault",
    [faults.Hold(), faults.Reset(), faults.Status(405), faults.Bytes()],
    ids=["held", "reset", "http-405", "garbage"],
)
async def test_undeploying_does_not_depend_on_the_server(
    fault: Fault, manager: McpManager, faulty: FaultyServer
) -> None:
    faulty.next(fault, on="DELETE")
    async with asyncio.timeout(5):
        await manager.undeploy("faulty")
    assert [view.id for view in manager.servers()] == ["neighbour"]


# The handshake


HANDSHAKES = [
    ("error", faults.RpcErrorReply(-32602, "unsupported protocol version")),
    ("unknown-revision", faults.ProtocolVersion("1999-01-01")),
    ("revision-of-wrong-type", faults.ProtocolVersion(20251125)),
    ("null-result", faults.Reply(b'{"jsonrpc":"2.0","id":1,"result":null}')),
    ("list-result", faults.Reply(b'{"jsonrpc":"2.0","id":1,"result":[1,2]}')),
    ("empty-result", faults.Reply(b'{"jsonrpc":"2.0","id":1,"result":{}}')),
    ("html", faults.Reply(b"<html>", "text/html")),
    ("http-500", faults.Status(500)),
    ("http-401", faults.Status(401)),
    ("reset", faults.Reset()),
    ("held", faults.Hold()),
    ("silent-stream", faults.SseNeverEnds()),
]


@pytest.mark.parametrize("fault", [fault for _, fault in HANDSHAKES], ids=[name for name, _ in HANDSHAKES])
async def test_a_failed_handshake_leaves_the_server_deployed_and_unhealthy(fault: Fault) -> None:
    with FaultyServer() as server:
        server.always(fault, on="initialize")
        async with McpManager() as manager:
            settings = {**CALM, "connect_timeout_s": SHORT_S}
            async with asyncio.timeout(SHORT_S + 5):
                await manager.deploy("faulty", {"url": server.url, **settings})
            view = manager.server("faulty")
            assert view.state is ServerState.UNHEALTHY
            assert view.last_error is not None
            error = await failure_of(manager, "faulty", echo("no"))
            assert error.delivery == "not_sent"
            assert server.requests_of("tools/call") == []
            server.clear_faults()
            assert text_of(await manager.execute_raw("faulty", echo("yes"), timeout=5)) == "yes"
            assert manager.server("faulty").state is not ServerState.UNHEALTHY


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_counter_offered_revision_is_used(revision: str) -> None:
    with FaultyServer() as server:
        server.next(faults.ProtocolVersion(revision), on="initialize")
        async with McpManager() as manager:
            await manager.deploy("server", {"url": server.url, **CALM})
            await manager.execute_raw("server", echo("x"), timeout=5)
            assert manager.server("server").protocol_version == revision
        [initialize] = server.requests_of("initialize")
        assert "mcp-protocol-version" not in initialize.headers
        assert [each.method for each in server.requests[:3]] == [
            "server/discover",
            "initialize",
            "notifications/initialized",
        ]
        later = server.requests[2:]
        assert {each.headers.get("mcp-protocol-version") for each in later} == {revision}


async def test_every_request_follows_the_specification(manager: McpManager, faulty: FaultyServer) -> None:
    await manager.execute_raw("faulty", echo("x"), timeout=5)
    posts = faulty.requests_of("POST")
    assert len(posts) >= 3
    for request in posts:
        accepted = {part.strip() for part in request.headers["accept"].split(",")}
        assert accepted >= {"application/json", "text/event-stream"}
        assert request.headers["content-type"] == "application/json"
        assert request.message["jsonrpc"] == "2.0"
    ids = [request.id for request in posts if request.id is not None]
    assert len(set(ids)) == len(ids)


# The circuit


async def test_repeated_failures_open_the_circuit_of_that_server_alone(
    faulty: FaultyServer, neighbour: FaultyServer
) -> None:
    settings = {**CALM, "breaker": {"consecutive_failures": 5, "open_s": 60}}
    async with McpManager() as manager:
        await manager.deploy("faulty", {"url": faulty.url, **settings})
        await manager.deploy("neighbour", {"url": neighbour.url, **settings})
        faulty.always(faults.Status(500))
        for _ in range(5):
            assert isinstance(await failure_of(manager, "faulty", echo("x")), ProtocolError)
        error = await failure_of(manager, "faulty", echo("x"))
        assert isinstance(error, CircuitOpenError)
        assert error.delivery == "not_sent"
        assert error.retryable
        assert error.retry_after_s is not None and 0 < error.retry_after_s <= 72
        assert len(faulty.requests_of("tools/call")) == 5
        view = manager.server("faulty")
        assert (view.state, view.circuit) == (ServerState.UNHEALTHY, "Open")
        assert text_of(await manager.execute_raw("neighbour", echo("fine"), timeout=5)) == "fine"
        assert manager.server("neighbour").state is ServerState.HEALTHY
        health = manager.health()
        assert (health.total_servers, health.healthy_servers, health.unhealthy_servers) == (2, 1, 1)
