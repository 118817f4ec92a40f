"""What is remembered of calls that went well: a ring of fixed size, written in a few nanoseconds at the end of each."""

from typing import Any, NamedTuple, final

class PastCall(NamedTuple):
    """A call that went well.

    ``label`` says which session it went to; ``inflight`` and ``circuit`` are of its backend when it was over. The times
    are of the monotonic clock.
    """

    server_id: str
    method: str
    label: Any
    started_ns: int
    ended_ns: int
    inflight: int
    circuit: int

@final
class CallRing:
    """Remember the latest calls that went well; the oldest gives way.

    Parameters
    ----------
    capacity
        How many.

    Raises
    ------
    ValueError
        ``capacity`` is not positive.
    """

    def __new__(cls, capacity: int) -> CallRing: ...
    @property
    def capacity(self) -> int:
        """How many it remembers at most."""

    def __len__(self) -> int:
        """Return how many it remembers."""

    def add(
        self,
        server_id: str,
        method: str,
        label: object,
        started_ns: int,
        ended_ns: int,
        inflight: int,
        circuit: int,
    ) -> None:
        """Remember a call; see :class:`PastCall`."""

    def past_calls(self) -> list[PastCall]:
        """Return what it remembers, in the order in which the calls ended."""
