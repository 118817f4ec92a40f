"""Declarations of what writes HTTP responses."""

from libc.stdint cimport int64_t

cdef enum Ending:
    # HTTP/1.1 keeps a connection unless something is said.
    UNSAID
    KEEPS
    CLOSES

# A response with a body of JSON, or with none: its head, and the first bytes of the body.
cdef bytes response(int status, Py_ssize_t size, bytes fields, bytes date, Ending ending, bytes first)
cdef bytes events_head(bytes fields, bytes date, Ending ending, bint chunked)
cdef bytes chunk_of(bytes data)
# The body of a response that refuses a request.
cdef bytes refusal(int status)
# The Date field of this second, by any monotonic clock: it is written anew when that says another one.
cdef bytes date_line(int64_t second)
