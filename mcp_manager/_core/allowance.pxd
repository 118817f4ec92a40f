"""Layouts and C interface of rate limits, retry budgets and client-side throttling."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    SPANS = 10

cdef struct RatePolicy:
    # Average nanoseconds between two calls; 0 sets no limit.
    int64_t interval_ns
    int64_t tolerance_ns

# Two counts over a sliding window: calls and their retries, or calls sent and those that were not refused.
cdef struct PairWindow:
    int64_t span_ns
    int64_t span_end_ns
    int64_t span
    uint64_t all_total
    uint64_t part_total
    uint32_t[SPANS] all_counts
    uint32_t[SPANS] part_counts

cdef void pair_roll(PairWindow* window, int64_t now_ns) noexcept nogil
cdef int64_t rate_take(int64_t* arrival_ns, const RatePolicy* policy, int64_t now_ns) noexcept nogil
cdef double budget_balance(PairWindow* window, double ratio, double reserve, int64_t now_ns) noexcept nogil
cdef bint shed_decides(PairWindow* window, double multiple, int64_t now_ns, uint64_t random) noexcept nogil


cdef inline void pair_add(PairWindow* window, int64_t now_ns) noexcept nogil:
    if now_ns >= window.span_end_ns:
        pair_roll(window, now_ns)
    window.all_counts[window.span % SPANS] += 1
    window.all_total += 1


cdef inline void pair_add_part(PairWindow* window, int64_t now_ns) noexcept nogil:
    if now_ns >= window.span_end_ns:
        pair_roll(window, now_ns)
    window.part_counts[window.span % SPANS] += 1
    window.part_total += 1


cdef class RateLimiter:
    cdef RatePolicy policy
    cdef int64_t arrival_ns

cdef class RetryBudget:
    cdef PairWindow window
    cdef readonly double ratio
    cdef readonly double reserve

cdef class Shedder:
    cdef PairWindow window
    cdef readonly double multiple
