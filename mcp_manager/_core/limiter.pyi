"""Adaptive limit of a backend's calls at a time: additive increase and multiplicative decrease, or by gradient.

``aimd``: there is no limit until the first sign of overload, which sets it to ``initial``, or to ``decrease`` times the
calls under way if that is more. Each further sign multiplies it by ``decrease``, at most once in a round trip: signs of
calls that began before the last decrease say nothing new. Each success adds one while at least half of it is used, and
at ``most`` there is none again. (The rule of TCP; D. Chiu and R. Jain, 1989.)

``gradient``: it starts at ``initial`` and follows the ratio of the long-term to the recent mean latency, with 4 calls of
queue allowed (Netflix, concurrency-limits, Gradient2), which ignores drops: they multiply it by ``decrease``, as above.
"""

from typing import Final, Literal, Self, final

__pyx_capi__: dict[str, object]
MODES: Final[tuple[str, ...]]
"""The modes, in the order of their numbers."""

@final
class LimiterSettings:
    """How a limit adapts.

    Raises
    ------
    ValueError
        Something is out of range.
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
    """One limit, alone."""

    def __new__(cls, settings: LimiterSettings) -> Self: ...
    @property
    def limit(self) -> int | None:
        """The most calls at a time; ``None`` while nothing limits them."""

    def ended(self, inflight: int, end: int, duration_ns: int, now_ns: int) -> None:
        """Learn from the end of a call.

        Parameters
        ----------
        inflight
            The calls under way, this one among them.
        end
            0 it went well, 1 it shows overload, 2 it says nothing of load.
        duration_ns, now_ns
            How long it took, and when it ended.

        Raises
        ------
        ValueError
            ``end`` is out of range.
        """
