"""Rate limits, retry budgets and client-side throttling."""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from mcp_manager._core.times cimport later, span_end

cdef double TO_UNIT = 1.0 / 18446744073709551616.0
cdef double LONGEST_NS = 4e18


cdef void pair_roll(PairWindow* window, int64_t now_ns) noexcept nogil:
    """Drop the spans that have left the window."""
    cdef int64_t span = now_ns // window.span_ns
    cdef int64_t steps = min(span - window.span, <int64_t> SPANS)
    cdef int64_t index
    while steps > 0:
        index = (span - steps + 1) % SPANS
        window.all_total -= window.all_counts[index]
        window.part_total -= window.part_counts[index]
        window.all_counts[index] = 0
        window.part_counts[index] = 0
        steps -= 1
    window.span = span
    window.span_end_ns = span_end(span, window.span_ns)


cdef int64_t rate_take(int64_t* arrival_ns, const RatePolicy* policy, int64_t now_ns) noexcept nogil:
    """Admit a call and return 0, or return how many ns too early it is (GCRA, virtual scheduling)."""
    cdef int64_t expected_ns
    if policy.interval_ns == 0:
        return 0
    expected_ns = max(arrival_ns[0], now_ns)
    if expected_ns - now_ns > policy.tolerance_ns:
        return expected_ns - policy.tolerance_ns - now_ns
    arrival_ns[0] = later(expected_ns, policy.interval_ns)
    return 0


cdef double budget_balance(PairWindow* window, double ratio, double reserve, int64_t now_ns) noexcept nogil:
    if now_ns >= window.span_end_ns:
        pair_roll(window, now_ns)
    return ratio * <double> window.all_total + reserve - <double> window.part_total


cdef bint shed_decides(PairWindow* window, double multiple, int64_t now_ns, uint64_t random) noexcept nogil:
    """Return whether to refuse a call: with ``max(0, (requests - K * accepts) / (requests + 1))`` (SRE, chapter 21)."""
    cdef double requests, chance
    if now_ns >= window.span_end_ns:
        pair_roll(window, now_ns)
    requests = <double> window.all_total
    chance = (requests - multiple * <double> window.part_total) / (requests + 1.0)
    return chance > 0.0 and <double> random * TO_UNIT < chance


@cython.final
cdef class RateLimiter:
    def __cinit__(self, *, double rate, int64_t burst=1):
        cdef double interval_ns = 0.0 if rate == 0.0 else 1e9 / rate
        if not 0.0 <= rate <= 1e9 or interval_ns > LONGEST_NS:
            raise ValueError(f"rate must be 0, or from 1e-9 to 1e9 per second, not {rate}")
        if burst < 1 or (<double> burst - 1.0) * interval_ns > LONGEST_NS:
            raise ValueError(f"burst must be at least 1, and refill within centuries, not {burst}")
        self.policy.interval_ns = max(<int64_t> interval_ns, <int64_t> (rate > 0.0))
        self.policy.tolerance_ns = (burst - 1) * self.policy.interval_ns

    def take(self, int64_t now_ns):
        return rate_take(&self.arrival_ns, &self.policy, now_ns)


cdef int64_t span_of(int64_t window_ns) except -1:
    if window_ns < SPANS:
        raise ValueError(f"the window must be at least {SPANS} ns, not {window_ns}")
    return window_ns // SPANS


@cython.final
cdef class RetryBudget:
    def __cinit__(self, *, double ratio=0.2, double min_per_s=10.0, int64_t ttl_ns=10_000_000_000):
        if not 0.0 <= ratio <= 1e6 or not 0.0 <= min_per_s <= 1e9:
            raise ValueError("ratio and min_per_s must be at least 0, and finite")
        memset(&self.window, 0, sizeof(PairWindow))
        self.window.span_ns = span_of(ttl_ns)
        self.ratio = ratio
        self.reserve = min_per_s * <double> ttl_ns / 1e9

    def deposit(self, int64_t now_ns):
        pair_add(&self.window, now_ns)

    def balance(self, int64_t now_ns):
        return budget_balance(&self.window, self.ratio, self.reserve, now_ns)

    def withdraw(self, int64_t now_ns):
        if budget_balance(&self.window, self.ratio, self.reserve, now_ns) < 1.0:
            return False
        pair_add_part(&self.window, now_ns)
        return True


@cython.final
cdef class Shedder:
    def __cinit__(self, *, int64_t window_ns=120_000_000_000, double multiple=2.0):
        if not 1.0 <= multiple <= 1e6:
            raise ValueError(f"multiple must be at least 1, not {multiple}")
        memset(&self.window, 0, sizeof(PairWindow))
        self.window.span_ns = span_of(window_ns)
        self.multiple = multiple

    def sheds(self, int64_t now_ns, uint64_t random):
        return shed_decides(&self.window, self.multiple, now_ns, random)

    def sent(self, int64_t now_ns):
        pair_add(&self.window, now_ns)

    def accepted(self, int64_t now_ns):
        pair_add_part(&self.window, now_ns)
