"""Readings of the core's records for exporters: latencies in OpenTelemetry's layout, and single past calls."""

from cpython.object cimport PyObject
from libc.math cimport ldexp
from libc.stdint cimport INT64_MAX, int64_t, uint64_t, uint32_t

from mcp_manager._core.call_ring cimport CallRing, Entry
from mcp_manager._core.histogram cimport OCTAVES, Buckets
from mcp_manager._core.records cimport STATUSES, Series, Server
from mcp_manager._core.tool_table cimport OTHER_TOOL, OTHER_TOOLS, ToolEntry, ToolTable, tools_of

from typing import NamedTuple

from mcp_manager._core.call_ring import PastCall
from mcp_manager._core.snapshots import OTHER_METHOD as _OTHER_METHOD

cdef enum:
    LOWEST_EXPONENT = -20
    # The upper bounds of the buckets that keep an exemplar each, as powers of 2 in seconds; the last is infinite.
    LOWEST_BOUND = -12
    HIGHEST_BOUND = 8
    NO_BOUND = 9

INFINITE_BOUND = NO_BOUND


class Distribution(NamedTuple):
    scale: int
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int
    zero_count: int
    offset: int
    counts: list


class Exemplar(NamedTuple):
    trace_id: int
    span_id: int
    value_ns: int
    at_ns: int


class Operation(NamedTuple):
    method: str
    statuses: tuple
    durations: Distribution
    exemplars: dict


class ToolOperation(NamedTuple):
    tool: str
    place: tuple
    statuses: tuple
    durations: Distribution
    exemplars: dict


cdef object distribution(Buckets* buckets):
    """Return the buckets from the first to the last that is not empty; durations above 2**8 s count as just above."""
    cdef list counts = []
    cdef int size = 1 << buckets.schema
    cdef int octave, sub
    cdef int empty = 0
    cdef int first = 0
    cdef uint64_t count
    for octave in range(OCTAVES):
        if buckets.pages[octave] == NULL:
            empty += size
            continue
        for sub in range(size):
            if (buckets.wide >> octave) & 1:
                count = (<uint64_t*> buckets.pages[octave])[sub]
            else:
                count = (<uint32_t*> buckets.pages[octave])[sub]
            if count == 0:
                empty += 1
                continue
            if not counts:
                first = (octave + LOWEST_EXPONENT) * size + sub
            else:
                counts.extend([0] * empty)
            empty = 0
            counts.append(count)
    if buckets.overflow:
        if not counts:
            first = (OCTAVES + LOWEST_EXPONENT) * size
        else:
            counts.extend([0] * empty)
        counts.append(buckets.overflow)
    return Distribution(
        buckets.schema,
        buckets.count,
        buckets.sum_ns,
        buckets.min_ns if buckets.min_ns != INT64_MAX else 0,
        buckets.max_ns,
        buckets.underflow,
        first,
        counts,
    )


cdef object operation(str method, Series series):
    return Operation(
        method,
        tuple([series.counts[status] for status in range(STATUSES)]),
        distribution(&series.latency.buckets),
        {} if series.exemplars is None else dict(series.exemplars),
    )


def operations(Server server not None):
    cdef list found = []
    if server.methods is not None:
        for method, series in list(server.methods.items()):
            found.append(operation(<str> method, <Series> series))
    if server.other is not None:
        found.append(operation(_OTHER_METHOD, server.other))
    return found


cdef int bound_above(int64_t value_ns) noexcept:
    """Return the exponent of the bound of a duration's bucket, which includes its bound."""
    cdef double seconds = <double> value_ns * 1e-9
    cdef int exponent
    for exponent in range(LOWEST_BOUND, HIGHEST_BOUND + 1):
        if seconds <= ldexp(1.0, exponent):
            return exponent
    return NO_BOUND


cdef bint has_counted(const Buckets* buckets, int exponent) noexcept:
    """Return whether a histogram has a duration in the bucket with this bound."""
    cdef int octave
    if exponent == NO_BOUND:
        return buckets.overflow > 0
    if exponent > LOWEST_BOUND:
        # An octave has a page from its first duration on.
        return buckets.pages[exponent - 1 - LOWEST_EXPONENT] is not NULL
    for octave in range(LOWEST_BOUND - LOWEST_EXPONENT):
        if buckets.pages[octave] is not NULL:
            return True
    return buckets.underflow > 0


cdef int counted_bound(const Buckets* buckets, int64_t value_ns) noexcept:
    """Return the bound of the bucket that counted a call; NO_BOUND + 1 if none can have.

    The call may have been measured a little shorter or longer than the duration that is known of it.
    """
    cdef int exponent = bound_above(value_ns)
    if has_counted(buckets, exponent):
        return exponent
    if exponent > LOWEST_BOUND and has_counted(buckets, exponent - 1):
        return exponent - 1
    if exponent < NO_BOUND and has_counted(buckets, exponent + 1):
        return exponent + 1
    return NO_BOUND + 1


cdef Series known_series(Server server, str method):
    found = None if server.methods is None else server.methods.get(method)
    return <Series> found if found is not None else server.other


def note_exemplar(Server server not None, str method not None, exemplar not None, str tool=None):
    cdef Series series = known_series(server, method)
    cdef int exponent
    if series is None:
        return
    exponent = counted_bound(&series.latency.buckets, exemplar.value_ns)
    if exponent > NO_BOUND:
        return
    if series.exemplars is None:
        series.exemplars = {}
    series.exemplars[exponent] = exemplar
    if not series.is_of_tools or (server.tools is None and server.other_tools is NULL):
        return
    if server.tools is None or tool is None or tool not in server.tools:
        tool = OTHER_TOOLS
    if server.tool_exemplars is None:
        server.tool_exemplars = {}
    (<dict> server.tool_exemplars.setdefault(tool, {}))[exponent] = exemplar


def exemplars(Server server not None, str method not None):
    cdef Series series = known_series(server, method)
    return {} if series is None or series.exemplars is None else dict(series.exemplars)


def tool_exemplars(Server server not None, str tool not None):
    return {} if server.tool_exemplars is None else dict(server.tool_exemplars.get(tool, ()))


def tool_operations(ToolTable table not None, Server server not None):
    cdef list found = []
    cdef ToolEntry* entry
    for tool, number in tools_of(table, server):
        if number == OTHER_TOOL:
            continue
        entry = &table.entries[<int> number]
        if entry.name is not <PyObject*> tool or entry.server is not <PyObject*> server:
            # It has just lost its place.
            continue
        found.append(ToolOperation(
            tool,
            (number, entry.serial),
            tuple([entry.kept.counts[status] for status in range(STATUSES)]),
            distribution(&entry.kept.latency),
            tool_exemplars(server, tool),
        ))
    return found


def probes(Server server not None):
    return server.health_successes, server.health_failures


def past_call(CallRing ring not None, str server_id not None, int64_t started_ns):
    cdef Py_ssize_t position = ring.following
    cdef Entry* entry
    for _ in range(ring.held):
        position = (position if position > 0 else ring.capacity) - 1
        entry = &ring.entries[position]
        if entry.started_ns == started_ns and <str> entry.server_id == server_id:
            return PastCall(
                <str> entry.server_id, <str> entry.method, ring.labels[position], entry.started_ns, entry.ended_ns,
                entry.inflight, entry.circuit, entry.status,
            )
    return None
