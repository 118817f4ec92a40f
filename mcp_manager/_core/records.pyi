"""The router's records: servers, their pools of backends, and the leases of calls under way."""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Never, Protocol, Self, final

from typing_extensions import disjoint_base

from mcp_manager._core.allowance import RateLimiter
from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.histogram import LatencyWindow
from mcp_manager._core.limiter import LimiterSettings

__pyx_capi__: dict[str, object]
READY: Final = 0
"""Availability of a backend that takes calls."""
PENDING: Final = 1
"""Availability of a backend that is picked only if no ready one admits the call, which then makes it connect."""
EXCLUDED: Final = 2
"""Availability of a backend that is never picked, because it drains or is in maintenance."""
STATUS_COUNT: Final = 13
"""How many statuses a call can end with."""
POLICIES: Final[tuple[str, ...]]
"""The balancing policies, in the order of their numbers."""

_Policy = Literal["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"]

class _Activator(Protocol):
    def activate(self) -> object: ...

@final
class Balancing:
    """How a server's calls are shared among its backends; see :class:`mcp_manager.config.BalancingConfig`.

    Parameters
    ----------
    policy
        One of :data:`POLICIES`.
    overprovision
        A tier keeps all of its traffic while its healthy share is at least 1 / ``overprovision``; at least 1.
    panic_threshold
        The healthy share below which ejected backends take calls as well, 0 to 1.
    max_ejection
        The largest share of backends that may be ejected at a time, 0 to 1; one always may be.
    slow_start_ns
        How long the weight of a new or recovered backend takes to grow, in nanoseconds; 0 turns slow start off.
    slow_start_aggression
        Above 0. With 1 the weight grows linearly; the larger, the more of it comes early.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    def __new__(
        cls,
        *,
        policy: _Policy = "p2c",
        overprovision: float = 1.4,
        panic_threshold: float = 0.5,
        max_ejection: float = 0.5,
        slow_start_ns: int = 0,
        slow_start_aggression: float = 1.0,
    ) -> Self: ...
    @property
    def policy(self) -> int:
        """Index in :data:`POLICIES`."""

    @property
    def overprovision(self) -> float:
        """A tier keeps all of its traffic while its healthy share is at least 1 divided by this."""

    @property
    def panic_threshold(self) -> float:
        """The healthy share below which ejected backends take calls as well."""

    @property
    def max_ejection(self) -> float:
        """The largest share of backends that may be ejected at a time."""

    @property
    def slow_start_ns(self) -> int:
        """How long a weight takes to grow, in nanoseconds; 0 turns slow start off."""

    @property
    def slow_start_aggression(self) -> float:
        """The larger it is, the more of the weight comes early; with 1 it grows linearly."""

@final
class Limits:
    """Limits of the calls to a server; see :class:`mcp_manager.config.LimitsConfig` and ``RetryBudgetConfig``.

    Parameters
    ----------
    limiter
        How the limit of each backend adapts; by default there is none.
    rate
        The rate limit; only its settings are used, not the calls that it has admitted.
    max_concurrent
        The most calls at a time; 0 sets no limit.
    shed_multiple, shed_window_ns
        The settings of a :class:`~mcp_manager._core.allowance.Shedder`; with ``shed_multiple`` 0 nothing is shed.
    never_shed
        Methods that are never shed.
    budget_ratio, budget_min_per_s, budget_ttl_ns
        The settings of a :class:`~mcp_manager._core.allowance.RetryBudget`.

    Raises
    ------
    ValueError
        A value is out of range.
    TypeError
        ``never_shed`` holds something other than strings.
    """

    def __new__(
        cls,
        limiter: LimiterSettings = ...,
        rate: RateLimiter = ...,
        *,
        max_concurrent: int = 0,
        shed_multiple: float = 0.0,
        shed_window_ns: int = 120_000_000_000,
        never_shed: frozenset[str] = ...,
        budget_ratio: float = 0.2,
        budget_min_per_s: float = 10.0,
        budget_ttl_ns: int = 10_000_000_000,
    ) -> Self: ...
    @property
    def max_concurrent(self) -> int:
        """The most calls at a time; 0 sets no limit."""

@final
class EventQueue:
    """The queue of transitions of a router's circuits; only ``dropped`` is for use from Python."""

    @property
    def dropped(self) -> int:
        """Events that were dropped because nobody took them."""

@disjoint_base
class Pool:
    """The backends of one tier; it has no Python interface."""

    def __new__(cls, *_: object) -> Self: ...

class BreakerEvent(NamedTuple):
    """A transition of a backend's circuit; ``reason`` as in :class:`mcp_manager._core.breaker.StateChange`."""

    backend: Backend
    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str

