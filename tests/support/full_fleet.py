"""A busy fleet: servers of every kind, with calls in every stage that a call can be in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Awaitable, Iterable
from typing import Any, Self

from support import kept
from support.authorization import ProtectedServer
from support.calls import CALM, eventually
from support.name_server import NameServer
from support.processes import scripted_stdio
from support.stateless_server import StatelessServer, Task, task_result
from support.streams import HttpSseServer, StandingStreams

from mcp_manager import McpManager
from mcp_manager.errors import McpManagerError
from mcp_manager.testing.faults import Hold, Status
from mcp_manager.testing.scripted import ScriptedServer

__all__ = ["FullFleet", "held_of"]

_NAME = "mcp.example.test"
_LONG_S = 600.0
_BUSY = {
    **CALM,
    "shutdown_grace_s": 0.1,
    "drain_timeout_s": 0.1,
    "connect_timeout_s": _LONG_S,
    "start_timeout_s": _LONG_S,
}
_PROBED = {"interval_s": 0.05, "timeout_s": _LONG_S, "settle_s": 0.0}
_SLEEPING = "import time; time.sleep(3600)"
_HEDGE = {"enabled": True, "min_samples": 1, "max_share": 1.0, "min_delay_s": 0.0, "quantile": 0.5}
_WORKING = {"status": "working"}


class FullFleet:
    """Servers of every kind; ``with`` starts and ends them.

    :meth:`occupy` deploys and calls all of them. ``ended`` says how each call ended, by server.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._calls: dict[str, list[asyncio.Task[None]]] = {}
        self.ended: dict[str, list[str]] = {}
        self.answers: dict[str, int] = {}

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self.answering = {
            "json": enter(ScriptedServer()),
            "sse": enter(ScriptedServer(sse=True)),
            "standing": enter(ScriptedServer()),
            "old": enter(HttpSseServer()),
            "found": enter(ScriptedServer()),
            "ordinary": enter(ScriptedServer()),
        }
        self._streams = StandingStreams()
        self.answering["standing"].script_always("GET", self._streams)
        self.modern = enter(StatelessServer())
        self.modern.results["tools/call"] = lambda params: task_result(params["name"], _WORKING, "task")
        self.modern.tasks["job"] = Task([_WORKING])
        silent = ("mute", "connecting", "hedged", "pausing", "probed", "listed")
        self.silent = {name: enter(ScriptedServer()) for name in silent}
        self.silent["mute"].script_always("tools/call", Hold())
        self.silent["listed"].script_always("tools/list", Hold())
        self.silent["connecting"].script_always("initialize", Hold())
        self.silent["pausing"].script_always("tools/list", Status(503, {"Retry-After": "300"}))
        self.silent["probed"].script_always("ping", Hold())
        self.silent["probed"].script_always("tools/call", Hold())
        self.protected = enter(ProtectedServer())
        self._names = enter(NameServer())
        self._names.records[_NAME, "A"] = ["127.0.0.1"]
        self._names.records[_NAME, "AAAA"] = []
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the configurations of all servers."""
        by_url = {name: server.url for name, server in (self.answering | self.silent).items()}
        configs: dict[str, dict[str, Any]] = {name: {"url": url, **_BUSY} for name, url in by_url.items()}
        configs["json"]["instances"] = 2
        configs["old"]["transport"] = "sse"
        configs["connecting"]["connect"] = "lazy"
        configs["mute"]["limits"] = {"max_concurrent": 2, "max_waiting": 8, "max_wait_s": _LONG_S}
        configs["hedged"] |= {"instances": 2, "hedge": _HEDGE, "retry": {"attempts": 1, "tools": {"echo": "safe"}}}
        configs["pausing"]["retry"] = {"attempts": 3, "retry_after_max_s": _LONG_S}
        configs["probed"] |= {"health": _PROBED, "breaker": {}}
        discovery = {"kind": "dns", "nameservers": [self._names.address], "refresh_s": 0.05, "min_refresh_s": 0.02}
        configs["found"] |= {"url": f"http://{_NAME}:{self.answering['found'].port}/mcp", "discovery": discovery}
        program = {"command": sys.executable, "args": ["-c", _SLEEPING], "connect": "lazy", **_BUSY}
        configs["starting"] = program
        configs["gone"] = program | {"args": ["-c", ""], "restart": {"initial_s": _LONG_S, "max_s": _LONG_S}}
        configs["program"] = {**scripted_stdio({}).config(), **_BUSY, "health": {"interval_s": 0.05}}
        configs["modern"] = {"url": self.modern.url, **_BUSY}
        configs["protected"] = {"url": self.protected.url, **_BUSY, "connect": "lazy", "auth": {"type": "oauth"}}
        return configs

    async def occupy(self, manager: McpManager) -> None:
        """Deploy and call all servers; return when each is in the intended stage."""
        configs = self.settings()
        await asyncio.gather(*(manager.deploy(name, config) for name, config in configs.items()))
        for name in (*self.answering, "program"):
            for _ in range(2):
                self._begin(name, self._go_on(manager, name))
        for _ in range(4):
            self._begin("mute", manager.call_tool("mute", "echo", {"text": "x"}, timeout=_LONG_S))
        self._begin("listed", manager.list_all_tools(["listed"], timeout=_LONG_S))
        self._begin("modern", manager.call_tool("modern", "job", timeout=_LONG_S))
        await self._hedge(manager)
        for name in ("connecting", "pausing", "starting", "gone", "protected"):
            self._begin(name, manager.list_tools(name, timeout=_LONG_S))
        for name in ("probed", "hedged"):
            self._begin(name, manager.call_tool(name, "echo", {"text": "x"}, timeout=_LONG_S))
        await self._is_busy(manager)

    async def _hedge(self, manager: McpManager) -> None:
        """Have one call answered, to measure when calls are hedged, and let later calls hang."""
        server = self.silent["hedged"]
        await eventually(lambda: _ready(manager, "hedged") == 2, "there is an instance for the hedges")
        await manager.call_tool("hedged", "echo", {"text": "x"}, timeout=_LONG_S)
        server.forget()
        server.script_always("tools/call", Hold())

    async def _is_busy(self, manager: McpManager) -> None:
        await self.silent["mute"].wait_for("tools/call", 2)
        await self.silent["listed"].wait_for("tools/list")
        await self.silent["connecting"].wait_for("initialize")
        await self.silent["hedged"].wait_for("tools/call", 2)
        await self.silent["pausing"].wait_for("tools/list")
        await self.silent["probed"].wait_for("ping")
        await self.modern.wait_for_streams(1)
        await self._streams.wait(self.answering["standing"])
        await eventually(lambda: self.modern.tasks["job"].polls > 1, "the task is polled")
        await eventually(lambda: bool(self.ended.get("gone")), "the program is gone")
        await self.goes_on((*self.answering, "program"))

    @property
    def names(self) -> list[str]:
        """The servers that have calls."""
        return list(self._calls)

    @property
    def callers(self) -> set[asyncio.Task[None]]:
        """The tasks of the calls."""
        return {each for calls in self._calls.values() for each in calls}

    async def goes_on(self, names: Iterable[str]) -> None:
        """Wait until each of these servers has answered five more calls."""
        for name in names:
            before = self.answers.get(name, 0)
            await eventually(lambda: self.answers.get(name, 0) >= before + 5, f"calls of {name} go on")  # noqa: B023

    async def over(self, name: str) -> list[str]:
        """Wait for the end of a server's calls; return how they ended."""
        calls = self._calls.pop(name, [])
        if calls:
            await asyncio.wait(calls)
        assert all(each.exception() is None for each in calls)
        return self.ended.pop(name, [])

    def _begin(self, name: str, work: Awaitable[object]) -> None:
        self._calls.setdefault(name, []).append(asyncio.create_task(self._told(name, work)))

    async def _told(self, name: str, work: Awaitable[object]) -> None:
        """Keep only the name of an outcome, so that no error stays in memory."""
        how = "answered"
        try:
            await work
        except McpManagerError as error:
            how = type(error).__name__
        self.ended.setdefault(name, []).append(how)

    async def _go_on(self, manager: McpManager, name: str) -> None:
        """Call until a call fails."""
        while True:
            await manager.call_tool(name, "echo", {"text": "x"}, timeout=_LONG_S)
            self.answers[name] = self.answers.get(name, 0) + 1


def _ready(manager: McpManager, server_id: str) -> int:
    return next(each.ready for each in manager.snapshot().servers if each.id == server_id)


def held_of(server_ids: Iterable[str]) -> list[str]:
    """Describe what of removed servers can still be reached, and what holds it."""
    gc.collect()
    kinds, gone = kept.watched_types(), set(server_ids)
    found = [each for each in gc.get_objects() if type(each) in kinds and _server_of(each) in gone]
    return [kept.holders(each) for each in found]


def _server_of(each: Any) -> str:
    settings = getattr(each, "settings", None)
    return getattr(settings, "server_id", None) or getattr(each, "server_id", None) or ""
