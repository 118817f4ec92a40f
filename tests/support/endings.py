"""Scenarios for every way in which a call, a connection or a server ends, and a report of what stays in memory.

``python -m support.endings LOOP`` prints the reports as JSON, by scenario; see :func:`scrutinized`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import itertools
import json
import sys
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from support import kept
from support.authorization import ProtectedServer, authorized
from support.calls import CALM, tool_call
from support.processes import scripted_stdio, unused_port
from support.streams import HttpSseServer

from mcp_manager import McpManager, ServerMessage
from mcp_manager.errors import McpManagerError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer

__all__ = ["CYCLIC", "SCENARIOS", "Scenario"]

Scenario = Callable[["Stage"], Awaitable[None]]
SCENARIOS: Final[dict[str, Scenario]] = {}
CYCLIC: Final[set[str]] = set()
"""The scenarios that end at least one session; a session is a reference cycle."""
_STEPS: Final = 30
_LIMIT: Final = 1 << 20
_SETTLING_PASSES: Final = 20


class Stage:
    """A scripted server, and a manager that has it deployed as ``a``."""

    def __init__(self, manager: McpManager, server: ScriptedServer) -> None:
        self.manager = manager
        self.server = server
        self.held: list[object] = []
        self._numbers = itertools.count()

    def mark(self) -> str:
        """Return a text that occurs nowhere else."""
        return f"{kept.MARK}{next(self._numbers)}"

    def request(self) -> bytes:
        return tool_call("echo", {"text": self.mark()})

    async def call(self, server_id: str = "a", **options: Any) -> None:
        """Call a tool, and drop its result or error."""
        with contextlib.suppress(McpManagerError):
            await self.manager.execute_raw(server_id, self.request(), **options)

    async def deploy(self, server_id: str, **settings: Any) -> None:
        if "command" not in settings:
            settings = {"url": self.server.url, "headers": {"X-Secret": self.mark()}, **settings}
        settings = {**CALM, **settings}
        with contextlib.suppress(McpManagerError):
            await self.manager.deploy(server_id, settings)

    async def undeploy(self, server_id: str) -> None:
        with contextlib.suppress(McpManagerError):
            await self.manager.undeploy(server_id)


def scenario(work: Scenario) -> Scenario:
    """Register a scenario that ends a session or a server."""
    SCENARIOS[work.__name__] = work
    CYCLIC.add(work.__name__)
    return work


def scenario_of_a_call(work: Scenario) -> Scenario:
    """Register a scenario that ends only calls; the server and its session stay."""
    SCENARIOS[work.__name__] = work
    return work


def _fault(name: str, fault: Callable[[], Fault], **options: Any) -> None:
    """Register a scenario in which a call meets a fault."""

    async def work(stage: Stage) -> None:
        stage.server.script("tools/call", fault())
        await stage.call(**options)
        await stage.call()

    SCENARIOS[name] = work


_fault("reset", faults.Reset)
_fault("closed", faults.Close)
_fault("no_http", faults.Bytes)
_fault("half_a_reply", faults.HalfResponse)
_fault("bad_chunk", faults.BadChunk)
_fault("oversize", lambda: faults.Oversize(2 * _LIMIT))
_fault("oversize_in_chunks", lambda: faults.Oversize(2 * _LIMIT, chunked=True))
_fault("status_500", lambda: faults.Status(500, {}, b"it broke"))
_fault("status_401", lambda: faults.Status(401))
_fault("redirect", lambda: faults.Redirect("http://127.0.0.1:9/"))
_fault("truncated_json", faults.TruncatedJson)
_fault("wrong_id", faults.WrongId)
_fault("rpc_error", lambda: faults.RpcErrorReply(-32000))
_fault("stream_without_reply", faults.SseTruncated)
_fault("stream_cut", lambda: faults.SseTruncated(cut=True))
_fault("deadline", faults.Hold, timeout=0.05)
_fault("deadline_on_a_stream", faults.SseNeverEnds, timeout=0.05)


@scenario_of_a_call
async def answered(stage: Stage) -> None:
    await stage.call()


@scenario_of_a_call
async def rpc_error_of_a_typed_call(stage: Stage) -> None:
    stage.server.script("tools/call", faults.RpcErrorReply(-32000))
    with contextlib.suppress(McpManagerError):
        await stage.manager.call_tool("a", "echo", {"text": stage.mark()})


@scenario_of_a_call
async def exchanges(stage: Stage) -> None:
    """Exchanges that are asked, reported to and told, and that end in every way."""

    async def take(message: ServerMessage) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"action": "decline", "said": stage.mark()}

    async def hang(message: ServerMessage) -> None:
        await asyncio.Event().wait()

    asked = ({"jsonrpc": "2.0", "id": "q", "method": "roots/list", "params": {}},)
    told = ({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}},)
    for events, end in (
        ((), None),
        (told, None),
        (asked, faults.SseNeverEnds()),
        ((), faults.Reset()),
        ((), faults.Status(500)),
    ):
        for on_message in (take, hang, None):
            if events:
                stage.server.script("tools/call", faults.SseEvents(events))
            elif end is not None:
                stage.server.script("tools/call", end)
            with contextlib.suppress(McpManagerError):
                await stage.manager.exchange("a", stage.request(), on_message=on_message, timeout=0.1)
    for steps in range(0, _STEPS, 3):
        stage.server.script("tools/call", faults.SseEvents(asked))
        await cancelled_after(steps, stage.manager.exchange("a", stage.request(), on_message=hang, timeout=5.0))


@scenario
async def session_lost(stage: Stage) -> None:
    stage.server.expire_sessions()
    await stage.call()
    await stage.call()


@scenario_of_a_call
async def cancelled_at_each_step(stage: Stage) -> None:
    for steps in range(_STEPS):
        if steps % 3 == 0:
            stage.server.script("tools/call", faults.Hold())
        await cancelled_after(steps, stage.manager.execute_raw("a", stage.request(), timeout=5.0))


@scenario
async def cancelled_at_each_step_of_connecting(stage: Stage) -> None:
    for steps in range(0, _STEPS, 2):
        await stage.deploy("c", connect="lazy")
        await cancelled_after(steps, stage.manager.execute_raw("c", stage.request(), timeout=5.0))
        await stage.undeploy("c")


async def cancelled_after(steps: int, work: Any) -> None:
    """Start ``work`` and cancel it after that many event-loop iterations."""
    task = asyncio.get_running_loop().create_task(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


@scenario
async def circuit_open(stage: Stage) -> None:
    await stage.deploy("b", breaker={"consecutive_failures": 1, "open_s": 60.0})
    stage.server.script("tools/call", faults.Reset())
    for _ in range(3):
        await stage.call("b")
    await stage.undeploy("b")


@scenario
async def retried(stage: Stage) -> None:
    await stage.deploy("b", retry={"attempts": 2, "backoff_s": 0.001, "tools": {"echo": "safe"}})
    stage.server.script("tools/call", faults.Status(503), times=3)
    await stage.call("b")
    await stage.call("b")
    await stage.undeploy("b")


@scenario
async def hedged(stage: Stage) -> None:
    hedge = {"enabled": True, "min_delay_s": 0.0, "min_samples": 1, "max_share": 1.0}
    await stage.deploy("b", instances=2, hedge=hedge, retry={"attempts": 1, "tools": {"echo": "safe"}})
    for _ in range(3):
        await stage.call("b")
    stage.server.script("tools/call", faults.Reset(), times=2)
    await stage.call("b")
    stage.server.script("tools/call", faults.Hold())
    await stage.call("b")
    await stage.undeploy("b")


@scenario
async def undeployed(stage: Stage) -> None:
    await stage.deploy("b")
    await stage.call("b")
    await stage.undeploy("b")


@scenario
async def undeployed_during_a_call(stage: Stage) -> None:
    await stage.deploy("b")
    stage.server.script("tools/call", faults.Hold())
    calling = asyncio.get_running_loop().create_task(stage.call("b"))
    await stage.server.wait_for("tools/call", len(stage.server.requests_of("tools/call")) + 1)
    await stage.undeploy("b")
    await calling


@scenario
async def undeployed_while_another_server_answers(stage: Stage) -> None:
    await stage.deploy("c", tags=["t"])
    gone = f"http://127.0.0.1:{unused_port()}/mcp"
    await stage.deploy("b", url=gone, connect="lazy", fallback={"tag": "t"})
    hold = faults.Hold()
    stage.server.script("tools/call", hold)
    calling = asyncio.get_running_loop().create_task(stage.call("b"))
    await stage.server.wait_for("tools/call", len(stage.server.requests_of("tools/call")) + 1)
    await stage.undeploy("b")
    hold.release()
    await calling
    await stage.undeploy("c")


@scenario
async def undeployed_after_failures(stage: Stage) -> None:
    await stage.deploy("b")
    for fault in (faults.Reset(), faults.Status(500), faults.TruncatedJson()):
        stage.server.script("tools/call", fault)
        await stage.call("b")
    await stage.undeploy("b")


@scenario
async def redeployed(stage: Stage) -> None:
    await stage.deploy("b")
    await stage.call("b")
    for _ in range(2):
        await stage.manager.redeploy("b", {"url": stage.server.url, "headers": {"X-Secret": stage.mark()}, **CALM})
        await stage.call("b")
    await stage.undeploy("b")


@scenario
async def redeploy_that_fails(stage: Stage) -> None:
    await stage.deploy("b")
    with contextlib.suppress(McpManagerError):
        await stage.manager.redeploy(
            "b", {"url": "http://127.0.0.1:9/mcp", "headers": {"X-Secret": stage.mark()}, **CALM}
        )
    await stage.undeploy("b")


@scenario
async def scaled_down(stage: Stage) -> None:
    await stage.deploy("b", instances=3)
    await stage.call("b")
    await stage.manager.scale("b", 1)
    await stage.manager.scale("b", 0)
    await stage.undeploy("b")


@scenario
async def deploy_that_fails(stage: Stage) -> None:
    await stage.deploy("b", url="http://127.0.0.1:9/mcp")
    await stage.call("b")
    await stage.undeploy("b")


@scenario
async def deploy_that_is_cancelled(stage: Stage) -> None:
    for steps in range(0, _STEPS, 3):
        config = {"url": stage.server.url, "headers": {"X-Secret": stage.mark()}, **CALM}
        await cancelled_after(steps, stage.manager.deploy("b", config))
        await stage.undeploy("b")


@scenario
async def handshake_that_fails(stage: Stage) -> None:
    stage.server.script("initialize", faults.Status(500), faults.TruncatedJson(), faults.Reset(), times=2)
    await stage.deploy("b")
    await stage.call("b")
    await stage.undeploy("b")
    stage.server.script("initialize", faults.Answer())


@scenario
async def program_that_cannot_start(stage: Stage) -> None:
    settings = {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"], "env": {"SECRET": stage.mark()}}
    with contextlib.suppress(McpManagerError):
        await stage.manager.deploy("p", {**settings, **CALM})
    await stage.call("p")
    await stage.undeploy("p")


def _program(stage: Stage, *actions: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a program that answers each of the first four tool calls with these actions."""
    script = {"on": {"tools/call": [list(actions)] * 4}}
    return {**scripted_stdio(script).config(env={"SECRET": stage.mark()}), **CALM}


