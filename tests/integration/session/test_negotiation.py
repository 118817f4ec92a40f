"""How a server is spoken to over HTTP is found out once, kept, and found out again when it has become another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of
from support.era_server import HANDSHAKE, META, STATELESS, EraServer, refusal

from mcp_manager import McpManager
from mcp_manager.errors import AuthError, CallError, ConnectionLostError, OverloadedError, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer, encode


@pytest.fixture
def server() -> Iterator[EraServer]:
    with EraServer() as server:
        yield server


def settings(server: ScriptedServer, **changes: Any) -> dict[str, Any]:
    return {"url": server.url, **CALM, **changes}


def error_reply(code: int, data: object = None, status: int = 400) -> faults.Status:
    """An error without an id, as of a server that has not read the request."""
    return faults.Status(status, {"Content-Type": "application/json"}, encode(refusal(None, code, data)))


class WithId:
    """Answer with an error object that carries the request's id."""

    def __init__(self, code: int, data: object = None, status: int = 400) -> None:
        self._code, self._data, self._status = code, data, status

    async def play(self, connection: Any, request: Any) -> None:
        body = encode(refusal(request.id, self._code, self._data))
        await connection.respond(self._status, {"Content-Type": "application/json"}, body)


def result_of(value: Any) -> Fault:
    """Answer any request with this result."""

    class Fixed:
        async def play(self, connection: Any, request: Any) -> None:
            body = encode({"jsonrpc": "2.0", "id": request.id, "result": value})
            await connection.respond(200, {"Content-Type": "application/json"}, body)

    return Fixed()


