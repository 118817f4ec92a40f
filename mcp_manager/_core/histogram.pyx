"""Latency histogram: base-2 exponential buckets in pages of one octave each, allocated on first touch."""

cimport cython
from libc.math cimport ceil, exp2, ldexp
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from mcp_manager._core.sealing cimport seal
from mcp_manager._core.times cimport span_end

import math

cdef enum:
    SUBBUCKETS = 32
    LOWEST_EXPONENT = -20
    HIGHEST_EXPONENT = 8
    GUESSES = 256

EPOCH_NS = 30_000_000_000

cdef double LOWEST_S = ldexp(1.0, LOWEST_EXPONENT)
cdef double HIGHEST_S = ldexp(1.0, HIGHEST_EXPONENT)
cdef uint64_t WIDEN_AT = 1ULL << 31
cdef uint64_t MOST = INT64_MAX
cdef uint64_t MANTISSA = 0xFFFFFFFFFFFFFULL
cdef uint64_t[SUBBUCKETS + 1] BOUND
cdef uint8_t[GUESSES] GUESS


def _fill_tables():
    """Fill the bucket bounds with the mantissas of 2^(j/32), rounded to nearest, and the first guess for each."""
    cdef int j = 0
    cdef int cell
    for power in range(SUBBUCKETS):
        # Five nested integer square roots are the exact integer part of the 32nd root.
        root = 1 << (power + SUBBUCKETS * 62)
        for _ in range(5):
            root = math.isqrt(root)
        BOUND[power] = ((root + 512) >> 10) - (1 << 52)
    BOUND[SUBBUCKETS] = 1ULL << 52
    for cell in range(GUESSES):
        while BOUND[j + 1] <= <uint64_t> cell << 44:
            j += 1
        GUESS[cell] = j


_fill_tables()


cdef inline int locate(double seconds, int* octave) noexcept nogil:
    """Return the sub-bucket (0 to 31) and set the octave (0 to 27) of a duration in (2^-20, 2^8] seconds."""
    cdef uint64_t bits
    memcpy(&bits, &seconds, sizeof(bits))
    # Buckets include their upper bound, as in Prometheus (`le`) and OpenTelemetry: look up the next lower double.
    bits -= 1
    octave[0] = <int>(bits >> 52) - (1023 + LOWEST_EXPONENT)
    cdef uint64_t mantissa = bits & MANTISSA
    cdef int sub = GUESS[mantissa >> 44]
    return sub + (mantissa >= BOUND[sub + 1])


cdef inline double bound_of(int octave, int sub, int schema) noexcept nogil:
    """Return the lower bound of a bucket in seconds."""
    cdef uint64_t bits = (<uint64_t>(octave + 1023 + LOWEST_EXPONENT) << 52) + BOUND[sub << (FINEST_SCHEMA - schema)]
    cdef double seconds
    memcpy(&seconds, &bits, sizeof(seconds))
    return seconds


cdef inline uint64_t count_at(const Buckets* buckets, int octave, int sub) noexcept nogil:
    if (buckets.wide >> octave) & 1:
        return (<const uint64_t*> buckets.pages[octave])[sub]
    return (<const uint32_t*> buckets.pages[octave])[sub]


cdef int add_at(Buckets* buckets, int octave, int sub, uint64_t count) noexcept nogil:
    """Add to one bucket, allocating or widening its page; return -1, with nothing changed, if memory is short."""
    cdef int size = 1 << buckets.schema
    cdef void* page = buckets.pages[octave]
    cdef uint32_t* narrow
    cdef uint64_t* wider
    cdef uint64_t total
    cdef int each
    if page == NULL:
        page = calloc(size, sizeof(uint32_t))
        if page == NULL:
            return -1
        buckets.pages[octave] = page
    if (buckets.wide >> octave) & 1:
        (<uint64_t*> page)[sub] += count
        return 0
    narrow = <uint32_t*> page
    total = narrow[sub] + count
    if total < WIDEN_AT and count < WIDEN_AT:
        narrow[sub] = <uint32_t> total
        return 0
    wider = <uint64_t*> calloc(size, sizeof(uint64_t))
    if wider == NULL:
        return -1
    for each in range(size):
        wider[each] = narrow[each]
    wider[sub] = total
    buckets.pages[octave] = wider
    buckets.wide |= <uint32_t> 1 << octave
    free(page)
    return 0


cdef void buckets_init(Buckets* buckets, uint8_t schema) noexcept nogil:
    memset(buckets, 0, sizeof(Buckets))
    buckets.schema = schema
    buckets.min_ns = INT64_MAX