@scenario
async def program_that_dies(stage: Stage) -> None:
    await stage.deploy("p", **_program(stage, {"do": "exit"}))
    await stage.call("p")
    await stage.call("p")
    await stage.undeploy("p")


@scenario
async def program_that_says_nothing(stage: Stage) -> None:
    await stage.deploy("p", **_program(stage))
    await stage.call("p", timeout=0.05)
    await cancelled_after(5, stage.manager.execute_raw("p", stage.request(), timeout=5.0))
    await stage.undeploy("p")


@scenario
async def program_that_answers(stage: Stage) -> None:
    await stage.deploy("p", **_program(stage, {"do": "reply"}))
    await stage.call("p")
    await stage.undeploy("p")


@scenario
async def server_of_2024(stage: Stage) -> None:
    with HttpSseServer() as server:
        await stage.deploy("s", url=server.url)
        await stage.call("s")
        server.script("tools/call", faults.Status(500))
        await stage.call("s")
        server.script("tools/call", faults.Status(202))
        await stage.call("s", timeout=0.05)
        await stage.undeploy("s")


@scenario
async def authorization(stage: Stage) -> None:
    with ProtectedServer() as server:
        for refuses in (False, True):
            server.refuses_all = refuses
            async with authorized(server, scopes=(stage.mark(),)) as manager:
                await Stage(manager, stage.server).call("a")


