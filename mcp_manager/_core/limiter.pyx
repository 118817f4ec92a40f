"""The adaptive concurrency limit of a backend: additive increase and multiplicative decrease, or by gradient."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free

cdef enum:
    WINDOW_SAMPLES = 10
    WARM_UP_SAMPLES = 10
    LONG_SAMPLES = 600

cdef int64_t WINDOW_NS = 10**9
cdef double TOLERANCE = 1.5
cdef double STEEPEST = 0.5
cdef double QUEUE = 4.0
cdef double SMOOTHING = 0.2
cdef double DRIFT = 0.95

MODES = ("off", "aimd", "gradient")


cdef void limiter_free(Limiter* limiter) noexcept nogil:
    free(limiter.gradient)
    limiter.gradient = NULL


cdef void limiter_begin(Limiter* limiter, const LimiterPolicy* policy) noexcept nogil:
    """Start without a limit, or by gradient with the initial one; if memory is short, there is none."""
    if policy.mode != GRADIENT:
        return
    limiter.gradient = <Gradient*> calloc(1, sizeof(Gradient))
    if limiter.gradient != NULL:
        limiter.limit = policy.initial


cdef void limiter_restart(Limiter* limiter, const LimiterPolicy* policy) noexcept nogil:
    """Forget what was learned under another policy, and start again."""
    limiter_free(limiter)
    limiter.limit = 0.0
    limiter.decreased_ns = 0
    limiter_begin(limiter, policy)


cdef bint same_policy(const LimiterPolicy* one, const LimiterPolicy* other) noexcept nogil:
    return (
        one.mode == other.mode and one.initial == other.initial and one.least == other.least
        and one.most == other.most and one.decrease == other.decrease
    )


cdef void decrease(
    Limiter* limiter, const LimiterPolicy* policy, int64_t inflight, int64_t began_ns, int64_t now_ns
) noexcept nogil:
    if limiter.limit == 0.0:
        # There was no limit: the calls under way were too many, which is the best guess there is.
        limiter.limit = max(policy.initial, policy.decrease * <double> inflight)
    elif began_ns < limiter.decreased_ns:
        return
    else:
        limiter.limit *= policy.decrease
    limiter.limit = min(max(limiter.limit, policy.least), policy.most)
    limiter.decreased_ns = now_ns


cdef void follow_gradient(
    Limiter* limiter, const LimiterPolicy* policy, int64_t inflight, int64_t duration_ns, int64_t now_ns
) noexcept nogil:
    """Take a sample, and move the limit at the end of a window (Netflix, concurrency-limits, Gradient2)."""
    cdef Gradient* gradient = limiter.gradient
    cdef double short_ns, slope
    if gradient.window_count == 0:
        gradient.window_end_ns = now_ns + WINDOW_NS
        gradient.window_sum_ns = 0.0
        gradient.window_inflight = 0
    gradient.window_count += 1
    gradient.window_sum_ns += <double> duration_ns
    gradient.window_inflight = max(gradient.window_inflight, inflight)
    if now_ns < gradient.window_end_ns or gradient.window_count < WINDOW_SAMPLES:
        return
    short_ns = max(gradient.window_sum_ns / <double> gradient.window_count, 1.0)
    gradient.window_count = 0
    gradient.long_count += 1
    if gradient.long_count <= WARM_UP_SAMPLES:
        gradient.long_ns += (short_ns - gradient.long_ns) / <double> gradient.long_count
    else:
        gradient.long_ns += (short_ns - gradient.long_ns) * 2.0 / (LONG_SAMPLES + 1.0)
    if gradient.long_ns > 2.0 * short_ns:
        gradient.long_ns *= DRIFT
    # A limit that is not used shows nothing.
    if <double> gradient.window_inflight < limiter.limit / 2.0:
        return
    slope = min(max(TOLERANCE * gradient.long_ns / short_ns, STEEPEST), 1.0)
    limiter.limit = limiter.limit * (1.0 - SMOOTHING) + SMOOTHING * (slope * limiter.limit + QUEUE)
    limiter.limit = min(max(limiter.limit, policy.least), policy.most)


cdef void limiter_ended(
    Limiter* limiter, const LimiterPolicy* policy, int64_t inflight, int end, int64_t duration_ns, int64_t now_ns
) noexcept nogil:
    """Adapt the limit to the end of a call, which ``inflight`` includes."""
    if policy.mode == OFF or end == OTHERWISE:
        return
    if end == OVERLOAD:
        decrease(limiter, policy, inflight, now_ns - duration_ns, now_ns)
    elif limiter.gradient != NULL:
        follow_gradient(limiter, policy, inflight, duration_ns, now_ns)
    elif limiter.limit > 0.0 and 2.0 * <double> inflight >= limiter.limit:
        limiter.limit += 1.0
        if limiter.limit >= policy.most:
            limiter.limit = 0.0


@cython.final
cdef class LimiterSettings:
    def __cinit__(
        self,
        *,
        str mode not None="aimd",
        double initial=20.0,
        double least=1.0,
        double most=1000.0,
        double decrease=0.9,
    ):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        if not 1.0 <= least <= most < 1e15:
            raise ValueError(f"least must be from 1 to most, not {least} and {most}")
        if not initial >= 1.0:
            raise ValueError(f"initial must be at least 1, not {initial}")
        if not 0.0 < decrease < 1.0:
            raise ValueError(f"decrease must be between 0 and 1, not {decrease}")
        self.policy.mode = MODES.index(mode)
        self.policy.initial = min(max(initial, least), most)
        self.policy.least = least
        self.policy.most = most
        self.policy.decrease = decrease


@cython.final
cdef class ConcurrencyLimiter:
    def __cinit__(self, LimiterSettings settings not None):
        self.settings = settings
        limiter_begin(&self.limiter, &settings.policy)

    def __dealloc__(self):
        limiter_free(&self.limiter)

    @property
    def limit(self):
        cdef int64_t cap = limiter_cap(&self.limiter)
        return None if cap == INT64_MAX else cap

    def ended(self, int64_t inflight, int end, int64_t duration_ns, int64_t now_ns):
        if not WELL <= end <= OTHERWISE:
            raise ValueError(f"end must be 0 to 2, not {end}")
        limiter_ended(&self.limiter, &self.settings.policy, inflight, end, max(duration_ns, <int64_t> 0), now_ns)
