"""Measures the wall time of a call, compared with other clients, against the compiled loopback server.

Run as ``pytest benchmarks/bench_call.py --benchmark-only``. All clients run in this process, so only wall time is
measured, not the processor time of each client. ``python -m benchmarks`` measures that, in interleaved rounds on
separate cores.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.calls.build import build_loopback
from benchmarks.calls.cases import Case
from benchmarks.calls.checkout import child_environment
from benchmarks.calls.client import BenchClient
from benchmarks.calls.measure import calls_for, run_calls
from benchmarks.calls.worker import CLIENTS, client_class

SIZES = {"100 B": 100, "10 kB": 10_000, "1 MB": 1_000_000}
IN_FLIGHT = (1, 16)
ROUNDS = 5
ROUND_S = 0.05

# Warnings of other packages do not matter here.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Run the server in a process of its own; return its origin."""
    build_loopback()
    command = [sys.executable, "-P", "-m", "benchmarks.calls.serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()) as process:
        assert process.stdin is not None and process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.stdin.close()


class Connected:
    """A client on a loop of its own; one task opens and closes it, as some clients require."""

    def __init__(self, client: BenchClient, runner: asyncio.Runner, case: Case, origin: str) -> None:
        self._client = client
        self._runner = runner
        self._case = case
        self._url = origin + case.path

    def __enter__(self) -> Connected:
        self._runner.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._close())

    def calls(self) -> int:
        """Return how many calls a round should have."""
        return self._runner.run(calls_for(self._client, self._case.in_flight, ROUND_S))

    def run(self, calls: int) -> None:
        """Make this many calls."""
        self._runner.run(run_calls(self._client, self._case.in_flight, calls))

    async def _open(self) -> None:
        self._ready, self._over = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._live())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def _live(self) -> None:
        await self._client.connect(self._url, self._case.expected())
        self._ready.set()
        await self._over.wait()
        await self._client.aclose()

    async def _close(self) -> None:
        self._over.set()
        await self._task


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("size", SIZES)
def test_call(size: str, loop: str, client: str, in_flight: int, origin: str, benchmark: Any) -> None:
    factory = asyncio.SelectorEventLoop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    case = Case("json", SIZES[size], in_flight)
    benchmark.group = size
    try:
        measured = client_class(client)()
        with asyncio.Runner(loop_factory=factory) as runner, Connected(measured, runner, case, origin) as connected:
            calls = connected.calls()
            benchmark.extra_info.update(size=size, loop=loop, client=client, in_flight=in_flight, calls=calls)
            benchmark.pedantic(connected.run, args=(calls,), rounds=ROUNDS)
    except ImportError as error:
        pytest.skip(str(error))
