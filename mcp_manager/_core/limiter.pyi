"""The adaptive concurrency limit of a backend: additive increase and multiplicative decrease, or by gradient.

``aimd``: there is no limit until the first sign of overload, which sets it to ``initial``, or to ``decrease`` times the
calls under way if that is more. Each further sign multiplies it by ``decrease``, at most once per round trip: calls
that began before the last decrease do not count. Each success adds one while at least half of the limit is used; at
``most`` the limit is lifted. (The rule of TCP; D. Chiu and R. Jain, 1989.)

``gradient``: the limit starts at ``initial`` and follows the ratio of the long-term to the recent mean latency, with
room for a queue of 4 calls (Netflix, concurrency-limits, Gradient2). Gradient2 ignores drops; here, signs of overload
multiply the limit by ``decrease``, as above.
"""

from typing import Final, Literal, Self, final

__pyx_capi__: dict[str, object]
MODES: Final[tuple[str, ...]]
"""The modes, in the order of their numbers."""

@final
class LimiterSettings:
    """How a limit adapts.

    Parameters
    ----------
    mode
        ``off``, ``aimd`` or ``gradient``.
    initial
        The first limit, at least 1; kept between ``least`` and ``most``.
    least, most
        The range of the limit: 1 to below 1e15.
    decrease
        Factor of a decrease, between 0 and 1.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    def __new__(
        cls,
        *,
        mode: Literal["off", "aimd", "gradient"] = "aimd",
        initial: float = 20.0,
        least: float = 1.0,
        most: float = 1000.0,
        decrease: float = 0.9,
    ) -> Self: ...

@final
class ConcurrencyLimiter:
    """An adaptive limit on its own; the router embeds the same limit in each backend."""

    def __new__(cls, settings: LimiterSettings) -> Self: ...
    @property
    def limit(self) -> int | None:
        """The most calls at a time; ``None`` if there is no limit."""

    def ended(self, inflight: int, end: int, duration_ns: int, now_ns: int) -> None:
        """Adapt the limit to the end of a call.

        Parameters
        ----------
        inflight
            The calls under way, this one included.
        end
            0 success, 1 overload, 2 an end that says nothing about load.
        duration_ns, now_ns
            How long the call took, and when it ended.

        Raises
        ------
        ValueError
            ``end`` is out of range.
        """