@final
class Series:
    """Counters and latencies of one method of one server; it has no Python interface."""

    def __init__(self) -> None: ...

@final
class Server(Pool):
    """The router's record of a server, as :meth:`Router.server` returns it."""

    def __new__(cls, server_id: str, balancing: Balancing, limits: Limits, events: EventQueue) -> Self: ...
    waiting: int
    """How many callers wait for a slot; while there are any, all picks but theirs are rejected with 12."""
    on_slot: Callable[[], object] | None
    """Called when a slot may have become free while callers wait."""
    activator: _Activator | None
    """Its ``activate()`` is called when a call finds no backends; it adds them and sets this to ``None``."""
    label: bytes | None
    """Its id as a label of metrics, escaped; ``None`` until somebody sets it."""
    created_s: float
    """When it was deployed, in seconds since 1970; 0 until somebody sets it."""

    @property
    def server_id(self) -> str:
        """The id of the server."""

    @property
    def inflight(self) -> int:
        """Calls under way; probes are not counted."""

    @property
    def max_concurrent(self) -> int:
        """The most calls at a time; 0 sets no limit."""

    @property
    def is_forgotten(self) -> bool:
        """Whether it was removed; its calls of tools are no longer counted by tool."""

@final
class Backend:
    """The router's record of an instance: the handle that :meth:`Router.add_backend` returns."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    channel: object | None
    """The compiled send path of its session, a :class:`Channel`; ``None`` if there is none."""
    on_idle: Callable[[], object] | None
    """Called when its last call under way ends."""
    latencies: LatencyWindow | None
    """Measures its calls in addition to the server's own window while it is watched; else ``None``.

    It counts every call that brought no result as failed, even one that was answered.
    """
    identity: int
    """64 bits that identify it in rendezvous hashing."""

    @property
    def payload(self) -> Any:
        """What was given to :meth:`Router.add_backend`."""

    @property
    def settings(self) -> BreakerSettings:
        """The settings of its breaker."""

    @property
    def server(self) -> Server:
        """The record of its server."""

    @property
    def server_id(self) -> str:
        """The id of its server."""

    @property
    def tier(self) -> int:
        """Its tier; lower tiers take calls first."""

    @property
    def weight(self) -> float:
        """Its share of the calls in relation to the other backends, after slow start."""

    @property
    def limit(self) -> int | None:
        """The most calls at a time; ``None`` if there is no limit."""

    @property
    def ejected_until_ns(self) -> int:
        """When its ejection as an outlier ends; 0 if it is not ejected."""

    @property
    def paused_until_ns(self) -> int:
        """When the pause ends that it asked for; 0 if there is none."""

    @property
    def availability(self) -> int:
        """:data:`READY`, :data:`PENDING` or :data:`EXCLUDED`."""

    @property
    def inflight(self) -> int:
        """Calls under way; probes are not counted."""

    @property
    def last_success_ns(self) -> int:
        """When it last answered a call, even with an error; 0 if never. Probes are not counted."""

    @property
    def last_failure_ns(self) -> int:
        """When a call to it last failed; 0 if never. Probes are not counted."""

    @property
    def last_fruitless_ns(self) -> int:
        """When a call to it last brought no result; 0 if never. Probes are not counted."""

    @property
    def fruitless(self) -> int:
        """How many calls since the last one that brought a result were answered otherwise."""

    @property
    def refused(self) -> int:
        """How many of these were answered with more than a JSON-RPC error or an HTTP 429 or 503."""

    @property
    def broken(self) -> int:
        """How many calls since then were not answered at all; a new session or a circuit that closes resets it."""

    @property
    def removed(self) -> bool:
        """Whether it or its server was removed."""

@final
class Lease:
    """The right to make one call on one backend; it must be given back with :meth:`Router.done` in any case.

    It can still be given back when its backend or server has been removed.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def backend(self) -> Backend | None:
        """The chosen backend; ``None`` if the pick was rejected."""

    @property
    def payload(self) -> Any:
        """The payload of the chosen backend; ``None`` if the pick was rejected."""

    @property
    def server(self) -> Server:
        """The server."""

    @property
    def server_id(self) -> str:
        """The id of the server."""

    @property
    def started_ns(self) -> int:
        """The time that was passed to the pick."""

    @property
    def rejection(self) -> int:
        """0 if granted; else the number of a :class:`mcp_manager.types.Rejection`."""

    @property
    def retry_after_ns(self) -> int:
        """If rejected, nanoseconds until a backend may take a call, if the passing of time is enough; else 0.

        See :attr:`mcp_manager._core.breaker.Rejected.retry_after_ns`.
        """

    @property
    def trial(self) -> bool:
        """Whether the call is a half-open trial. An overload, which is otherwise ignored, fails a trial."""
