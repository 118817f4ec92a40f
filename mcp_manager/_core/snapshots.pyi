"""Snapshots: what a server and its backends look like at one instant."""

from typing import Any, Final, NamedTuple

from mcp_manager._core.breaker import CircuitSnapshot
from mcp_manager._core.histogram import WindowSummary

__pyx_capi__: dict[str, object]
OTHER_METHOD: Final = "other"
"""Under which name the methods above ``max_methods`` are counted together."""
LE_BOUNDS_S: tuple[float, ...]
"""Upper bounds of ``MethodCounts.buckets`` in seconds: 2**-12 to 2**7."""

class BackendReading(NamedTuple):
    """A backend at one instant.

    ``payload`` is what was given to :meth:`Router.add_backend`; ``inflight`` the calls under way; ``last_success_ns``
    when it last answered a call, be it with an error, ``last_failure_ns`` when a call to it last failed, and
    ``last_fruitless_ns`` when one last brought no result, 0 if never; ``fruitless``, ``refused`` and ``broken`` count the
    calls since the last one that brought a result, as those of the backend do; ``latency_s`` the latency estimate, decayed to the instant, ``None`` before
    the first call ended. ``circuit`` is its circuit, repeated in ``circuit_state`` (0 closed, 1 open, 2 half open),
    ``retry_after_ns`` (how long an open one still admits nothing, not even a probe), ``window_calls`` and
    ``window_failures``. ``tier``, ``weight``, ``limit``, ``ejected_until_ns`` and ``paused_until_ns`` are those of the
    backend.
    """

    payload: Any
    availability: int
    inflight: int
    last_success_ns: int
    last_failure_ns: int
    last_fruitless_ns: int
    fruitless: int
    refused: int
    broken: int
    latency_s: float | None
    circuit: CircuitSnapshot
    circuit_state: int
    retry_after_ns: int
    window_calls: int
    window_failures: int
    tier: int
    weight: float
    limit: int | None
    ejected_until_ns: int
    paused_until_ns: int

class MethodCounts(NamedTuple):
    """What one method of one server has counted since the server was added.

    ``counts`` are the calls that ended by ``CallStatus``, rejected picks among them. ``buckets`` are pairs of an upper
    bound in seconds and the exact number of measured calls that took at most that; ``count`` and ``sum_s`` are the
    number and the sum of all measured calls: those that ended in success or failure, neither ignored nor rejected ones.
    """

    method: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int  # type: ignore[assignment]  # the method of tuple gives way to the histogram's own word
    sum_s: float

class ServerCounts(NamedTuple):
    """A server at one instant.

    ``backends`` are the ready ones, then the pending, then the excluded ones. ``inflight`` are the calls under way,
    also on backends that were removed; probes are not counted. ``health_successes`` and ``health_failures`` are the
    probes that ended. ``window`` has the measured calls of the last 30 to 60 s with their quantiles, repeated in
    ``window_calls``, ``window_failures`` and ``window_sum_s`` (the sum of their durations). ``waiting`` are the callers
    that wait for a slot.
    """

    server_id: str
    backends: tuple[BackendReading, ...]
    methods: tuple[MethodCounts, ...]
    inflight: int
    health_successes: int
    health_failures: int
    window: WindowSummary
    window_calls: int
    window_failures: int
    window_sum_s: float
    waiting: int
