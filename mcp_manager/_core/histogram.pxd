"""Layout and C interface of the latency histogram."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    OCTAVES = 28
    FINEST_SCHEMA = 5
    WINDOW_SCHEMA = 3

cdef struct Buckets:
    void* pages[OCTAVES]
    uint64_t count
    uint64_t underflow
    uint64_t overflow
    uint64_t sum_ns
    int64_t min_ns
    int64_t max_ns
    uint32_t wide
    uint8_t schema

cdef void buckets_init(Buckets* buckets, uint8_t schema) noexcept nogil
cdef void buckets_clear(Buckets* buckets) noexcept nogil
cdef int buckets_record(Buckets* buckets, int64_t duration_ns, uint64_t count) noexcept nogil
cdef int buckets_merge(Buckets* target, const Buckets* source) noexcept nogil
cdef void buckets_below(const Buckets* buckets, int lowest, int highest, uint64_t* counts) noexcept nogil
cdef tuple buckets_le(const Buckets* buckets, int lowest, int highest)

cdef class Histogram:
    cdef Buckets buckets

cdef class WindowSummary:
    cdef readonly uint64_t count
    cdef readonly uint64_t failures
    cdef readonly uint64_t sum_ns
    cdef readonly object p50_s
    cdef readonly object p95_s
    cdef readonly object p99_s
    cdef readonly object newest_p95_s

cdef class LatencyWindow:
    cdef Buckets current
    cdef Buckets previous
    cdef int64_t epoch_ns
    cdef int64_t epoch
    cdef int64_t epoch_end_ns
    cdef uint64_t current_failures
    cdef uint64_t previous_failures

    cdef void rotate(self, int64_t now_ns) noexcept
    cdef int add(self, int64_t now_ns, int64_t duration_ns, bint failed) noexcept
    cdef WindowSummary summarize(self, int64_t now_ns)
    cdef void count_calls(self, int64_t now_ns, uint64_t* calls, uint64_t* failures) noexcept

cdef WindowSummary empty_summary()
