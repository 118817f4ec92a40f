"""Paced calls to servers that record what they execute, and a comparison of that ledger with the callers' results."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

from support.calls import text_of, tool_call
from support.processes import PROGRAMS, HttpServerProcess, StdioCommand

from mcp_manager import CallError, McpManager

__all__ = ["Ended", "Entry", "PacedCalls", "noting_http", "noting_stdio", "read_ledger"]

_WAIT_S = 30.0
# How long after its deadline a call may end before it counts as lost, since the machine may be busy.
_LOST_S = 10.0


class Entry(NamedTuple):
    """One executed call: its id, the process that executed it, and the release of that process."""

    call: str
    pid: int
    release: str


class Ended(NamedTuple):
    """One call as its caller saw it; times are of the monotonic clock, and ``error`` is ``None`` if it was answered."""

    call: str
    began_s: float
    ended_s: float
    error: CallError | None


def noting_stdio(ledger: Path, *, seconds: float = 0.0, release: str = "1") -> StdioCommand:
    """Return the server that records its calls, over stdio; see ``programs/noting.py``."""
    return StdioCommand(
        sys.executable, str(PROGRAMS / "noting.py"), str(ledger), "--seconds", str(seconds), "--release", release
    )


def noting_http(ledger: Path, *, seconds: float = 0.0, release: str = "1") -> HttpServerProcess:
    """Return the server that records its calls, over HTTP, not yet started."""
    return HttpServerProcess("noting.py", str(ledger), "--seconds", str(seconds), "--release", release)


def read_ledger(path: Path) -> list[Entry]:
    """Return what was executed, in order."""
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [Entry(call, int(pid), release) for call, pid, release in (line.split() for line in lines)]


class PacedCalls:
    """Call a tool of a server at a constant rate until the end of the ``async with``, each call with its own id.

    At the end the ledger is compared with what the callers saw: no call was executed twice, every answered call was
    executed once, and no call that failed as ``not_sent`` or ``rejected`` was executed. A call that does not end in
    time, or ends with anything but an answer or a :class:`CallError`, fails the test.

    Parameters
    ----------
    rate
        Calls per second.
    callers
        The most calls in flight at a time; when all are, the rate falls.
    timeout_s
        The timeout of each call, in seconds.
    tool
        ``note``, which has no hints, or ``look``, which is annotated as read-only and may be executed twice.
    first
        The id of the first call, if earlier calls are in the same ledger.
    """

    def __init__(
        self,
        manager: McpManager,
        ledger: Path,
        *,
        server_id: str = "a",
        rate: float = 200.0,
        callers: int = 8,
        timeout_s: float = 10.0,
        tool: str = "note",
        first: int = 0,
    ) -> None:
        self._manager = manager
        self._ledger = ledger
        self._server_id = server_id
        self._period_s = callers / rate
        self._callers = callers
        self._timeout_s = timeout_s
        self._tool = tool
        self._numbers = itertools.count(first)
        self._first = first
        self._progress = asyncio.Condition()
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: list[Ended] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call_on(caller)) for caller in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)
        self.check()

    @property
    def failures(self) -> list[Ended]:
        """The calls that were not answered."""
        return [each for each in self.ended if each.error is not None]

    async def more(self, calls: int) -> None:
        """Wait until ``calls`` more calls have ended."""
        wanted = len(self.ended) + calls
        await self._until(lambda: len(self.ended) >= wanted)

    async def fails(self) -> None:
        """Wait until another call fails."""
        start = len(self.ended)
        await self._until(lambda: any(each.error is not None for each in self.ended[start:]))

    async def answered(self, in_a_row: int) -> None:
        """Wait until ``in_a_row`` successive calls, all begun from now on, are answered."""
        now_s = time.monotonic()

        def is_steady() -> bool:
            latest = [each for each in self.ended if each.began_s >= now_s][-in_a_row:]
            return len(latest) == in_a_row and all(each.error is None for each in latest)

        await self._until(is_steady)

    def recovery_s(self, fault_s: float) -> float:
        """Return the seconds from a fault to the last failed call after it, 0 without one."""
        return max((each.ended_s - fault_s for each in self.failures if each.ended_s >= fault_s), default=0.0)

    def check(self) -> None:
        """Compare the ledger with what the callers saw."""
        entries = read_ledger(self._ledger)
        executed = collections.Counter(each.call for each in entries if int(each.call) >= self._first)
        calls = {each.call for each in self.ended}
        assert len(calls) == len(self.ended)
        strange = set(executed) - calls
        assert not strange, f"executed, and never called: {sorted(strange)}"
        if self._tool == "note":
            twice = [call for call, times in executed.items() if times > 1]
            assert not twice, f"executed more than once: {twice}"
        missing = [each.call for each in self.ended if each.error is None and not executed[each.call]]
        assert not missing, f"answered, and never executed: {missing}"
        denied = [each for each in self.failures if each.error and each.error.delivery in ("not_sent", "rejected")]
        done = [
            f"{each.call}: {each.error!r} [{each.error and each.error.delivery}]"
            for each in denied
            if executed[each.call]
        ]
        assert not done, f"executed, though it is said that they were not: {done}"

    async def _until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(_WAIT_S), self._progress:
            await self._progress.wait_for(lambda: condition() or any(task.done() for task in self._tasks))
        for task in self._tasks:
            if task.done():
                task.result()

    async def _call_on(self, caller: int) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + caller * self._period_s / self._callers
        while not self._is_over:
            await asyncio.sleep(due_s - loop.time())
            due_s = max(due_s + self._period_s, loop.time())
            self.ended.append(await self._call(str(next(self._numbers))))
            async with self._progress:
                self._progress.notify_all()

    async def _call(self, call: str) -> Ended:
        error: CallError | None = None
        began_s = time.monotonic()
        request = tool_call(self._tool, {"call": call}, request_id=call)
        try:
            async with asyncio.timeout(self._timeout_s + _LOST_S):
                reply = await self._manager.execute_raw(self._server_id, request, timeout=self._timeout_s)
        except CallError as failure:
            error = failure
        else:
            decoded = json.loads(reply)
            assert (decoded["id"], text_of(reply)) == (call, call)
        return Ended(call, began_s, time.monotonic(), error)