async def test_a_stateless_server_is_asked_once_and_never_greeted(server: EraServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        assert [text_of(await manager.execute_raw("s", echo(text))) for text in ("a", "b")] == ["a", "b"]
        assert manager.server("s").protocol_version == STATELESS
        await manager.scale("s", 3)
        await asyncio.gather(*(manager.execute_raw("s", echo(str(number))) for number in range(9)))
    assert [each.method for each in server.requests].count("server/discover") == 1
    assert not server.requests_of("initialize") and not server.requests_of("GET") and not server.requests_of("DELETE")


@pytest.mark.parametrize("speaks", [(STATELESS,), (HANDSHAKE,)])
async def test_instances_that_come_up_together_ask_once(speaks: tuple[str, ...]) -> None:
    with EraServer(*speaks) as server:
        gate = faults.Hold()
        server.script("server/discover", gate)
        async with McpManager() as manager:
            await manager.deploy("s", settings(server, connect="lazy", instances=4))
            calls = [asyncio.create_task(manager.execute_raw("s", echo(str(number)))) for number in range(8)]
            await server.wait_for("server/discover")
            gate.release()
            assert sorted([text_of(reply) for reply in await asyncio.gather(*calls)]) == sorted(server.executed)
        assert len(server.requests_of("server/discover")) == 1


async def test_a_server_of_both_eras_is_spoken_to_in_the_newer(server: EraServer) -> None:
    server.speaks = (HANDSHAKE, STATELESS)
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert not server.requests_of("initialize")


@pytest.mark.parametrize(
    "odd",
    [
        None,
        faults.Status(400),
        faults.Status(404),
        faults.Status(405),
        faults.Reply(b"not JSON"),
        faults.Reply(b"<html>", "text/html"),
        faults.RpcErrorReply(-32601),
        faults.RpcErrorReply(-32602),
        faults.RpcErrorReply(-32000, status=400),
        # The code is not reserved in the revisions before: without what belongs to it, it means nothing.
        WithId(-32022),
        WithId(-32022, {"supported": "2026-07-28"}),
        WithId(-32022, {"supported": [HANDSHAKE, "2025-06-18"]}),
        result_of({}),
        result_of({"supportedVersions": []}),
        result_of({"supportedVersions": [STATELESS]}),
        result_of({"supportedVersions": [HANDSHAKE], "capabilities": {}}),
        faults.WrongId(),
    ],
    ids=lambda odd: type(odd).__name__,
)
async def test_whatever_is_no_answer_of_a_stateless_server_means_a_handshake(odd: Fault | None) -> None:
    speaks = (STATELESS,) if isinstance(odd, faults.WrongId) else (HANDSHAKE,)
    with EraServer(*speaks) as server:
        if odd is not None:
            server.script("server/discover", odd)
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            if isinstance(odd, faults.WrongId):
                assert server.requests_of("initialize")
                return
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
            assert manager.server("s").protocol_version == HANDSHAKE
        [initialize] = server.requests_of("initialize")
        assert "mcp-protocol-version" not in initialize.headers and "mcp-method" not in initialize.headers


async def test_the_newest_handshake_revision_that_the_server_lists_is_offered() -> None:
    with EraServer(HANDSHAKE) as server:
        server.script("server/discover", WithId(-32022, {"supported": ["2024-11-05", "2025-06-18"]}))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert manager.server("s").protocol_version == "2025-06-18"
        [initialize] = server.requests_of("initialize")
        assert initialize.params["protocolVersion"] == "2025-06-18"


@pytest.mark.parametrize("with_id", [True, False])
async def test_a_revision_that_was_refused_and_named_is_asked_for_again(server: EraServer, with_id: bool) -> None:
    data = {"supported": [STATELESS], "requested": STATELESS}
    server.script("server/discover", WithId(-32022, data) if with_id else error_reply(-32022, data))
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        server.script("tools/call", WithId(-32022, data) if with_id else error_reply(-32022, data))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert server.executed == ["x"]
    first, second = server.requests_of("tools/call")
    assert first.id != second.id
    assert not server.requests_of("initialize")


async def test_a_server_that_refuses_what_it_names_is_given_up(server: EraServer) -> None:
    server.script_always("server/discover", WithId(-32022, {"supported": [STATELESS]}))
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        error = await failure_of(manager, "s", echo("x"))
        assert isinstance(error, ProtocolError) and STATELESS in error.message and error.delivery == "not_sent"
    assert not server.requests_of("initialize")


async def test_a_server_without_a_shared_revision_is_an_error_that_names_both_sides(server: EraServer) -> None:
    server.script_always("server/discover", WithId(-32022, {"supported": ["2031-01-01"]}))
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        error = await failure_of(manager, "s", echo("x"))
        assert "2031-01-01" in error.message and STATELESS in error.message and HANDSHAKE in error.message
    assert not server.requests_of("initialize")


@pytest.mark.parametrize("code", [-32020, -32021])
async def test_other_errors_of_a_stateless_server_mean_no_handshake(server: EraServer, code: int) -> None:
    server.script("server/discover", WithId(code, {"requiredCapabilities": {}}))
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert not server.requests_of("initialize")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.Status(401), AuthError),
        (faults.Status(403), AuthError),
        (faults.Status(408), ProtocolError),
        (faults.RpcErrorReply(-32601, status=408), ProtocolError),
        (faults.Status(425), ProtocolError),
        (faults.Status(429), OverloadedError),
        (faults.Status(501), ProtocolError),
        (faults.RpcErrorReply(-32601, status=501), ProtocolError),
        (faults.Status(502), CallError),
        (faults.Status(503), OverloadedError),
        (faults.Status(504), CallError),
        (faults.Reset(), CallError),
        (faults.Close(), CallError),
        (faults.CutShort(), CallError),
    ],
    ids=lambda value: repr(value) if not isinstance(value, type) else value.__name__,
)
async def test_what_is_of_the_moment_is_no_verdict(server: EraServer, fault: Fault, kind: type[CallError]) -> None:
    server.speaks = (HANDSHAKE, STATELESS)
    # A connection that ends without a byte of the reply is asked again on another one.
    times = 2 if isinstance(fault, faults.Reset | faults.Close) else 1
    server.script("server/discover", *[fault] * times, times=2)
    async with McpManager() as manager:
        await manager.deploy("s", settings(server, connect="lazy"))
        for _ in range(2):
            error = await failure_of(manager, "s", echo("x"))
            assert isinstance(error, kind) and error.delivery == "not_sent"
            assert not isinstance(error, ConnectionLostError)
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert manager.server("s").protocol_version == STATELESS
    assert not server.requests_of("initialize")


async def test_one_internal_error_is_of_the_moment_too(server: EraServer) -> None:
    server.speaks = (HANDSHAKE, STATELESS)
    server.script("server/discover", faults.Status(500))
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        assert manager.server("s").protocol_version == STATELESS
    assert not server.requests_of("initialize")


