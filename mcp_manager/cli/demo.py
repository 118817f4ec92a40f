"""The demonstration: a fleet under traffic loses a server, keeps working, and gets it back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

from mcp_manager.cli.table import paint, render
from mcp_manager.errors import CallError
from mcp_manager.manager import McpManager
from mcp_manager.transports.child import Child, child_environment

__all__ = ["Demo", "run"]

_HTTP_SERVERS: Final = ("alpha", "beta", "gamma")
_STDIO_SERVER: Final = "delta"
_VICTIM: Final = "beta"
_CALLERS_EACH: Final = 4
_PAUSE_S: Final = 0.005
_PAUSE_AFTER_FAILURE_S: Final = 0.02
# Small figures, so that what takes minutes in service can be watched.
_SETTINGS: Final[dict[str, Any]] = {
    "breaker": {"open_s": 1.0, "jitter": 0.1},
    "restart": {"initial_s": 0.5},
    "health": {"unhealthy_interval_s": 0.5, "unhealthy_interval_max_s": 2.0},
    "request_timeout_s": 2.0,
}


async def run(options: Namespace) -> int:
    """Run the demonstration; 0 if everything it shows really happened."""
    return await Demo().run()


class _DemoServer:
    """One embedded HTTP server in a process of its own, always on the same port."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._ready: asyncio.Future[int] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        argv = [sys.executable, "-P", "-m", "mcp_manager.cli.demo_servers.http_server", "--port", str(self.port)]
        self._child = Child(argv, child_environment({}), None, on_stdout=self._listen, on_end=self._ended)
        await self._child.start()
        async with asyncio.timeout(10):
            self.port = await ready

    def kill(self) -> None:
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        if self._child is not None:
            await self._child.aclose(1.0)

    def _listen(self, output: bytes) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(int(output.split()[-1]))

    def _ended(self, exit_code: int) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ConnectionError(f"a demo server exited with status {exit_code}"))


