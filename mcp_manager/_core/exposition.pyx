"""Writes the text of a scrape: first its numbers are copied, server by server; then they are written, family by family.

Only the first part needs the interpreter, and it is short. What is copied lies in blocks that never move.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from mcp_manager._core.blocks cimport Blocks, blocks_free, blocks_take, prefer_large_pages
from mcp_manager._core.histogram cimport Buckets, Histogram, buckets_below
from mcp_manager._core.metric_lines cimport (
    EXPONENTS, Part, SeriesLines, SeriesRow, SeriesText, ServerRow, ValueLine, ValueText, end_line, line_size, part_of,
    put_counter, put_histogram, put_part, put_value,
)
from mcp_manager._core.number_text cimport LONGEST_NS, NUMBER_ROOM, put_whole
from mcp_manager._core.records cimport STATUSES, Series, Server
from mcp_manager._core.snapshots cimport OTHER
from mcp_manager._core.tool_table cimport OTHER_TOOL, ToolEntry, ToolTable, tools_of

cdef extern from "Python.h":
    PyObject* PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest) except NULL
    unsigned char* PyUnicode_1BYTE_DATA(PyObject* text)
    int PyUnicode_Resize(PyObject** text, Py_ssize_t size) except -1
    PyObject* PyBytes_FromStringAndSize(const char* data, Py_ssize_t size) except NULL
    char* bytes_start "PyBytes_AS_STRING"(PyObject* data)
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1

cdef enum:
    MOST_FAMILIES = 1000
    MOST_VALUES = 64
    # A value that is not shown, and the greatest one that is kept as a number; -2 and below are the places of texts.
    ABSENT = -1
    LARGEST_WHOLE = 999999999999999
    LARGE_PAGE = 4 * 1024 * 1024
    LARGEST_CHUNK = 1024 * 1024 * 1024

cdef enum:
    METHODS = 0
    TOOLS = 1
    HISTOGRAMS = 2
    KINDS = 3

# What is written next, in the order of a family's lines. The kinds of series follow each other.
cdef enum:
    HEAD = 0
    VALUES = 1
    SERIES = 2
    LOOSE = SERIES + KINDS
    STAGES = LOOSE + 1

ctypedef const SeriesText* TextOfSeries

cdef struct Loose:
    Loose* following
    Part line

cdef struct SeriesRows:
    SeriesRow* first
    SeriesRow* last

cdef struct Family:
    Part head
    # Which of the columns are its values.
    int first_column
    int columns
    Loose* first
    Loose* last

cdef struct Place:
    int family
    int stage
    const void* row


@cython.final
cdef class Page:
    cdef Blocks servers
    cdef Blocks series
    cdef ServerRow* first
    cdef ServerRow* last
    cdef SeriesRows[KINDS] rows
    cdef Family* families
    cdef int count
    cdef Part tail
    cdef ValueText[MOST_VALUES] value_texts
    cdef int values
    # The numbers of the values, family by family.
    cdef int[MOST_VALUES] columns
    cdef TextOfSeries[KINDS] series_texts
    # What all of its text, and what one step of writing, takes at most.
    cdef size_t length
    cdef size_t step
    cdef tuple kept
    cdef object render
    cdef bint is_created
    cdef bint is_ascii
    # Nothing may be added while it is written, and nothing freed.
    cdef bint is_complete
    cdef Py_ssize_t readers

    def __cinit__(
        self, tuple heads not None, bytes tail not None, tuple values not None, tuple series not None, render not None
    ):
        cdef int at
        if not 1 <= len(heads) <= MOST_FAMILIES:
            raise ValueError(f"there are 1 to {MOST_FAMILIES} families, not {len(heads)}")
        if len(values) > MOST_VALUES or len(series) != KINDS:
            raise ValueError(f"there are at most {MOST_VALUES} values, and {KINDS} kinds of series")
        self.count, self.values, self.render = <int> len(heads), <int> len(values), render
        self.kept = (heads, tail, values, series)
        self.families = <Family*> calloc(self.count, sizeof(Family))
        if self.families is NULL:
            raise MemoryError
        self.is_ascii = True
        self.tail = self.noted(tail)
        for at in range(self.count):
            self.families[at].head = self.noted(<bytes?> heads[at])
        for at in range(KINDS):
            self.series_texts[at] = &(<SeriesLines?> series[at]).text
            self.check_family(self.series_texts[at].counter)
            self.check_family(self.series_texts[at].histogram)
            self.is_created |= self.series_texts[at].is_created
        for at in range(self.values):
            self.value_texts[at] = (<ValueLine?> values[at]).text
            self.check_family(self.value_texts[at].family)
            self.is_created |= self.value_texts[at].is_created
        self.sort_columns()

    def __dealloc__(self):
        blocks_free(&self.servers)
        blocks_free(&self.series)
        free(self.families)

    @property
    def size(self):
        return self.servers.size + self.series.size

    def close(self):
        cdef Blocks servers = self.servers
        cdef Blocks series = self.series
        cdef int at
        if self.readers:
            return
        self.complete()
        self.first = self.last = NULL
        self.servers = self.series = Blocks(NULL, 0)
        for at in range(KINDS):
            self.rows[at] = SeriesRows(NULL, NULL)
        for at in range(self.count):
            self.families[at].first = self.families[at].last = NULL
        with nogil:
            blocks_free(&servers)
            blocks_free(&series)

    cdef void sort_columns(self) noexcept:
        cdef int sorted_columns = 0
        cdef int family, at
        for family in range(self.count):
            self.families[family].first_column = sorted_columns
            for at in range(self.values):
                if self.value_texts[at].family == family:
                    self.columns[sorted_columns] = at
                    sorted_columns += 1
            self.families[family].columns = sorted_columns - self.families[family].first_column

    cdef Part noted(self, bytes text) except *:
        """Return where a text is that is kept, and count it."""
        cdef Part part = part_of(text)
        self.note_size(part.size)
        if not text.isascii():
            self.is_ascii = False
        return part

    cdef void note_size(self, size_t size) noexcept:
        self.length += size
        self.step = max(self.step, size)

    cdef int check_family(self, int family) except -1:
        if family >= self.count:
            raise ValueError(f"there is no family {family}")
        return 0

    cdef void* take_room(self, Blocks* blocks, size_t size) except NULL:
        cdef void* room
        if self.is_complete:
            raise ValueError("the page is complete")
        room = blocks_take(blocks, size)
        if room is NULL:
            raise MemoryError
        return room

    cdef Part copy_of(self, Blocks* blocks, bytes text) except *:
        cdef Part part
        cdef size_t size = PyBytes_GET_SIZE(text)
        cdef char* start = <char*> self.take_room(blocks, size)
        memcpy(start, PyBytes_AS_STRING(text), size)
        part.start, part.size = start, size
        if self.is_ascii and not text.isascii():
            self.is_ascii = False
        return part

    cdef Part number(self, Blocks* blocks, number) except *:
        """Return the text of a number of any kind."""
        cdef double as_double = number
        cdef char[NUMBER_ROOM] whole
        if 0.0 <= as_double <= LARGEST_WHOLE and <double> (<int64_t> as_double) == as_double:
            return self.copy_of(blocks, whole[:put_whole(whole, <uint64_t> as_double) - whole])
        return self.copy_of(blocks, (<str?> self.render(as_double)).encode())

    def add_server(self, bytes label not None, list values not None, double created_s):
        cdef ServerRow* row = <ServerRow*> self.take_room(&self.servers, sizeof(ServerRow))
        cdef const ValueText* text
        cdef double number
        cdef Py_ssize_t at
        cdef Py_ssize_t texts = 0
        cdef size_t size = 0
        cdef list others = []
        cdef tuple given = tuple(values)
        if len(given) != self.values:
            raise ValueError(f"there are {self.values} values, not {len(given)}")
        row.following, row.texts = NULL, NULL
        row.label = self.copy_of(&self.servers, label)
        row.created = self.number(&self.servers, created_s) if self.is_created else Part(row.label.start, 0)
        row.values = <int64_t*> self.take_room(&self.servers, self.values * sizeof(int64_t))
        for at in range(self.values):
            text, value = &self.value_texts[at], given[at]
            if value is None or text.family < 0:
                row.values[at] = ABSENT
                continue
            number = value
            if 0.0 <= number <= LARGEST_WHOLE and <double> (<int64_t> number) == number:
                row.values[at] = <int64_t> number
            else:
                row.values[at] = -2 - len(others)
                others.append(number)
            size += line_size(&text.line) + row.label.size
            if text.is_created:
                size += line_size(&text.created) + row.label.size + row.created.size
        if others:
            row.texts = <Part*> self.take_room(&self.servers, len(others) * sizeof(Part))
            for number in others:
                row.texts[texts] = self.number(&self.servers, number)
                size += row.texts[texts].size
                texts += 1
        self.note_size(size)
        if self.last is NULL:
            self.first = row
        else:
            self.last.following = row
        self.last = row

    cdef SeriesRow* add_series(self, int kind, const uint64_t* counts, const Buckets* buckets) except NULL:
        """Copy a series of the last server; it is part of the page once it has its labels."""
        cdef const SeriesText* text = self.series_texts[kind]
        cdef SeriesRow* row
        cdef uint64_t[EXPONENTS] below
        cdef int at
        if self.last is NULL:
            raise ValueError("there is no server yet")
        row = <SeriesRow*> self.take_room(&self.series, sizeof(SeriesRow))
        row.following, row.server = NULL, self.last
        row.first = row.second = row.sum = Part(NULL, 0)
        row.counts = row.below = NULL
        row.exemplars = NULL
        row.count, row.sum_ns = buckets.count, buckets.sum_ns
        if text.histogram >= 0:
            buckets_below(buckets, text.lowest, text.lowest + (text.bounds - 1) * text.step, below)
        if counts is not NULL and text.counter >= 0:
            row.counts = <uint64_t*> self.take_room(&self.series, sizeof(uint64_t) * STATUSES)
            memcpy(row.counts, counts, sizeof(uint64_t) * STATUSES)
        if text.histogram >= 0:
            row.below = <uint64_t*> self.take_room(&self.series, sizeof(uint64_t) * text.bounds)
            for at in range(text.bounds):
                row.below[at] = below[at * text.step]
        return row

    cdef int label_series(self, int kind, SeriesRow* row, Part first, Part second) except -1:
        """Add a series to the page, and what it takes to the page's length."""
        cdef const SeriesText* text = self.series_texts[kind]
        cdef SeriesRows* rows = &self.rows[kind]
        cdef size_t labels = first.size + second.size
        cdef size_t size = 0
        cdef int status, at
        row.first, row.second = first, second
        if row.sum_ns >= LONGEST_NS:
            row.sum = self.number(&self.series, <double> row.sum_ns / 1e9)
            size += row.sum.size
        if row.counts is not NULL:
            for status in range(STATUSES):
                if row.counts[status]:
                    size += line_size(&text.by_status[status]) + labels
                    if text.is_created:
                        size += line_size(&text.created_by_status[status]) + labels + row.server.created.size
        if row.below is not NULL:
            size += text.size + text.lines * labels + row.server.created.size
        if row.exemplars is not NULL:
            for at in range(text.bounds + 1):
                size += row.exemplars[at].size
        self.note_size(size)
        if rows.last is NULL:
            rows.first = row
        else:
            rows.last.following = row
        rows.last = row
        return 0

    cdef int add_exemplars(self, int kind, SeriesRow* row, dict exemplars, show) except -1:
        """Add what shows the exemplars of a series, the latest of each bucket; they are by the exponent of a bound."""
        cdef const SeriesText* text = self.series_texts[kind]
        cdef dict latest = {}
        cdef int exponent, at
        if text.histogram < 0:
            return 0
        for exponent, exemplar in list(exemplars.items()):
            at = min(max(exponent - text.lowest + text.step - 1, 0) // text.step, text.bounds)
            if at not in latest or latest[at].at_ns <= exemplar.at_ns:
                latest[at] = exemplar
        row.exemplars = <Part*> self.take_room(&self.series, sizeof(Part) * (text.bounds + 1))
        memset(row.exemplars, 0, sizeof(Part) * (text.bounds + 1))
        for at, exemplar in latest.items():
            row.exemplars[at] = self.copy_of(&self.series, <bytes?> show(exemplar))
        return 0

    def add_methods(self, Server server not None, escape not None, show_exemplar=None):
        cdef Series series
        cdef SeriesRow* row
        cdef list methods = [] if server.methods is None else list(server.methods.items())
        if server.other is not None:
            methods.append((OTHER, server.other))
        for method, each in methods:
            series = <Series?> each
            if series.label is None:
                series.label = escape(method)
            row = self.add_series(METHODS, series.counts, &series.latency.buckets)
            if show_exemplar is not None and series.exemplars is not None:
                self.add_exemplars(METHODS, row, series.exemplars, show_exemplar)
            self.label_series(METHODS, row, self.copy_of(&self.series, series.label), row.server.label)

    def add_tools(self, ToolTable table not None, Server server not None, escape not None, show_exemplar=None):
        cdef SeriesRow* row
        cdef ToolEntry* entry
        cdef bytes shown
        for tool, place in tools_of(table, server):
            shown = escape(tool)
            if place == OTHER_TOOL:
                row = self.add_series(TOOLS, server.other_tools.counts, &server.other_tools.latency)
            else:
                entry = &table.entries[<int> place]
                if entry.name is not <PyObject*> tool or entry.server is not <PyObject*> server:
                    # It has just lost its place.
                    continue
                row = self.add_series(TOOLS, entry.kept.counts, &entry.kept.latency)
            if show_exemplar is not None and server.tool_exemplars is not None:
                self.add_exemplars(TOOLS, row, server.tool_exemplars.get(tool, {}), show_exemplar)
            self.label_series(TOOLS, row, row.server.label, self.copy_of(&self.series, shown))

    def add_histogram(self, Histogram histogram not None):
        cdef SeriesRow* row = self.add_series(HISTOGRAMS, NULL, &histogram.buckets)
        cdef Part none = Part(row.server.label.start, 0)
        self.label_series(HISTOGRAMS, row, row.server.label, none)

    def add_counts(self, list lines not None, list counts not None):
        cdef ValueText* text
        cdef bytes label
        if self.last is NULL:
            raise ValueError("there is no server yet")
        if len(lines) != len(counts):
            raise ValueError(f"there are {len(lines)} lines and {len(counts)} values")
        label = self.last.label.start[:self.last.label.size]
        for line, count in zip(lines, counts):
            text = &(<ValueLine?> line).text
            before, after, created = (<ValueLine> line).kept
            self.add_line(text.family, before + label + after, count)
            if text.is_created and text.family >= 0:
                self.add_loose(text.family, created + label + after, self.last.created)

    def add_line(self, int family, bytes line not None, value):
        self.add_loose(family, line, self.number(&self.servers, value))

    cdef int add_loose(self, int family, bytes line, Part value) except -1:
        cdef Family* lines
        cdef Loose* loose
        cdef char* start
        self.check_family(family)
        if family < 0:
            return 0
        lines = &self.families[family]
        loose = <Loose*> self.take_room(&self.servers, sizeof(Loose))
        loose.following = NULL
        loose.line.size = PyBytes_GET_SIZE(line) + value.size + 1
        start = <char*> self.take_room(&self.servers, loose.line.size)
        end_line(put_part(put_part(start, part_of(line)), value))
        loose.line.start = start
        self.note_size(loose.line.size)
        if self.is_ascii and not line.isascii():
            self.is_ascii = False
        if lines.last is NULL:
            lines.first = loose
        else:
            lines.last.following = loose
        lines.last = loose
        return 0

    cdef const void* first_row(self, int family, int stage) noexcept nogil:
        """Return where a stage begins, NULL if it has no lines."""
        cdef const SeriesText* text
        if stage == VALUES:
            return self.first if self.families[family].columns else NULL
        if stage == LOOSE:
            return self.families[family].first
        text = self.series_texts[stage - SERIES]
        return self.rows[stage - SERIES].first if family in (text.counter, text.histogram) else NULL

    cdef char* put_values(self, char* to, const Family* family, const ServerRow* row) noexcept nogil:
        cdef int column, at
        for at in range(family.first_column, family.first_column + family.columns):
            column = self.columns[at]
            if row.values[column] != ABSENT:
                to = put_value(to, &self.value_texts[column], row, row.values[column])
        return to

    cdef char* put_row(self, Place* place, char* to) noexcept nogil:
        """Write what is at a place; set ``row`` to what follows in the same stage."""
        cdef Family* family = &self.families[place.family]
        cdef const SeriesText* text
        cdef const SeriesRow* series
        if place.stage == VALUES:
            to = self.put_values(to, family, <const ServerRow*> place.row)
            place.row = (<const ServerRow*> place.row).following
        elif place.stage == LOOSE:
            to = put_part(to, (<const Loose*> place.row).line)
            place.row = (<const Loose*> place.row).following
        else:
            text, series = self.series_texts[place.stage - SERIES], <const SeriesRow*> place.row
            if text.histogram == place.family:
                to = put_histogram(to, text, series)
            elif series.counts is not NULL:
                to = put_counter(to, text, series)
            place.row = series.following
        return to

    cdef char* put_next(self, Place* place, char* to) noexcept nogil:
        """Write what is at a place, and go on to what follows; after the last family comes the tail."""
        if place.family == self.count:
            place.family += 1
            return put_part(to, self.tail)
        to = put_part(to, self.families[place.family].head) if place.stage == HEAD else self.put_row(place, to)
        while place.row is NULL and place.stage < LOOSE:
            place.stage += 1
            place.row = self.first_row(place.family, place.stage)
        if place.row is NULL:
            place.family += 1
            place.stage = HEAD
        return to

    cdef size_t put_up_to(self, Place* place, char* to, size_t room) noexcept nogil:
        """Write from a place on, as long as there is room for a further step; return what was written."""
        cdef char* at = to
        while place.family <= self.count and room - (at - to) >= self.step:
            at = self.put_next(place, at)
        return at - to

    cdef size_t write(self, char* to, size_t room) noexcept nogil:
        cdef Place place = Place(0, HEAD, NULL)
        if room >= LARGE_PAGE:
            prefer_large_pages(to, room)
        return self.put_up_to(&place, to, room)

    cdef size_t complete(self) noexcept:
        """Let nothing be added any more; return how much room the page needs."""
        self.is_complete = True
        # An object of no or one byte might be shared.
        return self.length + self.step + 2

    def as_bytes(self):
        cdef size_t room = self.complete()
        cdef PyObject* page = PyBytes_FromStringAndSize(NULL, room)
        cdef char* start = bytes_start(page)
        cdef size_t size
        self.readers += 1
        with nogil:
            size = self.write(start, room)
        self.readers -= 1
        _PyBytes_Resize(&page, size)
        return owned(page)

    def as_text(self):
        cdef PyObject* page
        cdef char* start
        cdef size_t room, size
        if not self.is_ascii:
            return self.as_bytes().decode()
        room = self.complete()
        page = PyUnicode_New(room, 127)
        start = <char*> PyUnicode_1BYTE_DATA(page)
        self.readers += 1
        with nogil:
            size = self.write(start, room)
        self.readers -= 1
        PyUnicode_Resize(&page, size)
        return owned(page)


cdef object owned(PyObject* made):
    """Take over a reference."""
    taken = <object> made
    Py_DECREF(taken)
    return taken


@cython.final
cdef class Chunks:
    cdef Page page
    cdef Place place
    cdef size_t room

    def __cinit__(self, Page page not None, Py_ssize_t size):
        if not 1 <= size <= LARGEST_CHUNK:
            raise ValueError(f"size must be 1 to {LARGEST_CHUNK}, not {size}")
        page.complete()
        page.readers += 1
        self.page = page
        self.room = max(<size_t> size, page.step) + 1

    def __dealloc__(self):
        self.end()

    cdef void end(self) noexcept:
        if self.page is not None:
            self.page.readers -= 1
            self.page = None

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* chunk
        cdef size_t size
        if self.page is None:
            raise StopIteration
        chunk = PyBytes_FromStringAndSize(NULL, self.room)
        size = self.page.put_up_to(&self.place, bytes_start(chunk), self.room)
        _PyBytes_Resize(&chunk, size)
        written = owned(chunk)
        if self.place.family > self.page.count:
            self.end()
        if not size:
            # Only the end was left, and it has no text.
            raise StopIteration
        return written
