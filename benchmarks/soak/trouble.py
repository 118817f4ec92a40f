"""Disturbs the fleet during the soak test: kills, hangs, redeployments, scaling, forks."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.errors import McpManagerError, NotRunningError

_SERVER: Final = Path(__file__).with_name("server.py")


class HttpProcess:
    """A process of HTTP servers that keeps its port across restarts."""

    def __init__(self, ledger: Path, port: int, seed: int) -> None:
        self._command = [
            sys.executable,
            str(_SERVER),
            "--ledger",
            str(ledger),
            "--port",
            str(port),
            "--seed",
            str(seed),
        ]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)

    async def wait_up(self) -> None:
        for _ in range(600):
            try:
                await asyncio.to_thread(urllib.request.urlopen, self.url)
            except urllib.error.HTTPError:
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise RuntimeError(f"no server at {self.url}")

    def kill(self) -> None:
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()

    def restart(self) -> None:
        self.kill()
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)


class Trouble:
    """Disturb the fleet now and then, until cancelled; ``counts`` has how often each kind happened."""

    def __init__(
        self,
        manager: McpManager,
        bound: PyMcpManager,
        specs: Mapping[str, dict[str, Any]],
        processes: list[HttpProcess],
        chance: random.Random,
    ) -> None:
        self._manager = manager
        self._bound = bound
        self._specs = specs
        self._processes = processes
        self._chance = chance
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    async def go_on(self) -> None:
        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (5.0, self.kill_child),
            (45.0, self.stop_child),
            (30.0, self.kill_http),
            (2.0, self.redeploy),
            (4.0, self.undeploy_and_deploy),
            (6.0, self.scale),
            (10.0, self.fork),
        ]
        async with asyncio.TaskGroup() as group:
            for interval, act in acts:
                group.create_task(self._repeat(interval, act))

    async def _repeat(self, interval: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval * self._chance.uniform(0.5, 1.5))
            try:
                await act()
            except McpManagerError as error:
                self.counts[f"{act.__name__}: {type(error).__name__}"] += 1
            else:
                self.counts[act.__name__] += 1

    def _child(self) -> int | None:
        pids = [pid for view in self._manager.servers() for pid in view.pids]
        return self._chance.choice(pids) if pids else None

    async def kill_child(self) -> None:
        if (pid := self._child()) is not None:
            os.kill(pid, signal.SIGKILL)

    async def stop_child(self) -> None:
        """Stop a child, so that it hangs; health checks must replace it."""
        if (pid := self._child()) is not None:
            os.kill(pid, signal.SIGSTOP)

    async def kill_http(self) -> None:
        process = self._chance.choice(self._processes)
        process.restart()
        await process.wait_up()

    async def redeploy(self) -> None:
        name = self._chance.choice(list(self._specs))
        await self._manager.redeploy(name, self._specs[name], strategy=self._chance.choice(("blue_green", "rolling")))

    async def undeploy_and_deploy(self) -> None:
        name = self._chance.choice(list(self._specs))
        await self._manager.undeploy(name)
        await self._manager.deploy(name, self._specs[name])

    async def scale(self) -> None:
        name = self._chance.choice([each for each in self._specs if not each.startswith("flood")])
        await self._manager.scale(name, self._chance.randint(1, 3))

    async def fork(self) -> None:
        """Fork; in the child, the manager must refuse a call at once."""
        pid = os.fork()
        if pid == 0:
            try:
                self._bound.execute("steady-bound", '{"method": "ping"}', timeout=5)
            except NotRunningError:
                os._exit(0)
            except BaseException:
                os._exit(1)
            os._exit(2)
        status = await asyncio.to_thread(_wait_for, pid)
        if status is None:
            self.faults.append("a forked child hung")
        elif status != 0:
            self.faults.append(f"a forked child ended with status {status}")


def _wait_for(pid: int) -> int | None:
    """Return the exit status of a forked child; ``None`` if it had to be killed after 10 s."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
