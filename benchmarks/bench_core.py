"""Measures the compiled core, compared with the Python libraries that do the same jobs.

Run as ``pytest benchmarks/bench_core.py --benchmark-only``; the table is printed at the end. Every case repeats its
operation :data:`REPEAT` times in one measured call, or as often as its size allows, so that the overhead of measuring
is negligible.
"""

from __future__ import annotations

import importlib
import json
import random
import time
import warnings
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from mcp_manager._core.allowance import RateLimiter, RetryBudget
from mcp_manager._core.breaker import Breaker, BreakerSettings, Permit
from mcp_manager._core.histogram import Histogram
from mcp_manager._core.limiter import ConcurrencyLimiter, LimiterSettings
from mcp_manager._core.records import Limits
from mcp_manager._core.router import Router

REPEAT = 1000
NOW_NS = 10**15
TOOK_NS = 5_000_000
OURS, PEER = "ours", "peer"


class Case(NamedTuple):
    """A line of the table.

    ``part`` names the job of ``pick()`` + ``done()`` that a peer does; the cheapest peer of each job counts in the sum.
    """

    group: str
    name: str
    whose: str
    make: Callable[[], Callable[[], None]]
    part: str = ""
    repeat: int = REPEAT


def imported(name: str) -> ModuleType:
    """Import a peer, or skip the case with the reason."""
    try:
        with warnings.catch_warnings():
            # Deprecated imports of a peer do not matter here.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported: {error}")


def pick_and_done(instances: int) -> Callable[[], None]:
    router = Router()
    router.add_server("server")
    for index in range(instances):
        router.add_backend("server", index, BreakerSettings())
    draws = [random.Random(1).getrandbits(64) for _ in range(REPEAT)]
    end_ns = NOW_NS + TOOK_NS

    def run() -> None:
        pick, done = router.pick, router.done
        for draw in draws:
            done(pick("server", "tools/call", NOW_NS, draw), 0, 0, end_ns)

    return run


def pick_and_done_with_clocks() -> Callable[[], None]:
    router = Router()
    router.add_server("server")
    for index in range(3):
        router.add_backend("server", index, BreakerSettings())

    def run() -> None:
        pick, done, clock, bits = router.pick, router.done, time.monotonic_ns, random.getrandbits
        for _ in range(REPEAT):
            done(pick("server", "tools/call", clock(), bits(64)), 0, 0, clock())

    return run


def pick_and_done_within_limits() -> Callable[[], None]:
    limits = Limits(
        LimiterSettings(),
        RateLimiter(rate=1e9, burst=10**9),
        max_concurrent=1000,
        shed_multiple=2.0,
    )
    router = Router(together=Limits(max_concurrent=1000))
    router.add_server("server", limits=limits)
    for index in range(3):
        router.add_backend("server", index, BreakerSettings())

    def run() -> None:
        pick, done = router.pick, router.done
        for _ in range(REPEAT):
            done(pick("server", "tools/call", NOW_NS, 2**63), 0, 0, NOW_NS + TOOK_NS)

    return run


def adaptive_limit() -> Callable[[], None]:
    limiter = ConcurrencyLimiter(LimiterSettings())
    limiter.ended(10, 1, TOOK_NS, NOW_NS)

    def run() -> None:
        ended = limiter.ended
        for _ in range(REPEAT):
            ended(5, 0, TOOK_NS, NOW_NS)

    return run


def rate_limit() -> Callable[[], None]:
    limiter = RateLimiter(rate=1e9, burst=10**9)

    def run() -> None:
        take = limiter.take
        for _ in range(REPEAT):
            take(NOW_NS)

    return run


def retry_budget() -> Callable[[], None]:
    budget = RetryBudget(ratio=1.0)

    def run() -> None:
        deposit, withdraw = budget.deposit, budget.withdraw
        for _ in range(REPEAT):
            deposit(NOW_NS)
            withdraw(NOW_NS)

    return run


def breaker() -> Callable[[], None]:
    circuit = Breaker(BreakerSettings())

    def run() -> None:
        acquire, release = circuit.acquire, circuit.release
        for _ in range(REPEAT):
            permit = acquire(NOW_NS)
            if isinstance(permit, Permit):
                release(permit, 0, TOOK_NS, NOW_NS)

    return run


def pybreaker() -> Callable[[], None]:
    circuit = imported("pybreaker").CircuitBreaker()

    def run() -> None:
        call = circuit.call
        for _ in range(REPEAT):
            call(nothing)

    return run


def purgatory() -> Callable[[], None]:
    circuit = imported("purgatory").SyncCircuitBreakerFactory().get_breaker("server")

    def run() -> None:
        for _ in range(REPEAT):
            with circuit:
                pass

    return run


def histogram() -> Callable[[], None]:
    ours = Histogram()

    def run() -> None:
        record = ours.record
        for _ in range(REPEAT):
            record(TOOK_NS)

    return run


def hdrhistogram() -> Callable[[], None]:
    theirs = imported("hdrh.histogram").HdrHistogram(1, 3_600_000_000, 3)

    def run() -> None:
        record = theirs.record_value
        for _ in range(REPEAT):
            record(5000)

    return run


