"""Layout of what a scrape shows of a server, and of the texts of its lines."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from mcp_manager._core.number_text cimport NUMBER_ROOM
from mcp_manager._core.records cimport STATUSES

cdef enum:
    MOST_BOUNDS = 30
    # From 2^-20 to 2^8 seconds.
    EXPONENTS = 29

cdef struct Part:
    const char* start
    size_t size

# What stands before the first label, between the labels, and behind the second.
cdef struct LineText:
    Part before
    Part between
    Part after

cdef struct ValueText:
    LineText line
    # Of the line that tells the creation.
    LineText created
    int family
    bint is_created

cdef struct SeriesText:
    LineText[STATUSES] by_status
    LineText[STATUSES] created_by_status
    LineText[MOST_BOUNDS] buckets
    LineText count
    LineText sum
    LineText created
    int counter
    int histogram
    int lowest
    int step
    # Those of the buckets but +Inf.
    int bounds
    bint is_created
    # What a histogram takes at most, without its labels, and how many lines it has.
    size_t size
    size_t lines

cdef struct ServerRow:
    ServerRow* following
    Part label
    # When it was deployed.
    Part created
    int64_t* values
    # Of values that are no whole numbers.
    Part* texts

cdef struct SeriesRow:
    SeriesRow* following
    const ServerRow* server
    Part first
    Part second
    uint64_t count
    uint64_t sum_ns
    # The sum if it is too long to be written from nanoseconds.
    Part sum
    # By status; NULL if the counter is left out.
    uint64_t* counts
    # Cumulative, by bound; NULL if the histogram is left out.
    uint64_t* below
    # What follows the counts of the buckets; NULL if nothing does.
    Part* exemplars


cdef class ValueLine:
    cdef ValueText text
    cdef tuple kept


cdef class SeriesLines:
    cdef SeriesText text
    cdef tuple kept


cdef inline Part part_of(bytes text) noexcept:
    cdef Part part
    part.start, part.size = PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    return part


cdef inline char* put_part(char* to, Part part) noexcept nogil:
    memcpy(to, part.start, part.size)
    return to + part.size


cdef inline char* end_line(char* to) noexcept nogil:
    to[0] = 0x0a
    return to + 1


cdef inline size_t line_size(const LineText* line) noexcept nogil:
    """Return what a line takes at most, without its labels."""
    return line.before.size + line.between.size + line.after.size + NUMBER_ROOM


cdef char* put_value(char* to, const ValueText* text, const ServerRow* row, int64_t value) noexcept nogil
cdef char* put_counter(char* to, const SeriesText* text, const SeriesRow* row) noexcept nogil
cdef char* put_histogram(char* to, const SeriesText* text, const SeriesRow* row) noexcept nogil
