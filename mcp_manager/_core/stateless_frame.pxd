"""Layout of the framing of stateless requests, for the compiled call path."""

from libc.stdint cimport int64_t

from mcp_manager._core.http_message cimport Exchange
from mcp_manager._core.jsonrpc cimport Message


cdef class StatelessFrame:
    # Ends with the comma before the next member: there is always one.
    cdef bytes opening
    cdef dict methods
    cdef dict mirrored

    cdef Exchange frame(self, object request, int64_t request_id, int64_t deadline_ns)


cdef bint is_complete(Message reply) noexcept
