"""Layout of the router, for the compiled path of a call."""

from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.allowance cimport PairWindow
from mcp_manager._core.records cimport Balancing, EventQueue, Instance, Lease, Limits, Series, Server


cdef class Router:
    cdef dict servers
    cdef Py_ssize_t max_methods
    cdef EventQueue events
    cdef Balancing balancing
    cdef Limits limits
    # What all servers together may spend on retries.
    cdef Limits together
    cdef PairWindow* spent
    cdef uint64_t identities

    cdef Series series_of(self, Server server, str method)
    cdef Lease lease(
        self, Server server, str method, int64_t now_ns, uint64_t random, uint64_t key, Instance avoid, bint waited,
        bint again,
    )
    cdef int refuses(self, Server server, str method, int64_t now_ns, uint64_t random, int64_t* wait_ns) except -1
    cdef bint grant(self, Lease lease, Instance instance, int64_t now_ns, int64_t* wait_ns) except -1
    cdef object settle(
        self, Lease lease, int outcome, int status, int64_t now_ns, int64_t retry_after_ns, uint64_t random
    )
    cdef int measure(
        self, Server server, Instance instance, Series series, int64_t duration_ns, bint failed, int64_t now_ns
    ) except -1
