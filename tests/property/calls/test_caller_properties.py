"""Whatever callers do at once: no byte of one principal reaches another, on any session or in any result."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.calls import CALM
from support.era_server import HANDSHAKE, STATELESS, EraServer
from support.examples import examples

from mcp_manager import Caller, CallError, McpManager
from mcp_manager.testing.scripted import Request

PRINCIPALS = ("alice", "bob", "carol")
WHO = st.sampled_from(PRINCIPALS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), WHO, st.integers(0, 3)),
        st.tuples(st.just("list"), WHO, st.integers(0, 3)),
        st.tuples(st.just("own"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.just(""), st.integers(0, 20)),
        st.tuples(st.just("rotate"), WHO, st.integers(0, 3)),
        st.tuples(st.just("revoke"), WHO, st.integers(0, 3)),
        st.tuples(st.just("expire"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("scale"), st.just(""), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 30)),
    ),
    min_size=3,
    max_size=25,
)

slowly = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])


class Telling(EraServer):
    """Tell in every answer for whom it is, set a cookie that says so, and refuse revoked tokens."""

    def __init__(self, *speaks: str) -> None:
        super().__init__(*speaks)
        self.revoked: set[str] = set()
        self.cookie = lambda request: f"who={principal_of(request)}"

    def answer(self, request: Request) -> Any:
        if request.headers.get("authorization") in self.revoked:
            return 401, {"WWW-Authenticate": "Bearer"}, None
        status, headers, reply = super().answer(request)
        if request.method == "tools/list" and reply is not None and "result" in reply:
            tool = {"name": principal_of(request), "inputSchema": {"type": "object"}}
            caching = {"ttlMs": 60_000, "cacheScope": "public", "resultType": "complete"}
            reply = {**reply, "result": {"tools": [tool], **(caching if STATELESS in self.speaks else {})}}
        return status, headers, reply


def principal_of(request: Request) -> str:
    """Whose credential a request carries."""
    return request.headers.get("authorization", "Bearer nobody").removeprefix("Bearer ").partition(".")[0]


def check(server: Telling) -> None:
    """Hold everything that the server has seen of one principal against everything of the others."""
    sessions: defaultdict[str, set[str]] = defaultdict(set)
    for request in server.requests:
        principal = principal_of(request)
        others = {*PRINCIPALS, "itself"} - {principal}
        sessions[request.headers.get("mcp-session-id", principal)].add(principal)
        texts = [request.body.decode(), *(value for name, value in request.headers.items() if name != "host")]
        assert [text for text in texts if any(other in text for other in others)] == []
    assert [each for each in sessions.values() if len(each) > 1] == []


class World:
    """Callers whose tokens change, and what they wait for."""

    def __init__(self, server: Telling, manager: McpManager) -> None:
        self.server = server
        self.manager = manager
        self.under_way: list[asyncio.Task[None]] = []
        self.versions = dict.fromkeys(PRINCIPALS, 0)
        self.number = 0

    def caller(self, principal: str) -> Caller:
        return Caller(principal, auth=f"{principal}.{self.versions[principal]}")

    async def call(self, principal: str) -> None:
        self.number += 1
        text = f"{principal}-{self.number}"
        calls: Any = self.manager.for_caller(self.caller(principal)) if principal != "itself" else self.manager
        try:
            result = await calls.call_tool("a", "echo", {"text": text}, timeout=10)
        except CallError:
            return
        assert result.text == text

    async def list_tools(self, principal: str) -> None:
        try:
            tools = await self.manager.for_caller(self.caller(principal)).list_tools("a", timeout=10)
        except CallError:
            return
        assert [each.name for each in tools] == [principal]

    async def step(self, kind: str, principal: str, number: int) -> None:
        match kind:
            case "call" | "own" | "list":
                work = self.list_tools(principal) if kind == "list" else self.call(principal or "itself")
                self.under_way.append(asyncio.create_task(work))
                for _ in range(number):
                    await asyncio.sleep(0)
            case "cancel" if self.under_way:
                self.under_way[number % len(self.under_way)].cancel()
            case "rotate":
                self.versions[principal] += 1
            case "revoke":
                self.server.revoked.add(f"Bearer {principal}.{self.versions[principal]}")
                self.versions[principal] += 1
            case "expire":
                self.server.expire_sessions()
            case "scale":
                await self.manager.scale("a", number)
            case "wait":
                for _ in range(number):
                    await asyncio.sleep(0.001)


async def played(steps: list[tuple[str, str, int]], speaks: str, most: int) -> None:
    with Telling(speaks) as server:
        async with McpManager() as manager:
            settings = {**CALM, "auth": {"type": "bearer", "token": "itself.0"}, "max_caller_sessions": most}
            await manager.deploy("a", {"url": server.url, **settings, "drain_timeout_s": 1.0})
            world = World(server, manager)
            callers = manager._dispatcher.callers_of("a")
            for step in steps:
                await world.step(*step)
                kept = [max(1, len(each.instances)) for each in callers._principals.values()]
                assert sum(kept) == len(callers) <= most
            ended = await asyncio.gather(*world.under_way, return_exceptions=True)
            for each in ended:
                if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError):
                    raise each
        check(server)
        assert server.live_sessions == set() or any(kind in ("expire", "cancel", "revoke") for kind, *_ in steps)


@slowly
@given(STEPS, st.sampled_from([HANDSHAKE, STATELESS]), st.sampled_from([2, 4, 100]))
def test_nothing_of_one_principal_reaches_another(steps: list[tuple[str, str, int]], speaks: str, most: int) -> None:
    asyncio.run(played(steps, speaks, most))
