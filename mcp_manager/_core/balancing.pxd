"""C interface of load balancing among a server's backends."""

from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.records cimport Backend, Pool, Server

cdef enum:
    CIRCUIT_OPEN = 10
    NO_INSTANCE = 11
    LIMITED = 12
    PAUSED = 15

cdef Backend choose(
    Server server, int64_t now_ns, uint64_t random, uint64_t key, Backend avoided
)
cdef int why_none(Server server, int64_t now_ns, int64_t* wait_ns) except -1
cdef double latency_of(Backend backend, int64_t now_ns) noexcept
cdef void observe_latency(Backend backend, double sample_ns, bint failed, bint is_result, int64_t now_ns) noexcept
cdef double cost_of(Backend backend, Pool pool, int64_t now_ns) noexcept
cdef double weight_of(Backend backend, Pool pool, int64_t now_ns) noexcept
cdef void refresh_loads(Server server) noexcept
cdef uint64_t mixed(uint64_t number) noexcept
