"""The lines of a scrape: their texts, rendered before, and how the numbers of a server are put in between."""

from typing import Self, final

__pyx_capi__: dict[str, object]
_Parts = tuple[bytes, bytes, bytes]

@final
class ValueLine:
    """The text of the lines of one value of servers: before the label, and behind it.

    Parameters
    ----------
    family
        The number of the family; -1 leaves the lines out.
    before, after
        The text before the label and behind it.
    created
        The text before the label of the line that tells when the counting began; ``None`` without one.
    """

    def __new__(cls, family: int, before: bytes, after: bytes, created: bytes | None) -> Self: ...

@final
class SeriesLines:
    """The texts of the lines of a counter by status and of a histogram, which have two labels of their own.

    A line is its first part, one label, its second part, the other label, its third part and the value.

    Parameters
    ----------
    counter, histogram
        The numbers of the two families; -1 leaves one out.
    by_status, created_by_status
        The lines of the counter by the number of the status, and those of their creation; ``None`` for none of these.
    of_histogram
        The lines of the buckets, the last of which is ``+Inf``, of the count, of the sum and of the creation, which may
        be ``None``.
    bounds
        The exponent of the lowest bound, a power of two seconds, and the distance of the exponents.

    Raises
    ------
    ValueError, TypeError
        There are too few or too many lines, or one has not three parts.
    """

    def __new__(
        cls,
        counter: int,
        by_status: tuple[_Parts, ...],
        created_by_status: tuple[_Parts, ...] | None,
        histogram: int,
        of_histogram: tuple[tuple[_Parts, ...], _Parts, _Parts, _Parts | None],
        bounds: tuple[int, int],
    ) -> Self: ...