cdef void buckets_clear(Buckets* buckets) noexcept nogil:
    cdef int octave
    for octave in range(OCTAVES):
        free(buckets.pages[octave])
    buckets_init(buckets, buckets.schema)


cdef int buckets_record(Buckets* buckets, int64_t duration_ns, uint64_t count) noexcept nogil:
    """Count a duration of at least 0; return -1, with nothing changed, if memory is short."""
    cdef double seconds = <double> duration_ns * 1e-9
    cdef int octave = 0
    cdef int sub
    if seconds <= LOWEST_S:
        buckets.underflow += count
    elif seconds > HIGHEST_S:
        buckets.overflow += count
    else:
        sub = locate(seconds, &octave) >> (FINEST_SCHEMA - buckets.schema)
        if add_at(buckets, octave, sub, count) < 0:
            return -1
    buckets.count += count
    buckets.sum_ns += <uint64_t> duration_ns * count
    if duration_ns < buckets.min_ns:
        buckets.min_ns = duration_ns
    if duration_ns > buckets.max_ns:
        buckets.max_ns = duration_ns
    return 0


cdef int buckets_merge(Buckets* target, const Buckets* source) noexcept nogil:
    """Add a histogram of the same or a finer schema; return -1, perhaps with a part added, if memory is short."""
    cdef int shift = source.schema - target.schema
    cdef int octave, sub
    cdef uint64_t count
    for octave in range(OCTAVES):
        if source.pages[octave] == NULL:
            continue
        for sub in range(1 << source.schema):
            count = count_at(source, octave, sub)
            if count and add_at(target, octave, sub >> shift, count) < 0:
                return -1
    target.count += source.count
    target.underflow += source.underflow
    target.overflow += source.overflow
    target.sum_ns += source.sum_ns
    target.min_ns = min(target.min_ns, source.min_ns)
    target.max_ns = max(target.max_ns, source.max_ns)
    return 0


cdef double buckets_quantile(const Buckets* first, const Buckets* second, double q) noexcept nogil:
    """Return the q-quantile in seconds of one or two non-empty histograms of the same schema together."""
    cdef uint64_t total = first.count + second.count
    cdef uint64_t rank = <uint64_t> ceil(q * <double> total)
    cdef double lowest = <double> min(first.min_ns, second.min_ns) * 1e-9
    cdef double highest = <double> max(first.max_ns, second.max_ns) * 1e-9
    cdef uint64_t seen = first.underflow + second.underflow
    cdef double size = <double> (1 << first.schema)
    cdef double estimate
    cdef int octave, sub
    rank = min(max(rank, <uint64_t> 1), total)
    if seen >= rank:
        return min(max(LOWEST_S, lowest), highest)
    for octave in range(OCTAVES):
        if first.pages[octave] == NULL and second.pages[octave] == NULL:
            continue
        for sub in range(1 << first.schema):
            if first.pages[octave] != NULL:
                seen += count_at(first, octave, sub)
            if second.pages[octave] != NULL:
                seen += count_at(second, octave, sub)
            if seen >= rank:
                estimate = ldexp(exp2((<double> sub + 0.5) / size), octave + LOWEST_EXPONENT)
                return min(max(estimate, lowest), highest)
    return highest


cdef void buckets_below(const Buckets* buckets, int lowest, int highest, uint64_t* counts) noexcept nogil:
    """Set the cumulative counts at the bounds 2^lowest to 2^highest seconds."""
    cdef uint64_t seen = buckets.underflow
    cdef int exponent, sub
    for exponent in range(LOWEST_EXPONENT, highest + 1):
        if exponent >= lowest:
            counts[exponent - lowest] = seen
        if exponent < HIGHEST_EXPONENT and buckets.pages[exponent - LOWEST_EXPONENT] != NULL:
            for sub in range(1 << buckets.schema):
                seen += count_at(buckets, exponent - LOWEST_EXPONENT, sub)


cdef tuple buckets_le(const Buckets* buckets, int lowest, int highest):
    """Return the cumulative counts at the bounds 2^lowest to 2^highest seconds."""
    cdef uint64_t[HIGHEST_EXPONENT - LOWEST_EXPONENT + 1] counts
    cdef int place
    buckets_below(buckets, lowest, highest, counts)
    return tuple([counts[place] for place in range(highest - lowest + 1)])


def bucket_index(double seconds, *, int schema=FINEST_SCHEMA):
    check_schema(schema)
    if not seconds >= 0:
        raise ValueError(f"seconds must be a number of at least 0, not {seconds!r}")
    if not LOWEST_S < seconds <= HIGHEST_S:
        raise ValueError(f"seconds must lie in (2**-20, 2**8], not {seconds!r}")
    cdef int octave = 0
    cdef int sub = locate(seconds, &octave) >> (FINEST_SCHEMA - schema)
    return (octave + LOWEST_EXPONENT) * (1 << schema) + sub


