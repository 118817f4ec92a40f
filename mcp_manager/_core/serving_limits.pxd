"""Layout of the limits of served connections."""

from libc.stdint cimport int64_t


cdef class ServingLimits:
    cdef readonly int64_t max_body
    cdef readonly Py_ssize_t max_queued
    cdef readonly Py_ssize_t max_connections
    cdef readonly int64_t head_ns
    cdef readonly int64_t body_ns
    cdef readonly int64_t idle_ns
    cdef readonly int64_t write_ns
