"""Compares clients in interleaved rounds: they take turns, one at a time, against the same server."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.calls.cases import Case
from benchmarks.calls.children import ChildError, LoopbackServer, Worker, cores
from benchmarks.calls.samples import Samples

__all__ = ["Comparison", "Runner", "available_loops"]

LOOPS: Final = ("asyncio", "uvloop")


class Comparison(NamedTuple):
    """One case for several clients on one kind of event loop."""

    case: Case
    loop: str
    clients: tuple[str, ...]


def available_loops(wanted: str) -> tuple[list[str], str]:
    """Return which loops of ``asyncio``, ``uvloop`` or ``both`` are available, and what is missing."""
    loops = [loop for loop in LOOPS if wanted in (loop, "both")]
    if "uvloop" in loops and importlib.util.find_spec("uvloop") is None:
        loops.remove("uvloop")
        return loops, "uvloop is not installed"
    return loops, ""


class Runner:
    """Run comparisons against one server process.

    Parameters
    ----------
    server
        The server that is called.
    rounds
        How many turns each client has in a comparison.
    seconds
        About how long a turn takes.
    progress
        Called with a line that says what happens now.
    """

    def __init__(self, server: LoopbackServer, *, rounds: int, seconds: float, progress: Callable[[str], None]) -> None:
        self.samples = Samples()
        self._server = server
        self._rounds = rounds
        self._seconds = seconds
        self._progress = progress
        self._core = cores()[1]

    async def run(self, comparisons: Sequence[Comparison]) -> None:
        """Run comparisons one after another; those on the same loop share the processes of their clients."""
        for loop in dict.fromkeys(each.loop for each in comparisons):
            mine = [each for each in comparisons if each.loop == loop]
            async with contextlib.AsyncExitStack() as stack:
                workers: dict[str, Worker] = {}
                for comparison in mine:
                    for client in comparison.clients:
                        if client not in workers:
                            workers[client] = await stack.enter_async_context(Worker(client, loop, self._core))
                    await self._compare(comparison, workers, stack)

    async def _compare(
        self, comparison: Comparison, workers: dict[str, Worker], stack: contextlib.AsyncExitStack
    ) -> None:
        case, loop, clients = comparison
        taking_part = [client for client in clients if client not in self.samples.missing]
        for number in range(self._rounds):
            turn = number % len(taking_part) if taking_part else 0
            for client in taking_part[turn:] + taking_part[:turn]:
                self._progress(f"{case.title}, {loop}, round {number + 1} of {self._rounds}: {client}")
                if not await self._take_turn(case, loop, client, workers[client]):
                    taking_part.remove(client)
        for client in clients:
            if workers[client].pid:
                try:
                    await workers[client].ask({"do": "close"})
                except ChildError as error:
                    self.samples.fail(case, loop, client, str(error))
            if not workers[client].pid:
                workers[client] = await stack.enter_async_context(Worker(client, loop, self._core))

    async def _take_turn(self, case: Case, loop: str, client: str, worker: Worker) -> bool:
        command: dict[str, Any] = {
            "do": "calls",
            "url": self._server.url(case.path),
            "in_flight": case.in_flight,
            "seconds": self._seconds,
            "expected": case.expected(),
        }
        before = await self._server.usage()
        try:
            answer = await worker.ask(command)
        except ChildError as error:
            self.samples.fail(case, loop, client, str(error))
            await worker.aclose()
            return False
        if "missing" in answer:
            self.samples.missing[client] = answer["missing"]
            return False
        if "failed" in answer:
            self.samples.fail(case, loop, client, answer["failed"])
            return False
        after = await self._server.usage()
        requests = after["requests"] - before["requests"] - 1
        server_us = (after["cpu_us"] - before["cpu_us"]) / requests if requests > 0 else None
        self.samples.add(case, loop, client, answer, server_us)
        return True
