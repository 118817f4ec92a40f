"""Sessions that a server loses, in every form: asked once, replaced once, and never given up for one bad request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from support.calls import CALM, SWIFT, deployed, echo, eventually, failure_of, text_of
from support.forgetful import PROVEN, UNPROVEN, ForgetfulServer, ForgetfulSseServer, Refused
from support.streams import StandingStreams

from mcp_manager import CallError, ConnectError, ManagerConfig, McpManager, RpcError, ServerState
from mcp_manager.session import life_check
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.reconnection import Reconnection

pytestmark = pytest.mark.both_loops

WAITS_S = 20.0


def forms(table: Mapping[str, Refused]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("form", table.values(), ids=table.keys())


def sessions_of(server: ScriptedServer) -> int:
    return len(server.requests_of("initialize"))


def pings_of(server: ScriptedServer) -> int:
    return len(server.requests_of("ping"))


# Lost


@forms(PROVEN)
@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
async def test_it_is_replaced_once_for_all_and_every_call_is_executed_once(form: Refused, lanes: bool) -> None:
    with ForgetfulServer(form) as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            assert text_of(await manager.execute_raw("a", echo("before"))) == "before"
            server.expire_sessions()
            texts = [f"call {number}" for number in range(20)]
            replies = await asyncio.gather(*(manager.execute_raw("a", echo(text), timeout=WAITS_S) for text in texts))
            assert [text_of(reply) for reply in replies] == texts
            assert sorted(server.executed) == sorted(["before", *texts])
            assert (sessions_of(server), pings_of(server)) == (2, 1)
            assert manager.server("a").ready == 1


@forms(UNPROVEN)
async def test_what_may_have_been_executed_is_not_sent_again(form: Refused) -> None:
    with ForgetfulServer(form) as server:
        async with deployed(server) as manager:
            server.expire_sessions()
            try:
                reply = await manager.execute_raw("a", echo("first"))
            except CallError as error:
                assert error.delivery == "unknown"
            else:
                assert json.loads(reply)["error"]["code"] == form.code
            assert len(server.requests_of("tools/call")) == 1
            # The session is replaced all the same, and what does no harm twice is repeated.
            assert text_of(await manager.execute_raw("a", echo("next"))) == "next"
            assert (server.executed, sessions_of(server), pings_of(server)) == (["next"], 2, 1)
            server.expire_sessions()
            assert [tool.name for tool in await manager.list_tools("a")] == ["echo"]


@forms(UNPROVEN)
async def test_what_was_sent_and_may_have_been_executed_stays_unknown(form: Refused) -> None:
    with ForgetfulServer(form) as server:
        async with deployed(server) as manager:
            server.expire_sessions()
            server.script_always("initialize", faults.Status(500))
            with pytest.raises(CallError) as caught:
                await manager.list_tools("a")
            # It does no harm twice, and was to be sent again: there was no session for it.
            assert len(server.requests_of("initialize")) > 1
            assert caught.value.delivery == "unknown"


async def _executed(manager: McpManager) -> object:
    return json.loads(await manager.execute_text("a", echo("x").decode()))["result"]


async def _executed_as_bytes(manager: McpManager) -> object:
    return json.loads(await manager.execute_raw("a", echo("x")))["result"]


async def _called(manager: McpManager) -> object:
    return await manager.call_tool("a", "echo", {"text": "x"})


async def _called_with_progress(manager: McpManager) -> object:
    return await manager.call_tool("a", "echo", {"text": "x"}, on_progress=lambda *_: None)


async def _called_with_a_key(manager: McpManager) -> object:
    return await manager.call_tool("a", "echo", {"text": "x"}, key="k")


async def _pinged(manager: McpManager) -> object:
    return await manager.request("a", "ping")


async def _notified(manager: McpManager) -> object:
    return await manager.execute_raw("a", b'{"method":"notifications/roots/list_changed"}')


@pytest.mark.parametrize(
    "work",
    [
        _executed,
        _executed_as_bytes,
        _called,
        _called_with_progress,
        _called_with_a_key,
        _pinged,
        _notified,
    ],
)
@pytest.mark.parametrize("form", ["404 as specified", "400 of the TypeScript SDK", "401 without a challenge"])
async def test_whatever_finds_it_lost_goes_on(work: Callable[[McpManager], Awaitable[object]], form: str) -> None:
    with ForgetfulServer(PROVEN[form]) as server:
        async with deployed(server) as manager:
            server.expire_sessions()
            assert await work(manager) is not None
            assert sessions_of(server) == 2


@pytest.mark.parametrize("form", ["400 text", "200 -32001"])
async def test_a_probe_that_finds_it_lost_makes_another(form: str) -> None:
    with ForgetfulServer(PROVEN[form]) as server:
        async with deployed(server, **SWIFT) as manager:
            server.expire_sessions()
            await server.wait_until(lambda: len(server.live_sessions) == 1)
            await eventually(lambda: manager.server("a").state is ServerState.HEALTHY, "the recovery")
            assert server.requests_of("tools/call") == []


@pytest.mark.parametrize("form", ["400 of the TypeScript SDK", "400 text", "404 empty", "410"])
async def test_a_stream_that_finds_it_lost_makes_another(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.001)
    with ForgetfulServer(PROVEN[form]) as server:
        streams = StandingStreams()
        server.script("GET", streams)
        async with deployed(server) as manager:
            server.expire_sessions()
            streams.opened[0].end()
            await eventually(lambda: manager.server("a").ready == 0, "the loss of the session")
            assert pings_of(server) == 1
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert (len(server.requests_of("tools/call")), sessions_of(server)) == (1, 2)


async def test_a_stream_that_is_refused_alone_is_asked_for_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.001)
    with ScriptedServer() as server:
        streams = StandingStreams()
        server.script("GET", streams, faults.Status(400, {}, b"unknown event"))
        server.script_always("GET", streams)
        async with deployed(server) as manager:
            streams.opened[0].end()
            await streams.wait(server, 2)
            assert sessions_of(server) == 1
            assert manager.server("a").ready == 1


async def test_an_answer_to_the_server_that_finds_it_lost_makes_another() -> None:
    with ForgetfulServer(PROVEN["400 text"]) as server:
        streams = StandingStreams()
        server.script("GET", streams)
        async with deployed(server) as manager:
            server.expire_sessions()
            streams.opened[0].say({"jsonrpc": "2.0", "id": "q", "method": "ping"})
            await eventually(lambda: manager.server("a").ready == 0, "the loss of the session")
            assert manager.server("a").faults == {"a message without a reply was refused": 1}
            assert pings_of(server) == 1


@pytest.mark.parametrize("form", ["404 as specified", "400 text", "400 HTML", "401 without a challenge", "410"])
async def test_http_sse_opens_another_stream(form: str) -> None:
    with ForgetfulSseServer(PROVEN[form]) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "transport": "sse"})
            server.forget()
            texts = [f"call {number}" for number in range(20)]
            replies = await asyncio.gather(*(manager.execute_raw("a", echo(text), timeout=WAITS_S) for text in texts))
            assert [text_of(reply) for reply in replies] == texts
            assert sorted(server.executed) == sorted(texts)
            assert (len(server.streams), pings_of(server)) == (2, 1)


# Alive


@forms(PROVEN | UNPROVEN)
async def test_a_live_one_is_kept_for_all_that_is_refused_on_it(form: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life_check, "_FIRST_QUIET_NS", 10**15)
    monkeypatch.setattr(life_check, "_LONGEST_QUIET_NS", 10**15)
    with ForgetfulServer(form) as server:
        async with deployed(server) as manager:
            assert text_of(await manager.execute_raw("a", echo("before"))) == "before"
            [session_id] = server.live_sessions
            for _ in range(30):
                server.script("tools/call", form)
                try:
                    assert "error" in json.loads(await manager.execute_raw("a", echo("bad")))
                except CallError as error:
                    assert error.delivery == ("unknown" if form in UNPROVEN.values() else "rejected")
            assert text_of(await manager.execute_raw("a", echo("after"))) == "after"
            assert server.live_sessions == {session_id}
            assert sessions_of(server) == 1
            assert server.calls[session_id] == 2
            assert pings_of(server) == 2
            assert server.executed == ["before", "after"]


@pytest.mark.parametrize("form", ["404 as specified", "400 text", "200 -32600"])
async def test_many_refused_at_once_are_asked_about_once(form: str) -> None:
    hold = faults.Hold()
    with ForgetfulServer(PROVEN[form]) as server:
        async with deployed(server) as manager:
            server.script("tools/call", PROVEN[form], times=20)
            server.script("ping", hold)
            calls = [asyncio.create_task(manager.execute_raw("a", echo("bad"))) for _ in range(20)]
            await server.wait_for("ping")
            await server.wait_for("tools/call", 20)
            hold.release()
            await asyncio.wait(calls)
            assert all(each.exception() is not None or b'"error"' in each.result() for each in calls)
            assert (sessions_of(server), pings_of(server)) == (1, 1)


@pytest.mark.parametrize(
    "ping",
    [
        Refused(200, -32601, "Method not found", named=True),
        Refused(404, -32601, "Method not found", named=True),
        Refused(200, -32603, "Internal error", named=True),
        Refused(500, None, "oops", "text/plain"),
        Refused(503),
        Refused(429),
        Refused(403),
    ],
)
async def test_a_ping_that_is_refused_for_reasons_of_its_own_confirms_nothing(ping: Refused) -> None:
    with ForgetfulServer(PROVEN["400 text"]) as server:
        async with deployed(server) as manager:
            server.script_always("ping", ping)
            server.script("tools/call", PROVEN["400 text"])
            error = await failure_of(manager, "a", echo("bad"))
            assert (error.http_status, error.delivery) == (400, "rejected")
            assert text_of(await manager.execute_raw("a", echo("good"))) == "good"
            assert (sessions_of(server), pings_of(server)) == (1, 1)


NO_PINGS = [
    Refused(400, None, "unknown method ping", "text/plain"),
    Refused(400, -32000, "no pings here", named=True),
    Refused(404),
    Refused(200, -32602, "ping takes no params", named=True),
]


@pytest.mark.parametrize("ping", NO_PINGS, ids=["400 text", "400 named", "404", "200 -32602"])
@pytest.mark.parametrize("form", ["400 text", "200 -32602 of the Python SDK"])
async def test_a_server_that_refuses_every_ping_keeps_its_sessions(form: str, ping: Refused) -> None:
    settings = {**SWIFT, "health": {**SWIFT["health"], "interval_s": 0.02}}
    with ForgetfulServer(PROVEN[form]) as server:
        async with deployed(server, **settings) as manager:
            server.script_always("ping", ping)
            server.script("tools/call", PROVEN[form], times=3)
            for _ in range(3):
                await asyncio.gather(manager.execute_raw("a", echo("bad")), return_exceptions=True)
            await server.wait_for("ping", 5)
            assert text_of(await manager.execute_raw("a", echo("good"))) == "good"
            assert sessions_of(server) == 1
            # Its sessions can be lost all the same.
            server.form = PROVEN["410"]
            server.expire_sessions()
            assert text_of(await manager.execute_raw("a", echo("again"), timeout=WAITS_S)) == "again"
            assert sessions_of(server) == 2


@pytest.mark.parametrize(
    "refused",
    [
        Refused(401, None, "", ""),
        Refused(403),
        Refused(408),
        Refused(413),
        Refused(425),
        Refused(429),
        Refused(500),
        Refused(503),
        Refused(404, -32601, "Method not found", named=True),
        Refused(200, -32601, "Method not found", named=True),
        Refused(200, -32042, "Visit a page first", named=True),
        Refused(200, 7, "an error of the application", named=True),
        Refused(200, -31999, "an error of the application", named=True),
    ],
)
async def test_what_has_another_meaning_is_not_asked_about(refused: Refused) -> None:
    fault: Any = refused if refused.status != 401 else faults.Status(401, {"WWW-Authenticate": "Bearer"})
    with ScriptedServer() as server:
        async with deployed(server) as manager:
            server.script("tools/call", fault)
            try:
                await manager.execute_raw("a", echo("bad"))
            except CallError:
                pass
            assert text_of(await manager.execute_raw("a", echo("good"))) == "good"
            assert (sessions_of(server), pings_of(server)) == (1, 0)


async def test_a_404_holds_where_a_ping_is_not_answered() -> None:
    with ForgetfulServer(PROVEN["404 as specified"]) as server:
        async with deployed(server) as manager:
            server.script("ping", faults.Status(500))
            server.expire_sessions()
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert sessions_of(server) == 2


async def test_a_caller_who_gives_up_does_not_keep_the_others_from_the_answer() -> None:
    hold = faults.Hold()
    with ForgetfulServer(PROVEN["400 text"]) as server:
        async with deployed(server) as manager:
            server.expire_sessions()
            server.script("ping", _Held(hold, server.form))
            first = asyncio.create_task(manager.execute_raw("a", echo("first")))
            await server.wait_for("ping")
            second = asyncio.create_task(manager.execute_raw("a", echo("second")))
            await server.wait_for("tools/call", 2)
            first.cancel()
            await asyncio.wait({first})
            hold.release()
            assert text_of(await second) == "second"
            assert (sessions_of(server), pings_of(server)) == (2, 1)


class _Held:
    """Refuse, not before it is told to."""

    def __init__(self, hold: faults.Hold, form: Refused) -> None:
        self._hold = hold
        self._form = form

    async def play(self, connection: Any, request: Any) -> None:
        await self._hold.wait()
        await self._form.play(connection, request)


@pytest.mark.parametrize("form", ["404 as specified", "400 text", "200 -32603", "403", "401"])
async def test_a_server_whose_calls_all_fail_is_not_healthy_though_it_answers_pings(form: str) -> None:
    refused = {**PROVEN, **UNPROVEN}.get(form) or Refused(int(form))
    with ForgetfulServer(refused) as server:
        async with deployed(server, health={**SWIFT["health"], "interval_s": 3600.0}) as manager:
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert manager.server("a").state is ServerState.HEALTHY
            server.script_always("tools/call", refused)
            for _ in range(10):
                await asyncio.gather(manager.execute_raw("a", echo("bad")), return_exceptions=True)
            assert manager.server("a").state is ServerState.DEGRADED
            assert manager.server("a").reasons == ("failing calls",)
            assert sessions_of(server) == 1
            server.script_always("tools/call", None)
            await manager.execute_raw("a", echo("good"))
            assert manager.server("a").state is ServerState.HEALTHY


# Lost before it has begun


@pytest.mark.parametrize("form", [*PROVEN, "500", "503", "429", "403", "502"])
async def test_a_refusal_of_initialized_alone_is_counted(form: str) -> None:
    refused = PROVEN.get(form) or Refused(int(form))
    with ForgetfulServer(refused) as server:
        server.script("notifications/initialized", refused)
        async with deployed(server) as manager:
            assert manager.server("a").ready == 1
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            expected = {} if refused.status == 200 else {"a message without a reply was refused": 1}
            assert manager.server("a").faults == expected
            assert sessions_of(server) == 1


@pytest.mark.parametrize(
    "answered",
    [
        Refused(200, None, "ok", "text/plain"),
        Refused(200, None, "{}"),
        Refused(200, None, "null"),
        Refused(200, None, "<html>ok</html>", "text/html"),
        Refused(200, None, "", "text/event-stream"),
        Refused(200, -32601, "Method not found"),
        Refused(204, content_type=""),
        Refused(202, None, "Accepted", "text/plain"),
    ],
)
async def test_any_success_will_do_for_a_notification(answered: Refused) -> None:
    with ScriptedServer() as server:
        server.script("notifications/initialized", answered)
        async with deployed(server) as manager:
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert manager.server("a").faults == {}
            assert pings_of(server) == 0


class _LosesAtOnce(ForgetfulServer):
    """Know no session any more by the time that it is announced, the first ``times`` times."""

    times = 0

    def take_fault(self, request: Any) -> Any:
        if request.method == "notifications/initialized" and sessions_of(self) <= self.times:
            self.expire_sessions()
        return super().take_fault(request)


@pytest.mark.parametrize("form", ["404 as specified", "400 of the TypeScript SDK", "400 text"])
async def test_one_lost_before_it_has_begun_is_a_connect_error(form: str) -> None:
    with _LosesAtOnce(PROVEN[form]) as server:
        server.times = 1_000
        async with deployed(server, connect="lazy") as manager:
            error = await failure_of(manager, "a", echo("x"))
            assert (type(error), error.delivery) == (ConnectError, "not_sent")
            assert "lost the session right after the handshake" in str(error)
            for work in (_executed, _executed_as_bytes, _called, _called_with_a_key, _notified):
                with pytest.raises(ConnectError):
                    await work(manager)
            assert manager.server("a").state is not ServerState.HEALTHY
            server.times = 0
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_a_replacement_that_is_lost_at_once_is_a_connect_error() -> None:
    with _LosesAtOnce(PROVEN["400 text"]) as server:
        async with deployed(server) as manager:
            server.times = 2
            server.expire_sessions()
            error = await failure_of(manager, "a", echo("x"))
            assert (type(error), error.delivery) == (ConnectError, "not_sent")
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert server.executed == ["x"]


# Until the first has passed callers wait, until the second one the answer is waited for.
TIMEOUTS = ("connect_timeout_s", "start_timeout_s")


@pytest.mark.parametrize("step", ["notifications/initialized", "GET"])
@pytest.mark.parametrize("how", ["timeout", "undeployed"])
async def test_one_that_is_not_waited_for_any_more_is_deleted(step: str, how: str) -> None:
    with ScriptedServer() as server:
        server.script(step, faults.Hold())
        async with McpManager() as manager:
            timeout_s = 0.3 if how == "timeout" else 60.0
            deploying = asyncio.create_task(
                manager.deploy("a", {"url": server.url, **CALM, **dict.fromkeys(TIMEOUTS, timeout_s)})
            )
            await server.wait_for(step)
            if how == "undeployed":
                await manager.undeploy("a")
            await server.wait_for("DELETE")
            [request] = server.requests_of("DELETE")
            assert request.headers["mcp-session-id"] == "session-1"
            await server.wait_until(lambda: server.live_sessions == set())
            await asyncio.wait({deploying})


async def test_a_server_that_does_not_take_leave_is_not_waited_for() -> None:
    with ScriptedServer() as server:
        server.script("notifications/initialized", faults.Hold())
        server.script("DELETE", faults.Hold())
        async with McpManager() as manager:
            async with asyncio.timeout(10):
                await manager.deploy("a", {"url": server.url, **CALM, **dict.fromkeys(TIMEOUTS, 0.3)})
                await server.wait_for("DELETE")
            assert manager.server("a").ready == 0


async def test_a_typed_call_still_raises_the_error_that_answered_it() -> None:
    with ScriptedServer() as server:
        async with deployed(server) as manager:
            server.script("tools/call", faults.RpcErrorReply(-32602, "no such tool"))
            with pytest.raises(RpcError, match="no such tool"):
                await manager.call_tool("a", "nothing", {})
            assert (sessions_of(server), pings_of(server)) == (1, 1)
