"""Simple models of the compiled core, written for clarity: the oracles of the property tests."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction

__all__ = ["BreakerModel", "BreakerParameters", "HistogramModel", "TrialModel", "exact_bounds"]

CLOSED, OPEN, HALF_OPEN = 0, 1, 2
SUCCESS, FAILURE, IGNORED = 0, 1, 2
WINDOW_BUCKETS = 10


@dataclass(frozen=True, kw_only=True)
class BreakerParameters:
    """The settings of a breaker; the names are those of ``BreakerSettings``."""

    window_ns: int
    min_calls: int
    failure_rate: float
    consecutive_failures: int
    slow_call_ns: int
    slow_rate: float
    open_ns: int
    open_max_ns: int
    jitter: float
    trip_decay_ns: int
    half_open_permits: int
    half_open_successes: int
    probe_ttl_ns: int
    active_first: bool
    probe_grace_ns: int


@dataclass
class TrialModel:
    """A trial request in flight."""

    issued_ns: int
    probe: bool


@dataclass
class PermitModel:
    """A permit, with the generation it belongs to and, if the circuit is half-open, its trial request."""

    generation: int
    trial: TrialModel | None
    released: bool = False


@dataclass
class BreakerModel:
    """A circuit breaker on plain lists with one entry per result.

    Every operation returns what the compiled one should; ``changes`` collects the transitions as ``(from, to)``.
    """

    settings: BreakerParameters
    mode: str = "auto"
    state: int = CLOSED
    generation: int = 1
    newest_ns: int = 0
    until_ns: int = 0
    closed_ns: int = 0
    trips: int = 0
    successes: int = 0
    probe_succeeded: bool = False
    results: list[tuple[int, bool, bool]] = field(default_factory=list)
    trials: list[TrialModel] = field(default_factory=list)
    changes: list[tuple[int, int]] = field(default_factory=list)

    def see(self, now_ns: int) -> int:
        self.newest_ns = max(self.newest_ns, now_ns)
        return self.newest_ns

    @property
    def visible_state(self) -> int:
        return OPEN if self.mode == "forced_open" else self.state

    def window(self, now_ns: int) -> tuple[int, int, int]:
        """Return the calls, failures and slow calls of the ten buckets up to the present one."""
        width = self.settings.window_ns // WINDOW_BUCKETS
        oldest = now_ns // width - WINDOW_BUCKETS + 1
        inside = [entry for entry in self.results if entry[0] // width >= oldest]
        return len(inside), sum(entry[1] for entry in inside), sum(entry[2] for entry in inside)

    def failures_in_a_row(self) -> int:
        count = 0
        for _, failed, _ in reversed(self.results):
            if not failed:
                break
            count += 1
        return count

    def counting_trips(self, now_ns: int) -> int:
        if self.state != CLOSED or not self.settings.trip_decay_ns:
            return self.trips
        return max(0, self.trips - max(0, now_ns - self.closed_ns) // self.settings.trip_decay_ns)

    def nominal_open_ns(self, trips: int) -> int:
        return min(self.settings.open_ns << (trips - 1), self.settings.open_max_ns)

    def open(self, at_ns: int, retry_after_ns: int, random: float) -> None:
        settings = self.settings
        self.trips = self.counting_trips(at_ns) + 1
        spread = self.nominal_open_ns(self.trips) * (1.0 + settings.jitter * (2.0 * random - 1.0))
        duration = int(min(max(spread, 1.0), settings.open_max_ns))
        self.until_ns = at_ns + max(duration, min(retry_after_ns, settings.open_max_ns))
        self.change(OPEN)
        self.trials = []

    def close(self, now_ns: int) -> None:
        self.closed_ns = now_ns
        self.results = []
        self.trials = []
        self.change(CLOSED)

    def change(self, target: int) -> None:
        if target != self.state:
            self.changes.append((self.state, target))
        self.state = target
        self.generation += 1

    def expire(self, now_ns: int, random: float) -> None:
        if self.state == HALF_OPEN and self.trials:
            expiry = min(trial.issued_ns for trial in self.trials) + self.settings.probe_ttl_ns
            if now_ns >= expiry:
                self.open(expiry, 0, random)

    def acquire(self, now_ns: int, probe: bool) -> PermitModel | int:
        """Return a permit, or the nanoseconds to wait (0 if forced open)."""
        settings = self.settings
        now_ns = self.see(now_ns) if self.mode != "forced_open" else self.newest_ns
        if self.mode == "forced_open":
            return 0
        if self.state == CLOSED:
            return PermitModel(self.generation, None)
        self.expire(now_ns, 0.5)
        proven = self.state == HALF_OPEN and self.probe_succeeded
        reserved = settings.active_first and not probe and not proven
        due_ns = self.until_ns + (settings.probe_grace_ns if reserved else 0)
        if now_ns < due_ns:
            return due_ns - now_ns
        if self.state == OPEN:
            self.change(HALF_OPEN)
            self.successes = 0
            self.probe_succeeded = False
        if len(self.trials) >= settings.half_open_permits:
            return min(trial.issued_ns for trial in self.trials) + settings.probe_ttl_ns - now_ns
        trial = TrialModel(now_ns, probe)
        self.trials.append(trial)
        return PermitModel(self.generation, trial)

    def release(
        self, permit: PermitModel, outcome: int, duration_ns: int, now_ns: int, retry_after_ns: int, random: float
    ) -> None:
        if permit.released:
            return
        permit.released = True
        if permit.generation != self.generation or self.mode == "disabled":
            return
        now_ns = self.see(now_ns)
        if self.state == CLOSED:
            if outcome != IGNORED:
                self.count(outcome == FAILURE, duration_ns, now_ns, retry_after_ns, random)
            return
        self.expire(now_ns, random)
        if permit.generation != self.generation or permit.trial is None:
            return
        self.trials = [trial for trial in self.trials if trial is not permit.trial]
        if outcome == FAILURE:
            self.open(now_ns, retry_after_ns, random)
        elif outcome == SUCCESS:
            self.successes += 1
            self.probe_succeeded |= permit.trial.probe
            if self.successes >= self.settings.half_open_successes:
                self.close(now_ns)

    def count(self, failed: bool, duration_ns: int, now_ns: int, retry_after_ns: int, random: float) -> None:
        settings = self.settings
        slow = settings.slow_call_ns > 0 and duration_ns >= settings.slow_call_ns
        self.results.append((now_ns, failed, slow))
        if self.mode != "auto" or not (failed or slow):
            return
        calls, failures, slow_calls = self.window(now_ns)
        too_many = self.failures_in_a_row() >= settings.consecutive_failures
        if calls >= settings.min_calls:
            too_many |= failures / calls >= settings.failure_rate or slow_calls / calls >= settings.slow_rate
        if too_many:
            self.open(now_ns, retry_after_ns, random)

    def trip(self, now_ns: int, random: float) -> None:
        if self.mode == "auto":
            self.expire(self.see(now_ns), random)
            if self.state != OPEN:
                self.open(self.newest_ns, 0, random)

    def reset(self, now_ns: int) -> None:
        self.trips = 0
        self.close(self.see(now_ns))

    def set_mode(self, mode: str, now_ns: int) -> None:
        if mode == self.mode:
            return
        before = self.visible_state
        self.trips = 0
        self.state = CLOSED
        self.mode = mode
        self.close(self.see(now_ns))
        if self.visible_state != before:
            self.changes.append((before, self.visible_state))


def exact_bounds(schema: int) -> list[float]:
    """Return the doubles nearest to ``2**(i / 2**schema)`` for ``i`` from 0 to ``2**schema``, from 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return [float(Decimal(2) ** (Decimal(i) / 2**schema)) for i in range(2**schema + 1)]


