"""Snapshots of a server and its backends at one instant; reading changes nothing."""

from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from typing import NamedTuple

from mcp_manager._core.balancing cimport latency_of, refresh_loads
from mcp_manager._core.breaker cimport CLOSED, HALF_OPEN, OPEN, CircuitSnapshot, circuit_snapshot
from mcp_manager._core.histogram cimport Buckets, WindowSummary, buckets_le, empty_summary
from mcp_manager._core.records cimport STATUSES, Backend, Pool, Series, Server
from mcp_manager._core.tool_table cimport OTHER_TOOL, ToolEntry, ToolTable, tools_of

cdef enum:
    LOWEST_LE = -12
    HIGHEST_LE = 7

LE_BOUNDS_S = tuple([2.0**exponent for exponent in range(LOWEST_LE, HIGHEST_LE + 1)])
cdef str OTHER = "other"
OTHER_METHOD = OTHER


class BackendReading(NamedTuple):
    payload: object
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
    method: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int
    sum_s: float


class ToolReading(NamedTuple):
    tool: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int
    sum_s: float


class ServerCounts(NamedTuple):
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


cdef object snapshot_backend(Backend backend, int64_t now_ns):
    cdef CircuitSnapshot circuit = circuit_snapshot(&backend.circuit, &backend.settings.policy, now_ns)
    return BackendReading(
        backend.payload,
        backend.availability,
        backend.inflight,
        backend.last_success_ns,
        backend.last_failure_ns,
        backend.last_fruitless_ns,
        backend.fruitless,
        backend.refused,
        backend.broken,
        latency_of(backend, now_ns) / 1e9 if backend.latency_ns > 0 else None,
        circuit,
        circuit.state,
        circuit.retry_after_ns,
        circuit.window_calls,
        circuit.window_failures,
        backend.pool.tier,
        backend.weight,
        None if backend.cap == INT64_MAX else backend.cap,
        backend.ejected_until_ns,
        backend.paused_until_ns,
    )


cdef object reading_of(kind, str name, const uint64_t* counts, const Buckets* latency):
    return kind(
        name,
        tuple([counts[status] for status in range(STATUSES)]),
        tuple(zip(LE_BOUNDS_S, buckets_le(latency, LOWEST_LE, HIGHEST_LE))),
        latency.count,
        <double> latency.sum_ns / 1e9,
    )


cdef tuple snapshot_methods(Server server):
    """Return the counts of a server by method."""
    cdef list methods = [] if server.methods is None else list(server.methods.items())
    if server.other is not None:
        methods.append((OTHER_METHOD, server.other))
    return tuple([
        reading_of(MethodCounts, <str> method, (<Series> each).counts, &(<Series> each).latency.buckets)
        for method, each in methods
    ])


cdef tuple snapshot_tools(ToolTable table, Server server):
    """Return the counts of a server by tool."""
    cdef list readings = []
    cdef ToolEntry* entry
    if table is None:
        return ()
    for tool, place in tools_of(table, server):
        if place == OTHER_TOOL:
            readings.append(
                reading_of(ToolReading, tool, server.other_tools.counts, &server.other_tools.latency)
            )
            continue
        entry = &table.entries[<int> place]
        if entry.name is <PyObject*> tool and entry.server is <PyObject*> server:
            readings.append(reading_of(ToolReading, tool, entry.kept.counts, &entry.kept.latency))
    return tuple(readings)


cdef tuple gauges_of(Server server, list backends, int64_t now_ns):
    """Return what metrics show of a server: see the stub of ``Router.gauges_of``."""
    cdef uint64_t calls = 0
    cdef uint64_t failures = 0
    cdef int64_t limit = 0
    cdef Py_ssize_t ejected = 0
    cdef bint is_limited = False
    cdef Py_ssize_t half_open = 0
    cdef Py_ssize_t open_circuits = 0
    cdef bint has_closed = False
    cdef int circuit = CLOSED
    cdef Pool pool
    cdef Backend backend
    if server.window is not None:
        server.window.count_calls(now_ns, &calls, &failures)
    for pool in [server] if server.tiers is None else server.tiers:
        for backend in pool.backends:
            ejected += backend.ejected_until_ns > now_ns
            if backend.cap != INT64_MAX:
                is_limited = True
                limit += backend.cap
    for backend in backends:
        if backend.circuit.passing:
            has_closed = True
            continue
        circuit = circuit_snapshot(&backend.circuit, &backend.settings.policy, now_ns).state
        has_closed = has_closed or circuit == CLOSED
        half_open += circuit == HALF_OPEN
        open_circuits += circuit != CLOSED
    circuit = CLOSED if has_closed else HALF_OPEN if half_open else OPEN if open_circuits else CLOSED
    return (
        server.inflight, server.waiting, server.health_successes, server.health_failures, calls, failures, circuit,
        open_circuits, server.openings, ejected, limit if is_limited else None,
    )


cdef list backends_of(Server server):
    """Return the backends of all tiers by part: eligible, barred, connecting, out."""
    cdef list parts = [[], [], [], []]
    cdef Pool pool
    cdef Backend backend
    for pool in [server] if server.tiers is None else server.tiers:
        for backend in pool.backends:
            (<list> parts[backend.part]).append(backend)
    return [backend for part in parts for backend in part]


cdef dict tier_loads(Server server):
    """Return the percentage of calls by tier."""
    cdef Pool pool
    refresh_loads(server)
    if server.tiers is None:
        return {server.tier: server.load}
    return {pool.tier: pool.load for pool in server.tiers}


cdef object snapshot_server(Server server, int64_t now_ns):
    cdef WindowSummary window = empty_summary() if server.window is None else server.window.summarize(now_ns)
    return ServerCounts(
        server.server_id,
        tuple([snapshot_backend(<Backend> each, now_ns) for each in backends_of(server)]),
        snapshot_methods(server),
        server.inflight,
        server.health_successes,
        server.health_failures,
        window,
        window.count,
        window.failures,
        <double> window.sum_ns / 1e9,
        server.waiting,
    )
