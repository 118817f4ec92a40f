"""Circuit breaker: closed, open and half open, with generations, stamped permits and a sliding time window.

A closed circuit counts results, and opens when too many failed or were slow. An open circuit admits nothing until its
open time is over; the first permit after that makes it half open. A half-open circuit admits a few trials at a time:
enough successes close it, one failure opens it again for twice as long.

Times are nanoseconds of a monotonic clock; a time before the latest one counts as the latest. States are numbered as
``mcp_manager.types.CircuitState``, outcomes as ``mcp_manager.types.Outcome``.
"""

from typing import Literal, NamedTuple, Never, TypeAlias, final

__pyx_capi__: dict[str, object]
_Mode: TypeAlias = Literal["auto", "forced_open", "disabled", "metrics_only"]

class StateChange(NamedTuple):
    """A transition of a circuit.

    ``reason`` is ``consecutive_failures``, ``failure_rate``, ``slow_rate``, ``tripped``, ``trial_failed`` or
    ``trial_expired`` (opened), ``trial_due`` (half open), ``recovered`` or ``reset`` (closed), or ``mode_changed``.
    """

    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str

@final
class BreakerSettings:
    """When a circuit opens, and how it closes again; immutable.

    Only a failure or a slow call can open the circuit. It opens after ``consecutive_failures`` failures in a row, and,
    once ``min_calls`` results are in the window, when the share of failures reaches ``failure_rate`` or the share of
    slow calls reaches ``slow_rate``. A trial that is slow but succeeds counts as a success.

    Parameters
    ----------
    window_ns
        Length of the sliding window in nanoseconds, at least 10; it has ten buckets.
    min_calls
        Results in the window from which on rates count, 1 to 1,000,000.
    failure_rate, slow_rate
        Shares of results in (0, 1].
    consecutive_failures
        Failures in a row that open the circuit, 1 to 1,000,000.
    slow_call_ns
        Duration from which on a call is slow; 0 means never.
    open_ns, open_max_ns
        How long the circuit stays open the first time; each further trip doubles it, up to the maximum.
    jitter
        Random spread of the open time, in [0, 1): 0.2 is ±20 %. The result never exceeds ``open_max_ns``.
    trip_decay_ns
        A circuit that stays closed for this long is forgiven one trip; 0 forgives none.
    half_open_permits
        Trials at a time, 1 to 1,000,000.
    half_open_successes
        Trials that must succeed in one half-open round before the circuit closes, 1 to 1,000,000.
    probe_ttl_ns
        Time after which a trial that has not ended counts as failed.
    active_first
        Whether trials are first reserved for ``probe=True``: a half-open circuit admits other callers once a probe of
        that round succeeded, or ``probe_grace_ns`` after the open time ended.
    probe_grace_ns
        See ``active_first``.

    Raises
    ------
    ValueError
        A value is out of range, or ``open_max_ns`` is below ``open_ns``.
    """

    def __new__(
        cls,
        *,
        window_ns: int = 10_000_000_000,
        min_calls: int = 20,
        failure_rate: float = 0.5,
        consecutive_failures: int = 5,
        slow_call_ns: int = 0,
        slow_rate: float = 0.8,
        open_ns: int = 5_000_000_000,
        open_max_ns: int = 300_000_000_000,
        jitter: float = 0.2,
        trip_decay_ns: int = 30_000_000_000,
        half_open_permits: int = 1,
        half_open_successes: int = 2,
        probe_ttl_ns: int = 30_000_000_000,
        active_first: bool = True,
        probe_grace_ns: int = 2_000_000_000,
    ) -> BreakerSettings: ...
    @property
    def window_ns(self) -> int: ...
    @property
    def min_calls(self) -> int: ...
    @property
    def failure_rate(self) -> float: ...
    @property
    def consecutive_failures(self) -> int: ...
    @property
    def slow_call_ns(self) -> int: ...
    @property
    def slow_rate(self) -> float: ...
    @property
    def open_ns(self) -> int: ...
    @property
    def open_max_ns(self) -> int: ...
    @property
    def jitter(self) -> float: ...
    @property
    def trip_decay_ns(self) -> int: ...
    @property
    def half_open_permits(self) -> int: ...
    @property
    def half_open_successes(self) -> int: ...
    @property
    def probe_ttl_ns(self) -> int: ...
    @property
    def active_first(self) -> bool: ...
    @property
    def probe_grace_ns(self) -> int: ...

