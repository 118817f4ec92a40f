"""Layout of what the router keeps: servers, their pools of backends, and the leases of calls under way."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from mcp_manager._core.breaker cimport BreakerSettings as Settings
from mcp_manager._core.breaker cimport Circuit
from mcp_manager._core.allowance cimport PairWindow, RatePolicy
from mcp_manager._core.histogram cimport Histogram, LatencyWindow
from mcp_manager._core.limiter cimport Limiter, LimiterPolicy

cdef enum:
    STATUSES = 12

cdef enum:
    C_READY = 0
    C_PENDING = 1
    C_EXCLUDED = 2

# The parts of a pool's list, in this order.
cdef enum:
    ELIGIBLE = 0
    BARRED = 1
    CONNECTING = 2
    OUT = 3

cdef enum:
    P2C = 0
    LEAST_CONNECTIONS = 1
    ROUND_ROBIN = 2
    WEIGHTED = 3
    RANDOM = 4
    CONSISTENT = 5


cdef class Series:
    cdef uint64_t[STATUSES] counts
    cdef Histogram latency


cdef class Balancing:
    cdef readonly int policy
    cdef readonly double overprovision
    cdef readonly double panic_threshold
    cdef readonly double max_ejection
    cdef readonly int64_t slow_start_ns
    cdef readonly double slow_start_aggression
    cdef double slow_start_exponent


cdef class Limits:
    cdef LimiterPolicy limiter
    cdef readonly int64_t max_concurrent
    cdef RatePolicy rate
    cdef double shed_multiple
    cdef int64_t shed_span_ns
    cdef frozenset never_shed
    cdef double budget_ratio
    cdef double budget_reserve
    cdef int64_t budget_span_ns


cdef class EventQueue:
    cdef object events
    cdef readonly uint64_t dropped

    cdef list take(self)
    cdef int forget_removed(self) except -1


cdef class Pool:
    cdef list backends
    # Where the parts end: those that may take a call now; those barred by their circuit, limit or ejection; those that
    # would have to connect first. The rest are out.
    cdef Py_ssize_t[3] ends
    # Before this time no barred one comes back by time alone.
    cdef int64_t due_ns
    cdef Py_ssize_t full
    cdef Py_ssize_t cursor
    cdef double max_weight
    # Percent of the server's calls, as of the last change.
    cdef double load
    cdef int tier


cdef class Server(Pool):
    cdef readonly str server_id
    # All pools by tier, this one among them; None as long as it is the only one.
    cdef list tiers
    cdef Balancing balancing
    cdef Limits limits
    # When the next call would come if all kept to the rate.
    cdef int64_t arrival_ns
    # Calls and the retries beside them; calls sent and those not refused. NULL until there is one.
    cdef PairWindow* spent
    cdef PairWindow* sent
    cdef EventQueue events
    cdef dict methods
    cdef Series other
    cdef str last_method
    cdef Series last_series
    cdef LatencyWindow window
    cdef readonly int64_t inflight
    # How many calls wait for a slot, and whom to tell that one may be free.
    cdef public int64_t waiting
    cdef public object on_slot
    # Who makes its backends when the first call comes, None once they are there.
    cdef public object dormant
    cdef uint64_t health_successes
    cdef uint64_t health_failures
    cdef Py_ssize_t ejected
    cdef bint loads_stale


cdef class Backend:
    cdef Circuit circuit
    cdef readonly Server server
    cdef Pool pool
    cdef readonly object payload
    # Where its requests go out, None where that takes more than the compiled path has.
    cdef public object channel
    # Called when the last call of it ends.
    cdef public object on_idle
    # Where its calls are measured beside the server's own window, None unless somebody watches it.
    cdef public LatencyWindow latencies
    cdef readonly Settings settings
    cdef readonly double weight
    cdef readonly int64_t inflight
    cdef Limiter limiter
    # The most calls at a time; as good as none while nothing limits it.
    cdef int64_t cap
    # When it last answered a call, be it with an error; and when a call to it last failed or brought no result.
    cdef readonly int64_t last_success_ns
    cdef readonly int64_t last_failure_ns
    cdef readonly int64_t last_fruitless_ns
    # Of the calls since the last one that brought a result: those that were answered otherwise, how many of these by
    # more than a JSON-RPC error or a "come back later", and those that were not answered at all.
    cdef readonly uint32_t fruitless
    cdef readonly uint32_t refused
    cdef readonly uint32_t broken
    # Since when its weight grows; 0 once it has all of it.
    cdef int64_t since_ns
    # Until when it was ejected for failing more than others, or asked for a pause; 0 if it was not.
    cdef readonly int64_t ejected_until_ns
    cdef readonly int64_t paused_until_ns
    cdef public uint64_t identity
    cdef Py_ssize_t position
    cdef double latency_ns
    cdef int64_t latency_at_ns
    cdef readonly int8_t availability
    cdef int8_t part
    cdef bint is_full
    # Whether a failure is in its latency estimate.
    cdef bint is_punished
    cdef readonly bint removed
    cdef object __weakref__


cdef class Lease:
    cdef readonly Backend backend
    cdef Server server
    cdef Series series
    cdef readonly int64_t started_ns
    cdef readonly int64_t retry_after_ns
    cdef readonly int rejection
    cdef uint64_t generation
    cdef int32_t slot
    cdef bint probe
    cdef bint finished


cdef PairWindow* new_window(int64_t span_ns) except NULL
cdef void update_part(Backend backend) noexcept
cdef int note_transitions(Backend backend, int64_t now_ns) except -1
cdef Pool pool_of_tier(Server server, int tier)
cdef int enter(Backend backend, Pool pool) except -1
cdef void leave(Backend backend) noexcept
