"""Measures a call from another thread: ``CallQueue``, ``run_coroutine_threadsafe`` and a plain ``await``.

Run as ``pytest benchmarks/bench_hop.py --benchmark-only``. It measures CPU time, user and system, of all threads. Every
call runs a coroutine that suspends once; every measured call repeats that :data:`REPEAT` times.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from mcp_manager.bindings.call_queue import CallQueue

REPEAT = 1000
THREADS = 8

Hop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop on a thread of its own."""
    make = asyncio.SelectorEventLoop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    loop = make()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def work() -> None:
    await asyncio.sleep(0)


def threadsafe(loop: asyncio.AbstractEventLoop) -> Hop:
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()


def call_queue(loop: asyncio.AbstractEventLoop) -> Hop:
    return CallQueue(loop).run


def from_one_thread(hop: Hop) -> None:
    for _ in range(REPEAT):
        hop(work())


def from_many_threads(hop: Hop) -> None:
    def calls() -> None:
        for _ in range(REPEAT // THREADS):
            hop(work())

    threads = [threading.Thread(target=calls) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def on_the_loop(hop: Hop) -> None:
    async def calls() -> None:
        for _ in range(REPEAT):
            await work()

    hop(calls())


def from_another_loop(call: Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]], in_flight: int) -> None:
    async def calls() -> None:
        for _ in range(REPEAT // in_flight):
            await call(work())

    async def main() -> None:
        await asyncio.gather(*(calls() for _ in range(in_flight)))

    asyncio.run(main())


def wrapped(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]]:
    async def call(coroutine: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    return call


CASES: dict[str, Callable[[asyncio.AbstractEventLoop], Callable[[], None]]] = {
    "await on the loop": lambda loop: partial(on_the_loop, threadsafe(loop)),
    "1 thread, CallQueue.run()": lambda loop: partial(from_one_thread, call_queue(loop)),
    "1 thread, run_coroutine_threadsafe()": lambda loop: partial(from_one_thread, threadsafe(loop)),
    f"{THREADS} threads, CallQueue.run()": lambda loop: partial(from_many_threads, call_queue(loop)),
    f"{THREADS} threads, run_coroutine_threadsafe()": lambda loop: partial(from_many_threads, threadsafe(loop)),
    "a loop, 1 in flight, CallQueue.run_async()": lambda loop: partial(from_another_loop, CallQueue(loop).run_async, 1),
    "a loop, 1 in flight, wrap_future()": lambda loop: partial(from_another_loop, wrapped(loop), 1),
    "a loop, 16 in flight, CallQueue.run_async()": lambda loop: partial(
        from_another_loop, CallQueue(loop).run_async, 16
    ),
    "a loop, 16 in flight, wrap_future()": lambda loop: partial(from_another_loop, wrapped(loop), 16),
}


@pytest.mark.benchmark(timer=time.process_time, max_time=0.5, min_rounds=9, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("name", CASES)
def test_hop(name: str, loop: asyncio.AbstractEventLoop, benchmark: Any, request: pytest.FixtureRequest) -> None:
    group = f"hop, {request.node.callspec.params['loop']}"
    benchmark.extra_info.update(group=group, name=name, whose="ours", part="", repeat=REPEAT, total=False)
    benchmark(CASES[name](loop))
