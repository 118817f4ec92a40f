"""Layout and C interface of the adaptive concurrency limit of a backend."""

from libc.stdint cimport INT64_MAX, int64_t

cdef enum:
    OFF = 0
    AIMD = 1
    GRADIENT = 2

cdef enum:
    WELL = 0
    OVERLOAD = 1
    OTHERWISE = 2

cdef struct LimiterPolicy:
    int mode
    double initial
    double least
    double most
    double decrease

cdef struct Gradient:
    double long_ns
    int64_t long_count
    int64_t window_end_ns
    double window_sum_ns
    int64_t window_count
    int64_t window_inflight

cdef struct Limiter:
    # 0 while there is no limit.
    double limit
    # Calls that began before this do not decrease the limit again.
    int64_t decreased_ns
    Gradient* gradient

cdef void limiter_free(Limiter* limiter) noexcept nogil
cdef void limiter_begin(Limiter* limiter, const LimiterPolicy* policy) noexcept nogil
cdef void limiter_restart(Limiter* limiter, const LimiterPolicy* policy) noexcept nogil
cdef bint same_policy(const LimiterPolicy* one, const LimiterPolicy* other) noexcept nogil
cdef void limiter_ended(
    Limiter* limiter, const LimiterPolicy* policy, int64_t inflight, int end, int64_t duration_ns, int64_t now_ns
) noexcept nogil


cdef inline int64_t limiter_cap(const Limiter* limiter) noexcept nogil:
    """Return the most calls at a time, INT64_MAX if there is no limit."""
    return <int64_t> limiter.limit if limiter.limit >= 1.0 else INT64_MAX


cdef class LimiterSettings:
    cdef LimiterPolicy policy


cdef class ConcurrencyLimiter:
    cdef Limiter limiter
    cdef LimiterSettings settings