class _Tally:
    """What the callers of one server saw since the last table."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.latencies_ms: list[float] = []

    def percentile_ms(self, share: float) -> float | None:
        if not self.latencies_ms:
            return None
        ranked = sorted(self.latencies_ms)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Demo:
    """Run the demonstration once.

    Parameters
    ----------
    restart
        Whether the killed server is started again; without, the demonstration fails, as its test wants to see.
    """

    def __init__(self, *, restart: bool = True) -> None:
        self._restart = restart
        self._began = time.monotonic()
        self._servers = {name: _DemoServer() for name in _HTTP_SERVERS}
        self._ids = (*_HTTP_SERVERS, _STDIO_SERVER)
        self._tallies = {name: _Tally() for name in self._ids}
        self._failures: Counter[str] = Counter()
        self._verdicts: list[tuple[str, bool]] = []
        self._seen: dict[str, tuple[str, str]] = {}

    async def run(self) -> int:
        """Show everything; returns the exit status."""
        print(f"mcp-manager demo: {len(_HTTP_SERVERS)} servers over HTTP, 1 over stdio, {_CALLERS_EACH} callers each\n")
        async with AsyncExitStack() as stack:
            for server in self._servers.values():
                stack.push_async_callback(server.aclose)
            await asyncio.gather(*(server.start() for server in self._servers.values()))
            manager = await stack.enter_async_context(McpManager())
            await self._deploy(manager)
            background = [self._start(self._watch(manager))]
            background += [self._start(self._call(manager, name)) for name in self._ids for _ in range(_CALLERS_EACH)]
            try:
                await self._show(manager)
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
        self._say("all servers stopped")
        return self._verdict()

    async def _deploy(self, manager: McpManager) -> None:
        stdio = {
            "command": sys.executable,
            "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"],
            **_SETTINGS,
        }
        await asyncio.gather(
            *(manager.deploy(name, {"url": server.url, **_SETTINGS}) for name, server in self._servers.items()),
            manager.deploy(_STDIO_SERVER, stdio),
        )
        health = manager.health()
        self._say(f"deployed: {health.healthy_servers} of {health.total_servers} healthy")
        self._verdicts.append(("every server was deployed and healthy", health.healthy_servers == len(self._ids)))

    async def _show(self, manager: McpManager) -> None:
        await asyncio.sleep(1.5)
        self._table(manager, "Normal traffic")

        self._say(f"SIGKILL to {_VICTIM}, in the middle of its calls")
        self._servers[_VICTIM].kill()
        opened = await self._until(lambda: manager.server(_VICTIM).circuit == "Open")
        self._verdicts.append((f"the circuit of {_VICTIM} opened", opened))
        await asyncio.sleep(0.8)
        self._table(manager, f"{_VICTIM} is dead")
        others = sum(self._failures[name] for name in self._ids if name != _VICTIM)
        self._verdicts.append(("no call to the other servers failed", others == 0))

        await self._servers[_VICTIM].aclose()
        if self._restart:
            await self._servers[_VICTIM].start()
            self._say(f"{_VICTIM} is started again; it knows none of its old sessions")
        recovered = await self._until(lambda: manager.server(_VICTIM).state.value == "Healthy")
        self._verdicts.append((f"{_VICTIM} is healthy again, over a new session", recovered))

        await self._kill_child(manager)
        await asyncio.sleep(0.5)
        self._table(manager, "After the recovery")

    async def _kill_child(self, manager: McpManager) -> None:
        before = manager.server(_STDIO_SERVER).pids
        self._say(f"SIGKILL to the child process of {_STDIO_SERVER} (pid {before[0]})")
        os.kill(before[0], signal.SIGKILL)
        noticed = await self._until(lambda: manager.server(_STDIO_SERVER).state.value == "Unhealthy")
        restarted = noticed and await self._until(lambda: manager.server(_STDIO_SERVER).state.value == "Healthy")
        after = manager.server(_STDIO_SERVER).pids
        if restarted:
            self._say(f"{_STDIO_SERVER} runs as pid {after[0]}")
        self._verdicts.append((f"the child process of {_STDIO_SERVER} was replaced", restarted and after != before))

    async def _call(self, manager: McpManager, server_id: str) -> None:
        number = 0
        while True:
            number += 1
            started = time.perf_counter()
            try:
                result = await manager.call_tool(server_id, "echo", {"text": f"{server_id} {number}"})
                if result.text != f"{server_id} {number}":
                    self._verdicts.append((f"every reply belongs to its call ({server_id})", False))
            except CallError as error:
                self._tallies[server_id].failed[error.delivery] += 1
                self._failures[server_id] += 1
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
                continue
            self._tallies[server_id].succeeded += 1
            self._tallies[server_id].latencies_ms.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self, manager: McpManager) -> None:
        """Print every change of state or circuit when it is seen."""
        while True:
            for view in manager.servers():
                now = (view.state.value, view.circuit)
                before = self._seen.get(view.id, now)
                for old, new, what in zip(before, now, ("state", "circuit"), strict=True):
                    if old != new:
                        self._say(f"{view.id:<6} {what:<8} {paint(old)} → {paint(new)}")
                self._seen[view.id] = now
            await asyncio.sleep(0.01)

    async def _until(self, condition: Callable[[], bool], within_s: float = 4.0) -> bool:
        """Wait for what is to be shown; the demonstration ends in time even if it never comes."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    def _table(self, manager: McpManager, title: str) -> None:
        rows: list[list[object]] = []
        for view in manager.servers():
            tally = self._tallies[view.id]
            self._tallies[view.id] = _Tally()
            delivery = ", ".join(f"{count} {name}" for name, count in sorted(tally.failed.items()))
            rows.append(
                [
                    view.id,
                    view.transport,
                    view.state.value,
                    view.circuit,
                    tally.succeeded,
                    tally.failed.total(),
                    tally.percentile_ms(0.5),
                    tally.percentile_ms(0.99),
                    delivery,
                ]
            )
        headers = ("server", "transport", "state", "circuit", "ok", "failed", "p50 ms", "p99 ms", "failed: delivery")
        print(f"\n{title}\n{render(headers, rows)}\n")

    def _verdict(self) -> int:
        print()
        for text, happened in self._verdicts:
            print(f"  {paint('yes' if happened else 'no', 'yes' if happened else 'NO '):<4} {text}")
        failed = sum(not happened for _, happened in self._verdicts)
        if failed:
            print(f"\nmcp-manager: {failed} of {len(self._verdicts)} things did not happen as shown", file=sys.stderr)
        return 1 if failed else 0

    def _say(self, text: str) -> None:
        print(f"  {time.monotonic() - self._began:5.2f} s  {text}", flush=True)

    @staticmethod
    def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)