@scenario
async def authorization_that_fails(stage: Stage) -> None:
    for settings in ({"token_status": 400}, {"issuer": "nobody"}, {"registration_status": 500}):
        with ProtectedServer(**settings) as server:
            async with authorized(server) as manager:
                other = Stage(manager, stage.server)
                await other.call("a")
                await other.call("a")


@scenario
async def stopped(stage: Stage) -> None:
    for fault in (faults.Answer(), faults.Reset(), faults.Status(500)):
        async with McpManager() as manager:
            other = Stage(manager, stage.server)
            await other.deploy("b")
            stage.server.script("tools/call", fault)
            await other.call("b")


@scenario
async def stopped_but_held(stage: Stage) -> None:
    """A stopped manager that is still referenced keeps nothing of its servers but their counts."""
    stopped = McpManager()
    async with stopped:
        other = Stage(stopped, stage.server)
        await other.deploy("b")
        for fault in (faults.Answer(), faults.Reset(), faults.Status(500)):
            stage.server.script("tools/call", fault)
            await other.call("b")
    stage.held += [stopped, stopped._router.server("b")]


async def scrutinized(work: Scenario) -> dict[str, Any]:
    """Run a scenario and report what it leaves in memory.

    ``cycles`` describes the package's objects that only the garbage collector could free, ``objects`` counts objects
    that were not there before, and ``marks`` says what holds texts that were sent, received or secret.
    """
    with ScriptedServer() as server:
        async with McpManager() as manager:
            stage = Stage(manager, server)
            await stage.deploy("a", headers={}, max_response_bytes=_LIMIT)
            # The first run fills caches and makes objects that are meant to stay.
            await work(stage)
            await _settle(server)
            stage.held.clear()
            # Twice, because objects with finalizers are freed only after these have run.
            gc.collect()
            gc.collect()
            before = kept.objects()
            gc.disable()
            await work(stage)
            await _settle(server)
            cycles = kept.cycles()
            gc.enable()
            more = kept.objects() - before - Counter(type(each).__name__ for each in stage.held)
            found = kept.marks()
            marks = [kept.holders(found.pop()) for _ in range(len(found))]
    return {"cycles": cycles, "objects": dict(more), "marks": marks}


async def _settle(server: ScriptedServer) -> None:
    """Let all pending notifications of ends be delivered, and make the server forget its requests."""
    for _ in range(_SETTLING_PASSES):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    server.forget()
    # The simulated user of the authorization server parses URLs with urllib, which caches them.
    urllib.parse.clear_cache()  # type: ignore[attr-defined]  # typeshed does not know it


def main(loop: str, names: list[str]) -> None:
    factory: Any = asyncio.SelectorEventLoop
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    # Imported objects stay; freezing them makes the following collections faster.
    gc.collect()
    gc.freeze()
    reports = {}
    for name in names or SCENARIOS:
        with asyncio.Runner(loop_factory=factory) as runner:
            reports[name] = runner.run(scrutinized(SCENARIOS[name]))
    json.dump(reports, sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
