"""The canary of a rollout: new instances take a share of the calls and are compared with the old ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Final

import msgspec

from mcp_manager._core.histogram import LatencyWindow
from mcp_manager._core.router import Router
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CircuitState

__all__ = ["Sample", "Trial", "sample_of", "what_is_worse"]

_LOOK_S: Final = 1.0
_LOOKS: Final = 10
# How much higher the failure rate of a new configuration may be, and the z value of a one-sided test at 1 %.
_MORE_FAILURES: Final = 0.05
_SURE: Final = 2.33
_SLOWER: Final = 1.5
_SLOWER_S: Final = 0.05
# With fewer calls, the 95th percentile is the longest call.
_CALLS_OF_P95: Final = 20
_P95: Final = 0.95
# A window keeps calls for one to two epochs; an epoch this much longer than the trial outlasts it.
_EPOCH_MARGIN_S: Final = 60.0
# In rendezvous hashing, equal identities get equal keys; this changes the identity of a canary, so that it gets others.
_OTHER_KEYS: Final = 0x9E3779B97F4A7C15


class Sample(msgspec.Struct, frozen=True):
    """The outcome of the calls to some instances.

    Parameters
    ----------
    calls
        How many calls ended.
    failures
        How many of them failed.
    p95_s
        The 95th percentile of their durations in seconds, ``None`` without calls.
    least_p95_s
        What the 95th percentile of all calls would be at least, as sure as 99 %: with few calls, two or three that
        happened to be slow make the measured one high. ``None`` without calls.
    """

    calls: int
    failures: int
    p95_s: float | None
    least_p95_s: float | None


def what_is_worse(new: Sample, old: Sample, min_calls: int) -> str:
    """Compare a new configuration with the old one; say how it is worse, ``""`` if it is not or too little is known.

    It fails more often if its failure rate is more than 5 percentage points above the old one's, and by more than
    chance explains (two-proportion z-test, one-sided at 1 %). It is slower if its p95 is more than 1.5 times the old
    one's and more than 50 ms above it, again by more than chance explains, with at least 20 calls, and at least
    ``min_calls``, to each.

    Parameters
    ----------
    new, old
        The outcomes of both configurations.
    min_calls
        With fewer calls to the new configuration, the result is ``""``.
    """
    if new.calls < max(min_calls, 1):
        return ""
    rate = new.failures / new.calls
    old_rate = old.failures / old.calls if old.calls else 0.0
    error = 0.0
    if old.calls:
        pooled = (new.failures + old.failures) / (new.calls + old.calls)
        error = sqrt(pooled * (1.0 - pooled) * (1.0 / new.calls + 1.0 / old.calls))
    if rate - old_rate > max(_MORE_FAILURES, _SURE * error):
        return f"{new.failures} of its {new.calls} calls failed ({rate:.0%}, against {old_rate:.0%} of the old one's)"
    if new.p95_s is None or new.least_p95_s is None or old.p95_s is None:
        return ""
    if min(new.calls, old.calls) < max(min_calls, _CALLS_OF_P95):
        return ""
    if new.least_p95_s > max(old.p95_s * _SLOWER, old.p95_s + _SLOWER_S):
        return f"the p95 of its calls is {new.p95_s * 1e3:.1f} ms, against {old.p95_s * 1e3:.1f} ms of the old one's"
    return ""


def sample_of(window: LatencyWindow, now_ns: int) -> Sample:
    """Return what came of the calls that a window holds.

    The bound of the percentile is the duration whose rank a normal approximation of the binomial distribution gives,
    one-sided at 1 %: whatever the distribution of the durations is, so many calls are rarely above the percentile.
    """
    summary = window.summary(now_ns)
    least_p95_s = None
    if summary.count:
        rank = _P95 - _SURE * sqrt(_P95 * (1.0 - _P95) / summary.count)
        least_p95_s = window.quantile(now_ns, max(rank, 0.0))
    return Sample(summary.count, summary.failures, summary.p95_s, least_p95_s)


class Trial:
    """Give new instances a share of a server's calls, and compare them with the old instances.

    Meanwhile calls are shared by weight, because power of two choices gives an instance of low weight nothing while the
    others are idle. The policy ``consistent`` respects weights anyway and stays, so that keys keep their instances.

    Parameters
    ----------
    supervisor
        The server.
    router
        Holds the weights and circuits of its instances.
    new
        The instances to try, not in traffic yet.
    percentage
        The percentage of the calls for them, above 0 and below 100.
    min_calls
        How many calls they must get for a positive verdict.
    duration_s
        How many seconds the trial takes.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        router: Router,
        new: Sequence[Instance],
        percentage: float,
        min_calls: int,
        duration_s: float,
        clock: Callable[[], int],
    ) -> None:
        self._supervisor = supervisor
        self._router = router
        self._new = new
        self._old = supervisor.instances
        self._share = percentage / 100.0
        self._min_calls = min_calls
        self._duration_s = duration_s
        self._clock = clock
        epoch_ns = round((duration_s + _EPOCH_MARGIN_S) * 1e9)
        self._new_calls = LatencyWindow(epoch_ns=epoch_ns)
        self._old_calls = LatencyWindow(epoch_ns=epoch_ns)
        self._weights = [each.backend.weight for each in new if each.backend is not None]

    def begin(self) -> None:
        """Let the new instances take their share, and begin to measure both sides."""
        backends = [each.backend for each in self._new if each.backend is not None]
        tiers = {backend.tier for backend in backends}
        beside = sum(
            each.backend.weight for each in self._old if each.backend is not None and each.backend.tier in tiers
        )
        self._supervisor.balance(by_weight=True)
        for backend in backends:
            backend.latencies = self._new_calls
            backend.identity ^= _OTHER_KEYS
            if beside > 0:
                self._router.set_weight(backend, beside * self._share / (1.0 - self._share) / len(backends))
        for instance in self._old:
            if instance.backend is not None:
                instance.backend.latencies = self._old_calls
        for instance in self._new:
            self._supervisor.admit(instance)

    async def verdict(self) -> str:
        """Wait for the end of the trial, or until the new instances fail it; say why they do, ``""`` if they pass."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._duration_s
        while True:
            left_s = end - loop.time()
            if left_s > 0:
                await asyncio.sleep(min(left_s, _LOOK_S, self._duration_s / _LOOKS))
            now_ns = self._clock()
            new, old = sample_of(self._new_calls, now_ns), sample_of(self._old_calls, now_ns)
            if self._has_open_circuit():
                return "its circuit opened"
            worse = what_is_worse(new, old, self._min_calls)
            if worse:
                return worse
            if left_s <= 0:
                too_few = f"it received {new.calls} calls, fewer than min_calls ({self._min_calls})"
                return too_few if new.calls < self._min_calls else ""

    def end(self) -> None:
        """Restore the configured balancing and weights, and stop measuring."""
        for instance in (*self._old, *self._new):
            if instance.backend is not None:
                instance.backend.latencies = None
        for instance, weight in zip(self._new, self._weights, strict=True):
            if instance.backend is not None:
                self._router.set_weight(instance.backend, weight)
                instance.backend.identity ^= _OTHER_KEYS
        self._supervisor.balance()

    def _has_open_circuit(self) -> bool:
        now_ns = self._clock()
        return any(
            self._router.breaker_state(each.backend, now_ns) == CircuitState.OPEN
            for each in self._new
            if each.backend is not None
        )
