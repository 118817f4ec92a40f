"""Layout of messages, for the compiled call path."""

from libc.stdint cimport int64_t

from mcp_manager._core.http_message cimport Exchange
from mcp_manager._core.json_text cimport Range

cdef enum:
    MEMBERS = 7
    IS_RESULT = 2


cdef class Message:
    cdef bytes data
    cdef Range whole
    cdef Range[MEMBERS] members
    cdef readonly int kind
    cdef readonly object id
    cdef readonly str method
    cdef readonly object error_code
    cdef readonly str oddity

    cdef bytes cut(self, Range part)
    cdef object empty(self)
    cdef bint overwrite_id(self, bytes id_raw)
    cpdef Exchange exchange(self, int64_t request_id, int64_t deadline_ns)


cdef Message scan_one(bytes data, int max_depth, Py_ssize_t max_bytes, bint require_version, bint is_reply)
