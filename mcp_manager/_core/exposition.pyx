"""Writes the sample lines of a scrape: one growing text a family, from parts that were rendered before."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from mcp_manager._core.histogram cimport Buckets, Histogram, buckets_below
from mcp_manager._core.records cimport STATUSES, Series, Server
from mcp_manager._core.snapshots cimport OTHER
from mcp_manager._core.tool_table cimport OTHER_TOOL, ToolEntry, ToolTable, tools_of

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest)
    unsigned char* PyUnicode_1BYTE_DATA(object text)

cdef enum:
    FIRST_ROOM = 1024
    MOST_BOUNDS = 30
    # From 2^-20 to 2^8 seconds.
    EXPONENTS = 29
    # A number of this many digits is rendered here; prometheus_client renders all others.
    LONGEST_COUNT = 1000000

cdef struct Text:
    char* start
    size_t size
    size_t room


cdef int grow(Text* text, size_t size) except -1:
    cdef size_t room = max(<size_t> FIRST_ROOM, 2 * text.room, text.size + size)
    cdef char* start = <char*> realloc(text.start, room)
    if start is NULL:
        raise MemoryError
    text.start = start
    text.room = room
    return 0


cdef inline int append(Text* text, const char* data, size_t size) except -1:
    if text.size + size > text.room:
        grow(text, size)
    memcpy(text.start + text.size, data, size)
    text.size += size
    return 0


cdef inline char* written(char* to, bytes data) noexcept:
    memcpy(to, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return to + PyBytes_GET_SIZE(data)


cdef inline int append_bytes(Text* text, bytes data) except -1:
    return append(text, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


@cython.final
cdef class SeriesLines:
    """The parts of the lines of a counter by status and of a histogram, which have two labels of their own."""

    cdef int counter
    cdef int histogram
    cdef tuple by_status
    cdef tuple created_by_status
    cdef tuple buckets
    cdef tuple count
    cdef tuple sum
    cdef tuple created
    cdef int lowest
    cdef int step

    def __cinit__(
        self, int counter, tuple by_status not None, tuple created_by_status, int histogram,
        tuple of_histogram not None, tuple bounds not None,
    ):
        buckets, count, total, created = of_histogram
        self.lowest, self.step = bounds
        if len(by_status) != STATUSES or (created_by_status is not None and len(created_by_status) != STATUSES):
            raise ValueError(f"there are {STATUSES} statuses")
        if not 2 <= len(buckets) <= MOST_BOUNDS or not 1 <= self.step <= 4 or not -20 <= self.lowest <= 8:
            raise ValueError("no such bounds")
        if self.lowest + (len(buckets) - 2) * self.step > 8:
            raise ValueError("the highest bound is 2^8")
        rest = (count, total) if created is None else (count, total, created)
        for parts in (*by_status, *(created_by_status or ()), *buckets, *rest):
            if type(parts) is not tuple or len(parts) != 3 or any(type(each) is not bytes for each in parts):
                raise TypeError(f"a line has three parts, not {parts!r:.80}")
        self.counter = counter
        self.by_status = by_status
        self.created_by_status = created_by_status
        self.histogram = histogram
        self.buckets = buckets
        self.count = count
        self.sum = total
        self.created = created


cdef struct Reading:
    uint64_t[STATUSES] counts
    uint64_t[EXPONENTS] below
    uint64_t count
    uint64_t sum_ns


cdef void read_into(Reading* read, SeriesLines lines, const uint64_t* counts, const Buckets* buckets) noexcept:
    """Copy what is shown: while it is written, Python code runs, and other threads may change or free the original."""
    cdef int bounds = <int> len(lines.buckets) - 1
    if counts is NULL:
        memset(read.counts, 0, sizeof(read.counts))
    else:
        memcpy(read.counts, counts, sizeof(read.counts))
    buckets_below(buckets, lines.lowest, lines.lowest + (bounds - 1) * lines.step, read.below)
    read.count = buckets.count
    read.sum_ns = buckets.sum_ns


@cython.final
cdef class Page:
    cdef Text* texts
    cdef Py_ssize_t families
    cdef object render
    cdef bint is_ascii

    def __cinit__(self, Py_ssize_t families, render not None):
        if not 1 <= families <= 1000:
            raise ValueError(f"families must be 1 to 1000, not {families}")
        self.texts = <Text*> calloc(families, sizeof(Text))
        if self.texts is NULL:
            raise MemoryError
        self.families = families
        self.render = render
        self.is_ascii = True

    def __dealloc__(self):
        self.clear()
        free(self.texts)

    cdef void clear(self) noexcept nogil:
        cdef Py_ssize_t family
        if self.texts is NULL:
            return
        for family in range(self.families):
            free(self.texts[family].start)
            self.texts[family].start = NULL
            self.texts[family].size = self.texts[family].room = 0

    cdef Text* text_of(self, int family) except? NULL:
        """Return the text of a family, NULL if it is left out."""
        if family >= self.families:
            raise ValueError(f"there is no family {family}")
        return NULL if family < 0 else &self.texts[family]

    cdef int put_number(self, Text* text, double number) except -1:
        cdef char[16] digits
        cdef int at = 16
        cdef int64_t whole
        cdef Py_ssize_t size = 0
        cdef const char* rendered
        if 0.0 <= number < LONGEST_COUNT:
            whole = <int64_t> number
            if <double> whole == number:
                at -= 3
                memcpy(digits + at, <const char*> b".0\n", 3)
                while True:
                    at -= 1
                    digits[at] = <char> (0x30 + whole % 10)
                    whole //= 10
                    if whole == 0:
                        break
                return append(text, digits + at, 16 - at)
        shown = self.render(number)
        rendered = PyUnicode_AsUTF8AndSize(<str?> shown, &size)
        append(text, rendered, size)
        return append(text, b"\n", 1)

    cdef int put(self, Text* text, tuple parts, bytes first, bytes second, double number) except -1:
        cdef bytes before = <bytes> parts[0]
        cdef bytes between = <bytes> parts[1]
        cdef bytes after = <bytes> parts[2]
        cdef size_t size = (
            PyBytes_GET_SIZE(before) + PyBytes_GET_SIZE(first) + PyBytes_GET_SIZE(between) + PyBytes_GET_SIZE(second)
            + PyBytes_GET_SIZE(after)
        )
        cdef char* to
        if text.size + size > text.room:
            grow(text, size)
        to = written(written(written(text.start + text.size, before), first), between)
        written(written(to, second), after)
        text.size += size
        return self.put_number(text, number)

    cdef int put_series(
        self, SeriesLines lines, bytes first, bytes second, const Reading* read, double created_s
    ) except -1:
        cdef Text* text = self.text_of(lines.counter)
        cdef Py_ssize_t bounds = len(lines.buckets) - 1
        cdef Py_ssize_t at
        self.note(first)
        self.note(second)
        if text is not NULL:
            for at in range(STATUSES):
                if read.counts[at]:
                    self.put(text, <tuple> lines.by_status[at], first, second, <double> read.counts[at])
                    if lines.created_by_status is not None:
                        self.put(text, <tuple> lines.created_by_status[at], first, second, created_s)
        text = self.text_of(lines.histogram)
        if text is not NULL:
            for at in range(bounds):
                self.put(text, <tuple> lines.buckets[at], first, second, <double> read.below[at * lines.step])
            self.put(text, <tuple> lines.buckets[bounds], first, second, <double> read.count)
            self.put(text, lines.count, first, second, <double> read.count)
            self.put(text, lines.sum, first, second, <double> read.sum_ns / 1e9)
            if lines.created is not None:
                self.put(text, lines.created, first, second, created_s)
        return 0

    cdef int note(self, bytes label) except -1:
        if self.is_ascii and not label.isascii():
            self.is_ascii = False
        return 0

    def add_values(self, list lines not None, bytes label not None, list values not None, double created_s):
        cdef Py_ssize_t at
        cdef Text* text
        cdef tuple line
        if len(lines) != len(values):
            raise ValueError(f"there are {len(lines)} lines and {len(values)} values")
        self.note(label)
        for at in range(len(lines)):
            value = values[at]
            line = <tuple?> lines[at]
            text = self.text_of(line[0])
            if value is None or text is NULL:
                continue
            append_bytes(text, <bytes?> line[1])
            append_bytes(text, label)
            append_bytes(text, <bytes?> line[2])
            self.put_number(text, value)
            if line[3] is not None:
                append_bytes(text, <bytes?> line[3])
                append_bytes(text, label)
                append_bytes(text, <bytes?> line[2])
                self.put_number(text, created_s)

    def add_methods(self, SeriesLines lines not None, Server server not None, bytes label not None, escape not None):
        cdef Series series
        cdef Reading read
        cdef list methods = [] if server.methods is None else list(server.methods.items())
        if server.other is not None:
            methods.append((OTHER, server.other))
        for method, each in methods:
            series = <Series?> each
            if series.label is None:
                series.label = escape(method)
            read_into(&read, lines, series.counts, &series.latency.buckets)
            self.put_series(lines, series.label, label, &read, server.created_s)

    def add_tools(
        self, SeriesLines lines not None, ToolTable table not None, Server server not None, bytes label not None,
        escape not None,
    ):
        cdef Reading read
        cdef ToolEntry* entry
        for tool, place in tools_of(table, server):
            shown = escape(tool)
            if place == OTHER_TOOL:
                read_into(&read, lines, server.other_tools.counts, &server.other_tools.latency)
            else:
                entry = &table.entries[<int> place]
                if entry.name is not <PyObject*> tool or entry.server is not <PyObject*> server:
                    # It has just lost its place.
                    continue
                read_into(&read, lines, entry.kept.counts, &entry.kept.latency)
            self.put_series(lines, label, shown, &read, server.created_s)

    def add_histogram(
        self, SeriesLines lines not None, Histogram histogram not None, bytes label not None, double created_s
    ):
        cdef Reading read
        read_into(&read, lines, NULL, &histogram.buckets)
        self.put_series(lines, label, b"", &read, created_s)

    def add_line(self, int family, bytes line not None, double value):
        cdef Text* text = self.text_of(family)
        self.note(line)
        if text is not NULL:
            append_bytes(text, line)
            self.put_number(text, value)

    cdef Py_ssize_t size_with(self, list heads, bytes tail) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(tail)
        cdef Py_ssize_t family
        if len(heads) != self.families:
            raise ValueError(f"there are {self.families} families and {len(heads)} heads")
        for family in range(self.families):
            size += PyBytes_GET_SIZE(<bytes?> heads[family]) + self.texts[family].size
        return size

    cdef int move(self, list heads, bytes tail, char* to) except -1:
        """Copy everything to where there is room, and free it here; other threads run meanwhile."""
        cdef Py_ssize_t family
        cdef bytes head
        for family in range(self.families):
            head = <bytes> heads[family]
            memcpy(to, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
            to += PyBytes_GET_SIZE(head)
            if self.texts[family].size == 0:
                continue
            with nogil:
                memcpy(to, self.texts[family].start, self.texts[family].size)
                to += self.texts[family].size
                free(self.texts[family].start)
                self.texts[family].start = NULL
                self.texts[family].size = self.texts[family].room = 0
        memcpy(to, PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
        return 0

    def take(self, list heads not None, bytes tail not None):
        cdef bytes page = PyBytes_FromStringAndSize(NULL, self.size_with(heads, tail))
        self.move(heads, tail, PyBytes_AS_STRING(page))
        return page

    def take_text(self, list heads not None, bytes tail not None):
        if not self.is_ascii or not all([(<bytes> head).isascii() for head in heads]):
            return self.take(heads, tail).decode()
        page = PyUnicode_New(self.size_with(heads, tail), 127)
        self.move(heads, tail, <char*> PyUnicode_1BYTE_DATA(page))
        return page