def prometheus(labels_each_time: bool) -> Callable[[], None]:
    client = imported("prometheus_client")
    family = client.Histogram("latency", "", ["server_id", "method"], registry=client.CollectorRegistry())
    child = family.labels("server", "tools/call")

    def run() -> None:
        for _ in range(REPEAT):
            child.observe(0.005)

    def run_with_labels() -> None:
        for _ in range(REPEAT):
            family.labels("server", "tools/call").observe(0.005)

    return run_with_labels if labels_each_time else run


def nothing() -> None:
    pass


def reply(rows: int) -> bytes:
    """Return a ``tools/call`` reply with structured content, as servers send it."""
    content = [
        {"id": number, "name": f"row {number}", "value": number / 7, "tags": ["a", "b"]} for number in range(rows)
    ]
    message = {"jsonrpc": "2.0", "id": 7, "result": {"structuredContent": content, "isError": False}}
    return json.dumps(message, separators=(",", ":")).encode()


def text_reply(size: int) -> bytes:
    """Return a ``tools/call`` reply with one long text."""
    message = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "x" * size}]}}
    return json.dumps(message, separators=(",", ":")).encode()


REPLIES = {
    "0.2 kB": reply(3),
    "10 kB": reply(145),
    "1 MB rows": reply(13_850),
    "1 MB text": text_reply(1_000_000),
    "1 MB Cyrillic": json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 7,
            "result": {"content": [{"type": "text", "text": "Съешь ещё этих булок. " * 25_000}]},
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode(),
}


def repeats(frame: bytes) -> int:
    return max(1, min(REPEAT, 2_000_000 // len(frame)))


def decoding(decode: Callable[[bytes], Any], frame: bytes) -> Callable[[], None]:
    def run() -> None:
        for _ in range(repeats(frame)):
            decode(frame)

    return run


def scan(frame: bytes) -> Callable[[], None]:
    return decoding(imported("mcp_manager._core.jsonrpc").scan, frame)


def scan_reply(path: str, frame: bytes) -> Callable[[], None]:
    jsonrpc = imported("mcp_manager._core.jsonrpc")
    if path not in jsonrpc.vector_paths():
        pytest.skip(f"this processor does not support {path}")
    jsonrpc.use_vector_path(path)
    return decoding(jsonrpc.scan_reply, frame)


def orjson_loads(frame: bytes) -> Callable[[], None]:
    return decoding(imported("orjson").loads, frame)


def msgspec_raw(frame: bytes) -> Callable[[], None]:
    msgspec = imported("msgspec")
    envelope = msgspec.defstruct(
        "Envelope",
        [("jsonrpc", str), ("id", int), ("result", msgspec.Raw, msgspec.Raw()), ("error", msgspec.Raw, msgspec.Raw())],
    )
    return decoding(msgspec.json.Decoder(envelope).decode, frame)


CASES = [
    Case("router", "pick() + done(), 1 instance", OURS, partial(pick_and_done, 1)),
    Case("router", "pick() + done(), 3 instances", OURS, partial(pick_and_done, 3)),
    Case("router", "pick() + done(), 10 instances", OURS, partial(pick_and_done, 10)),
    Case("router", "pick() + done(), 100,000 instances", OURS, partial(pick_and_done, 100_000)),
    Case("router", "the same with 2 clock reads, 64 random bits", OURS, pick_and_done_with_clocks),
    Case("router", "the same with all limits on, 3 instances", OURS, pick_and_done_within_limits),
    Case("limits", "ConcurrencyLimiter.ended()", OURS, adaptive_limit),
    Case("limits", "RateLimiter.take()", OURS, rate_limit),
    Case("limits", "RetryBudget.deposit() + withdraw()", OURS, retry_budget),
    Case("breaker", "Breaker.acquire() + release()", OURS, breaker),
    Case("breaker", "pybreaker CircuitBreaker.call()", PEER, pybreaker, "breaker"),
    Case("breaker", "purgatory with SyncCircuitBreaker", PEER, purgatory, "breaker"),
    Case("histogram", "Histogram.record()", OURS, histogram),
    Case("histogram", "hdrhistogram record_value()", PEER, hdrhistogram, "quantiles"),
    Case(
        "histogram",
        "prometheus_client Histogram child.observe()",
        PEER,
        partial(prometheus, False),
        "exported histogram",
    ),
    Case("histogram", "prometheus_client Histogram.labels().observe()", PEER, partial(prometheus, True)),
]
for size, frame in REPLIES.items():
    for name, whose, make in (
        ("jsonrpc.scan_reply(), AVX-512", OURS, partial(scan_reply, "avx512", frame)),
        ("jsonrpc.scan_reply(), AVX2", OURS, partial(scan_reply, "avx2", frame)),
        ("jsonrpc.scan_reply(), portable", OURS, partial(scan_reply, "portable", frame)),
        ("jsonrpc.scan()", OURS, partial(scan, frame)),
        ("json.loads()", PEER, partial(decoding, json.loads, frame)),
        ("orjson.loads()", PEER, partial(orjson_loads, frame)),
        ("msgspec Struct with Raw", PEER, partial(msgspec_raw, frame)),
    ):
        CASES.append(Case(f"JSON-RPC {size}", name, whose, make, repeat=repeats(frame)))


@pytest.mark.benchmark(max_time=0.6, min_rounds=20, warmup=True, warmup_iterations=3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.name}")
def test_core(case: Case, benchmark: Any) -> None:
    benchmark.extra_info.update(
        group=case.group,
        name=case.name,
        whose=case.whose,
        part=case.part,
        repeat=case.repeat,
        total=case.group == "router",
    )
    benchmark(case.make())
