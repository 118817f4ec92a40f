"""What servers tell one caller, and what they are told of it, stays with that caller; refusals are about it alone."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import msgspec
import pytest
from support.calls import CALM, deployed, eventually
from support.era_server import HANDSHAKE, STATELESS
from support.guarded import ALICE, BOB, OWN, TOKENS, GuardedServer, is_apart, who
from support.stateless_server import StatelessServer
from support.streams import StandingStreams

from mcp_manager import (
    AuthError,
    Caller,
    CallError,
    Handlers,
    InvalidRequestError,
    McpManager,
    ServerState,
    current_caller,
)
from mcp_manager.testing.scripted import Request, ScriptedServer

CANARY = "canary-7a2f9d"


# What they learn


@pytest.mark.parametrize("speaks", [HANDSHAKE, STATELESS])
async def test_lists_and_results_are_kept_apart(speaks: str) -> None:
    class Private(GuardedServer):
        def answer(self, request: Request) -> Any:
            status, headers, reply = super().answer(request)
            if request.method == "tools/list" and reply is not None and "result" in reply:
                name = request.headers["authorization"].removeprefix("Bearer ")
                tool = {"name": name, "inputSchema": {"type": "object"}}
                caching = {"ttlMs": 60_000, "cacheScope": "public", "resultType": "complete"}
                reply = {**reply, "result": {"tools": [tool], **(caching if speaks == STATELESS else {})}}
            return status, headers, reply

    with Private(TOKENS, speaks=(speaks,)) as server:
        async with deployed(server, **OWN) as manager:
            for _ in range(2):
                assert [each.name for each in await manager.list_tools("a")] == ["own-token"]
                assert [each.name for each in await manager.for_caller(ALICE).list_tools("a")] == ["alice"]
                assert [each.name for each in await manager.for_caller(BOB).list_tools("a")] == ["bob"]
            assert len(server.requests_of("tools/list")) == (3 if speaks == STATELESS else 6)
            assert is_apart(server)


async def test_a_stateless_server_gets_the_credentials_with_each_request() -> None:
    with GuardedServer(TOKENS, speaks=(STATELESS,)) as server:
        async with deployed(server, **OWN) as manager:
            for caller, seen in ((ALICE, "Bearer alice"), (BOB, "Bearer bob"), (None, "Bearer own-token")) * 2:
                assert await who(manager, caller) == seen
            server.valid.add("Bearer alice-2")
            assert await who(manager, Caller("alice", auth="alice-2")) == "Bearer alice-2"
        assert server.requests_of("initialize") == []


async def test_output_schemas_of_one_caller_are_not_applied_to_another() -> None:
    class Strict(GuardedServer):
        def answer(self, request: Request) -> Any:
            status, headers, reply = super().answer(request)
            if (
                request.method == "tools/list"
                and reply is not None
                and request.headers["authorization"] == "Bearer bob"
            ):
                schema = {"type": "object", "required": ["n"]}
                tool = {"name": "echo", "inputSchema": {"type": "object"}, "outputSchema": schema}
                reply = {**reply, "result": {"tools": [tool]}}
            return status, headers, reply

    with Strict(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            await manager.for_caller(BOB).list_tools("a")
            await who(manager, ALICE)
            await who(manager, None)
            with pytest.raises(CallError, match="output schema"):
                await who(manager, BOB)


async def test_cookies_are_kept_apart() -> None:
    with GuardedServer(TOKENS) as server:
        server.cookie = lambda request: f"who={request.headers['authorization'].removeprefix('Bearer ')}"
        async with deployed(server, **OWN) as manager:
            for caller in (ALICE, BOB, None, ALICE, BOB, None):
                await who(manager, caller)
        for request in server.requests:
            cookie = request.headers.get("cookie")
            assert cookie in (None, f"who={request.headers['authorization'].removeprefix('Bearer ')}")
        assert len([each for each in server.requests if "cookie" in each.headers]) > 6


async def test_a_redirect_to_another_origin_does_not_get_the_credentials() -> None:
    class Redirecting(GuardedServer):
        target = ""

        def answer(self, request: Request) -> Any:
            if request.method == "tools/call":
                return 307, {"Location": self.target}, None
            return super().answer(request)

    with ScriptedServer() as other, Redirecting(TOKENS) as server:
        server.target = other.url
        async with deployed(server, **OWN) as manager:
            with pytest.raises(CallError, match="redirects"):
                await who(manager, ALICE)
        assert other.requests == []


async def test_a_fallback_server_does_not_get_the_credentials() -> None:
    with ScriptedServer() as other, GuardedServer(TOKENS) as server:
        async with deployed(server, fallback={"tag": "spare"}, **OWN) as manager:
            await manager.deploy("b", {"url": other.url, **CALM, "tags": ["spare"]})
            other.forget()
            server.refuse_connections()
            with pytest.raises(CallError):
                await who(manager, ALICE)
            assert other.requests == []


# What refusals mean


async def test_the_refusal_of_a_caller_says_nothing_about_the_server() -> None:
    settings = {**CALM, "breaker": {"consecutive_failures": 2, "min_calls": 2}, "health": {"settle_s": 0.0}}
    with GuardedServer(TOKENS) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **settings, **OWN})
            for _ in range(30):
                with pytest.raises(AuthError, match="refused the credentials") as caught:
                    await who(manager, Caller("eve", auth=CANARY))
                assert caught.value.delivery == "not_sent"
                assert caught.value.hint == "check the headers and auth of the caller"
            view = manager.server("a")
            assert view.state is ServerState.HEALTHY
            assert await who(manager, None) == "Bearer own-token"
            assert 'status="auth_error"' in manager.metrics_text()


async def test_nothing_of_a_caller_is_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    class Quoting(GuardedServer):
        def answer(self, request: Request) -> Any:
            if request.method == "tools/call":
                error = {"code": -32600, "message": f"not {request.headers['authorization']}"}
                return 400, {}, {"jsonrpc": "2.0", "id": request.id, "error": error}
            return super().answer(request)

    caplog.set_level(logging.DEBUG)
    caller = Caller(f"{CANARY}-principal", headers={"X-Secret": f"{CANARY}-field"}, auth=f"{CANARY}-token")
    outputs = [repr(caller), str(caller)]
    with Quoting({*TOKENS, f"Bearer {CANARY}-token"}) as server:
        async with deployed(server, **OWN) as manager:
            view = manager.for_caller(caller)
            with pytest.raises(Exception, match="not ") as caught:
                await view.call_tool("a", "echo", {})
            error = pickle.loads(pickle.dumps(caught.value))
            outputs += [str(error), repr(error), repr(view), repr(manager.server("a")), manager.metrics_text()]
            outputs += [repr(manager.flight_records()), msgspec.json.encode(manager.snapshot()).decode()]
    outputs += [caplog.text, *capfd.readouterr()]
    assert [each for each in outputs if CANARY in each] == []
    copy = pickle.loads(pickle.dumps(caller))
    assert copy == caller


@pytest.mark.parametrize(
    "wrong",
    [
        {"principal": ""},
        {"principal": 5},
        {"principal": "x" * 1025},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"Host": "a"}},
        {"headers": {"X": 5}},
        {"headers": 5},
        {"auth": "two words"},
        {"auth": ""},
        {"auth": 5},
        {"capabilities": 5},
        {"capabilities": {"x": object()}},
    ],
)
def test_what_no_caller_can_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid caller"):
        Caller(**{"principal": "p", **wrong})


async def test_only_callers_can_be_called_for() -> None:
    async with McpManager() as manager:
        with pytest.raises(InvalidRequestError, match="must be a Caller"):
            manager.for_caller("alice")  # type: ignore[arg-type]


async def test_what_a_caller_learned_of_tools_is_forgotten_when_they_change() -> None:
    streams = StandingStreams()

    class Changing(GuardedServer):
        def answer(self, request: Request) -> Any:
            status, headers, reply = super().answer(request)
            if request.method == "tools/list" and reply is not None:
                schema = {"type": "object", "required": ["n"]}
                tool = {"name": "echo", "inputSchema": {"type": "object"}, "outputSchema": schema}
                reply = {**reply, "result": {"tools": [tool]}}
            return status, headers, reply

    with Changing(TOKENS) as server:
        server.script_always("GET", streams)
        async with deployed(server, **OWN) as manager:
            await manager.for_caller(ALICE).list_tools("a")
            await streams.wait(server, 2)
            (stream,) = [each for each in streams.opened if each.request.headers["authorization"] == "Bearer alice"]
            stream.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            outputs = manager.for_caller(ALICE)._outputs("a")
            assert outputs is not None
            await eventually(lambda: not outputs.knows("echo"), "the end of what was known")
            await who(manager, ALICE)


async def test_the_subscription_of_a_caller_is_its_own_and_outlives_its_idle_time() -> None:
    news: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()

    def updated(server_id: str, uri: str) -> None:
        caller = current_caller()
        news.put_nowait((uri, None if caller is None else caller.principal))

    with StatelessServer() as server:
        async with deployed(server, handlers=Handlers(on_resource_updated=updated), caller_idle_s=0.05) as manager:
            await manager.for_caller(ALICE).subscribe("a", "file:///of-alice")
            await manager.for_caller(BOB).subscribe("a", "file:///of-bob")
            by_uri = {each.asked["resourceSubscriptions"][0]: each for each in server.streams}
            for name in ("alice", "bob"):
                stream = by_uri[f"file:///of-{name}"]
                assert stream.asked["resourceSubscriptions"] == [f"file:///of-{name}"]
                assert stream.request.headers["authorization"] == f"Bearer {name}"
            callers = manager._dispatcher.callers_of("a")
            await manager.for_caller(Caller("carol")).ping("a")
            assert len(callers) == 3
            await eventually(lambda: len(callers) == 2, "the end of the session without a subscription")
            for name in ("alice", "bob"):
                uri = f"file:///of-{name}"
                server.tell("notifications/resources/updated", {"uri": uri}, stream=by_uri[uri])
                assert await asyncio.wait_for(news.get(), 10) == (uri, name)
            await manager.for_caller(ALICE).unsubscribe("a", "file:///of-alice")
            await manager.for_caller(BOB).unsubscribe("a", "file:///of-bob")
            await server.wait_for_streams(0)
            await eventually(lambda: len(callers) == 0, "the end of the idle sessions")


async def test_the_pages_of_a_list_come_from_one_session_of_the_caller() -> None:
    class Paging(GuardedServer):
        def answer(self, request: Request) -> Any:
            status, headers, reply = super().answer(request)
            if request.method == "tools/list" and reply is not None and "result" in reply:
                session_id = request.headers["mcp-session-id"]
                given = (request.params or {}).get("cursor", f"{session_id}/0")
                if given.partition("/")[0] != session_id:
                    error = {"code": -32602, "message": "no such cursor"}
                    return 200, headers, {"jsonrpc": "2.0", "id": request.id, "error": error}
                number = int(given.partition("/")[2])
                page: dict[str, Any] = {"tools": [{"name": f"tool-{number}", "inputSchema": {"type": "object"}}]}
                if number < 4:
                    page["nextCursor"] = f"{session_id}/{number + 1}"
                reply = {**reply, "result": page}
            return status, headers, reply

    with Paging(TOKENS) as server:
        async with deployed(server, instances=3, **OWN) as manager:
            for caller in (ALICE, BOB):
                tools = await manager.for_caller(caller).list_tools("a")
                assert [each.name for each in tools] == [f"tool-{number}" for number in range(5)]
            assert is_apart(server)
