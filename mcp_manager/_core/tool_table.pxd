"""Layout of the table of tools, for the router and the compiled call path."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t

from mcp_manager._core.records cimport Lease, Server, ToolCounts

cdef enum:
    # Places of a lease: none, and the one that a server's other tools share.
    NO_TOOL = 0
    OTHER_TOOL = -1


cdef struct ToolEntry:
    ToolCounts kept
    # Borrowed: the router forgets a server's tools before it lets the server go. NULL if nothing has the place.
    PyObject* server
    # Owned.
    PyObject* name
    # The neighbours in the order of use; NO_TOOL at the ends.
    int32_t newer
    int32_t older
    uint32_t serial


cdef class ToolTable:
    # From 1; the first is not used.
    cdef ToolEntry* entries
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t room
    cdef Py_ssize_t used
    cdef int32_t newest
    cdef int32_t oldest

    cdef void name(self, Lease lease, const char* text, Py_ssize_t size) noexcept
    cdef int name_by(self, Lease lease, str tool) except -1
    cdef void count(self, Lease lease, int status) noexcept
    cdef int settle(self, Lease lease, int status, int64_t duration_ns) except -1
    cdef int forget(self, Server server) except -1
    cdef int32_t place_of(self, Server server, str tool) except 0
    cdef int32_t new_place(self) except 0
    cdef int vacate(self, int32_t place) except -1
    cdef void unlink(self, int32_t place) noexcept
    cdef void put_first(self, int32_t place) noexcept
    cdef ToolCounts* counts_of(self, Lease lease) except NULL


cdef str OTHER_TOOLS
cdef ToolCounts* others_of(Server server) except NULL
cdef list tools_of(ToolTable table, Server server)
