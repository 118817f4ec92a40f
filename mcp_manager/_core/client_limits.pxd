"""Layout of the counts of what clients use."""

from libc.stdint cimport int64_t

from mcp_manager._core.allowance cimport RateLimiter


cdef class Counter:
    cdef readonly object config
    cdef readonly Py_ssize_t most_running
    cdef readonly Py_ssize_t most_streams
    cdef public Py_ssize_t running
    cdef public Py_ssize_t streams
    cdef RateLimiter limiter


cdef class UseCounts:
    cdef public Py_ssize_t running
    cdef public Py_ssize_t streams
    # Replaced when other counters count its requests.
    cdef public object epoch

    cdef tuple admit(self, tuple counters, Py_ssize_t most_running, int64_t now_ns)
    cdef int leave(self, tuple counters) except -1


cdef class RouteUse:
    cdef readonly object sender
    cdef readonly UseCounts account
    cdef readonly tuple counters
    cdef Py_ssize_t most_running
    # It holds as long as these are the same.
    cdef object limits_epoch
    cdef object account_epoch
    cdef object audit
    # What the audit log says of each call; None if that has to be found out each time.
    cdef bytes line

    cdef bint holds(self, object limits_epoch, object audit) noexcept


cdef tuple admit_in(tuple counters, int64_t now_ns)
cdef bytes audit_line(
    int64_t at_ns, bytes line, int64_t duration_ns, Py_ssize_t size_in, Py_ssize_t size_out
)
cdef bint may_have_failed(bytes reply) except -1
