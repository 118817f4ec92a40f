"""Simulates policies: this router compared with others, a total outage, and rare slow answers.

Run as ``pytest benchmarks/simulation/bench_simulation.py --benchmark-only``; the tables are printed at the end. Time is
simulated and randomness is seeded (``MCP_MANAGER_SEED`` sets another seed), so the figures are the same on every
machine, and the targets are assertions. pytest-benchmark measures how long the simulation takes.
"""

from __future__ import annotations

import os
import random
from typing import Any

from benchmarks.simulation.scenarios import (
    OURS,
    PLACES,
    BudgetedRetries,
    Comparison,
    TimelyHedges,
    compare,
    hedge,
    outage,
)
from benchmarks.simulation.simulated_policies import RouterBalancer
from benchmarks.simulation.simulation import Figures

SEED = int(os.environ.get("MCP_MANAGER_SEED", "20"))
MOST_ERRORS = 0.002


def test_one_instance_of_twenty_is_bad(benchmark: Any) -> None:
    compared: list[Comparison] = benchmark.pedantic(lambda: list(compare(SEED, 20.0)), rounds=1)
    say(benchmark, f"{'':32}{'one 10x slow':>26}{'one fails in 1 ms':>34}")
    say(benchmark, f"{'':32}{'p50 ms':>13}{'p99 ms':>13}{'p50 ms':>13}{'p99 ms':>13}{'errors':>10}")
    for each in compared:
        say(
            benchmark,
            f"{each.policy:32}{each.slow.p50_s * 1e3:13.1f}{each.slow.p99_s * 1e3:13.1f}{each.failing.p50_s * 1e3:13.1f}"
            f"{each.failing.p99_s * 1e3:13.1f}{each.failing.errors:10.3%}",
        )
    ours = next(each for each in compared if each.policy == OURS)
    assert ours.failing.errors <= MOST_ERRORS
    assert ours.slow.p99_s <= 1.1 * min(each.slow.p99_s for each in compared)
    # A policy that sends a tenth of its calls to the failing place has fewer to answer, and so lower latencies.
    assert ours.failing.p99_s <= 1.1 * min(
        each.failing.p99_s for each in compared if each.failing.errors <= MOST_ERRORS
    )


def test_everything_is_down(benchmark: Any) -> None:
    def run(*, breaker: bool, budget: bool) -> Figures:
        balancer = RouterBalancer(PLACES, random.Random(SEED), breaker=breaker)
        return outage(SEED, 20.0, BudgetedRetries(balancer, random.Random(SEED + 2), budget=budget), balancer)

    def all_three() -> tuple[Figures, Figures, Figures]:
        return run(breaker=False, budget=False), run(breaker=False, budget=True), run(breaker=True, budget=True)

    naive, budgeted, broken = benchmark.pedantic(all_three, rounds=1)
    say(benchmark, "total outage, three attempts: requests per call")
    for name, figures in (("no budget", naive), ("budget", budgeted), ("budget and circuits", broken)):
        say(benchmark, f"  {name:30}{figures.sent:13.3f}")
    assert budgeted.sent <= 1.3
    assert broken.sent <= 0.05


def test_few_answers_take_very_long(benchmark: Any) -> None:
    def run(*, hedged: bool) -> Figures:
        balancer = RouterBalancer(PLACES, random.Random(SEED))
        return hedge(SEED, 100.0, balancer, TimelyHedges(balancer) if hedged else None)

    plain, hedged = benchmark.pedantic(lambda: (run(hedged=False), run(hedged=True)), rounds=1)
    say(benchmark, f"{'rare slow answers':32}{'p50 ms':>13}{'p99 ms':>13}{'p99.9 ms':>13}{'requests':>13}")
    for name, figures in (("without hedges", plain), ("hedged at p95", hedged)):
        say(
            benchmark,
            f"  {name:30}{figures.p50_s * 1e3:13.1f}{figures.p99_s * 1e3:13.1f}{figures.p999_s * 1e3:13.1f}"
            f"{figures.sent:13.3f}",
        )
    assert 5.0 * hedged.p999_s <= plain.p999_s
    assert hedged.sent <= 1.06


def say(benchmark: Any, line: str) -> None:
    """Add a line to the output at the end; see ``conftest.py``."""
    benchmark.extra_info.setdefault("simulated", [f"seed {SEED}"]).append(line)
