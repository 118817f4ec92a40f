"""The compiled histogram against sorted lists and exact bounds."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given
from support.models import HistogramModel, exact_bounds

from mcp_manager._core.histogram import Histogram, LatencyWindow, bucket_index, bucket_lower_bound

SECOND = 10**9
HIGHEST_NS = 256 * SECOND
# Below this the smallest bucket begins; and what an estimate may be off by, at the finest schema and in a window.
LOWEST_S = 2.0**-20
ERROR = 0.011
WINDOW_ERROR = 0.045

DURATIONS = st.one_of(
    st.integers(0, 2000),
    st.integers(0, HIGHEST_NS),
    st.integers(HIGHEST_NS, 10**15),
    # Evenly over the octaves, and around every bound that a whole number of nanoseconds can meet.
    st.builds(lambda octave, part: int(2.0 ** (octave + part) * SECOND), st.integers(-20, 8), st.floats(0, 1)),
    st.builds(
        lambda index, off: max(0, round(2.0 ** (index / 32) * SECOND) + off), st.integers(-640, 256), st.integers(-1, 1)
    ),
)
LISTS = st.lists(DURATIONS, max_size=60)
QUANTILES = st.one_of(st.sampled_from((0.0, 0.5, 0.9, 0.95, 0.99, 1.0)), st.floats(0, 1))
SCHEMAS = st.integers(0, 5)


def recorded(durations: list[int], schema: int = 5) -> Histogram:
    histogram = Histogram(schema=schema)
    for duration in durations:
        histogram.record(duration)
    return histogram


def content(histogram: Histogram) -> tuple[object, ...]:
    return (
        histogram.schema,
        histogram.bucket_counts(),
        histogram.count,
        histogram.sum_ns,
        histogram.underflow,
        histogram.overflow,
        histogram.min_ns,
        histogram.max_ns,
    )


@given(LISTS, SCHEMAS)
def test_every_duration_is_in_its_bucket(durations: list[int], schema: int) -> None:
    histogram = recorded(durations, schema)
    model = HistogramModel()
    for duration in durations:
        model.record(duration)
    assert histogram.bucket_counts() == model.bucket_counts(schema)
    assert histogram.count == len(durations)
    assert histogram.sum_ns == sum(durations)
    assert histogram.min_ns == min(durations, default=None)
    assert histogram.max_ns == max(durations, default=None)
    assert histogram.underflow == sum(Fraction(duration, SECOND) <= Fraction(1, 2**20) for duration in durations)
    assert histogram.overflow == sum(duration > HIGHEST_NS for duration in durations)
    assert histogram.underflow + histogram.overflow + sum(histogram.bucket_counts().values()) == histogram.count


@given(st.lists(DURATIONS, min_size=1, max_size=60), QUANTILES)
@example([0, 0, 1], 1.0)
@example([HIGHEST_NS + 1], 0.5)
def test_quantiles_are_within_the_error_of_the_exact_ones(durations: list[int], q: float) -> None:
    model = HistogramModel()
    for duration in durations:
        model.record(duration)
    estimate = recorded(durations).quantile(q)
    exact = model.quantile_s(q)
    assert estimate is not None
    assert min(durations) / SECOND * (1 - 1e-12) <= estimate <= max(durations) / SECOND * (1 + 1e-12)
    if exact <= LOWEST_S:
        assert estimate <= LOWEST_S
    elif exact > 256:
        assert estimate > 256
    else:
        assert estimate == pytest.approx(exact, rel=ERROR)


@given(st.lists(DURATIONS, min_size=1, max_size=60), QUANTILES, QUANTILES)
def test_quantiles_rise_with_their_rank(durations: list[int], one: float, other: float) -> None:
    histogram = recorded(durations)
    low, high = histogram.quantile(min(one, other)), histogram.quantile(max(one, other))
    assert low is not None and high is not None and low <= high


@given(LISTS, SCHEMAS)
def test_le_counts_are_exact(durations: list[int], schema: int) -> None:
    model = HistogramModel()
    for duration in durations:
        model.record(duration)
    assert recorded(durations, schema).le_counts() == tuple(model.le_count(exponent) for exponent in range(-20, 9))


@given(LISTS, LISTS, LISTS, SCHEMAS)
def test_merging_is_recording_together_in_any_order(a: list[int], b: list[int], c: list[int], schema: int) -> None:
    left = recorded(a, schema)
    left.merge(recorded(b, schema))
    left.merge(recorded(c, schema))
    inner = recorded(c, schema)
    inner.merge(recorded(b, schema))
    right = recorded(a, schema)
    right.merge(inner)
    swapped = recorded(c, schema)
    swapped.merge(recorded(a, schema))
    swapped.merge(recorded(b, schema))
    assert content(left) == content(right) == content(swapped) == content(recorded(a + b + c, schema))


@given(LISTS, SCHEMAS, SCHEMAS)
def test_downscaling_is_recording_coarsely(durations: list[int], one: int, other: int) -> None:
    fine, coarse = max(one, other), min(one, other)
    histogram = recorded(durations, fine)
    before = content(histogram)
    assert content(histogram.downscaled(coarse)) == content(recorded(durations, coarse))
    assert content(histogram) == before


@given(
    st.lists(st.tuples(DURATIONS, st.sampled_from((1, 2**30, 2**31 - 1, 2**31, 2**33 + 5))), min_size=1, max_size=20)
)
@example([(SECOND, 2**31 - 1), (SECOND, 1), (SECOND, 1), (2 * SECOND - 1, 3)])
def test_counts_outgrow_32_bits(records: list[tuple[int, int]]) -> None:
    # Twice as many nanoseconds as that are refused, and no service has them.
    assume(sum(duration * count for duration, count in records) < 2**62)
    histogram = Histogram()
    expected: dict[int, int] = {}
    for duration, count in records:
        histogram.record(duration, count)
        if LOWEST_S < duration / SECOND <= 256:
            index = bucket_index(duration / SECOND)
            expected[index] = expected.get(index, 0) + count
    assert histogram.bucket_counts() == expected
    assert histogram.count == sum(count for _, count in records)
    merged = Histogram()
    merged.merge(histogram)
    merged.merge(histogram)
    assert merged.bucket_counts() == {index: 2 * count for index, count in expected.items()}


def test_bounds_are_the_doubles_nearest_to_the_powers() -> None:
    for schema in range(6):
        bounds = exact_bounds(schema)
        size = 2**schema
        for index in range(-20 * size, 8 * size + 1):
            octave, slot = divmod(index, size)
            assert bucket_lower_bound(index, schema=schema) == bounds[slot] * 2.0**octave


@given(st.integers(-639, 255), SCHEMAS)
def test_a_bound_belongs_to_the_bucket_below_it(index: int, schema: int) -> None:
    index >>= 5 - schema
    if not -20 * 2**schema < index < 8 * 2**schema:
        return
    bound = bucket_lower_bound(index, schema=schema)
    assert bucket_index(bound, schema=schema) == index - 1
    assert bucket_index(math.nextafter(bound, math.inf), schema=schema) == index
    assert bucket_index(math.nextafter(bound, 0.0), schema=schema) == index - 1


EPOCH = 100
CALLS = st.lists(
    st.tuples(st.sampled_from((0, 0, 1, 30, 99, 100, 101, 250, -40)), DURATIONS, st.booleans()), max_size=40
)


@given(CALLS, st.integers(-50, 350), st.integers(0, 10**6))
def test_a_window_holds_the_current_and_the_previous_epoch(
    calls: list[tuple[int, int, bool]], later: int, start: int
) -> None:
    window = LatencyWindow(epoch_ns=EPOCH)
    kept: list[tuple[int, int, bool]] = []
    now = start
    newest = 0
    for step, duration, failed in calls:
        now = max(0, now + step)
        window.record(now, duration, failed)
        newest = max(newest, now // EPOCH)
        kept.append((newest, duration, failed))
    at = max(0, now + later)
    epoch = max(newest, at // EPOCH)
    inside = [entry for entry in kept if entry[0] >= epoch - 1]
    for _ in range(2):
        summary = window.summary(at)
        assert summary.count == len(inside)
        assert summary.sum_ns == sum(duration for _, duration, _ in inside)
        assert summary.failures == sum(failed for _, _, failed in inside)
        ordered = sorted(duration / SECOND for _, duration, _ in inside)
        quantiles = [(0.5, summary.p50_s), (0.95, summary.p95_s), (0.99, summary.p99_s)]
        for q, estimate in [*quantiles, *((q, window.quantile(at, q)) for q in (0.0, 0.83, 1.0))]:
            if not ordered:
                assert estimate is None
                continue
            exact = ordered[max(math.ceil(q * len(ordered)), 1) - 1]
            assert estimate is not None
            if LOWEST_S < exact <= 256:
                assert estimate == pytest.approx(exact, rel=WINDOW_ERROR)
