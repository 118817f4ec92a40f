"""Router: which instance takes a call, and what its end means for breakers, latencies and counters.

One :meth:`Router.pick` and one :meth:`Router.done` per call. Times are nanoseconds of a monotonic clock. States,
outcomes and statuses are numbered as in ``mcp_manager.types``.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Never, Self, final

from mcp_manager._core.breaker import BreakerSettings as BreakerSettings
from mcp_manager._core.breaker import CircuitSnapshot, _Mode
from mcp_manager._core.histogram import WindowSummary

READY: Final = 0
"""Availability of an instance that takes calls."""
PENDING: Final = 1
"""Availability of an instance that is picked only if no ready one admits the call, which then makes it connect."""
EXCLUDED: Final = 2
"""Availability of an instance that is never picked: draining, or in maintenance."""
STATUS_COUNT: Final = 12
"""How many statuses a call can end with."""
OTHER_METHOD: Final = "other"
"""Under which name the methods above ``max_methods`` are counted together."""
LE_BOUNDS_S: tuple[float, ...]
"""Upper bounds of ``MethodSnapshot.buckets`` in seconds: 2**-12 to 2**7."""

class BreakerEvent(NamedTuple):
    """A transition of an instance's circuit; ``reason`` as in :class:`mcp_manager._core.breaker.StateChange`."""

    instance: Instance
    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str

@final
class Series:
    """Counters and latencies of one method of one server; nothing of it is for use from Python."""

    def __init__(self) -> None: ...

@final
class Server:
    """A server's own record, as :meth:`Router.server` gives it; nothing of it is for use from Python."""

    def __new__(cls, server_id: str) -> Self: ...

@final
class Instance:
    """One place where a server runs: the handle that :meth:`Router.add_instance` returns."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    channel: object | None
    """Where its requests go out at once: a :class:`Channel` or ``None``."""
    on_idle: Callable[[], object] | None
    """Called when the last of its calls ends."""

    @property
    def payload(self) -> Any:
        """What was given to :meth:`Router.add_instance`."""

    @property
    def settings(self) -> BreakerSettings:
        """The settings of its breaker."""

    @property
    def server_id(self) -> str:
        """The id of its server."""

    @property
    def availability(self) -> int:
        """:data:`READY`, :data:`PENDING` or :data:`EXCLUDED`."""

    @property
    def inflight(self) -> int:
        """Calls under way; probes are not counted."""

    @property
    def last_success_ns(self) -> int:
        """When a call last succeeded, 0 if never; probes are not counted."""

    @property
    def removed(self) -> bool:
        """Whether it, or its server, was removed."""

@final
class Lease:
    """The right to make one call on one instance, to be given back with :meth:`Router.done` whatever happens.

    A lease of a removed instance or server stays harmless.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def instance(self) -> Instance | None:
        """The chosen instance; ``None`` if a pick was rejected."""

    @property
    def payload(self) -> Any:
        """The payload of the chosen instance; ``None`` if a pick was rejected."""

    @property
    def server_id(self) -> str:
        """The id of the server."""

    @property
    def started_ns(self) -> int:
        """The time passed to the pick."""

    @property
    def rejection(self) -> int:
        """0 if granted; else 10 (every circuit is open) or 11 (the server has no instance to pick)."""

    @property
    def retry_after_ns(self) -> int:
        """If rejected with 10: how long until the first of the circuits admits a call.

        See :attr:`mcp_manager._core.breaker.Rejected.retry_after_ns`.
        """

    @property
    def trial(self) -> bool:
        """Whether the call is a half-open trial of its circuit: an overload that is ignored otherwise fails it."""

class InstanceSnapshot(NamedTuple):
    """An instance at one instant.

    ``payload`` is what was given to :meth:`Router.add_instance`; ``inflight`` the calls under way; ``last_success_ns``
    when a call last succeeded, 0 if never; ``latency_s`` the latency estimate, decayed to the instant, ``None`` before
    the first call ended. ``circuit`` is its circuit, repeated in ``circuit_state`` (0 closed, 1 open, 2 half open),
    ``retry_after_ns`` (how long an open one still admits nothing, not even a probe), ``window_calls`` and
    ``window_failures``.
    """

    payload: Any
    availability: int
    inflight: int
    last_success_ns: int
    latency_s: float | None
    circuit: CircuitSnapshot
    circuit_state: int
    retry_after_ns: int
    window_calls: int
    window_failures: int

class MethodSnapshot(NamedTuple):
    """What one method of one server has counted since the server was added.

    ``counts`` are the calls that ended by ``CallStatus``, rejected picks among them. ``buckets`` are pairs of an upper
    bound in seconds and the exact number of measured calls that took at most that; ``count`` and ``sum_s`` are the
    number and the sum of all measured calls: those that ended in success or failure, neither ignored nor rejected ones.
    """

    method: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int  # type: ignore[assignment]  # the method of tuple gives way to the histogram's own word
    sum_s: float