async def test_a_server_that_always_fails_on_the_question_is_greeted_and_asked_again_next_time() -> None:
    with EraServer(HANDSHAKE) as server:
        server.script_always("server/discover", faults.Status(500))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
            server.script_always("server/discover", None)
            server.speaks = (HANDSHAKE, STATELESS)
            server.expire_sessions()
            assert text_of(await manager.execute_raw("s", echo("y"))) == "y"
            # It was no verdict: the next session asked.
            assert manager.server("s").protocol_version == STATELESS


# A server becomes another one


NO_HANDSHAKE = [
    (400, -32020, None),
    (400, -32022, {"supported": [STATELESS], "requested": HANDSHAKE}),
    (404, -32601, None),
    (400, -32602, None),
    (200, -32601, None),
]


@pytest.mark.parametrize("no_handshake", NO_HANDSHAKE, ids=str)
@pytest.mark.parametrize("lost", [True, False], ids=["session-lost", "era-refused"])
async def test_calls_go_on_when_a_server_loses_its_handshake(no_handshake: Any, lost: bool) -> None:
    with EraServer(HANDSHAKE) as server:
        server.no_handshake = no_handshake
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert text_of(await manager.execute_raw("s", echo("before"))) == "before"
            server.speaks = (STATELESS,)
            if lost:
                server.script("tools/call", faults.Status(404))
            texts = [str(number) for number in range(20)]
            replies = await asyncio.gather(*(manager.execute_raw("s", echo(text)) for text in texts))
            assert [text_of(reply) for reply in replies] == texts
            assert manager.server("s").protocol_version == STATELESS
        assert sorted(server.executed) == sorted(["before", *texts])


@pytest.mark.parametrize("with_id", [True, False])
@pytest.mark.parametrize("code", [-32020, -32022])
async def test_an_old_servers_own_code_is_passed_on_after_one_doubt(code: int, with_id: bool) -> None:
    with EraServer(HANDSHAKE) as server:
        server.script_always("tools/call", WithId(code) if with_id else error_reply(code))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            for _ in range(3):
                reply = json.loads(await manager.execute_raw("s", echo("x", 7)))
                assert reply["id"] == 7 and reply["error"]["code"] == code
            assert len(server.requests_of("initialize")) == 2
            assert len(server.requests_of("tools/call")) == 4


@pytest.mark.parametrize("bare", [400, 404, 405, None])
async def test_calls_go_on_when_a_server_loses_its_stateless_revision(server: EraServer, bare: int | None) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        assert text_of(await manager.execute_raw("s", echo("before"))) == "before"
        server.speaks = (HANDSHAKE,)
        if bare is not None:
            server.script("tools/call", faults.Status(bare))
        texts = [str(number) for number in range(20)]
        replies = await asyncio.gather(*(manager.execute_raw("s", echo(text)) for text in texts))
        assert [text_of(reply) for reply in replies] == texts
        assert manager.server("s").protocol_version == HANDSHAKE
    assert sorted(server.executed) == sorted(["before", *texts])


