"""Records of the router: servers, their pools of backends, and the leases of calls under way."""

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
"""Availability of a backend that is never picked: draining, or in maintenance."""
STATUS_COUNT: Final = 12
"""How many statuses a call can end with."""
POLICIES: Final[tuple[str, ...]]
"""The balancing policies, in the order of their numbers."""

_Policy = Literal["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"]

class _Dormant(Protocol):
    def waken(self) -> object: ...

@final
class Balancing:
    """How a server's calls are shared among its backends; see :class:`mcp_manager.config.BalancingConfig`.

    Parameters
    ----------
    slow_start_ns
        For this long the weight of a new or recovered backend grows; 0 turns it off.

    Raises
    ------
    ValueError
        Something is out of range.
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
        """A tier takes all of its traffic down to a healthy share of one by this."""

    @property
    def panic_threshold(self) -> float:
        """The healthy share below which ejected backends take calls, too."""

    @property
    def max_ejection(self) -> float:
        """The most of the backends that are ejected at a time."""

    @property
    def slow_start_ns(self) -> int:
        """For how long a new weight grows."""

    @property
    def slow_start_aggression(self) -> float:
        """How much of it comes early."""

@final
class Limits:
    """How much a server is sent; see :class:`mcp_manager.config.LimitsConfig` and ``RetryBudgetConfig``.

    Parameters
    ----------
    limiter
        How the limit of each backend adapts; by default there is none.
    rate
        Its settings alone; what it has let through does not count here.
    max_concurrent
        The most calls at a time; 0 sets no limit.
    shed_multiple
        0 sheds nothing; else see :class:`~mcp_manager._core.allowance.Shedder`.
    never_shed
        Methods that are let through whatever is shed.
    budget_ratio, budget_min_per_s, budget_ttl_ns
        See :class:`~mcp_manager._core.allowance.RetryBudget`.

    Raises
    ------
    ValueError
        Something is out of range.
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
    """The transitions of all circuits of a router; nothing of it is for use from Python."""

    @property
    def dropped(self) -> int:
        """Events lost because nobody took them."""

@disjoint_base
class Pool:
    """The backends of one tier; nothing of it is for use from Python."""

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
    """Counters and latencies of one method of one server; nothing of it is for use from Python."""

    def __init__(self) -> None: ...

@final
class Server(Pool):
    """A server's own record, as :meth:`Router.server` gives it."""

    def __new__(cls, server_id: str, balancing: Balancing, limits: Limits, events: EventQueue) -> Self: ...
    waiting: int
    """How many callers wait for a slot: as long as there are any, picks are refused with 12, but for theirs."""
    on_slot: Callable[[], object] | None
    """Called, while somebody waits, when a slot may have become free."""
    dormant: _Dormant | None
    """Asked for the backends when a call comes and there are none; whoever it is sets it to ``None`` then."""

    @property
    def server_id(self) -> str:
        """Its id."""

    @property
    def inflight(self) -> int:
        """Calls under way; probes are not counted."""

    @property
    def max_concurrent(self) -> int:
        """The most calls at a time; 0 sets no limit."""

@final
class Backend:
    """One place where a server runs: the handle that :meth:`Router.add_backend` returns."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    channel: object | None
    """Where its requests go out at once: a :class:`Channel` or ``None``."""
    on_idle: Callable[[], object] | None
    """Called when the last of its calls ends."""
    latencies: LatencyWindow | None
    """Where its calls are measured beside the server's own window, for whoever watches it; else ``None``.

    There, a call that brought no result has failed, whatever it was answered.
    """
    identity: int
    """64 bits that tell it from others, for rendezvous hashing."""

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
        """The group it belongs to; lower ones take calls first."""

    @property
    def weight(self) -> float:
        """How much of the calls it takes beside the others, once it has been there for a while."""

    @property
    def limit(self) -> int | None:
        """The most calls at a time; ``None`` while nothing limits it."""

    @property
    def ejected_until_ns(self) -> int:
        """Until when it is out of traffic because it failed more than others; 0 if it is not."""

    @property
    def paused_until_ns(self) -> int:
        """Until when it asked not to be called; 0 if it did not."""

    @property
    def availability(self) -> int:
        """:data:`READY`, :data:`PENDING` or :data:`EXCLUDED`."""

    @property
    def inflight(self) -> int:
        """Calls under way; probes are not counted."""

    @property
    def last_success_ns(self) -> int:
        """When it last answered a call, be it with an error, 0 if never; probes are not counted."""

    @property
    def last_failure_ns(self) -> int:
        """When a call to it last failed, 0 if never; probes are not counted."""

    @property
    def last_fruitless_ns(self) -> int:
        """When a call to it last brought no result, 0 if never; probes are not counted."""

    @property
    def fruitless(self) -> int:
        """Of the calls since the last one that brought a result, those that were answered otherwise."""

    @property
    def refused(self) -> int:
        """Those of them that were answered by more than a JSON-RPC error or a "come back later"."""

    @property
    def broken(self) -> int:
        """The calls since then that were not answered at all; a new session or a circuit that closes ends the count."""

    @property
    def removed(self) -> bool:
        """Whether it, or its server, was removed."""

@final
class Lease:
    """The right to make one call on one backend, to be given back with :meth:`Router.done` whatever happens.

    A lease of a removed backend or server stays harmless.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def backend(self) -> Backend | None:
        """The chosen backend; ``None`` if a pick was rejected."""

    @property
    def payload(self) -> Any:
        """The payload of the chosen backend; ``None`` if a pick was rejected."""

    @property
    def server_id(self) -> str:
        """The id of the server."""

    @property
    def started_ns(self) -> int:
        """The time passed to the pick."""

    @property
    def rejection(self) -> int:
        """0 if granted; else the number of a :class:`mcp_manager.types.Rejection`."""

    @property
    def retry_after_ns(self) -> int:
        """If rejected, how long until a backend may take a call, as far as that depends on time alone; else 0.

        See :attr:`mcp_manager._core.breaker.Rejected.retry_after_ns`.
        """

    @property
    def trial(self) -> bool:
        """Whether the call is a half-open trial of its circuit: an overload that is ignored otherwise fails it."""
