"""Latency histogram: base-2 exponential buckets in pages of one octave each, allocated on first touch.

At schema ``s`` an octave has ``2**s`` buckets. Bucket ``i`` holds the durations in ``(2**(i / 2**s),
2**((i + 1) / 2**s)]`` seconds: OpenTelemetry's exponential histogram of scale ``s`` with the same index, and Prometheus'
native histogram of schema ``s`` with index ``i + 1``. The bounds are the doubles nearest to the exact powers. Durations
up to 2**-20 s are counted as underflow, above 2**8 s as overflow.
"""

from typing import Never, final

__pyx_capi__: dict[str, object]
EPOCH_NS: int
"""Length of one epoch of a :class:`LatencyWindow` in nanoseconds, unless told otherwise."""

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

    Counts are 32 bits wide until a bucket of their octave reaches 2**31, then 64. The sum wraps after 584 years.

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
        """The smallest in nanoseconds, or ``None`` without any."""

    @property
    def max_ns(self) -> int | None:
        """The largest in nanoseconds, or ``None`` without any."""

    def record(self, duration_ns: int, count: int = 1) -> None:
        """Count a duration in nanoseconds, ``count`` times.

        Raises
        ------
        ValueError
            The duration is negative.
        """

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts, lossless if the schemas are equal; ``other`` is left as it is.

        Raises
        ------
        ValueError
            ``other`` is coarser.
        """

    def downscaled(self, schema: int) -> Histogram:
        """Return a copy at a coarser or equal schema, exactly as if it had been recorded there.

        Raises
        ------
        ValueError
            ``schema`` is finer, or there is no such schema.
        """

    def quantile(self, q: float) -> float | None:
        """Return the duration of rank ``ceil(q * count)`` in seconds, or ``None`` without any.

        The estimate is the geometric middle of its bucket, clamped to the smallest and largest recorded; the error
        bound of the class does not hold for under- and overflow.

        Raises
        ------
        ValueError
            ``q`` is outside [0, 1].
        """

    def bucket_counts(self) -> dict[int, int]:
        """Return the counts of all buckets that are not empty by index, under- and overflow excluded."""

    def le_counts(self, lowest: int = -20, highest: int = 8) -> tuple[int, ...]:
        """Return how many durations are at most ``2**k`` seconds for ``k`` from ``lowest`` to ``highest``: exact.

        Raises
        ------
        ValueError
            Not ``-20 <= lowest <= highest <= 8``.
        """

    def __sizeof__(self) -> int:
        """Return the bytes it occupies, pages included."""

@final
class WindowSummary:
    """What a :class:`LatencyWindow` held at one instant."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def count(self) -> int:
        """Calls."""

    @property
    def failures(self) -> int:
        """Calls that failed."""

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
    """The latencies of the last one to two epochs, at schema 3.

    Epochs change by the time passed in, never by a timer. Time that goes backwards counts into the newest epoch.

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

    def __sizeof__(self) -> int:
        """Return the bytes it occupies, pages included."""
