"""Counts the calls of tools: by name for those used most recently, all others of a server together."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset

from mcp_manager._core.histogram cimport (
    WINDOW_SCHEMA, buckets_clear, buckets_init, buckets_merge, buckets_record
)
from mcp_manager._core.records cimport STATUSES, Lease, Server, ToolCounts

cdef enum:
    # The name of a tool comes from callers: a longer one is counted with the others.
    LONGEST_NAME = 256
    FIRST_ROOM = 16

cdef str OTHER_TOOLS = "_other"
OTHER_TOOL_NAME = OTHER_TOOLS
LONGEST_TOOL_NAME = LONGEST_NAME


cdef ToolCounts* others_of(Server server) except NULL:
    """Return the counts that a server's other tools share."""
    if server.other_tools is NULL:
        server.other_tools = <ToolCounts*> calloc(1, sizeof(ToolCounts))
        if server.other_tools is NULL:
            raise MemoryError
        buckets_init(&server.other_tools.latency, WINDOW_SCHEMA)
    return server.other_tools


@cython.final
cdef class ToolTable:
    def __cinit__(self, Py_ssize_t capacity):
        if not 1 <= capacity < INT32_MAX:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity

    def __dealloc__(self):
        cdef Py_ssize_t place
        if self.entries is NULL:
            return
        for place in range(1, self.used + 1):
            buckets_clear(&self.entries[place].kept.latency)
            Py_XDECREF(self.entries[place].name)
        free(self.entries)

    def __len__(self):
        cdef Py_ssize_t place
        return sum([self.entries[place].server is not NULL for place in range(1, self.used + 1)])

    cdef void name(self, Lease lease, const char* text, Py_ssize_t size) noexcept:
        """Note which tool a lease is for; the name is UTF-8."""
        cdef Server server = lease.server
        cdef int32_t place = server.last_tool
        cdef const char* known
        cdef Py_ssize_t known_size = 0
        if place != NO_TOOL:
            known = PyUnicode_AsUTF8AndSize(<str> self.entries[place].name, &known_size)
            if known_size == size and memcmp(known, text, size) == 0:
                if place != self.newest:
                    self.unlink(place)
                    self.put_first(place)
                lease.tool = place
                lease.tool_serial = self.entries[place].serial
                return
        lease.tool = OTHER_TOOL
        if 0 <= size <= LONGEST_NAME:
            try:
                self.name_by(lease, PyUnicode_DecodeUTF8(text, size, NULL))
            except (MemoryError, UnicodeDecodeError):
                # A call does not fail because it cannot be counted by name.
                lease.tool = OTHER_TOOL

    cdef int name_by(self, Lease lease, str tool) except -1:
        """Note which tool a lease is for; ``None`` if the request names none."""
        lease.tool = OTHER_TOOL if tool is None else self.place_of(lease.server, tool)
        if lease.tool != OTHER_TOOL:
            lease.tool_serial = self.entries[lease.tool].serial
        return 0

    cdef int32_t place_of(self, Server server, str tool) except 0:
        cdef int32_t place
        cdef ToolEntry* entry
        cdef Py_ssize_t size = 0
        if server.is_forgotten:
            return OTHER_TOOL
        if server.tools is None:
            server.tools = {}
        found = server.tools.get(tool)
        if found is not None:
            place = found
            self.unlink(place)
        else:
            try:
                PyUnicode_AsUTF8AndSize(tool, &size)
            except UnicodeEncodeError:
                return OTHER_TOOL
            if size > LONGEST_NAME or tool == OTHER_TOOLS:
                return OTHER_TOOL
            place = self.new_place()
            entry = &self.entries[place]
            Py_INCREF(tool)
            entry.name = <PyObject*> tool
            entry.server = <PyObject*> server
            server.tools[tool] = place
        self.put_first(place)
        server.last_tool = place
        return place

    cdef int32_t new_place(self) except 0:
        """Return a place that no tool has: a free one, or that of the tool whose last use is the longest ago."""
        cdef int32_t place = self.oldest
        cdef Py_ssize_t room
        cdef ToolEntry* entries
        if place != NO_TOOL and (self.used >= self.capacity or self.entries[place].server is NULL):
            self.vacate(place)
            self.unlink(place)
            return place
        if self.used + 1 >= self.room:
            room = min(max(self.room * 2, <Py_ssize_t> FIRST_ROOM), self.capacity + 1)
            entries = <ToolEntry*> realloc(self.entries, room * sizeof(ToolEntry))
            if entries is NULL:
                raise MemoryError
            self.entries = entries
            self.room = room
        self.used += 1
        place = <int32_t> self.used
        memset(&self.entries[place], 0, sizeof(ToolEntry))
        buckets_init(&self.entries[place].kept.latency, WINDOW_SCHEMA)
        return place

    cdef int vacate(self, int32_t place) except -1:
        """Take the place from its tool, whose counts go to its server's other tools."""
        cdef ToolEntry* entry = &self.entries[place]
        cdef Server server
        cdef ToolCounts* others
        cdef PyObject* name = entry.name
        cdef int status
        if entry.server is NULL:
            return 0
        server = <Server> entry.server
        others = others_of(server)
        if buckets_merge(&others.latency, &entry.kept.latency) < 0:
            raise MemoryError
        for status in range(STATUSES):
            others.counts[status] += entry.kept.counts[status]
        if server.last_tool == place:
            server.last_tool = NO_TOOL
        server.tools.pop(<str> name, None)
        if server.tool_exemplars is not None:
            server.tool_exemplars.pop(<str> name, None)
        buckets_clear(&entry.kept.latency)
        memset(entry.kept.counts, 0, sizeof(entry.kept.counts))
        entry.server = NULL
        entry.name = NULL
        entry.serial += 1
        Py_XDECREF(name)
        return 0

    cdef int forget(self, Server server) except -1:
        """Give up the places of a server that was removed; they are the next to be taken."""
        cdef int32_t place
        if server.tools is None:
            return 0
        for each in list(server.tools.values()):
            place = each
            self.vacate(place)
            self.unlink(place)
            # To the end, where the oldest is.
            self.entries[place].newer = self.oldest
            self.entries[place].older = NO_TOOL
            if self.oldest != NO_TOOL:
                self.entries[self.oldest].older = place
            else:
                self.newest = place
            self.oldest = place
        return 0

    cdef void unlink(self, int32_t place) noexcept:
        cdef ToolEntry* entry = &self.entries[place]
        if entry.newer != NO_TOOL:
            self.entries[entry.newer].older = entry.older
        elif self.newest == place:
            self.newest = entry.older
        if entry.older != NO_TOOL:
            self.entries[entry.older].newer = entry.newer
        elif self.oldest == place:
            self.oldest = entry.newer
        entry.newer = entry.older = NO_TOOL

    cdef void put_first(self, int32_t place) noexcept:
        cdef ToolEntry* entry = &self.entries[place]
        entry.newer = NO_TOOL
        entry.older = self.newest
        if self.newest != NO_TOOL:
            self.entries[self.newest].newer = place
        else:
            self.oldest = place
        self.newest = place

    cdef ToolCounts* counts_of(self, Lease lease) except NULL:
        """Return where a lease counts; that of its server's other tools if its tool has lost its place."""
        cdef ToolEntry* entry
        if lease.tool != OTHER_TOOL:
            entry = &self.entries[lease.tool]
            if entry.serial == lease.tool_serial and entry.server is not NULL:
                return &entry.kept
        return others_of(lease.server)

    cdef void count(self, Lease lease, int status) noexcept:
        """Count a call that was never sent."""
        try:
            self.counts_of(lease).counts[status] += 1
        except MemoryError:
            pass

    cdef int settle(self, Lease lease, int status, int64_t duration_ns) except -1:
        """Count the end of a call, and its duration unless that is negative."""
        cdef ToolCounts* counts = self.counts_of(lease)
        counts.counts[status] += 1
        if duration_ns >= 0 and buckets_record(&counts.latency, duration_ns, 1) < 0:
            raise MemoryError
        return 0


cdef list tools_of(ToolTable table, Server server):
    """Return the names and places of a server's tools, the other ones last."""
    cdef list found = [] if server.tools is None else list(server.tools.items())
    if server.other_tools is not NULL:
        found.append((OTHER_TOOLS, <int> OTHER_TOOL))
    return found
