"""Router: which backend takes a call, and what its end means for breakers, latencies and counters.

One :meth:`Router.pick` and one :meth:`Router.done` per call. Times are nanoseconds of a monotonic clock. States,
outcomes and statuses are numbered as in ``mcp_manager.types``.
"""

from collections.abc import Callable
from typing import final

from mcp_manager._core.breaker import BreakerSettings, _Mode
from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.records import Backend, Balancing, BreakerEvent, Lease, Limits, Server
from mcp_manager._core.snapshots import BackendReading, ServerCounts

@final
class Router:
    """Registry of servers and their backends, and the way of every call through them.

    Unless a server's :class:`~mcp_manager._core.records.Balancing` says otherwise, of two backends drawn at random the
    one with the lower cost takes the call: its latency estimate times the calls it would have (power of two choices over
    peak-EWMA, as in Finagle; decay time 10 s). A failure counts as at least 1 s, so that a backend that fails fast
    does not attract all traffic; a backend without an estimate gets one call to make it. A backend whose circuit is
    due for a trial that callers may make takes the call at once.

    Parameters
    ----------
    max_methods
        How many methods of a server are counted apart; the rest share :data:`OTHER_METHOD`.
    together
        Whose budget all servers share for their retries, and whose ``max_concurrent`` holds for all their calls.

    Raises
    ------
    ValueError
        ``max_methods`` is negative.
    """

    def __new__(cls, *, max_methods: int = 64, together: Limits | None = None) -> Router: ...
    waiting: int
    """How many lines of callers wait until all servers together have room: then picks are refused, but for theirs."""
    on_slot: Callable[[], object] | None
    """Called, while somebody waits so, when a call has ended."""

    @property
    def inflight(self) -> int:
        """Calls under way on all servers; probes are not counted."""

    @property
    def dropped_events(self) -> int:
        """Events lost because nobody took them: at most 4096 are kept."""

    def __len__(self) -> int: ...
    def __contains__(self, server_id: object, /) -> bool: ...
    def server_ids(self) -> list[str]:
        """Return the ids of all servers, in the order they were added."""

    def add_server(self, server_id: str, balancing: Balancing | None = None, limits: Limits | None = None) -> None:
        """Add a server without backends; by default with the settings that ``Balancing()`` and ``Limits()`` have.

        Raises
        ------
        ValueError
            The id is in use.
        """

    def configure(self, server_id: str, balancing: Balancing, limits: Limits) -> None:
        """Change what :meth:`add_server` set, for all backends and for calls to come; raises :class:`KeyError`.

        What was learned or counted under settings that change starts afresh: the limits of backends, the rate, the retry
        budget, shedding. What has the same settings goes on, and statistics and circuits stay.
        """

    def remove_server(self, server_id: str) -> None:
        """Remove a server with its backends and counters; leases still out stay harmless.

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
        weight
            How much of the calls it takes beside the others.
        tier
            0 to 255: the group it belongs to.
        identity
            64 bits that tell it from others, for rendezvous hashing; 0 has it numbered.

        Raises
        ------
        KeyError
            There is no such server.
        ValueError
            ``weight`` or ``tier`` is out of range.
        """

    def remove_backend(self, backend: Backend) -> None:
        """Remove a backend, if it has not been; leases still out stay harmless and still count for the server."""

    def set_availability(self, backend: Backend, availability: int, now_ns: int = 0) -> None:
        """Make a backend :data:`READY`, :data:`PENDING` or :data:`EXCLUDED`; nothing happens to a removed one.

        With ``now_ns``, one that becomes ready starts slowly, if its server has that.

        Raises
        ------
        ValueError
            It is none of these.
        """

    def set_weight(self, backend: Backend, weight: float) -> None:
        """Change how much of the calls a backend takes; raises :class:`ValueError` unless it is above 0."""

    def eject(self, backend: Backend, until_ns: int) -> bool:
        """Take a backend out of traffic for a time; tell whether the most that may be are not out already.

        One always may be.
        """

    def server(self, server_id: str) -> Server:
        """Return a server's own record, to call it without looking it up; raises :class:`KeyError`."""

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

        A rejection is a lease, too, and needs no :meth:`done`. One with 10 or 11 is counted at once under its status;
        one with a higher number is counted by :meth:`count_refused`, as its caller may wait and try again.

        Parameters
        ----------
        method
            Under which the call is counted.
        random
            64 uniform bits.
        key
            A hash of what the policy ``consistent`` keeps on one backend; 0 for none.
        avoid
            A backend that every other one is preferred to.
        waited
            The caller is the first of those that wait for a slot.
        again
            The call was counted before: this is a retry or a hedge of it, which neither rate nor shedding stops.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def pick_on(self, backend: Backend, method: str, now_ns: int, *, waited: bool = False) -> Lease:
        """Ask for a call on one backend, ready or pending: as :meth:`pick`, where nothing but the circuit is chosen."""

    def pick_probe(self, backend: Backend, now_ns: int) -> Lease:
        """Ask for a health probe of one backend, whatever its availability.

        Its :meth:`done` feeds the breaker and the server's health check counters, and neither request counters nor
        latencies. A rejected probe may be made all the same: then its :meth:`done` only counts the health check.
        """

    def withdraw(self, server: Server, now_ns: int) -> bool:
        """Take one retry or hedge from the budgets of a server and of all; tell whether both had one."""

    def budget(self, server: Server, now_ns: int) -> float:
        """Return how many retries the budget of a server has now."""

    def count_refused(self, lease: Lease, status: int = 7) -> None:
        """Count a call that a limit refused and that will not be tried again, by default as overloaded."""

    def count_unpicked(self, server: Server, method: str) -> None:
        """Count a call as overloaded that a limit refused before it came to :meth:`pick`."""

    def done(
        self,
        lease: Lease,
        outcome: int,
        status: int,
        now_ns: int,
        retry_after_ns: int = 0,
        random: int = 0,
    ) -> None:
        """Give a lease back with the result of its call; a second time, or for a rejected pick, nothing happens.

        The latency is recorded for a success and for a failure, not for what is ignored.

        Parameters
        ----------
        outcome
            0 success, 1 failure, 2 ignored.
        status
            Index of the counter, below :data:`STATUS_COUNT`.
        retry_after_ns
            If this failure opens the circuit, the server asked for at least this long. After an overload that is
            ignored, the backend is called again after this long, or a minute.
        random
            64 uniform bits, for the jitter of the open time.

        Raises
        ------
        ValueError
            ``outcome`` or ``status`` is out of range; the lease is still out.
        """

    def trip(self, backend: Backend, now_ns: int, random: int = ..., *, hold_ns: int = 0) -> None:
        """Open a backend's circuit at once; nothing happens if its mode is not ``auto``.

        With ``hold_ns`` above 0 it admits nothing for that long, neither more nor less, also if it is open already, and
        callers as well as probes after that: whatever is gone comes back then. Else an open one is left as it is.
        """

    def reset_breaker(self, backend: Backend, now_ns: int) -> None:
        """Close a backend's circuit and forget its past; results of calls under way will not count for it."""

    def reconnected(self, backend: Backend) -> None:
        """Hold calls that were not answered at all against a backend no longer: it has just been reached anew."""

    def set_breaker_mode(self, backend: Backend, mode: _Mode, now_ns: int = 0) -> None:
        """Change the mode of a backend's circuit, which starts afresh.

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
        """Tell whether the open time of a backend's circuit is over, and trials, due or under way, are to decide."""

    def tier_loads(self, server_id: str) -> dict[int, float]:
        """Return the percent of a server's calls by tier: 100 together, or 0 if no backend takes calls.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def backend_reading(self, backend: Backend, now_ns: int) -> BackendReading:
        """Return a backend as of ``now_ns`` without changing it."""

    def window_of(self, server: Server, now_ns: int) -> WindowSummary:
        """Return what a server's latest calls were like: those of the last 30 to 60 seconds."""

    def fleet_window(self, now_ns: int) -> WindowSummary:
        """Return what the latest calls of all servers together were like, also of those removed since."""

    def server_counts(self, server_id: str, now_ns: int) -> ServerCounts:
        """Return a server as of ``now_ns`` without changing it.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def snapshot(self, now_ns: int) -> list[ServerCounts]:
        """Return all servers as of ``now_ns`` without changing them."""
