"""One worker process, as its parent sees it: started, told what to do, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mcp_manager.gateway.workers.assignment import VARIABLE, Assignment
from mcp_manager.runtime.background import background_task

__all__ = ["WorkerProcess"]

_REAP_EVERY_S: Final = 0.005
_LONGEST_LINE: Final = 64 * 1024


class WorkerProcess:
    """A worker process and the socket to it.

    The socket is the lifeline of both: a worker whose parent is gone ends, and a parent knows at once when a worker is.

    Parameters
    ----------
    command
        The command line of a worker; it has no secrets.
    assignment
        What the worker is told first.
    """

    def __init__(self, command: Sequence[str], assignment: Assignment) -> None:
        self.number: int = assignment.number
        ours, theirs = socket.socketpair()
        self._socket = ours
        try:
            with theirs:
                ours.sendall(msgspec.json.encode(assignment) + b"\n")
                passed = (theirs.fileno(), assignment.listener, assignment.sibling_listener)
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, VARIABLE: str(theirs.fileno())},
                    pass_fds=passed,
                    # Ctrl-C in a terminal reaches the parent alone, which then ends its workers in order.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done once the worker serves, or has ended."""
        self.ended: asyncio.Future[int] = loop.create_future()
        """The exit status of the worker, negative for a signal."""
        self._answered: asyncio.Future[dict[str, Any]] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._following = background_task(self._follow(), f"follow worker {self.number}")

    @property
    def pid(self) -> int:
        """The process id; it is that of the worker until :attr:`ended` is done."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.ended.done()

    def tell(self, order: str) -> None:
        """Send an order that has no answer."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(msgspec.json.encode({"do": order}) + b"\n")

    async def ask(self, order: str) -> Mapping[str, Any]:
        """Send an order, and return the worker's answer; an empty one if it ends before it answers."""
        if self.has_ended or self._writer is None:
            return {}
        self._answered = asyncio.get_running_loop().create_future()
        self.tell(order)
        return await self._answered

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    async def end(self, grace_s: float) -> bool:
        """End the process: SIGTERM, then SIGKILL after the grace; return whether SIGTERM was enough."""
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self.ended}, timeout=grace_s)
        if not done:
            await self.kill()
        return bool(done)

    async def kill(self) -> None:
        """End the process with SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        await asyncio.wait({self._following})

    async def _follow(self) -> None:
        """Read what the worker says until its socket is closed, which its end does, and reap it."""
        reader = None
        try:
            reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=_LONGEST_LINE)
            with contextlib.suppress(OSError, ValueError):
                while line := await reader.readline():
                    self._take(line)
        finally:
            await self._reap(is_cancelled=reader is None)

    def _take(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return
        if said.get("is") == "ready":
            if not self.ready.done():
                self.ready.set_result(None)
        elif self._answered is not None and not self._answered.done():
            self._answered.set_result(said)

    async def _reap(self, *, is_cancelled: bool) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        else:
            self._socket.close()
        # Its descriptors are closed just before it can be waited for. One that closed the socket alone is of no use.
        deadline = asyncio.get_running_loop().time() + 1.0
        while self._process.poll() is None:
            if is_cancelled or asyncio.get_running_loop().time() > deadline:
                self._process.kill()
                self._process.wait()
                break
            await asyncio.sleep(_REAP_EVERY_S)
        self.ended.set_result(self._process.returncode)
        if not self.ready.done():
            self.ready.set_result(None)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result({})