class HistogramModel:
    """A histogram that keeps every duration, in nanoseconds."""

    def __init__(self) -> None:
        self.durations: list[int] = []

    def record(self, duration_ns: int, count: int = 1) -> None:
        self.durations += [duration_ns] * count

    def quantile_s(self, q: float) -> float:
        """Return the duration of rank ``ceil(q n)`` in seconds; the rank is a product of doubles as in the core."""
        ordered = sorted(self.durations)
        rank = min(max(math.ceil(q * len(ordered)), 1), len(ordered))
        return ordered[rank - 1] / 1e9

    def le_count(self, exponent: int) -> int:
        """Return how many durations are at most ``2**exponent`` seconds, in exact arithmetic."""
        bound_ns = Fraction(2) ** exponent * 10**9
        return sum(duration <= bound_ns for duration in self.durations)

    def bucket_counts(self, schema: int) -> dict[int, int]:
        """Return the counts by bucket index, searched in the exact bounds, without underflow and overflow."""
        bounds = exact_bounds(schema)
        counts: dict[int, int] = {}
        for duration in self.durations:
            seconds = duration / 1e9
            if 2.0**-20 < seconds <= 2.0**8:
                mantissa, exponent = math.frexp(seconds)
                # frexp gives [0.5, 1): the octave is (2**(exponent - 1), 2**exponent], its upper bound included.
                octave = exponent - 2 if mantissa == 0.5 else exponent - 1
                slot = bisect_left(bounds, seconds / 2.0**octave) - 1
                index = octave * 2**schema + slot
                counts[index] = counts.get(index, 0) + 1
        return counts