class ServerSnapshot(NamedTuple):
    """A server at one instant.

    ``instances`` are the ready ones, then the pending, then the excluded ones. ``inflight`` are the calls under way,
    also on instances that were removed; probes are not counted. ``health_successes`` and ``health_failures`` are the
    probes that ended. ``window`` has the measured calls of the last 30 to 60 s with their quantiles, repeated in
    ``window_calls``, ``window_failures`` and ``window_sum_s`` (the sum of their durations).
    """

    server_id: str
    instances: tuple[InstanceSnapshot, ...]
    methods: tuple[MethodSnapshot, ...]
    inflight: int
    health_successes: int
    health_failures: int
    window: WindowSummary
    window_calls: int
    window_failures: int
    window_sum_s: float

@final
class Router:
    """Registry of servers and their instances, and the way of every call through them.

    Of two ready instances drawn at random the one with the lower cost takes the call: its latency estimate times the
    calls it would have (power of two choices over peak-EWMA, as in Finagle; decay time 10 s). A failure counts as at
    least 1 s, so that an instance that fails fast does not attract all traffic; an instance without an estimate gets
    one call to make it. An instance whose circuit is due for a trial that callers may make takes the call at once.

    Parameters
    ----------
    max_methods
        How many methods of a server are counted apart; the rest share :data:`OTHER_METHOD`.

    Raises
    ------
    ValueError
        ``max_methods`` is negative.
    """

    def __new__(cls, *, max_methods: int = 64) -> Router: ...
    @property
    def dropped_events(self) -> int:
        """Events lost because nobody took them: at most 4096 are kept."""

    def __len__(self) -> int: ...
    def __contains__(self, server_id: object, /) -> bool: ...
    def server_ids(self) -> list[str]:
        """Return the ids of all servers, in the order they were added."""

    def add_server(self, server_id: str) -> None:
        """Add a server without instances.

        Raises
        ------
        ValueError
            The id is in use.
        """

    def remove_server(self, server_id: str) -> None:
        """Remove a server with its instances and counters; leases still out stay harmless.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def add_instance(self, server_id: str, payload: object, settings: BreakerSettings) -> Instance:
        """Add a ready instance with a closed circuit.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def remove_instance(self, instance: Instance) -> None:
        """Remove an instance, if it has not been; leases still out stay harmless and still count for the server."""

    def set_availability(self, instance: Instance, availability: int) -> None:
        """Make an instance :data:`READY`, :data:`PENDING` or :data:`EXCLUDED`; nothing happens to a removed one.

        Raises
        ------
        ValueError
            It is none of these.
        """

    def server(self, server_id: str) -> Server:
        """Return a server's own record, to call it without looking it up; raises :class:`KeyError`."""

    def pick(self, server_id: str, method: str, now_ns: int, random: int) -> Lease:
        """Choose an instance for a call and take its permit.

        A rejection is a lease, too: it is counted at once under its status and needs no :meth:`done`.

        Parameters
        ----------
        method
            Under which the call is counted.
        random
            64 uniform bits.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def pick_on(self, instance: Instance, method: str, now_ns: int) -> Lease:
        """Ask for a call on one instance, ready or pending: as :meth:`pick`, where nothing but the circuit is chosen."""

    def pick_probe(self, instance: Instance, now_ns: int) -> Lease:
        """Ask for a health probe of one instance, whatever its availability.

        Its :meth:`done` feeds the breaker and the server's health check counters, and neither request counters nor
        latencies. A rejected probe may be made all the same: then its :meth:`done` only counts the health check.
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
        """Give a lease back with the result of its call; a second time, or for a rejected pick, nothing happens.

        The latency is recorded for a success and for a failure, not for what is ignored.

        Parameters
        ----------
        outcome
            0 success, 1 failure, 2 ignored.
        status
            Index of the counter, below :data:`STATUS_COUNT`.
        retry_after_ns
            If this failure opens the circuit, the server asked for at least this long.
        random
            64 uniform bits, for the jitter of the open time.

        Raises
        ------
        ValueError
            ``outcome`` or ``status`` is out of range; the lease is still out.
        """

    def trip(self, instance: Instance, now_ns: int, random: int = ...) -> None:
        """Open an instance's circuit at once; nothing happens if it is open or its mode is not ``auto``."""

    def reset_breaker(self, instance: Instance, now_ns: int) -> None:
        """Close an instance's circuit and forget its past; results of calls under way will not count for it."""

    def set_breaker_mode(self, instance: Instance, mode: _Mode, now_ns: int = 0) -> None:
        """Change the mode of an instance's circuit, which starts afresh.

        Raises
        ------
        ValueError
            There is no such mode.
        """

    def take_events(self) -> list[BreakerEvent]:
        """Return and forget the transitions of all circuits since the last call, oldest first.

        Those of removed instances are left out.
        """

    def breaker_state(self, instance: Instance, now_ns: int) -> int:
        """Return the state of an instance's circuit: 0 closed, 1 open, 2 half open."""

    def instance_snapshot(self, instance: Instance, now_ns: int) -> InstanceSnapshot:
        """Return an instance as of ``now_ns`` without changing it."""

    def server_snapshot(self, server_id: str, now_ns: int) -> ServerSnapshot:
        """Return a server as of ``now_ns`` without changing it.

        Raises
        ------
        KeyError
            There is no such server.
        """

    def snapshot(self, now_ns: int) -> list[ServerSnapshot]:
        """Return all servers as of ``now_ns`` without changing them."""
