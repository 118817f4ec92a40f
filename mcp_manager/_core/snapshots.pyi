"""Snapshots of a server and its backends at one instant."""

from typing import Any, Final, NamedTuple

from mcp_manager._core.breaker import CircuitSnapshot
from mcp_manager._core.histogram import WindowSummary

__pyx_capi__: dict[str, object]
OTHER_METHOD: Final = "other"
"""The name under which the methods beyond ``max_methods`` are counted together."""
LE_BOUNDS_S: tuple[float, ...]
"""Upper bounds of ``MethodCounts.buckets`` in seconds: 2**-12 to 2**7."""

class BackendReading(NamedTuple):
    """A backend at one instant.

    Attributes
    ----------
    payload
        What was given to :meth:`Router.add_backend`.
    availability
        0 ready, 1 pending, 2 excluded.
    inflight
        Calls under way.
    last_success_ns
        When it last answered a call, even with an error; 0 if never.
    last_failure_ns
        When a call to it last failed; 0 if never.
    last_fruitless_ns
        When a call to it last brought no result; 0 if never.
    fruitless, refused, broken
        Counts of calls since the last one that brought a result; see :class:`Backend`.
    latency_s
        The latency estimate in seconds, decayed to the instant; ``None`` before the first call has ended.
    circuit
        Its circuit. ``circuit_state`` (0 closed, 1 open, 2 half open), ``retry_after_ns`` (how long an open circuit
        still admits nothing, not even a probe), ``window_calls`` and ``window_failures`` are taken from it.
    tier, weight, limit, ejected_until_ns, paused_until_ns
        Those of the :class:`Backend`.
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
    """The calls of one method of one server since the server was added.

    Attributes
    ----------
    method
        The method.
    counts
        The calls that ended, rejected picks included, by ``CallStatus``.
    buckets
        Pairs of an upper bound in seconds and the exact number of measured calls that took at most that long.
    count, sum_s
        The number of measured calls and the seconds that they took together. Calls that ended in success or failure are
        measured; ignored and rejected ones are not.
    """

    method: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int  # type: ignore[assignment]  # the histogram's own term hides a method of tuple
    sum_s: float

class ToolReading(NamedTuple):
    """The calls of one tool of one server; otherwise as :class:`MethodCounts`.

    ``tool`` is :data:`~mcp_manager._core.tool_table.OTHER_TOOL_NAME` for those that are not counted by name.
    """

    tool: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int  # type: ignore[assignment]  # the histogram's own term hides a method of tuple
    sum_s: float

class ServerCounts(NamedTuple):
    """A server at one instant.

    Attributes
    ----------
    server_id
        The id of the server.
    backends
        Its backends: first those that may take a call, then the barred, the pending and the excluded ones.
    methods
        Its calls by method.
    inflight
        Calls under way, those on removed backends included; probes are not counted.
    health_successes, health_failures
        The probes that ended.
    window
        A summary of the measured calls of the last 30 to 60 s. ``window_calls``, ``window_failures`` and
        ``window_sum_s`` (the seconds that they took together) are taken from it.
    waiting
        The callers that wait for a slot.
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
