"""Measures calls of one client in this process: processor time, wall time, latencies, memory."""

from __future__ import annotations

import asyncio
import itertools
import resource
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.calls.cases import Expected
from benchmarks.calls.client import AwaitedClient, BenchClient, BlockingClient

__all__ = ["Measurement", "measure_calls", "measure_memory", "memory_kb", "processor_s", "reset_peak", "run_calls"]

_WARM_UP_S: Final = 0.15
_MIN_CALLS: Final = 5
_MAX_CALLS: Final = 50_000


@dataclass(frozen=True)
class Measurement:
    """The cost of a round of calls to this process.

    ``user_s`` and ``system_s`` are processor seconds, ``p50_us`` and ``p99_us`` latencies. ``rss_kb`` is the resident
    memory afterwards, ``peak_kb`` its peak during the round.
    """

    calls: int
    wall_s: float
    user_s: float
    system_s: float
    cpu_us_per_call: float
    calls_per_s: float
    p50_us: float
    p99_us: float
    rss_kb: int
    peak_kb: int


def processor_s() -> tuple[float, float]:
    """Return the user and system seconds of this process so far, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def memory_kb() -> tuple[int, int]:
    """Return the resident memory and its peak since :func:`reset_peak`, in kB (proc(5), ``/proc/self/status``)."""
    found = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0])
    return found["VmRSS"], found["VmHWM"]


def reset_peak() -> None:
    """Reset the peak of resident memory to what is resident now (proc(5), ``clear_refs``)."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")


async def run_calls(client: BenchClient, in_flight: int, calls: int) -> list[int]:
    """Make ``calls`` calls, ``in_flight`` at a time, and return how long each took in nanoseconds."""
    if isinstance(client, BlockingClient):
        return await asyncio.to_thread(_run_blocking, client, in_flight, calls)
    assert isinstance(client, AwaitedClient)
    took: list[int] = []
    numbers = iter(range(calls))
    clock, call, note = time.perf_counter_ns, client.call, took.append

    async def work() -> None:
        for _ in numbers:
            began = clock()
            await call()
            note(clock() - began)

    if in_flight == 1:
        await work()
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
    return took


async def measure_calls(client: BenchClient, in_flight: int, calls: int) -> Measurement:
    """Measure a round of calls after a short warm-up."""
    await run_calls(client, in_flight, max(in_flight, calls // 20, client.warm_up))
    reset_peak()
    began, (user, system) = time.perf_counter(), processor_s()
    took = await run_calls(client, in_flight, calls)
    (user_end, system_end), wall_s = processor_s(), time.perf_counter() - began
    rss_kb, peak_kb = memory_kb()
    took.sort()
    user_s, system_s = user_end - user, system_end - system
    return Measurement(
        calls=calls,
        wall_s=wall_s,
        user_s=user_s,
        system_s=system_s,
        cpu_us_per_call=(user_s + system_s) / calls * 1e6,
        calls_per_s=calls / wall_s,
        p50_us=took[len(took) // 2] / 1e3,
        p99_us=took[min(len(took) - 1, len(took) * 99 // 100)] / 1e3,
        rss_kb=rss_kb,
        peak_kb=peak_kb,
    )


async def calls_for(client: BenchClient, in_flight: int, seconds: float) -> int:
    """Warm up, and return how many calls take about this many seconds."""
    step = in_flight
    calls, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _WARM_UP_S or calls < _MIN_CALLS:
        await run_calls(client, in_flight, step)
        calls += step
        step = min(step * 2, 1024)
    return max(_MIN_CALLS, in_flight, min(_MAX_CALLS, round(seconds * calls / passed)))


async def measure_memory(client: BenchClient, calls: int) -> dict[str, Any]:
    """Measure by how many kB sequential calls raise the peak of resident memory."""
    reset_peak()
    before, _ = memory_kb()
    await run_calls(client, 1, calls)
    after, peak = memory_kb()
    return {"before_kb": before, "after_kb": after, "growth_kb": peak - before}


def _run_blocking(client: BlockingClient, in_flight: int, calls: int) -> list[int]:
    took: list[int] = []
    failures: list[BaseException] = []
    numbers = itertools.count()
    clock, call, note = time.perf_counter_ns, client.call, took.append

    def work() -> None:
        try:
            # next() is a single step for the interpreter, so threads need no lock for it.
            while next(numbers) < calls:
                began = clock()
                call()
                note(clock() - began)
        except BaseException as error:
            failures.append(error)

    if in_flight == 1:
        work()
    else:
        threads = [threading.Thread(target=work) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return took


async def answer_calls(client: BenchClient, command: dict[str, Any], known: dict[str, int]) -> dict[str, Any]:
    """Do the ``calls`` command: with its number of calls, or, the first time, as many as fit into its seconds."""
    key = f"{command['url']} {command['in_flight']}"
    calls = command.get("calls") or known.get(key)
    if calls is None:
        calls = known[key] = await calls_for(client, command["in_flight"], command["seconds"])
    return asdict(await measure_calls(client, command["in_flight"], calls))


def expected_of(command: dict[str, Any]) -> Expected:
    """Return how to recognize the correct replies to a command's calls."""
    return Expected(*command["expected"])
