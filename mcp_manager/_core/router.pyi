"""The router: picks the backend of a call, and updates breakers, latencies and counters when the call ends.

A call takes one :meth:`Router.pick` and one :meth:`Router.done`. Times are nanoseconds of a monotonic clock. States,
outcomes and statuses are numbered as in ``mcp_manager.types``.
"""

from collections.abc import Callable
from typing import final

from mcp_manager._core.breaker import BreakerSettings, _Mode
from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.records import Backend, Balancing, BreakerEvent, Lease, Limits, Server
from mcp_manager._core.snapshots import BackendReading, MethodCounts, ServerCounts, ToolReading
from mcp_manager._core.tool_table import ToolTable

@final
class Router:
    """Registry of the servers and their backends, through which every call goes.

    By default, of two backends drawn at random the one with the lower cost takes the call: its latency estimate times
    the calls that it would have (power of two choices over peak-EWMA, as in Finagle; decay time 10 s). A failure counts
    as at least 1 s, so that a backend that fails fast does not attract all traffic. A backend without an estimate gets
    one call to make it. A backend whose circuit is due for a trial that callers may make takes the call at once. A
    server's :class:`~mcp_manager._core.records.Balancing` can choose another policy.

    Parameters
    ----------
    max_methods
        How many methods of a server, beside ``own_methods``, have counters of their own, at least 0; the rest share
        :data:`OTHER_METHOD`.
    together
        The retry budget and the ``max_concurrent`` that hold for all servers together.
    own_methods
        Methods that have counters of their own in any case.
    max_tools
        How many tools are counted by name, of all servers together; 0 counts none.

    Raises
    ------
    ValueError
        ``max_methods`` is negative.
    """

    def __new__(
        cls,
        *,
        max_methods: int = 64,
        together: Limits | None = None,
        own_methods: frozenset[str] = frozenset(),
        max_tools: int = 1000,
    ) -> Router: ...
    @property
    def tools(self) -> ToolTable | None:
        """The tools that are counted by name; ``None`` with ``max_tools=0``."""
    waiting: int
    """How many queues of callers wait for room among all servers; while there are any, only their picks are granted."""
    on_slot: Callable[[], object] | None
    """Called when a call has ended while such callers wait."""

    @property
    def inflight(self) -> int:
        """Calls under way on all servers; probes are not counted."""

    @property
    def dropped_events(self) -> int:
        """Events that were dropped because nobody took them: at most 4096 are kept."""

    def __len__(self) -> int: ...
    def __contains__(self, server_id: object, /) -> bool: ...
    def server_ids(self) -> list[str]:
        """Return the ids of all servers in the order in which they were added."""

    def add_server(self, server_id: str, balancing: Balancing | None = None, limits: Limits | None = None) -> None:
        """Add a server without backends; ``Balancing()`` and ``Limits()`` are the defaults.

        Raises
        ------
        ValueError
            The id is in use.
        """

    def configure(self, server_id: str, balancing: Balancing, limits: Limits) -> None:
        """Replace the settings of :meth:`add_server`, for all backends and for calls to come.

        State that was learned or counted under settings that change is reset: the limits of backends, the rate, the
        retry budget, shedding. State under unchanged settings stays, and so do statistics and circuits.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def remove_server(self, server_id: str) -> None:
        """Remove a server with its backends and counters; open leases can still be given back.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def add_backend(
        self,
        server_id: str,
        payload: object,
        settings: BreakerSettings,
        *,
        weight: float = 1.0,
        tier: int = 0,
        identity: int = 0,
    ) -> Backend:
        """Add a ready backend with a closed circuit.

        Parameters
        ----------
        payload
            Any object, for the caller's use.
        settings
            The settings of its circuit breaker.
        weight
            Its share of the calls in relation to the other backends, above 0.
        tier
            Its tier, 0 to 255; lower tiers take calls first.
        identity
            64 bits that identify it in rendezvous hashing; 0 assigns a number.

        Raises
        ------
        KeyError
            There is no such server.
        ValueError
            ``weight`` or ``tier`` is out of range.
        """

    def adjust_backend(
        self, backend: Backend, settings: BreakerSettings, weight: float, tier: int, identity: int, now_ns: int
    ) -> None:
        """Give a backend other settings in place; do nothing if it was removed.

        Calls under way, counts, latencies and the state of the circuit are kept. A window of another length starts
        empty; with another number of trial calls, those under way no longer count. A circuit that is open stays so no
        longer than the new settings allow.

        Parameters
        ----------
        settings, weight, tier
            As for :meth:`add_backend`.
        identity
            64 bits that identify it in rendezvous hashing; 0 keeps the present ones.

        Raises
        ------
        ValueError
            ``weight`` or ``tier`` is out of range.
        """

    def remove_backend(self, backend: Backend) -> None:
        """Remove a backend; idempotent. Open leases can still be given back, and still count for the server."""

    def set_availability(self, backend: Backend, availability: int, now_ns: int = 0) -> None:
        """Make a backend :data:`READY`, :data:`PENDING` or :data:`EXCLUDED`; do nothing if it was removed.

        A backend that becomes ready begins its slow start at ``now_ns``, if its server has one; 0 skips it.

        Raises
        ------
        ValueError
            ``availability`` is none of these.
        """

    def set_weight(self, backend: Backend, weight: float) -> None:
        """Change a backend's share of the calls.

        Raises
        ------
        ValueError
            ``weight`` is not above 0.
        """

    def eject(self, backend: Backend, until_ns: int) -> bool:
        """Eject a backend until a time, and return whether that was allowed.

        It is not if ``max_ejection`` of the backends are ejected already; one always may be.
        """

    def server(self, server_id: str) -> Server:
        """Return the record of a server, which saves a look-up in each call.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def pick(
        self,
        server_id: str,
        method: str,
        now_ns: int,
        random: int,
        key: int = 0,
        avoid: Backend | None = None,
        *,
        waited: bool = False,
        again: bool = False,
    ) -> Lease:
        """Choose a backend for a call and take its permit.

        A rejection is a lease as well, and needs no :meth:`done`. Rejections 10 and 11 are counted at once, under the
        status of the same number. Those with a higher number are counted by :meth:`count_refused`, since the caller may
        wait and try again.

        Parameters
        ----------
        method
            The method under which the call is counted.
        random
            64 uniform bits.
        key
            A hash that the policy ``consistent`` maps to a backend; 0 for none.
        avoid
            A backend that is chosen only if there is no other.
        waited
            Whether the caller is the first of those that wait for a slot.
        again
            Whether this is a retry or a hedge of a call that was counted before; neither rate nor shedding stops it.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def pick_on(self, backend: Backend, method: str, now_ns: int, *, waited: bool = False) -> Lease:
        """Request a call on a given backend, ready or pending, like :meth:`pick` but without rate and shedding.

        Raises
        ------
        ValueError
            The backend belongs to another router.
        """

    def pick_probe(self, backend: Backend, now_ns: int) -> Lease:
        """Request a health probe of a backend, whatever its availability.

        Its :meth:`done` updates the breaker and the server's health check counters, but neither request counters nor
        latencies. A rejected probe may be made nevertheless; then its :meth:`done` only counts the health check.
        """

    def withdraw(self, server: Server, now_ns: int) -> bool:
        """Take one retry or hedge from the budgets of a server and of all servers; return whether both had one."""

    def budget(self, server: Server, now_ns: int) -> float:
        """Return how many retries are left in the budget of a server."""

    def count_refused(self, lease: Lease, status: int = 7) -> None:
        """Count a call that a limit refused and that will not be tried again, by default as overloaded."""

    def count_unpicked(self, server: Server, method: str, tool: str | None = None) -> None:
        """Count a call as overloaded that a limit refused before it reached :meth:`pick`."""

    def name_tool(self, lease: Lease, tool: str | None) -> None:
        """Have a lease for ``tools/call`` counted under its tool, too; ``None`` if its request names none.

        It does nothing for other methods, and without ``max_tools``. A rejection that :meth:`pick` has counted is
        counted for the tool at once.
        """

    def done(
        self,
        lease: Lease,
        outcome: int,
        status: int,
        now_ns: int,
        retry_after_ns: int = 0,
        random: int = 0,
    ) -> None:
        """Give a lease back with the result of its call; do nothing the second time, or if the pick was rejected.

        The latency is recorded for a success and for a failure, not for an ignored call.

        Parameters
        ----------
        outcome
            0 success, 1 failure, 2 ignored.
        status
            Index of the counter, below :data:`STATUS_COUNT`.
        retry_after_ns
            How long the server asked callers to wait. If this failure opens the circuit, it stays open at least this
            long; after an ignored overload, the backend is not called for this long, but at most a minute.
        random
            64 uniform bits, for the jitter of the open time.

        Raises
        ------
        ValueError
            ``outcome`` or ``status`` is out of range, or the lease belongs to another router; it stays open.
        """

    def trip(self, backend: Backend, now_ns: int, random: int = ..., *, hold_ns: int = 0) -> None:
        """Open a backend's circuit at once; do nothing unless its mode is ``auto``.

        With ``hold_ns`` above 0 it admits nothing for exactly that long, even if it was open already, and then admits
        callers as well as probes to its trials: the server is expected to be back by then. Without a hold, an open
        circuit is left as it is.
        """

    def reset_breaker(self, backend: Backend, now_ns: int) -> None:
        """Close a backend's circuit and forget its history; results of calls under way will not count for it."""

    def reconnected(self, backend: Backend) -> None:
        """Reset the count of unanswered calls of a backend, because it has just been reconnected."""

    def set_breaker_mode(self, backend: Backend, mode: _Mode, now_ns: int = 0) -> None:
        """Change the mode of a backend's circuit; a new mode starts with a closed circuit and no history.

        Raises
        ------
        ValueError
            There is no such mode.
        """

    def take_events(self) -> list[BreakerEvent]:
        """Return and forget the transitions of all circuits since the last call, oldest first.

        Those of removed backends are left out.
        """

    def breaker_state(self, backend: Backend, now_ns: int) -> int:
        """Return the state of a backend's circuit: 0 closed, 1 open, 2 half open."""

    def is_on_trial(self, backend: Backend, now_ns: int) -> bool:
        """Return whether the open time of a backend's circuit is over, so that trials, due or under way, decide."""

    def tier_loads(self, server_id: str) -> dict[int, float]:
        """Return the percentage of a server's calls by tier: 100 in total, or 0 if no backend takes calls.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def backend_reading(self, backend: Backend, now_ns: int) -> BackendReading:
        """Return the state of a backend as of ``now_ns`` without changing it."""

    def gauges_of(
        self, server: Server, backends: list[Backend], now_ns: int
    ) -> tuple[int, int, int, int, int, int, int, int, int, int, int | None]:
        """Return what the metrics show of a server.

        These are: calls under way and waiting; successful and failed health checks; calls of the last minute and those
        that failed; the state of the circuits of ``backends`` as one, and how many of them are not closed; how often
        a closed circuit opened; ejected backends; the sum of the limits of those that have one, ``None`` if none has.
        """

    def methods_of(self, server: Server) -> tuple[MethodCounts, ...]:
        """Return the counts of a server by method."""

    def tools_of(self, server: Server) -> tuple[ToolReading, ...]:
        """Return the counts of a server's ``tools/call`` by tool; empty with ``max_tools=0``."""

    def window_of(self, server: Server, now_ns: int) -> WindowSummary:
        """Return a summary of a server's calls of the last 30 to 60 seconds."""

    def fleet_window(self, now_ns: int) -> WindowSummary:
        """Return a summary of the calls of all servers in the last 30 to 60 seconds, removed servers included."""

    def server_counts(self, server_id: str, now_ns: int) -> ServerCounts:
        """Return the state of a server as of ``now_ns`` without changing it.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def snapshot(self, now_ns: int) -> list[ServerCounts]:
        """Return the state of all servers as of ``now_ns`` without changing them."""
