from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cdef enum Content:
    OTHER = 0
    JSON = 1
    EVENTS = 2


cdef class WireReply:
    cdef readonly int status
    cdef public bytes body
    # None if none is worth keeping.
    cdef list headers
    cdef bytes media_type
    cdef Content content


cdef class Exchange


cdef class Request:
    cdef readonly bytes method
    cdef readonly bytes params
    cdef readonly bytes meta
    cdef readonly bytes fields
    cpdef Exchange exchange(self, int64_t request_id, int64_t deadline_ns)


cdef class Exchange:
    cdef readonly bytes frame
    cdef readonly int64_t request_id
    cdef readonly int64_t deadline_ns
    cdef public int64_t began_ns
    cdef public WireReply head
    cdef public object wire
    cdef public object listener
    cdef public bytes fields
    cdef public int status
    cdef public bint sent
    cdef public bint answered
    cdef public bint reused
    cdef public bint resent


cdef class GrowingBody:
    # A bytes object that nothing else refers to, of which ``size`` bytes are written.
    cdef PyObject* block
    cdef Py_ssize_t size
    cdef int add(self, bytes piece) except -1
    cdef bytes take(self)


cdef enum:
    CONTENT_TYPE = 0
    CONTENT_LENGTH = 1
    TRANSFER_ENCODING = 2
    CONTENT_ENCODING = 3
    SET_COOKIE = 4

# Lower-case names of the headers that are kept.
cdef tuple KEPT

cdef Content content_of(bytes value) noexcept
cdef bint is_encoded(bytes value)
cdef bytes kept_name(bytes name)
cdef int64_t length_of(bytes value) noexcept
cdef bytes render(bytes head, bytes fields, bytes body)
# The memory of one finished long body is kept for the next one.
cdef bytes new_body(Py_ssize_t size)
cdef object recycle_body(bytes body)
# The same, once nothing else refers to the body: it is still being sent.
cdef object lend_body(bytes body)
cdef GrowingBody grow_from(bytes first, bytes second)
cdef bint is_unshared(PyObject* data) noexcept
# A writable view of a part of a body; the view keeps the body alive.
cdef object room_in(bytes body, Py_ssize_t start, Py_ssize_t size)
cdef Exchange make_exchange(
    const char* method, Py_ssize_t method_size, const char* opening, Py_ssize_t opening_size,
    const char* params, Py_ssize_t params_size, int64_t request_id, int64_t deadline_ns,
)
cdef WireReply make_reply(int status, list headers, bytes media_type, bytes body, Content content)
