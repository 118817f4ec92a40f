"""Layout of an event stream, for the wire that receives it."""

from mcp_manager._core.http_message cimport Exchange


cdef class EventStream:
    cdef Exchange exchange
    cdef object taker
    cdef readonly object parser
    cdef object turns
    cdef object clock
    # Received but not parsed; the first chunk from ``offset`` on.
    cdef object chunks
    cdef Py_ssize_t offset
    # Parsed but not handled, from ``at`` on.
    cdef list events
    cdef Py_ssize_t at
    cdef bint stopped
    # The time slice of this event-loop iteration is spent.
    cdef bint used_up

    cdef bint behind(self) noexcept
    cpdef object add(self, bytes chunk)
    cpdef object take(self, bytes chunk)
    cpdef object work(self)
    cpdef object stop(self)
    cdef int parse(self, bytes chunk) except -1
    cdef int parse_measured(self, bytes chunk) except -1
    cdef int parse_next(self) except -1
