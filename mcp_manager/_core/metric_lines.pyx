"""The lines of a scrape: their texts, rendered before, and how the numbers of a server are put in between."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.number_text cimport put_seconds, put_whole


cdef LineText line_text(parts) except *:
    """Return where the parts of a line are; they must be kept."""
    cdef LineText line
    if type(parts) is not tuple or len(parts) != 3 or any([type(each) is not bytes for each in parts]):
        raise TypeError(f"a line has three parts, not {parts!r:.80}")
    line.before, line.between, line.after = part_of(parts[0]), part_of(parts[1]), part_of(parts[2])
    return line


cdef inline char* put_labels(char* to, const LineText* line, Part first, Part second) noexcept nogil:
    """Write a line up to its value."""
    to = put_part(put_part(to, line.before), first)
    return put_part(put_part(put_part(to, line.between), second), line.after)


cdef inline char* put_count(char* to, const LineText* line, const SeriesRow* row, uint64_t count) noexcept nogil:
    return end_line(put_whole(put_labels(to, line, row.first, row.second), count))


cdef inline char* put_created(char* to, const LineText* line, const SeriesRow* row) noexcept nogil:
    return end_line(put_part(put_labels(to, line, row.first, row.second), row.server.created))


cdef char* put_counter(char* to, const SeriesText* text, const SeriesRow* row) noexcept nogil:
    cdef int status
    for status in range(STATUSES):
        if row.counts[status]:
            to = put_count(to, &text.by_status[status], row, row.counts[status])
            if text.is_created:
                to = put_created(to, &text.created_by_status[status], row)
    return to


cdef char* put_histogram(char* to, const SeriesText* text, const SeriesRow* row) noexcept nogil:
    cdef int bound
    for bound in range(text.bounds + 1):
        to = put_labels(to, &text.buckets[bound], row.first, row.second)
        to = put_whole(to, row.below[bound] if bound < text.bounds else row.count)
        if row.exemplars is not NULL and row.exemplars[bound].size:
            to = put_part(to, row.exemplars[bound])
        to = end_line(to)
    to = put_count(to, &text.count, row, row.count)
    to = put_labels(to, &text.sum, row.first, row.second)
    to = end_line(put_seconds(to, row.sum_ns) if row.sum.start is NULL else put_part(to, row.sum))
    if text.is_created:
        to = put_created(to, &text.created, row)
    return to


cdef char* put_value(char* to, const ValueText* text, const ServerRow* row, int64_t value) noexcept nogil:
    cdef Part none = Part(row.label.start, 0)
    to = put_labels(to, &text.line, row.label, none)
    to = end_line(put_whole(to, value) if value >= 0 else put_part(to, row.texts[-2 - value]))
    if text.is_created:
        to = end_line(put_part(put_labels(to, &text.created, row.label, none), row.created))
    return to


@cython.final
cdef class ValueLine:

    def __cinit__(self, int family, bytes before not None, bytes after not None, bytes created):
        self.kept = (before, after, created)
        self.text.family = family
        self.text.line = line_text((before, after, b""))
        self.text.is_created = created is not None
        if created is not None:
            self.text.created = line_text((created, after, b""))


@cython.final
cdef class SeriesLines:

    def __cinit__(
        self, int counter, tuple by_status not None, tuple created_by_status, int histogram,
        tuple of_histogram not None, tuple bounds not None,
    ):
        cdef SeriesText* text = &self.text
        cdef int at
        buckets, count, total, created = of_histogram
        text.lowest, text.step = bounds
        if len(by_status) != STATUSES or (created_by_status is not None and len(created_by_status) != STATUSES):
            raise ValueError(f"there are {STATUSES} statuses")
        if type(buckets) is not tuple or not 2 <= len(buckets) <= MOST_BOUNDS:
            raise ValueError(f"there are 2 to {MOST_BOUNDS} buckets")
        text.bounds = <int> len(buckets) - 1
        if not 1 <= text.step <= 4 or not -20 <= text.lowest <= 8 or text.lowest + (text.bounds - 1) * text.step > 8:
            raise ValueError("the bounds are powers of two from 2^-20 to 2^8")
        self.kept = (by_status, created_by_status, buckets, count, total, created)
        text.counter, text.histogram = counter, histogram
        text.count, text.sum = line_text(count), line_text(total)
        text.size, text.lines = line_size(&text.count) + line_size(&text.sum), text.bounds + 3
        for at in range(text.bounds + 1):
            text.buckets[at] = line_text(buckets[at])
            text.size += line_size(&text.buckets[at])
        text.is_created = created is not None
        if created is not None:
            text.created = line_text(created)
            text.size += line_size(&text.created)
            text.lines += 1
            if created_by_status is None:
                raise ValueError("the counter has no lines that tell its creation")
        for at in range(STATUSES):
            text.by_status[at] = line_text(by_status[at])
            if text.is_created:
                text.created_by_status[at] = line_text(created_by_status[at])
