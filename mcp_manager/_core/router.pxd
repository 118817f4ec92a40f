"""Layout of the router, for the compiled call path."""

from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.allowance cimport PairWindow
from mcp_manager._core.histogram cimport LatencyWindow
from mcp_manager._core.records cimport Balancing, EventQueue, Backend, Lease, Limits, Series, Server
from mcp_manager._core.tool_table cimport ToolTable


cdef class Router:
    cdef dict servers
    # Methods beyond this number share one series; those of the protocol do not count.
    cdef Py_ssize_t max_methods
    cdef frozenset own_methods
    # Counts tools/call by tool; None if it is not to.
    cdef readonly ToolTable tools
    cdef EventQueue events
    cdef Balancing balancing
    cdef Limits limits
    # The retry budget and the limit of concurrent calls of all servers together.
    cdef Limits together
    cdef readonly int64_t inflight
    # How many queues of callers wait for room under the limit of all servers, and the callback for when a call has
    # ended.
    cdef public int64_t waiting
    cdef public object on_slot
    cdef PairWindow* spent
    cdef uint64_t identities
    # Latencies of the calls of all servers.
    cdef LatencyWindow window

    cdef Series series_of(self, Server server, str method)
    cdef Lease lease(
        self, Server server, str method, int64_t now_ns, uint64_t random, uint64_t key, Backend avoid, bint waited,
        bint again,
    )
    cdef int refuses(self, Server server, str method, int64_t now_ns, uint64_t random, int64_t* wait_ns) except -1
    cdef bint grant(self, Lease lease, Backend backend, int64_t now_ns, int64_t* wait_ns) except -1
    cdef object settle(
        self, Lease lease, int outcome, int status, int64_t now_ns, int64_t retry_after_ns, uint64_t random
    )
    cdef int measure(self, Lease lease, int64_t duration_ns, bint failed, bint is_result, int64_t now_ns) except -1
