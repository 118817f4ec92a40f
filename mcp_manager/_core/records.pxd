"""Layout of the router's records: servers, their pools of backends, and the leases of calls under way."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from mcp_manager._core.breaker cimport BreakerSettings as Settings
from mcp_manager._core.breaker cimport Circuit
from mcp_manager._core.allowance cimport PairWindow, RatePolicy
from mcp_manager._core.histogram cimport Buckets, Histogram, LatencyWindow
from mcp_manager._core.limiter cimport Limiter, LimiterPolicy

cdef enum:
    STATUSES = 13

cdef enum:
    C_READY = 0
    C_PENDING = 1
    C_EXCLUDED = 2

# The parts of a pool's list, in this order: backends that may take a call now; those barred for a time by their
# circuit, limit, ejection or pause; those that must connect first; those that take no calls.
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


cdef struct ToolCounts:
    uint64_t[STATUSES] counts
    Buckets latency


cdef class Series:
    cdef uint64_t[STATUSES] counts
    cdef Histogram latency
    # Whether its calls are tools/call: these are counted by tool, too.
    cdef bint is_of_tools
    # Its method as a label of a metric; None until the first scrape.
    cdef bytes label
    # The latest traced call by bucket, see note_exemplar() in readings; None until the first.
    cdef dict exemplars


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
    # Where the first three parts of the list end.
    cdef Py_ssize_t[3] ends
    # Before this time, no barred backend returns through the passing of time alone.
    cdef int64_t due_ns
    cdef Py_ssize_t full
    cdef Py_ssize_t cursor
    cdef double max_weight
    # Percentage of the server's calls, as of the last change.
    cdef double load
    cdef int tier


cdef class Server(Pool):
    cdef readonly str server_id
    # All pools by tier, this one included; None as long as it is the only one.
    cdef list tiers
    cdef Balancing balancing
    cdef Limits limits
    # When the next call would arrive at the allowed rate (GCRA).
    cdef int64_t arrival_ns
    # Calls and their retries; calls sent and those not refused. NULL until the first.
    cdef PairWindow* spent
    cdef PairWindow* sent
    cdef EventQueue events
    cdef dict methods
    # How many of them the protocol does not have: these are bounded.
    cdef Py_ssize_t foreign
    cdef Series other
    cdef str last_method
    cdef Series last_series
    cdef LatencyWindow window
    cdef readonly int64_t inflight
    # How many calls wait for a slot, and the callback for when one may be free.
    cdef public int64_t waiting
    cdef public object on_slot
    # Makes its backends when the first call comes; None once they exist.
    cdef public object activator
    cdef uint64_t health_successes
    cdef uint64_t health_failures
    # How often a closed circuit of its backends opened.
    cdef uint64_t openings
    cdef Py_ssize_t ejected
    cdef bint loads_stale
    # The places in the table of tools by name, and the place that was used last; None and 0 until the first.
    cdef dict tools
    cdef int32_t last_tool
    # The latest traced calls by tool and bucket; None until the first.
    cdef dict tool_exemplars
    # Whether it was removed: its tools get no places any more, since nothing would take these away again.
    cdef readonly bint is_forgotten
    # From how many nanoseconds on a call is slow, and by which measurement; see CallPath.watch().
    cdef int64_t slow_ns
    cdef uint64_t slow_epoch
    # The calls of tools that have no place in the table; NULL until the first.
    cdef ToolCounts* other_tools
    # Its id as a label of metrics, and when it was deployed, in seconds since 1970.
    cdef public bytes label
    cdef public double created_s


cdef class Backend:
    cdef Circuit circuit
    cdef readonly Server server
    cdef Pool pool
    cdef readonly object payload
    # The compiled send path of its session; None if requests must take the Python call path.
    cdef public object channel
    # Called when its last call under way ends.
    cdef public object on_idle
    # Measures its calls in addition to the server's own window; None unless it is watched.
    cdef public LatencyWindow latencies
    cdef readonly Settings settings
    cdef readonly double weight
    cdef readonly int64_t inflight
    cdef Limiter limiter
    # The most calls at a time; INT64_MAX if there is no limit.
    cdef int64_t cap
    # When it last answered a call, even with an error; when a call last failed; when one last brought no result.
    cdef readonly int64_t last_success_ns
    cdef readonly int64_t last_failure_ns
    cdef readonly int64_t last_fruitless_ns
    # Calls since the last one that brought a result: those answered otherwise, those of them answered with more than a
    # JSON-RPC error or an HTTP 429 or 503, and those not answered at all.
    cdef readonly uint32_t fruitless
    cdef readonly uint32_t refused
    cdef readonly uint32_t broken
    # When its slow start began; 0 once that is over.
    cdef int64_t since_ns
    # When its ejection as an outlier ends, and when the pause ends that it asked for; 0 without one.
    cdef readonly int64_t ejected_until_ns
    cdef readonly int64_t paused_until_ns
    cdef public uint64_t identity
    cdef Py_ssize_t position
    cdef double latency_ns
    cdef int64_t latency_at_ns
    cdef readonly int8_t availability
    cdef int8_t part
    cdef bint is_full
    # Whether its latency estimate contains the penalty of a failure.
    cdef bint is_punished
    cdef readonly bint removed
    cdef object __weakref__


cdef class Lease:
    cdef readonly Backend backend
    cdef readonly Server server
    cdef Series series
    cdef readonly int64_t started_ns
    cdef readonly int64_t retry_after_ns
    cdef readonly int rejection
    cdef uint64_t generation
    cdef int32_t slot
    # The place of the called tool in the table, NO_TOOL if there is none, and which tool had that place.
    cdef int32_t tool
    cdef uint32_t tool_serial
    cdef bint probe
    cdef bint finished


cdef PairWindow* new_window(int64_t span_ns) except NULL
cdef int begin_anew(Server server, Limits before) except -1
cdef void update_part(Backend backend) noexcept
cdef int note_transitions(Backend backend, int64_t now_ns) except -1
cdef Pool pool_of_tier(Server server, int tier)
cdef int check_place(double weight, int tier) except -1
cdef int enter(Backend backend, Pool pool) except -1
cdef int adjust(Backend backend, Settings settings, double weight, Pool pool, int64_t now_ns) except -1
cdef void leave(Backend backend) noexcept
