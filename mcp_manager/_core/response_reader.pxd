"""Layout of a reader of response heads."""

from libc.stdint cimport int64_t

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_message cimport Content, Exchange, GrowingBody
from mcp_manager._core.paced cimport PacedReader


cdef class KnownHead:
    cdef bytes head
    # Where the length of the body is in it.
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef int status
    cdef list headers
    cdef bytes media_type
    cdef Content content
    cdef bint encoded

    cdef Py_ssize_t size_of(self, const char* data, Py_ssize_t size) noexcept


cdef class ResponseReader(PacedReader):
    cdef list headers
    cdef list cookies
    cdef bytes media_type
    cdef Content content
    # Length of the body, -1 if the head does not give it.
    cdef int64_t length
    cdef bint chunked
    cdef bint encoded
    # Its body so far, and the most bytes of it.
    cdef bytes body
    # A body of unknown length, once it has more than one piece.
    cdef GrowingBody growing
    cdef int64_t received
    cdef Py_ssize_t limit

    # None, or the error that the body is.
    cdef object take_body(self, bytes chunk)
    cdef bint take_field(self, bytes name, bytes value) except -1
    cdef int forget_fields(self) except -1
    cdef int leave_head(self, Exchange exchange, int status) except -1
    cdef int recall(self, KnownHead known) except -1
    cdef bint is_put_off(self, Exchange exchange, DeadlineWheel wheel) except -1


# The head at the beginning of a response that was received in one piece; None if it must be read again each time.
cdef KnownHead known_head(const char* data, Py_ssize_t size, int status, ResponseReader read)
# The error for malformed data; of HTTP that is none from the start, it has the first bytes.
cdef object objection(error, const char* data, Py_ssize_t size)
