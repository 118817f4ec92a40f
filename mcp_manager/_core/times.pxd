"""Sums of times in nanoseconds that stop at the end of 64 bits, and so stay in order."""

from libc.stdint cimport INT64_MAX, int64_t


cdef inline int64_t later(int64_t at_ns, int64_t by_ns) noexcept nogil:
    """Return the time that is ``by_ns`` later, which is at least 0."""
    return at_ns + by_ns if at_ns <= INT64_MAX - by_ns else INT64_MAX


cdef inline int64_t span_end(int64_t span, int64_t span_ns) noexcept nogil:
    """Return when a span of a window ends; spans are numbered by their start divided by their length."""
    return (span + 1) * span_ns if span < INT64_MAX // span_ns else INT64_MAX
