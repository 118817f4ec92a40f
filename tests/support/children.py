"""Child processes without a transport: their output, their exit, and whether they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import textwrap
from collections.abc import AsyncIterator, Callable

import psutil

from mcp_manager.transports.stdio.child import Child, child_environment

__all__ = ["GRANDCHILD", "WAIT_S", "Running", "is_gone", "running"]

WAIT_S = 15.0
# Starts a grandchild that shares the pipes and, unless {session} is true, the process group, and prints its process id.
# Both ignore SIGTERM, so only SIGKILL ends them.
GRANDCHILD = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session={session})
    os.write(1, b"%d\\n" % grandchild.pid)
    {then}
"""


class Running:
    """A child process with its output so far and its exit codes."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.output = bytearray()
        self.codes: list[int] = []
        self._changed = asyncio.Event()
        argv = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        self.child = Child(argv, child_environment({}), None, on_stdout=self._take, on_end=self._end)

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.child.pid)

    async def line(self) -> str:
        """Wait for the first line of the output."""
        await self.until(lambda: b"\n" in self.output)
        return self.output.split(b"\n")[0].decode()

    async def end(self) -> int:
        """Wait for the end and return the exit code, which must be reported exactly once."""
        await self.until(lambda: bool(self.codes))
        [code] = self.codes
        return code

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _take(self, data: bytes) -> None:
        self.output += data
        self._changed.set()

    def _end(self, code: int) -> None:
        self.codes.append(code)
        self._changed.set()


@contextlib.asynccontextmanager
async def running(code: str, *arguments: str) -> AsyncIterator[Running]:
    subject = Running(code, *arguments)
    await subject.child.start()
    try:
        yield subject
    finally:
        await subject.child.aclose(0.0)
        assert len(subject.codes) == 1


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie, which waits only to be reaped, has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
