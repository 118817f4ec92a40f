"""Layout of chunked bodies."""

from libc.stdint cimport int64_t

from mcp_manager._core.http_message cimport GrowingBody


cdef class ChunkedBody:
    cdef object parser
    cdef object feed
    cdef int64_t limit
    cdef int64_t size
    cdef Py_ssize_t silent
    cdef Py_ssize_t pieces
    # The last three bytes fed
    cdef unsigned int last
    cdef bytes first
    cdef GrowingBody growing
    cdef bint completed
    cdef bint over
    cdef int add(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t cut(self, const char* data, Py_ssize_t size) noexcept
    cdef bytes take(self)


# Feed it the head first.
cdef ChunkedBody new_chunked_body(int64_t limit)
