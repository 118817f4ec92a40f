"""Readings of the core's records for exporters: latencies in OpenTelemetry's layout, and single past calls."""

from typing import NamedTuple

from mcp_manager._core.call_ring import CallRing, PastCall
from mcp_manager._core.records import Server

class Distribution(NamedTuple):
    """Durations in the buckets of OpenTelemetry's exponential histogram.

    Attributes
    ----------
    scale
        The scale of the buckets: an octave has ``2**scale`` of them.
    count, sum_ns
        The number of durations, and their sum in nanoseconds.
    min_ns, max_ns
        The shortest and the longest, in nanoseconds; 0 if there is none.
    zero_count
        How many were at most 2**-20 s.
    offset, counts
        The index of the first bucket that is not empty, and the counts from that bucket to the last that is not empty.
        Durations above 2**8 s are in the first bucket above that.
    """

    scale: int
    count: int  # type: ignore[assignment]  # the histogram's own term hides a method of tuple
    sum_ns: int
    min_ns: int
    max_ns: int
    zero_count: int
    offset: int
    counts: list[int]

class Operation(NamedTuple):
    """The calls of one method of one server since the server was added.

    Attributes
    ----------
    method
        The method.
    statuses
        The calls that ended, rejected picks included, by ``CallStatus``.
    durations
        How long the measured ones took; see :class:`~mcp_manager._core.snapshots.MethodCounts`.
    """

    method: str
    statuses: tuple[int, ...]
    durations: Distribution

def operations(server: Server) -> list[Operation]:
    """Return the calls of a server by method, as :meth:`Router.server` returns the server."""

def probes(server: Server) -> tuple[int, int]:
    """Return how many health probes of a server succeeded and failed."""

def past_call(ring: CallRing, server_id: str, started_ns: int) -> PastCall | None:
    """Return the latest recorded call of a server that began at ``started_ns``; ``None`` if it is not in the ring."""
