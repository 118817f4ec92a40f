"""Settings of backends change at any moment: every call stays counted, and every backend that may take calls gets some."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.limiter import LimiterSettings
from mcp_manager._core.records import EXCLUDED, PENDING, READY, Balancing, Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, CircuitState, Outcome

S = 10**9
BACKENDS = 4
POLICIES = st.sampled_from(["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"])
ENDS = st.sampled_from(
    [
        (Outcome.SUCCESS, CallStatus.SUCCESS),
        (Outcome.FAILURE, CallStatus.TIMEOUT),
        (Outcome.IGNORED, CallStatus.OVERLOADED),
    ]
)
SETTINGS = st.builds(
    BreakerSettings,
    window_ns=st.sampled_from([S, 10 * S, 77 * S]),
    min_calls=st.integers(1, 5),
    consecutive_failures=st.integers(1, 5),
    half_open_permits=st.integers(1, 6),
    half_open_successes=st.integers(1, 3),
    open_ns=st.just(S),
    open_max_ns=st.sampled_from([S, 60 * S]),
    active_first=st.booleans(),
    jitter=st.just(0.0),
)
NUMBERS = st.integers(0, BACKENDS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pick"), st.integers(0, 2**64 - 1), st.none()),
        st.tuples(st.just("end"), st.integers(0, 50), ENDS),
        st.tuples(st.just("wait"), st.integers(1, 20 * S), st.none()),
        st.tuples(
            st.just("adjust"),
            NUMBERS,
            st.tuples(SETTINGS, st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 3), st.integers(0, 9)),
        ),
        st.tuples(st.just("available"), NUMBERS, st.sampled_from([READY, PENDING, EXCLUDED])),
        st.tuples(st.just("eject"), NUMBERS, st.integers(1, 30 * S)),
        st.tuples(st.just("mode"), NUMBERS, st.sampled_from(["auto", "disabled"])),
        st.tuples(st.just("configure"), st.sampled_from(["aimd", "gradient", "off"]), POLICIES),
    ),
    max_size=60,
)


@given(steps=STEPS, calm=SETTINGS)
def test_settings_change_at_any_moment(steps: list[tuple[str, int, object]], calm: BreakerSettings) -> None:
    router = Router()
    router.add_server("a")
    backends = [router.add_backend("a", number, calm) for number in range(BACKENDS)]
    open_leases: list[Lease] = []
    now = 1_000 * S
    for what, value, more in steps:
        match what, more:
            case "pick", _:
                lease = router.pick("a", "m", now, value)
                open_leases += [] if lease.rejection else [lease]
            case "end", (outcome, status) if open_leases:
                router.done(open_leases.pop(value % len(open_leases)), outcome, status, now)
            case "wait", _:
                now += value
            case "adjust", (settings, weight, tier, identity):
                router.adjust_backend(backends[value], settings, weight, tier, identity, now)
                assert (backends[value].tier, backends[value].weight) == (tier, weight)
            case "available", int():
                router.set_availability(backends[value], more, now)
            case "eject", int():
                router.eject(backends[value], now + more)
            case "mode", str():
                router.set_breaker_mode(backends[value], more, now)
            case "configure", str():
                limits = Limits(LimiterSettings(mode=value, initial=3))  # type: ignore[arg-type]
                router.configure("a", Balancing(policy=more), limits)
        taken = Counter(lease.payload for lease in open_leases)
        assert [each.inflight for each in backends] == [taken[number] for number in range(BACKENDS)]

    for lease in open_leases:
        router.done(lease, Outcome.IGNORED, CallStatus.CANCELLED, now)
    assert (router.inflight, [each.inflight for each in backends]) == (0, [0] * BACKENDS)
    # Once every hindrance is over, all backends take part again, whatever they have been through.
    now += 10**6 * S
    router.configure("a", Balancing(policy="random"), Limits())
    for backend in backends:
        router.adjust_backend(backend, calm, 1.0, 0, 0, now)
        router.set_availability(backend, READY, now)
        router.reset_breaker(backend, now)
    taken = Counter()
    for draw in range(400):
        lease = router.pick("a", "m", now, (draw * 0x9E3779B97F4A7C15) % 2**64)
        taken[lease.payload] += 1
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, now)
    assert len(taken) == BACKENDS
    assert {router.breaker_state(each, now) for each in backends} == {CircuitState.CLOSED}
