"""A ring buffer of the latest successful calls; recording one takes a few nanoseconds."""

cimport cython
from cpython.ref cimport Py_XDECREF, Py_XINCREF, PyObject
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from typing import NamedTuple


class PastCall(NamedTuple):
    server_id: str
    method: str
    label: object
    started_ns: int
    ended_ns: int
    inflight: int
    circuit: int
    status: int = 0


cdef inline void hold(PyObject** place, PyObject* value) noexcept:
    """Store a new reference in a place, and release the one that it held."""
    cdef PyObject* before = place[0]
    if before is value:
        return
    Py_XINCREF(value)
    place[0] = value
    Py_XDECREF(before)


@cython.final
cdef class CallRing:
    def __cinit__(self, Py_ssize_t capacity):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.entries = <Entry*> calloc(capacity, sizeof(Entry))
        if self.entries is NULL:
            raise MemoryError
        self.labels = [None] * capacity
        self.capacity = capacity

    def __dealloc__(self):
        cdef Py_ssize_t position
        if self.entries is NULL:
            return
        for position in range(self.held):
            Py_XDECREF(self.entries[position].server_id)
            Py_XDECREF(self.entries[position].method)
        free(self.entries)

    def __len__(self):
        return self.held

    cdef void note(
        self, str server_id, str method, object label, int64_t started_ns, int64_t ended_ns, int64_t inflight,
        int circuit, int status,
    ) noexcept:
        cdef Py_ssize_t position = self.following
        cdef Entry* entry = &self.entries[position]
        self.following += 1
        if self.following == self.capacity:
            self.following = 0
        if self.held < self.capacity:
            self.held += 1
        hold(&entry.server_id, <PyObject*> server_id)
        hold(&entry.method, <PyObject*> method)
        entry.started_ns = started_ns
        entry.ended_ns = ended_ns
        entry.inflight = <int> inflight
        entry.circuit = circuit
        entry.status = status
        # Last, since releasing the previous label may run any code.
        if self.labels[position] is not label:
            self.labels[position] = label

    def add(
        self, str server_id not None, str method not None, object label, int64_t started_ns, int64_t ended_ns,
        int inflight, int circuit, int status=0,
    ):
        self.note(server_id, method, label, started_ns, ended_ns, inflight, circuit, status)

    def past_calls(self):
        cdef list records = []
        cdef Py_ssize_t first = self.following if self.held == self.capacity else 0
        cdef Py_ssize_t position
        cdef Entry* entry
        for offset in range(self.held):
            position = (first + offset) % self.capacity
            entry = &self.entries[position]
            records.append(PastCall(
                <str> entry.server_id, <str> entry.method, self.labels[position], entry.started_ns, entry.ended_ns,
                entry.inflight, entry.circuit, entry.status,
            ))
        return records
