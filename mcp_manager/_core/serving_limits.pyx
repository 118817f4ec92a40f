"""What clients of a served connection may use."""

cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class ServingLimits:
    def __cinit__(
        self, *, int64_t max_body=4194304, Py_ssize_t max_queued=4194304, Py_ssize_t max_connections=65536,
        double head_s=10, double body_s=60, double idle_s=75, double write_s=30,
    ):
        if max_body < 0 or max_queued < 1 or max_connections < 1 or min(head_s, body_s, idle_s, write_s) <= 0:
            raise ValueError("limits are positive")
        self.max_body = max_body
        self.max_queued = max_queued
        self.max_connections = max_connections
        self.head_ns = <int64_t> (head_s * 1e9)
        self.body_ns = <int64_t> (body_s * 1e9)
        self.idle_ns = <int64_t> (idle_s * 1e9)
        self.write_ns = <int64_t> (write_s * 1e9)
