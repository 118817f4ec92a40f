"""A ring buffer of the latest successful calls; recording one takes a few nanoseconds."""

from typing import Any, NamedTuple, final

class PastCall(NamedTuple):
    """A call that ended in a result.

    ``label`` says which session it was sent on. ``inflight`` and ``circuit`` are those of its backend when it ended.
    ``status`` is the number of its status; that of a tool's failure is a result, too. The times are monotonic nanoseconds.
    """

    server_id: str
    method: str
    label: Any
    started_ns: int
    ended_ns: int
    inflight: int
    circuit: int
    status: int = 0

@final
class CallRing:
    """Record the latest successful calls; a new one replaces the oldest.

    Parameters
    ----------
    capacity
        How many calls it holds, at least 1.

    Raises
    ------
    ValueError
        ``capacity`` is below 1.
    """

    def __new__(cls, capacity: int) -> CallRing: ...
    @property
    def capacity(self) -> int:
        """How many calls it can hold."""

    def __len__(self) -> int:
        """Return how many calls it holds."""

    def add(
        self,
        server_id: str,
        method: str,
        label: object,
        started_ns: int,
        ended_ns: int,
        inflight: int,
        circuit: int,
        status: int = 0,
    ) -> None:
        """Record a call; see :class:`PastCall`."""

    def past_calls(self) -> list[PastCall]:
        """Return the recorded calls in the order in which they ended."""