def bucket_lower_bound(int index, *, int schema=FINEST_SCHEMA):
    check_schema(schema)
    cdef int octave = (index >> schema) - LOWEST_EXPONENT
    if not 0 <= octave <= OCTAVES:
        raise ValueError(f"no bucket has the index {index}")
    return bound_of(octave, index & ((1 << schema) - 1), schema)


cdef int check_room(const Buckets* buckets, uint64_t count, uint64_t value, uint64_t times) except -1:
    """Raise if another ``count`` durations, or ``times`` times ``value`` ns more, would exceed 63 bits."""
    if count > MOST - buckets.count or (value and times > (MOST - min(buckets.sum_ns, MOST)) // value):
        raise OverflowError(f"a histogram holds at most {MOST} durations, and as many nanoseconds")
    return 0


cdef int check_schema(int schema) except -1:
    if not 0 <= schema <= FINEST_SCHEMA:
        raise ValueError(f"schema must be 0 to {FINEST_SCHEMA}, not {schema}")
    return 0


@cython.final
cdef class Histogram:

    def __cinit__(self, *, int schema=FINEST_SCHEMA):
        buckets_init(&self.buckets, FINEST_SCHEMA)
        check_schema(schema)
        self.buckets.schema = schema

    def __dealloc__(self):
        buckets_clear(&self.buckets)

    @property
    def schema(self):
        return self.buckets.schema

    @property
    def count(self):
        return self.buckets.count

    @property
    def underflow(self):
        return self.buckets.underflow

    @property
    def overflow(self):
        return self.buckets.overflow

    @property
    def sum_ns(self):
        return self.buckets.sum_ns

    @property
    def min_ns(self):
        return self.buckets.min_ns if self.buckets.count else None

    @property
    def max_ns(self):
        return self.buckets.max_ns if self.buckets.count else None

    def record(self, int64_t duration_ns, uint64_t count=1):
        if duration_ns < 0:
            raise ValueError(f"duration_ns must be at least 0, not {duration_ns}")
        if count == 0:
            return
        check_room(&self.buckets, count, <uint64_t> duration_ns, count)
        if buckets_record(&self.buckets, duration_ns, count) < 0:
            raise MemoryError

    def merge(self, Histogram other not None):
        if other.buckets.schema < self.buckets.schema:
            raise ValueError(f"schema {other.buckets.schema} is too coarse to be merged into {self.buckets.schema}")
        check_room(&self.buckets, other.buckets.count, other.buckets.sum_ns, 1)
        # Merge into a copy: if memory runs out half-way, nothing must have changed.
        cdef Buckets merged
        buckets_init(&merged, self.buckets.schema)
        if buckets_merge(&merged, &self.buckets) < 0 or buckets_merge(&merged, &other.buckets) < 0:
            buckets_clear(&merged)
            raise MemoryError
        buckets_clear(&self.buckets)
        self.buckets = merged

    def downscaled(self, int schema):
        cdef Histogram coarser = Histogram(schema=schema)
        coarser.merge(self)
        return coarser

    def quantile(self, double q):
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in [0, 1], not {q!r}")
        cdef Buckets none
        buckets_init(&none, self.buckets.schema)
        return buckets_quantile(&self.buckets, &none, q) if self.buckets.count else None

    def bucket_counts(self):
        cdef int octave, sub
        cdef uint64_t count
        cdef dict counts = {}
        for octave in range(OCTAVES):
            if self.buckets.pages[octave] == NULL:
                continue
            for sub in range(1 << self.buckets.schema):
                count = count_at(&self.buckets, octave, sub)
                if count:
                    counts[(octave + LOWEST_EXPONENT) * (1 << self.buckets.schema) + sub] = count
        return counts

    def le_counts(self, int lowest=LOWEST_EXPONENT, int highest=HIGHEST_EXPONENT):
        if not LOWEST_EXPONENT <= lowest <= highest <= HIGHEST_EXPONENT:
            raise ValueError(f"exponents must satisfy -20 <= lowest <= highest <= 8, not {lowest} and {highest}")
        return buckets_le(&self.buckets, lowest, highest)

    def __sizeof__(self):
        return object.__sizeof__(self) + pages_size(&self.buckets)


cdef size_t pages_size(const Buckets* buckets) noexcept nogil:
    cdef size_t size = 0
    cdef int octave
    for octave in range(OCTAVES):
        if buckets.pages[octave] != NULL:
            size += (<size_t> 8 if (buckets.wide >> octave) & 1 else <size_t> 4) << buckets.schema
    return size


@cython.final
cdef class WindowSummary:

    def __init__(self):
        raise TypeError("a WindowSummary comes from LatencyWindow.summary()")

    def __repr__(self):
        return (
            f"WindowSummary(count={self.count}, failures={self.failures}, sum_ns={self.sum_ns}, "
            f"p50_s={self.p50_s}, p95_s={self.p95_s}, p99_s={self.p99_s})"
        )


seal(WindowSummary)


cdef WindowSummary empty_summary():
    return WindowSummary.__new__(WindowSummary)


@cython.final
cdef class LatencyWindow:

    def __cinit__(self, *, int64_t epoch_ns=EPOCH_NS):
        buckets_init(&self.current, WINDOW_SCHEMA)
        buckets_init(&self.previous, WINDOW_SCHEMA)
        if epoch_ns <= 0:
            raise ValueError(f"epoch_ns must be positive, not {epoch_ns}")
        self.epoch_ns = epoch_ns

    def __dealloc__(self):
        buckets_clear(&self.current)
        buckets_clear(&self.previous)

    cdef void rotate(self, int64_t now_ns) noexcept:
        """Make the epoch of ``now_ns`` the current one; free the pages of epochs that have passed."""
        cdef int64_t epoch
        if now_ns < self.epoch_end_ns:
            # Also if time went backwards: such a call counts in the newest epoch.
            return
        epoch = now_ns // self.epoch_ns
        buckets_clear(&self.previous)
        self.previous_failures = 0
        if epoch == self.epoch + 1:
            self.previous = self.current
            self.previous_failures = self.current_failures
            buckets_init(&self.current, WINDOW_SCHEMA)
        else:
            buckets_clear(&self.current)
        self.current_failures = 0
        self.epoch = epoch
        self.epoch_end_ns = span_end(epoch, self.epoch_ns)

    cdef int add(self, int64_t now_ns, int64_t duration_ns, bint failed) noexcept:
        self.rotate(now_ns)
        if buckets_record(&self.current, duration_ns, 1) < 0:
            return -1
        self.current_failures += failed
        return 0

    def record(self, int64_t now_ns, int64_t duration_ns, bint failed=False):
        if now_ns < 0 or duration_ns < 0:
            raise ValueError(f"now_ns and duration_ns must be at least 0, not {now_ns} and {duration_ns}")
        if self.add(now_ns, duration_ns, failed) < 0:
            raise MemoryError

    cdef WindowSummary summarize(self, int64_t now_ns):
        cdef WindowSummary summary = empty_summary()
        cdef Buckets none
        cdef const Buckets* older = &self.previous
        cdef const Buckets* newer = &self.current
        cdef uint64_t failures = self.previous_failures + self.current_failures
        buckets_init(&none, WINDOW_SCHEMA)
        if now_ns >= self.epoch_end_ns:
            older = &none
            failures = self.current_failures
            if now_ns >= self.epoch_end_ns + self.epoch_ns:
                return summary
        elif newer.count:
            summary.newest_p95_s = buckets_quantile(newer, &none, 0.95)
        summary.count = older.count + newer.count
        if summary.count:
            summary.failures = failures
            summary.sum_ns = older.sum_ns + newer.sum_ns
            summary.p50_s = buckets_quantile(newer, older, 0.50)
            summary.p95_s = buckets_quantile(newer, older, 0.95)
            summary.p99_s = buckets_quantile(newer, older, 0.99)
        return summary

    cdef void count_calls(self, int64_t now_ns, uint64_t* calls, uint64_t* failures) noexcept:
        """Set what ``summarize()`` counts, without the percentiles."""
        calls[0] = failures[0] = 0
        if now_ns < self.epoch_end_ns:
            calls[0] = self.previous.count
            failures[0] = self.previous_failures
        if now_ns < self.epoch_end_ns + self.epoch_ns:
            calls[0] += self.current.count
            failures[0] += self.current_failures

    def summary(self, int64_t now_ns):
        return self.summarize(now_ns)

    def quantile(self, int64_t now_ns, double q):
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in [0, 1], not {q!r}")
        cdef Buckets none
        cdef const Buckets* older = &self.previous
        if now_ns >= self.epoch_end_ns:
            buckets_init(&none, WINDOW_SCHEMA)
            older = &none
            if now_ns >= self.epoch_end_ns + self.epoch_ns:
                return None
        return buckets_quantile(&self.current, older, q) if self.current.count + older.count else None

    def __sizeof__(self):
        return object.__sizeof__(self) + pages_size(&self.current) + pages_size(&self.previous)
