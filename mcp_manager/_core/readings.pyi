"""Readings of the core's records for exporters: latencies in OpenTelemetry's layout, and single past calls."""

from typing import Final, NamedTuple

from mcp_manager._core.call_ring import CallRing, PastCall
from mcp_manager._core.records import Server
from mcp_manager._core.tool_table import ToolTable

INFINITE_BOUND: Final[int]
"""The exponent that stands for the bound of the last bucket, which has none."""

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

class Exemplar(NamedTuple):
    """One measured call that is traced.

    Attributes
    ----------
    trace_id, span_id
        Its span.
    value_ns
        Its duration in nanoseconds.
    at_ns
        When it ended, in nanoseconds since 1970.
    """

    trace_id: int
    span_id: int
    value_ns: int
    at_ns: int

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
    exemplars
        As :func:`exemplars` returns them.
    """

    method: str
    statuses: tuple[int, ...]
    durations: Distribution
    exemplars: dict[int, Exemplar]

class ToolOperation(NamedTuple):
    """The calls of one tool since it has its place in the table of tools.

    Attributes
    ----------
    tool
        The tool.
    place
        Tells this stay of the tool in the table from earlier and later ones.
    statuses, durations, exemplars
        As for :class:`Operation`; all are among those of ``tools/call``.
    """

    tool: str
    place: tuple[int, int]
    statuses: tuple[int, ...]
    durations: Distribution
    exemplars: dict[int, Exemplar]

def operations(server: Server) -> list[Operation]:
    """Return the calls of a server by method, as :meth:`Router.server` returns the server."""

def note_exemplar(server: Server, method: str, exemplar: Exemplar, tool: str | None = None) -> None:
    """Keep an exemplar of a server's histogram, in place of the earlier one with a duration in the same bucket.

    The call may have been measured a little shorter or longer: if its bucket has counted nothing, the exemplar goes to a
    neighbour that has, and it is dropped if neither has. Buckets end at powers of 2, from ``2**-12`` to ``2**8`` s; the
    last has no bound.

    Parameters
    ----------
    server
        The server, as :meth:`Router.server` returns it.
    method
        The method that was called.
    exemplar
        The call.
    tool
        The tool that was called; the server's other tools share their exemplars.
    """

def exemplars(server: Server, method: str) -> dict[int, Exemplar]:
    """Return the exemplars of a method of a server, by the exponent of the bound of their bucket."""

def tool_exemplars(server: Server, tool: str) -> dict[int, Exemplar]:
    """Return the exemplars of a tool of a server, as :func:`exemplars`."""

def tool_operations(table: ToolTable, server: Server) -> list[ToolOperation]:
    """Return the calls of a server's tools that have a place in the table: the other ones are left out."""

def probes(server: Server) -> tuple[int, int]:
    """Return how many health probes of a server succeeded and failed."""

def past_call(ring: CallRing, server_id: str, started_ns: int) -> PastCall | None:
    """Return the latest recorded call of a server that began at ``started_ns``; ``None`` if it is not in the ring."""
