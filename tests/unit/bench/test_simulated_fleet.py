"""The figures of the simulation in short: what the benchmark promises of balancing, retries and hedges, on every run."""

from __future__ import annotations

import random

from benchmarks.simulation.scenarios import (
    OURS,
    PLACES,
    BudgetedRetries,
    TimelyHedges,
    compare,
    hedge,
    outage,
)
from benchmarks.simulation.simulated_policies import RouterBalancer

SEED = 5
BEST = "P2C, peak-EWMA, error penalty"


def test_the_router_does_as_well_as_the_best_policy_known_when_one_instance_is_slow_or_fails_at_once() -> None:
    best, ours, alone = compare(SEED, 3.0, (BEST, OURS, f"{OURS}, circuits off"))
    assert ours.slow.p99_s <= 1.1 * best.slow.p99_s
    assert ours.failing.p99_s <= 1.1 * best.failing.p99_s
    assert ours.failing.errors <= 0.002
    assert alone.failing.errors <= 0.002


def test_retries_make_an_outage_no_worse() -> None:
    def amplification(*, budget: bool) -> float:
        balancer = RouterBalancer(PLACES, random.Random(SEED), breaker=False)
        return outage(SEED, 5.0, BudgetedRetries(balancer, random.Random(SEED), budget=budget), balancer).sent

    assert 1.1 <= amplification(budget=True) <= 1.3
    assert amplification(budget=False) == 3.0


def test_hedges_cut_the_tail_for_few_more_requests() -> None:
    plain = hedge(SEED, 40.0, RouterBalancer(PLACES, random.Random(SEED)), None)
    balancer = RouterBalancer(PLACES, random.Random(SEED))
    hedged = hedge(SEED, 40.0, balancer, TimelyHedges(balancer))
    assert 5.0 * hedged.p999_s <= plain.p999_s
    assert hedged.sent <= 1.06


def test_the_same_seed_gives_the_same_figures() -> None:
    [first], [second] = (tuple(compare(SEED, 1.0, (OURS,))) for _ in range(2))
    assert first == second
