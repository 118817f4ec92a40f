"""Layout of the ring buffer of successful calls, for the compiled call path."""

from cpython.ref cimport PyObject
from libc.stdint cimport int16_t, int32_t, int64_t


cdef struct Entry:
    # These two references are owned.
    PyObject* server_id
    PyObject* method
    int64_t started_ns
    int64_t ended_ns
    int32_t inflight
    int16_t circuit
    int16_t status


cdef class CallRing:
    cdef Entry* entries
    # Not in the entries: a label may be any object, so the garbage collector must see it.
    cdef list labels
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t following
    cdef Py_ssize_t held

    cdef void note(
        self, str server_id, str method, object label, int64_t started_ns, int64_t ended_ns, int64_t inflight,
        int circuit, int status,
    ) noexcept
