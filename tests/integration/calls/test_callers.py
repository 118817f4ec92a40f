"""Calls for callers: whose credentials are sent on which session, and when sessions begin and end."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from support.calls import CALM, deployed, echo, eventually, text_of
from support.era_server import HANDSHAKE, STATELESS
from support.guarded import ALICE, BOB, OWN, TOKENS, GuardedServer, is_apart, who
from support.processes import sdk_http

from mcp_manager import (
    Caller,
    CallError,
    ElicitationRequest,
    Handlers,
    InvalidRequestError,
    McpManager,
    OverloadedError,
    Selector,
    ServerState,
    SessionLostError,
    current_caller,
)
from mcp_manager.testing.faults import Hold

CANARY = "canary-7a2f9d"


# Sessions


async def test_each_principal_has_a_session_of_its_own() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            for caller, seen in ((ALICE, "Bearer alice"), (BOB, "Bearer bob"), (None, "Bearer own-token")) * 3:
                assert await who(manager, caller) == seen
            assert len(server.requests_of("initialize")) == 3
            assert is_apart(server)
        assert server.live_sessions == set()


async def test_one_handshake_serves_all_first_calls_of_a_principal() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            assert set(await asyncio.gather(*(who(manager, ALICE) for _ in range(50)))) == {"Bearer alice"}
            assert len(server.requests_of("initialize")) == 2


async def test_a_caller_with_a_principal_alone_has_its_own_session_with_the_credentials_of_the_server() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            assert await who(manager, Caller("carol")) == "Bearer own-token"
            assert await who(manager, Caller("dave")) == "Bearer own-token"
            assert len(server.requests_of("initialize")) == 3


async def test_the_same_principal_with_and_without_credentials_is_kept_apart() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            assert await who(manager, Caller("alice")) == "Bearer own-token"
            assert await who(manager, ALICE) == "Bearer alice"
            assert is_apart(server)


async def test_a_lost_session_of_a_caller_is_made_anew_and_the_others_stay() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            await who(manager, ALICE)
            await who(manager, BOB)
            (lost,) = [each for each, seen in server.seen.items() if seen == {"Bearer alice"}]
            server._live_sessions.discard(lost)
            assert await who(manager, ALICE) == "Bearer alice"
            assert await who(manager, BOB) == "Bearer bob"
            assert len(server.requests_of("initialize")) == 4


async def test_a_newer_token_of_a_principal_is_used_on_its_session() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            assert await who(manager, ALICE) == "Bearer alice"
            server.valid.add("Bearer alice-2")
            assert await who(manager, Caller("alice", auth="alice-2")) == "Bearer alice-2"
            assert len(server.requests_of("initialize")) == 2


async def test_header_fields_of_a_caller_replace_those_of_the_server() -> None:
    headers = {"X-Tenant": "fixed", "X-Other": "kept"}
    with GuardedServer(TOKENS) as server:
        async with deployed(server, headers=headers, **OWN) as manager:
            assert await who(manager, Caller("t", headers={"x-tenant": "one"})) == "Bearer own-token"
            sent = server.requests_of("tools/call")[-1].headers
            assert (sent["x-tenant"], sent["x-other"]) == ("one", "kept")
            assert await who(manager, Caller("t", headers={"authorization": "Bearer alice"})) == "Bearer alice"
            assert server.requests_of("tools/call")[-1].headers["x-tenant"] == "fixed"


async def test_a_function_of_a_caller_is_asked_once_and_again_after_a_401() -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return f"alice-{asked}"

    caller = Caller("alice", auth=token)
    with GuardedServer({"Bearer own-token", "Bearer alice-1"}) as server:
        async with deployed(server, **OWN) as manager:
            await asyncio.gather(*(who(manager, caller) for _ in range(10)))
            assert asked == 1
            server.valid = {"Bearer own-token", "Bearer alice-2"}
            assert set(await asyncio.gather(*(who(manager, caller) for _ in range(10)))) == {"Bearer alice-2"}
            assert asked == 2


# Their end


async def test_the_session_that_was_not_used_for_longest_makes_room() -> None:
    with GuardedServer({"Bearer own-token", *(f"Bearer {number}" for number in range(5))}) as server:
        async with deployed(server, max_caller_sessions=3, **OWN) as manager:
            for number in range(5):
                await who(manager, Caller(f"p{number}", auth=f"{number}"))
            await server.wait_for("DELETE", 2)
            gone = [each.headers["authorization"] for each in server.requests_of("DELETE")]
            assert sorted(gone) == ["Bearer 0", "Bearer 1"]
            await who(manager, Caller("p4", auth="4"))
            assert len(server.requests_of("initialize")) == 6
        assert server.live_sessions == set()


async def test_sessions_in_use_are_not_ended_to_make_room() -> None:
    with GuardedServer(TOKENS) as server:
        gate = Hold()
        server.script("tools/call", gate)
        async with deployed(server, max_caller_sessions=1, **OWN) as manager:
            first = asyncio.create_task(who(manager, ALICE))
            await server.wait_for("tools/call", 1)
            with pytest.raises(OverloadedError, match="all 1 sessions of callers are in use") as caught:
                await who(manager, BOB)
            assert caught.value.delivery == "not_sent"
            gate.release()
            await first
            assert await who(manager, BOB) == "Bearer bob"
            assert manager.server("a").state is ServerState.HEALTHY


async def test_an_idle_session_is_ended() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, caller_idle_s=0.05, **OWN) as manager:
            await who(manager, ALICE)
            await server.wait_for("DELETE")
            assert server.requests_of("DELETE")[0].headers["authorization"] == "Bearer alice"
            assert await who(manager, ALICE) == "Bearer alice"


@pytest.mark.parametrize("how", ["undeploy", "stop", "redeploy", "scale"])
async def test_sessions_end_with_their_server(how: str) -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, drain_timeout_s=1.0, **OWN) as manager:
            await asyncio.gather(who(manager, ALICE), who(manager, BOB))
            match how:
                case "undeploy":
                    await manager.undeploy("a")
                case "stop":
                    await manager.stop()
                case "redeploy":
                    await manager.redeploy("a", {"url": server.url, **CALM, **OWN, "tags": ["new"]})
                case "scale":
                    await manager.scale("a", 0)
            await server.wait_for("DELETE", 3)
            ended = {each.headers["authorization"] for each in server.requests_of("DELETE")}
            assert ended == TOKENS
            if how == "redeploy":
                assert await who(manager, ALICE) == "Bearer alice"


async def test_sessions_of_removed_instances_are_no_longer_counted() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, instances=3, balancing={"policy": "round_robin"}, **OWN) as manager:
            callers = manager._dispatcher.callers_of("a")
            for _ in range(3):
                await who(manager, ALICE)
            assert len(callers) == 3
            await manager.scale("a", 1)
            await eventually(lambda: len(callers) == 1, "the end of the sessions of the other instances")
            assert await who(manager, ALICE) == "Bearer alice"
            assert len(callers) == 1


@pytest.mark.parametrize("how", ["undeploy", "stop"])
async def test_a_function_that_hangs_ends_with_the_server(how: str) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def never() -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            calling = asyncio.create_task(who(manager, Caller("alice", auth=never)))
            await asked.wait()
            await (manager.undeploy("a") if how == "undeploy" else manager.stop())
            with pytest.raises(CallError) as caught:
                await calling
            assert caught.value.delivery == "not_sent"
            await asyncio.wait_for(ended.wait(), 10)


# Programs


async def test_a_program_takes_no_credentials_of_callers() -> None:
    program = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"], **CALM}
    async with McpManager() as manager:
        await manager.deploy("a", program)
        for caller in (ALICE, Caller("x", headers={"X": "y"})):
            with pytest.raises(InvalidRequestError, match="cannot be carried to a stdio server") as caught:
                await manager.for_caller(caller).call_tool("a", "echo", {"text": "x"})
            assert caught.value.delivery == "not_sent"
        result = await manager.for_caller(Caller("carol")).call_tool("a", "echo", {"text": "shared"})
        assert result.text == "shared"


# All ways to call


async def test_requests_as_bytes_and_text_and_notifications() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, **OWN) as manager:
            calls = manager.for_caller(ALICE)
            assert text_of(await calls.execute_raw("a", echo("raw", 7))) == "raw"
            assert json.loads(await calls.execute_text("a", echo("text", "id").decode()))["id"] == "id"
            assert await calls.execute_text("a", '{"method": "notifications/x"}') == "null"
            assert await calls.request("a", "ping") == {}
            with pytest.raises(InvalidRequestError):
                await calls.execute_raw("a", "text")  # type: ignore[arg-type]
            with pytest.raises(InvalidRequestError):
                await calls.execute_raw("a", b"{}")
            with pytest.raises(InvalidRequestError):
                await calls.execute_raw("a", echo("x"), key=5)  # type: ignore[arg-type]
            later = [each for each in server.requests if each.number > server.requests_of("initialize")[1].number]
            assert {each.headers["authorization"] for each in later} == {"Bearer alice"}


async def test_a_handler_can_tell_for_whom_the_server_asks() -> None:
    asked_for: list[Caller | None] = []

    def fill_in(server_id: str, asked: ElicitationRequest) -> dict[str, Any]:
        asked_for.append(current_caller())
        return asked.accept({"name": "x"})

    with GuardedServer(TOKENS, speaks=(STATELESS,)) as server:
        async with deployed(server, handlers=Handlers(elicitation=fill_in), **OWN) as manager:
            await asyncio.gather(
                manager.for_caller(ALICE).call_tool("a", "ask", {}),
                manager.for_caller(BOB).call_tool("a", "ask", {}),
                manager.call_tool("a", "ask", {}),
            )
            assert current_caller() is None
    principals = [None if each is None else each.principal for each in asked_for]
    assert sorted(principals, key=str) == [None, "alice", "bob"]


async def test_a_caller_declares_the_capabilities_that_it_has() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, handlers=Handlers(roots=[]), **OWN) as manager:
            await who(manager, Caller("alice", auth="alice", capabilities={"sampling": {}}))
            await who(manager, ALICE)
        declared = [each.params["capabilities"] for each in server.requests_of("initialize")]
        assert [sorted(each) for each in declared] == [["roots"], ["sampling"], ["roots"]]


@pytest.mark.parametrize("sse", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_questions_of_a_real_server_reach_a_handler_that_knows_the_caller(sse: bool) -> None:
    def fill_in(server_id: str, asked: ElicitationRequest) -> dict[str, Any]:
        caller = current_caller()
        assert caller is not None
        return asked.accept({"name": caller.principal})

    with sdk_http(sse=sse) as server:
        async with McpManager(handlers=Handlers(elicitation=fill_in)) as manager:
            settings = {"url": server.url, **CALM, "protocol_version": HANDSHAKE, "connect": "lazy"}
            await manager.deploy("a", {**settings, "connect_timeout_s": 10.0})
            names = [f"user-{number}" for number in range(5)]
            results = await asyncio.gather(
                *(manager.for_caller(Caller(name, headers={"X-User": name})).call_tool("a", "elicit") for name in names)
            )
            assert all(name in result.text for name, result in zip(names, results, strict=True))


async def test_a_selector_routes_calls_of_callers() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, tags=["x"], **OWN) as manager:
            result = await manager.for_caller(ALICE).call_tool(Selector(tag="x"), "echo", {"text": "1"})
            assert result.meta == {"caller": "Bearer alice"}
            reply = await manager.for_caller(BOB).execute_raw(Selector(tag="x"), echo("2"), key="k")
            assert text_of(reply) == "2"
            assert is_apart(server)


async def test_consistent_balancing_keeps_a_caller_on_one_instance() -> None:
    with GuardedServer({"Bearer own-token", *(f"Bearer {number}" for number in range(20))}) as server:
        async with deployed(server, instances=4, balancing={"policy": "consistent"}, **OWN) as manager:
            for number in range(20):
                caller = Caller(f"user-{number}", auth=f"{number}")
                await asyncio.gather(*(who(manager, caller) for _ in range(5)))
            assert len(server.requests_of("initialize")) == 4 + 20


async def test_progress_of_a_real_server_reaches_the_call_of_the_caller() -> None:
    reports: dict[str, list[float]] = {"alice": [], "bob": []}
    with sdk_http() as server:
        async with McpManager() as manager:
            settings = {**CALM, "connect": "lazy", "connect_timeout_s": 10.0}
            await manager.deploy("a", {"url": server.url, **settings})
            await asyncio.gather(
                *(
                    manager.for_caller(Caller(name)).call_tool(
                        "a",
                        "progress",
                        {"steps": 3},
                        on_progress=lambda progress, *_, name=name: reports[name].append(progress),
                    )
                    for name in reports
                )
            )
    assert reports["alice"] == reports["bob"] != []


async def test_hard_affinity_reports_the_lost_session_of_a_caller() -> None:
    with GuardedServer(TOKENS) as server:
        async with deployed(server, balancing={"affinity": "hard"}, **OWN) as manager:
            await who(manager, ALICE)
            server.expire_sessions()
            with pytest.raises(SessionLostError, match="the session of this key is lost"):
                await who(manager, ALICE)
            assert await who(manager, ALICE) == "Bearer alice"
