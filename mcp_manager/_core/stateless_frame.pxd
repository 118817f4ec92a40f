"""Layout of what frames requests of the stateless revisions, for the compiled path of a call."""

from libc.stdint cimport int64_t

from mcp_manager._core.http_message cimport Exchange
from mcp_manager._core.jsonrpc cimport Message


cdef class StatelessFrame:
    # With the comma before another member: there is always one.
    cdef bytes opening
    cdef dict methods
    cdef dict mirrored

    cdef Exchange frame(self, object request, int64_t request_id, int64_t deadline_ns)


cdef bint is_complete(Message reply) noexcept