@final
class Permit:
    """The right to make one call, stamped with the generation of its circuit."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def generation(self) -> int:
        """The generation in which it was granted; in a later one, its release changes nothing."""

    @property
    def trial(self) -> bool:
        """Whether it is a half-open trial."""

@final
class Rejected:
    """The refusal of a permit; false as a condition."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def retry_after_ns(self) -> int:
        """Nanoseconds until a permit of this kind is granted; exact unless a trial is under way.

        A trial under way may shorten the wait by succeeding, or prolong it by failing or hanging. If only a free slot
        is missing, this is the time until the oldest trial counts as failed. It is 0 if the circuit is forced open,
        since waiting does not change that.
        """

    def __bool__(self) -> Literal[False]: ...

@final
class CircuitSnapshot:
    """The state of a circuit at one instant."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def state(self) -> int:
        """0 closed, 1 open (also when forced), 2 half open."""

    @property
    def mode(self) -> str:
        """``auto``, ``forced_open``, ``disabled`` or ``metrics_only``."""

    @property
    def generation(self) -> int:
        """A number that rises with every transition and reset."""

    @property
    def retry_after_ns(self) -> int:
        """Nanoseconds for which an open circuit admits nothing, not even a probe; 0 otherwise, and if forced open."""

    @property
    def trips(self) -> int:
        """How often it opened, less the trips forgiven: the exponent of the next open time."""

    @property
    def consecutive_failures(self) -> int:
        """Failures in a row since the last success."""

    @property
    def window_calls(self) -> int:
        """Results in the window."""

    @property
    def window_failures(self) -> int:
        """Failures in the window."""

    @property
    def window_slow(self) -> int:
        """Slow calls in the window."""

    @property
    def trials(self) -> int:
        """Half-open trials under way."""

    @property
    def trial_successes(self) -> int:
        """Successes of this half-open round."""

@final
class Breaker:
    """A circuit breaker on its own; the router embeds the same circuit in each backend.

    Parameters
    ----------
    settings
        When the circuit opens and closes.
    """

    def __new__(cls, settings: BreakerSettings) -> Breaker: ...
    @property
    def settings(self) -> BreakerSettings:
        """When the circuit opens and closes."""

    @property
    def state(self) -> int:
        """The state after the last operation: 0 closed, 1 open, 2 half open; :meth:`snapshot` considers the time."""

    @property
    def generation(self) -> int:
        """Rises with every transition and reset."""

    def acquire(self, now_ns: int, *, probe: bool = False) -> Permit | Rejected:
        """Request a permit, as a health probe or as a caller; every permit must be released."""

    def release(
        self,
        permit: Permit,
        outcome: int,
        duration_ns: int,
        now_ns: int,
        retry_after_ns: int = 0,
        random: float = 0.5,
    ) -> None:
        """Give a permit back with the result of its call; a second release changes nothing.

        Parameters
        ----------
        outcome
            0 success, 1 failure, 2 ignored: the slot is returned and nothing is counted.
        duration_ns
            How long the call took.
        retry_after_ns
            How long the server asked callers to wait, 0 if it did not. If this failure opens the circuit, it stays open
            at least this long, and at most ``open_max_ns``.
        random
            Uniform in [0, 1], for the jitter of the open time.

        Raises
        ------
        ValueError
            ``outcome`` or ``random`` is out of range, or the permit belongs to another breaker.
        """

    def trip(self, now_ns: int, random: float = 0.5, *, hold_ns: int = 0) -> None:
        """Open the circuit at once; do nothing unless its mode is ``auto``.

        With ``hold_ns`` above 0 it admits nothing for exactly that long, even if it was open already, and then admits
        callers as well as probes to its trials. Without a hold, an open circuit is left as it is.

        Raises
        ------
        ValueError
            ``hold_ns`` is out of range.
        """

    def reset(self, now_ns: int) -> None:
        """Close the circuit and forget its history; calls under way will not count. The mode stays."""

    def set_mode(self, mode: _Mode, now_ns: int = 0) -> None:
        """Change the mode. A new mode starts with a closed circuit and no history.

        ``forced_open`` admits nothing, ``disabled`` admits everything, and ``metrics_only`` admits and counts
        everything.

        Raises
        ------
        ValueError
            There is no such mode.
        """

    def snapshot(self, now_ns: int) -> CircuitSnapshot:
        """Return the state of the circuit as of ``now_ns`` without changing it."""

    def take_transitions(self) -> list[StateChange]:
        """Return the transitions since the last call, oldest first, at most the last two."""