async def test_a_refusal_that_names_older_revisions_alone_leads_to_a_handshake(server: EraServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        server.speaks = (HANDSHAKE,)
        server.script("tools/call", WithId(-32022, {"supported": [HANDSHAKE]}))
        assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    assert server.executed == ["x"]


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_odd_refusal_of_one_call_does_not_change_the_era(server: EraServer, status: int) -> None:
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        server.script("tools/call", faults.Status(status))
        error = await failure_of(manager, "s", echo("x"))
        assert isinstance(error, ProtocolError) and error.http_status == status and error.delivery == "rejected"
        assert text_of(await manager.execute_raw("s", echo("y"))) == "y"
    assert not server.requests_of("initialize")


# Forced modes


@pytest.mark.parametrize("mode", ["handshake", "2025-11-25", "2025-06-18"])
async def test_a_forced_handshake_asks_nothing_first(mode: str) -> None:
    with EraServer(HANDSHAKE, STATELESS) as server:
        async with McpManager() as manager:
            await manager.deploy("s", settings(server, protocol_version=mode))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
            assert manager.server("s").protocol_version == (HANDSHAKE if mode == "handshake" else mode)
        assert not server.requests_of("server/discover")


@pytest.mark.parametrize("mode", ["stateless", STATELESS])
async def test_a_forced_stateless_revision_is_never_given_up(mode: str) -> None:
    with EraServer(HANDSHAKE) as server:
        async with McpManager() as manager:
            await manager.deploy("s", settings(server, protocol_version=mode))
            error = await failure_of(manager, "s", echo("x"))
            assert isinstance(error, ProtocolError) and STATELESS in error.message and "auto" in error.hint
            server.script_always("server/discover", faults.Status(500))
            assert (await failure_of(manager, "s", echo("x"))).message.startswith("the server failed with HTTP 500")
            server.script_always("server/discover", None)
            server.speaks = (STATELESS,)
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert not server.requests_of("initialize")


@pytest.mark.parametrize("mode", ["2024-11-05"])
async def test_a_forced_revision_takes_no_other(mode: str) -> None:
    # The server counter-offers 2025-11-25.
    with EraServer(HANDSHAKE) as server:
        async with McpManager() as manager:
            await manager.deploy("s", settings(server, protocol_version=mode))
            error = await failure_of(manager, "s", echo("x"))
            assert mode in error.message and HANDSHAKE in error.message and "auto" in error.hint
            server.script("initialize", faults.ProtocolVersion(mode))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert {each.params["protocolVersion"] for each in server.requests_of("initialize")} == {mode}


# The handshake itself


@pytest.mark.parametrize("revision", ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_counter_offer_is_spoken_from_then_on(revision: str) -> None:
    with EraServer(HANDSHAKE) as server:
        server.script("initialize", faults.ProtocolVersion(revision))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
            assert manager.server("s").protocol_version == revision
        assert server.requests_of("tools/call")[0].headers["mcp-protocol-version"] == revision


@pytest.mark.parametrize("revision", ["1.0", "2026-07-28", "2031-01-01"])
async def test_a_counter_offer_that_nobody_knows_is_an_error_that_names_both(revision: str) -> None:
    with EraServer(HANDSHAKE) as server:
        server.script_always("initialize", faults.ProtocolVersion(revision))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            error = await failure_of(manager, "s", echo("x"))
            assert isinstance(error, ProtocolError) and revision in error.message and HANDSHAKE in error.message
            assert manager.server("s").faults["an answer that breaks the protocol"] >= 1


@pytest.mark.parametrize("status", [200, 400])
async def test_a_refused_offer_is_followed_by_what_the_server_names(status: int) -> None:
    with EraServer(HANDSHAKE) as server:
        data = {"supported": ["2024-11-05", "2025-06-18"], "requested": HANDSHAKE}
        server.script("initialize", WithId(-32602, data, status))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        assert [each.params["protocolVersion"] for each in server.requests_of("initialize")] == [
            HANDSHAKE,
            "2025-06-18",
        ]


async def test_a_session_id_of_a_refused_handshake_is_not_echoed() -> None:
    with EraServer(HANDSHAKE) as server:
        server.script("server/discover", faults.Status(404))
        server.no_handshake = (200, -32022, {"supported": [STATELESS]})

        class Refused(WithId):
            async def play(self, connection: Any, request: Any) -> None:
                server.speaks = (STATELESS,)
                body = encode(refusal(request.id, -32022, {"supported": [STATELESS]}))
                headers = {"Content-Type": "application/json", "Mcp-Session-Id": "stale"}
                await connection.respond(200, headers, body)

        server.script("initialize", Refused(0))
        async with McpManager() as manager:
            await manager.deploy("s", settings(server))
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
        sent = [each for each in server.requests if "mcp-session-id" in each.headers]
        # It is ended, and that is all.
        assert [(each.verb, each.headers["mcp-session-id"]) for each in sent] == [("DELETE", "stale")]


async def test_a_session_id_of_a_stateless_server_is_not_echoed(server: EraServer) -> None:
    server.stray_session = "stray"
    async with McpManager() as manager:
        await manager.deploy("s", settings(server))
        await manager.list_tools("s")
        for text in ("x", "y"):
            assert text_of(await manager.execute_raw("s", echo(text))) == text
    assert all("mcp-session-id" not in each.headers for each in server.requests)
    assert {each.verb for each in server.requests} == {"POST"}
    assert META + "clientInfo" in server.requests[0].params["_meta"]
