"""Latency histogram: base-2 exponential buckets in pages of one octave each, allocated on first touch.

At schema ``s`` an octave has ``2**s`` buckets. Bucket ``i`` holds the durations in ``(2**(i / 2**s),
2**((i + 1) / 2**s)]`` seconds: OpenTelemetry's exponential histogram of scale ``s`` with the same index, and Prometheus'
native histogram of schema ``s`` with index ``i + 1``. The bounds are the doubles nearest to the exact powers. Durations
up to 2**-20 s are counted as underflow, above 2**8 s as overflow.
"""

from typing import Never, final

__pyx_capi__: dict[str, object]
EPOCH_NS: int
"""Default length of an epoch of a :class:`LatencyWindow`, in nanoseconds."""

def bucket_index(seconds: float, *, schema: int = 5) -> int:
    """Return the index of the bucket that holds a duration.

    Raises
    ------
    ValueError
        ``seconds`` is NaN, negative or outside (2**-20, 2**8], or there is no such schema.
    """

def bucket_lower_bound(index: int, *, schema: int = 5) -> float:
    """Return the exclusive lower bound of a bucket in seconds; that of the next one is its inclusive upper bound.

    Raises
    ------
    ValueError
        No bucket has this index, or there is no such schema.
    """

@final
class Histogram:
    """Count durations in exponential buckets.

    Counts have 32 bits until one in their octave reaches 2**31, then 64.

    Parameters
    ----------
    schema
        Resolution, 0 to 5: the quantile error is at most ``2**(1 / 2**(schema + 1)) - 1``, 1.09 % at 5.

    Raises
    ------
    ValueError
        There is no such schema.
    """

    def __new__(cls, *, schema: int = 5) -> Histogram: ...
    @property
    def schema(self) -> int:
        """Resolution: the base-2 logarithm of the number of buckets in an octave."""

    @property
    def count(self) -> int:
        """How many durations were recorded."""

    @property
    def underflow(self) -> int:
        """How many of them were at most 2**-20 s."""

    @property
    def overflow(self) -> int:
        """How many of them were above 2**8 s."""

    @property
    def sum_ns(self) -> int:
        """Their exact sum in nanoseconds."""

    @property
    def min_ns(self) -> int | None:
        """The smallest duration in nanoseconds; ``None`` if there is none."""

    @property
    def max_ns(self) -> int | None:
        """The largest duration in nanoseconds; ``None`` if there is none."""

    def record(self, duration_ns: int, count: int = 1) -> None:
        """Count a duration in nanoseconds, ``count`` times.

        Raises
        ------
        ValueError
            The duration is negative.
        OverflowError
            The number or the sum of the durations would exceed 63 bits.
        """

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts, without loss if the schemas are equal; ``other`` does not change.

        Raises
        ------
        ValueError
            ``other`` has a coarser schema.
        OverflowError
            The number or the sum of the durations would exceed 63 bits.
        """

    def downscaled(self, schema: int) -> Histogram:
        """Return a copy at a coarser or equal schema, exactly as if every duration had been recorded at it.

        Raises
        ------
        ValueError
            ``schema`` is finer, or there is no such schema.
        """

    def quantile(self, q: float) -> float | None:
        """Return the duration of rank ``ceil(q * count)`` in seconds, ``None`` if there is none.

        The estimate is the geometric middle of its bucket, clamped to the smallest and largest duration recorded. The
        error bound of the class does not hold for underflow and overflow.

        Raises
        ------
        ValueError
            ``q`` is outside [0, 1].
        """

    def bucket_counts(self) -> dict[int, int]:
        """Return the counts of all non-empty buckets by index, without underflow and overflow."""

    def le_counts(self, lowest: int = -20, highest: int = 8) -> tuple[int, ...]:
        """Return exactly how many durations are at most ``2**k`` seconds, for ``k`` from ``lowest`` to ``highest``.

        Raises
        ------
        ValueError
            Not ``-20 <= lowest <= highest <= 8``.
        """

    def __sizeof__(self) -> int:
        """Return its size in bytes, pages included."""

@final
class WindowSummary:
    """The calls that a :class:`LatencyWindow` held at one instant."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def count(self) -> int:
        """Number of calls."""

    @property
    def failures(self) -> int:
        """Number of calls that failed."""

    @property
    def sum_ns(self) -> int:
        """Sum of their durations in nanoseconds."""

    @property
    def p50_s(self) -> float | None:
        """Median duration in seconds (±4.4 %), or ``None`` without calls."""

    @property
    def p95_s(self) -> float | None:
        """95th percentile in seconds (±4.4 %), or ``None`` without calls."""

    @property
    def p99_s(self) -> float | None:
        """99th percentile in seconds (±4.4 %), or ``None`` without calls."""

    @property
    def newest_p95_s(self) -> float | None:
        """95th percentile of the newest epoch alone, or ``None`` if it has no calls yet."""

@final
class LatencyWindow:
    """Latencies of the last one to two epochs, at schema 3.

    The times passed in end an epoch; there is no timer. A time before the newest epoch counts as part of it.

    Parameters
    ----------
    epoch_ns
        Length of an epoch in nanoseconds.

    Raises
    ------
    ValueError
        ``epoch_ns`` is not positive.
    """

    def __new__(cls, *, epoch_ns: int = ...) -> LatencyWindow: ...
    def record(self, now_ns: int, duration_ns: int, failed: bool = False) -> None:
        """Count a call that ended at ``now_ns`` after ``duration_ns``.

        Raises
        ------
        ValueError
            A time is negative.
        """

    def summary(self, now_ns: int) -> WindowSummary:
        """Return what the window holds as of ``now_ns``, without changing it."""

    def quantile(self, now_ns: int, q: float) -> float | None:
        """Return the duration of rank ``ceil(q * count)`` in seconds (±4.4 %), ``None`` without calls.

        Raises
        ------
        ValueError
            ``q`` is outside [0, 1].
        """

    def __sizeof__(self) -> int:
        """Return its size in bytes, pages included."""
