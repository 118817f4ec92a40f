"""Data points, held against what was recorded."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.histogram import Histogram, bucket_index
from mcp_manager._core.readings import Distribution, operations, past_call, probes
from mcp_manager._core.router import Router
from mcp_manager.telemetry.conventions import CALLS, DURATION, SEMCONV_BOUNDS_S
from mcp_manager.telemetry.distributions import since
from mcp_manager.telemetry.points import PointMaker, attribute
from mcp_manager.types import CallStatus, Outcome

LOWEST_NS, HIGHEST_NS = 2**-20 * 1e9, 2**8 * 1e9
DURATIONS = st.lists(st.one_of(st.integers(0, 10**7), st.integers(0, 400 * 10**9)), max_size=60)
TIMES = (1_000, 2_000)


def measured(durations: list[int]) -> Distribution:
    """What the core shows after calls that took these times."""
    router = Router()
    router.add_server("s")
    router.add_backend("s", object(), BreakerSettings())
    for duration in durations:
        lease = router.pick("s", "m", 10**9, 0)
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, 10**9 + duration)
    found = operations(router.server("s"))
    if not durations:
        assert found == []
        return Distribution(5, 0, 0, 0, 0, 0, 0, [])
    (operation,) = found
    assert operation.method == "m"
    assert operation.statuses[CallStatus.SUCCESS] == len(durations)
    return operation.durations


def by_index(shown: Distribution) -> dict[int, int]:
    return {index: count for index, count in enumerate(shown.counts, shown.offset) if count}


@given(DURATIONS)
def test_a_reading_is_what_was_recorded(durations: list[int]) -> None:
    shown = measured(durations)
    reference = Histogram()
    for duration in durations:
        reference.record(duration)
    expected = reference.bucket_counts()
    if reference.overflow:
        expected[8 * 32] = reference.overflow
    assert by_index(shown) == expected
    assert (shown.count, shown.sum_ns, shown.zero_count) == (len(durations), sum(durations), reference.underflow)
    assert (shown.min_ns, shown.max_ns) == ((min(durations), max(durations)) if durations else (0, 0))
    assert not shown.counts or (shown.counts[0] and shown.counts[-1])


@given(DURATIONS)
def test_an_exponential_point_puts_every_call_into_its_bucket(durations: list[int]) -> None:
    maker = PointMaker(is_delta=False, is_exponential=True)
    point = maker.durations(DURATION, [attribute("a", "b")], measured(durations), TIMES, ("s", "m"))
    if point is None:
        assert durations == []
        return
    data: Any = point.data
    expected: dict[int, int] = {}
    for duration in durations:
        if LOWEST_NS < duration:
            index = bucket_index(duration * 1e-9) if duration <= HIGHEST_NS else 8 * 32
            index >>= 5 - data.scale
            expected[index] = expected.get(index, 0) + 1
    counts = list(data.positive.bucket_counts)
    assert len(counts) <= 160
    assert {at: count for at, count in enumerate(counts, data.positive.offset) if count} == expected
    assert data.zero_count + sum(counts) == data.count == len(durations)
    assert math.isclose(data.sum, sum(durations) / 1e9)
    assert (data.start_time_unix_nano, data.time_unix_nano) == TIMES


@given(DURATIONS)
def test_a_point_with_the_bounds_of_the_conventions_loses_no_call(durations: list[int]) -> None:
    maker = PointMaker(is_delta=False, is_exponential=False)
    point = maker.durations(DURATION, (), measured(durations), TIMES, ("s", "m"))
    if point is None:
        assert durations == []
        return
    data: Any = point.data
    assert tuple(data.explicit_bounds) == SEMCONV_BOUNDS_S
    assert sum(data.bucket_counts) == len(durations)
    surely_below = sum(duration / 1e9 * 2 ** (1 / 32) <= 0.1 for duration in durations)
    perhaps_below = sum(duration / 1e9 <= 0.1 for duration in durations)
    assert surely_below <= sum(data.bucket_counts[:4]) <= perhaps_below


@given(DURATIONS, DURATIONS)
def test_deltas_add_up_to_the_whole(first: list[int], second: list[int]) -> None:
    before, now = measured(first), measured(first + second)
    added = since(before, now)
    alone = measured(second)
    assert by_index(added) == by_index(alone)
    assert (added.count, added.sum_ns, added.zero_count) == (alone.count, alone.sum_ns, alone.zero_count)


def test_a_delta_begins_where_the_last_one_that_arrived_ended() -> None:
    maker = PointMaker(is_delta=True, is_exponential=True)

    def counted(count: int, at: int) -> Any:
        return maker.total(CALLS, (), count, (1, at), ("s", "m"))

    first = counted(5, 10)
    assert (first.data.as_int, first.data.start_time_unix_nano) == (5, 1)
    # It was lost, so the next one has its calls, too.
    again = counted(7, 20)
    assert (again.data.as_int, again.data.start_time_unix_nano) == (7, 1)
    maker.arrived([again])
    last = counted(9, 30)
    assert (last.data.as_int, last.data.start_time_unix_nano) == (2, 20)
    maker.arrived([last])
    assert counted(9, 40) is None
    maker.forget("s")
    assert counted(1, 50).data.as_int == 1


class Key:
    """The key of a server; it counts how often keys are compared with each other."""

    compared = 0

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return self is other


def test_what_ends_is_forgotten_without_a_look_at_other_servers() -> None:
    maker = PointMaker(is_delta=True, is_exponential=True)
    servers = [Key() for _ in range(300)]
    for server in servers:
        maker.arrived([maker.total(CALLS, (), 1, (1, 10), (server, "m"))])  # type: ignore[list-item]
    whole, parts = (servers[0], "tools/call"), [(f"tool-{number}", (number, 0)) for number in range(20)]
    success = CallStatus.SUCCESS.label
    for part in parts:
        point = maker.total(CALLS, (), 2, (1, 10), (*whole, *part, CALLS.name, success))
        assert point is not None
        maker.arrived([point])
    maker.parts_began(whole, parts, (1, 10))
    Key.compared = 0
    maker.parts_began(whole, (), (1, 20))
    statuses, _ = maker.rest(whole, (50, *[0] * (len(CallStatus) - 1)), measured([]), ())
    assert statuses[CallStatus.SUCCESS] == 10
    for server in servers[1:]:
        maker.forget(server)
    assert Key.compared < 300
    # The series of others are as they were.
    assert maker.total(CALLS, (), 1, (1, 30), (servers[0], "m")) is None
    again = maker.total(CALLS, (), 1, (1, 30), (servers[1], "m"))
    assert again is not None
    assert again.data.as_int == 1


def test_a_part_begins_when_the_reading_before_it_ended() -> None:
    maker = PointMaker(is_delta=False, is_exponential=True)
    whole, first, second, regained = ("s", "m"), ("a", (1, 0)), ("b", (2, 0)), ("a", (1, 1))
    assert maker.parts_began(whole, [first], (100, 110)) == {first: 100}
    assert maker.parts_began(whole, [first, second], (100, 120)) == {first: 100, second: 110}
    assert maker.parts_began(whole, [second], (100, 130)) == {second: 110}
    assert maker.parts_began(whole, [second, regained], (100, 140)) == {second: 110, regained: 130}
    maker.forget("s")
    assert maker.parts_began(whole, [second], (150, 160)) == {second: 150}


def test_a_past_call_is_found_by_its_server_and_its_beginning() -> None:
    ring = CallRing(3)
    for number in range(5):
        ring.add("s", "m", ("label", number), 100 + number, 200 + number, number, 0)
    ring.add("t", "m", None, 104, 300, 0, 0)
    found = past_call(ring, "s", 104)
    assert found is not None
    assert (found.label, found.ended_ns) == (("label", 4), 204)
    assert past_call(ring, "s", 101) is None
    assert past_call(CallRing(2), "s", 101) is None
    other = past_call(ring, "t", 104)
    assert other is not None
    assert other.ended_ns == 300


def test_probes_are_counted() -> None:
    router = Router()
    router.add_server("s")
    backend = router.add_backend("s", object(), BreakerSettings())
    lease = router.pick_probe(backend, 1)
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, 2)
    assert probes(router.server("s")) == (1, 0)
