"""Layout of the router and its leases, for the compiled path of a call."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from mcp_manager._core.breaker cimport BreakerSettings as Settings
from mcp_manager._core.breaker cimport Circuit
from mcp_manager._core.histogram cimport Histogram, LatencyWindow

cdef enum:
    STATUSES = 12


cdef class Series:
    cdef uint64_t[STATUSES] counts
    cdef Histogram latency


cdef class Server:
    cdef str server_id
    # Ready instances first, then pending ones, then excluded ones.
    cdef list instances
    cdef Py_ssize_t ready_end
    cdef Py_ssize_t pending_end
    cdef dict methods
    cdef Series other
    cdef str last_method
    cdef Series last_series
    cdef LatencyWindow window
    cdef int64_t inflight
    cdef uint64_t health_successes
    cdef uint64_t health_failures


cdef class Instance:
    cdef Circuit circuit
    cdef Server server
    cdef readonly object payload
    # Where its requests go out, None where that takes more than the compiled path has.
    cdef public object channel
    # Called when the last call of it ends.
    cdef public object on_idle
    cdef readonly Settings settings
    cdef readonly int availability
    cdef readonly int64_t inflight
    cdef readonly int64_t last_success_ns
    cdef readonly bint removed
    cdef Py_ssize_t position
    cdef double latency_ns
    cdef int64_t latency_at_ns
    cdef object __weakref__


cdef class Lease:
    cdef readonly Instance instance
    cdef Server server
    cdef Series series
    cdef readonly int64_t started_ns
    cdef readonly int64_t retry_after_ns
    cdef readonly int rejection
    cdef uint64_t generation
    cdef int32_t slot
    cdef bint probe
    cdef bint finished


cdef class Router:
    cdef dict servers
    cdef Py_ssize_t max_methods
    cdef object events
    cdef readonly uint64_t dropped_events

    cdef Series series_of(self, Server server, str method)
    cdef int note_transitions(self, Instance instance) except -1
    cdef Instance admitted(
        self, Server server, Py_ssize_t start, Py_ssize_t end, Py_ssize_t first, Instance but, int64_t now_ns,
        int64_t* wait_ns,
    )
    cdef Instance choose(
        self, Server server, Py_ssize_t start, Py_ssize_t end, int64_t now_ns, uint64_t random, int64_t* wait_ns
    )
    cdef Lease lease(self, Server server, str method, int64_t now_ns, uint64_t random)
    cdef bint grant(self, Lease lease, Instance instance, int64_t now_ns, int64_t* wait_ns) except -1
    cdef object settle(
        self, Lease lease, int outcome, int status, int64_t now_ns, int64_t retry_after_ns, uint64_t random
    )
    cdef int measure(
        self, Server server, Instance instance, Series series, int64_t duration_ns, bint failed, int64_t now_ns
    ) except -1
