"""Layout of the heads of HTTP requests."""

from libc.stdint cimport int64_t, uint16_t

cdef enum Framing:
    NO_BODY = 0
    SIZED = 1
    CHUNKED = 2

# Each is the length of the method and of the space after it.
cdef enum:
    GET = 4
    POST = 5
    DELETE = 7

cdef enum:
    # Fields whose places are noted while the head is read.
    NOTED = 11


cdef class MessageCheck:
    cdef object parser
    cdef object feed
    cdef int begun
    cdef int completed
    cdef int renew(self) except -1
    cdef bint is_one_message(self, const char* data, Py_ssize_t size, bint keeps_alive) except -1


cdef class RequestHead:
    # The bytes of the head, to the end of its empty line.
    cdef bytes head
    cdef uint16_t[NOTED] starts
    cdef uint16_t[NOTED] sizes
    # Bit n: the noted field n came more than once.
    cdef unsigned int several
    # One of GET, POST and DELETE; set before read().
    cdef int method_size
    cdef int target_size
    # The length of the body, 0 without one.
    cdef int64_t length
    cdef Framing framing
    cdef readonly bint keeps_alive
    cdef bint expects
    cdef bint upgrades
    cdef bint asks_to_close
    cdef bint asks_to_keep
    cdef bint asks_to_upgrade
    # The minor version of HTTP/1.
    cdef int minor
    # Where the length of the body is in the head.
    cdef int length_start
    cdef int length_size
    cdef Py_ssize_t repeated(self, const char* data, Py_ssize_t size, int64_t* length) noexcept
    cdef int repeat(self, RequestHead other, const char* data, int64_t length) except -1
    cdef object forget(self)
    cdef bint is_of_session(self) except -1
    cdef int read(self) except -1
    cdef int note(self, const char* text, int name, int name_size, int value, int value_size) except -1
    cdef int read_connection(self, const char* text, int size) except -1
    cdef bytes joined(self, bytes name)


# The size of the method at the beginning of a head, with the space after it; 0 if it is none of the three.
cdef int method_size_of(const char* data, Py_ssize_t size) noexcept

# What later heads are compared with: those of requests whose body has a length. None for other heads.
cdef RequestHead head_to_repeat(RequestHead head)

# The size of the head with its empty line, 0 if that is not there; ``at`` is where the empty line may begin.
cdef Py_ssize_t end_of_head(const char* data, Py_ssize_t size, Py_ssize_t at) noexcept
