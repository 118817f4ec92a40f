"""A server whose settings change is as one that began with them; where they stay the same, it goes on as it was."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from mcp_manager._core.allowance import RateLimiter
from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.limiter import LimiterSettings
from mcp_manager._core.records import Backend, Balancing, Limits
from mcp_manager._core.router import Router

SUCCESS, IGNORED = 0, 2
RESULT, TIMEOUT, OVERLOADED = 0, 4, 7
MS = 10**6
INSTANCES = 4
# Circuits stay as they are, whatever the settings: here they never open.
BREAKER = BreakerSettings()

LIMITERS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(("off", "aimd", "gradient")),
        "initial": st.sampled_from((1.0, 2.0, 20.0)),
        "least": st.sampled_from((1.0, 2.0)),
        "most": st.sampled_from((3.0, 1000.0)),
        "decrease": st.sampled_from((0.5, 0.9)),
    }
)
RATES = st.fixed_dictionaries({"rate": st.sampled_from((0.0, 0.001, 5.0, 1000.0)), "burst": st.sampled_from((1, 3))})
SHEDDING = st.fixed_dictionaries(
    {"shed_multiple": st.sampled_from((0.0, 1.0, 2.0)), "shed_window_ns": st.sampled_from((10**9, 120 * 10**9))}
)
BUDGETS = st.fixed_dictionaries(
    {
        "budget_ratio": st.sampled_from((0.0, 0.2)),
        "budget_min_per_s": st.sampled_from((0.1, 10.0)),
        "budget_ttl_ns": st.sampled_from((10**9, 10 * 10**9)),
    }
)
MOST = st.sampled_from((0, 1, 3))
BALANCING = st.builds(
    Balancing,
    policy=st.sampled_from(("p2c", "weighted", "round_robin", "least_connections", "random", "consistent")),
    max_ejection=st.sampled_from((0.0, 0.5, 1.0)),
    slow_start_ns=st.sampled_from((0, 10**9)),
)
POLICIES = st.tuples(LIMITERS, RATES, SHEDDING, BUDGETS, MOST)
# Which of the groups of settings change; the others stay the same.
CHANGES = st.lists(st.booleans(), min_size=5, max_size=5)
CALLS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(((SUCCESS, RESULT), (IGNORED, OVERLOADED), (SUCCESS, TIMEOUT))),
        st.integers(1, 400),
    ),
    max_size=40,
)


class Fleet:
    """A router with one server, the time, and what can be seen of its settings."""

    def __init__(self, policy: tuple[Any, ...], balancing: Balancing) -> None:
        self.router = Router()
        self.router.add_server("a", balancing, limits_of(policy))
        self.instances: list[Backend] = [
            self.router.add_backend("a", number, BREAKER, identity=number + 1) for number in range(INSTANCES)
        ]
        for instance in self.instances:
            self.router.set_breaker_mode(instance, "disabled")
        self.now_ns = 10**12

    def live(self, calls: list[tuple[int, tuple[int, int], int]]) -> None:
        for together, (outcome, status), took_ms in calls:
            leases = [self.router.pick("a", "m", self.now_ns, drawn(each)) for each in range(together)]
            self.now_ns += took_ms * MS
            for lease in leases:
                if not lease.rejection:
                    self.router.done(lease, outcome, status, self.now_ns)
                    self.router.withdraw(self.router.server("a"), self.now_ns)

    def limits(self) -> list[int | None]:
        return [instance.limit for instance in self.instances]

    def budget(self) -> float:
        return self.router.budget(self.router.server("a"), self.now_ns)

    def admissions(self) -> list[tuple[int, int]]:
        """What becomes of a burst of calls at one moment."""
        leases = [self.router.pick("a", "m", self.now_ns, drawn(each)) for each in range(12)]
        return [(lease.rejection, lease.retry_after_ns) for lease in leases]

    def ejections(self) -> list[bool]:
        return [self.router.eject(each, self.now_ns + 10**9) for each in self.instances]


def drawn(number: int) -> int:
    """Return 64 bits that differ from call to call, and are the same for every fleet."""
    return number * 0x9E3779B97F4A7C15 % 2**64


def limits_of(policy: tuple[Any, ...]) -> Limits:
    limiter, rate, shedding, budget, most = policy
    return Limits(LimiterSettings(**limiter), RateLimiter(**rate), max_concurrent=most, **shedding, **budget)


@given(before=POLICIES, other=POLICIES, changes=CHANGES, old=BALANCING, new=BALANCING, calls=CALLS)
def test_settings_that_change_leave_nothing_of_the_old_ones(
    before: tuple[Any, ...],
    other: tuple[Any, ...],
    changes: list[bool],
    old: Balancing,
    new: Balancing,
    calls: list[tuple[int, tuple[int, int], int]],
) -> None:
    after = tuple(other[each] if changes[each] else before[each] for each in range(5))
    changed, unchanged, fresh = Fleet(before, old), Fleet(before, old), Fleet(after, new)
    changed.live(calls)
    unchanged.live(calls)
    fresh.now_ns = changed.now_ns
    changed.router.configure("a", new, limits_of(after))

    assert changed.router.server("a").max_concurrent == after[4]
    limiter, rate, shedding, budget = (unchanged if before[each] == after[each] else fresh for each in range(4))
    assert changed.limits() == limiter.limits()
    assert changed.budget() == budget.budget()
    if limiter is rate is shedding:
        # What admits a call is then as a whole that of the one or of the other.
        unchanged.router.configure("a", new, limits_of(after))
        assert changed.admissions() == limiter.admissions()
    assert changed.ejections() == fresh.ejections()
