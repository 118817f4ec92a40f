"""An instance that failed and answers again is given calls again, long before its penalty would have decayed."""

from __future__ import annotations

import random

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import Backend
from mcp_manager._core.router import Router

SECOND = 10**9
FAILED, SUCCEEDED, CONNECT_ERROR, SUCCESS = 1, 0, 4, 0


class Fleet:
    """Three instances that answer in 3 ms, and time that passes by hand."""

    def __init__(self) -> None:
        self.draws = random.Random(3)
        self.router = Router()
        self.router.add_server("a")
        settings = BreakerSettings(consecutive_failures=2, open_ns=SECOND, jitter=0.0, active_first=False)
        self.instances = [self.router.add_backend("a", index, settings) for index in range(3)]
        self.now_ns = SECOND

    def calls(self, count: int, *, failing: int | None = None) -> list[int]:
        """Make calls, one after the other, and return which instances took them."""
        took = []
        for _ in range(count):
            lease = self.router.pick("a", "tools/call", self.now_ns, self.draws.getrandbits(64))
            self.now_ns += 3_000_000
            failed = lease.payload == failing
            self.router.done(lease, FAILED if failed else SUCCEEDED, SUCCESS, self.now_ns)
            took.append(lease.payload)
        return took

    def probe(self, instance: Backend, outcome: int) -> None:
        lease = self.router.pick_probe(instance, self.now_ns)
        self.router.done(lease, outcome, SUCCESS, self.now_ns)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_a_probe_that_succeeds_ends_the_penalty(fleet: Fleet) -> None:
    fleet.calls(20)
    fleet.calls(20, failing=0)
    assert 0 not in fleet.calls(200)
    fleet.probe(fleet.instances[0], SUCCEEDED)
    assert fleet.calls(200).count(0) > 30


def test_a_probe_that_fails_does_not(fleet: Fleet) -> None:
    fleet.calls(20)
    fleet.calls(20, failing=0)
    fleet.probe(fleet.instances[0], FAILED)
    assert 0 not in fleet.calls(200)


def test_a_probe_of_an_instance_that_never_failed_leaves_its_estimate_alone(fleet: Fleet) -> None:
    fleet.calls(20)
    before = fleet.router.backend_reading(fleet.instances[0], fleet.now_ns).latency_s
    fleet.probe(fleet.instances[0], SUCCEEDED)
    assert fleet.router.backend_reading(fleet.instances[0], fleet.now_ns).latency_s == before


def test_a_trial_that_succeeds_ends_the_penalty(fleet: Fleet) -> None:
    fleet.calls(20)
    for _ in range(2):
        lease = fleet.router.pick_on(fleet.instances[0], "tools/call", fleet.now_ns)
        fleet.router.done(lease, FAILED, CONNECT_ERROR, fleet.now_ns)
    assert 0 not in fleet.calls(100)
    fleet.now_ns += SECOND
    assert fleet.calls(200).count(0) > 30
