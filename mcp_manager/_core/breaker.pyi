"""Circuit breaker: closed, open and half open, with generations, stamped permits and a sliding time window.

Closed, it counts results and opens when too many failed or were slow. Open, it admits nothing until its time is over;
the first acquisition after that makes it half open. Half open, it admits a few trials at a time: enough successes close
it, one failure opens it again for twice as long. Times are nanoseconds of a monotonic clock; going backwards counts as
standing still. States are numbered as ``mcp_manager.types.CircuitState``, outcomes as ``mcp_manager.types.Outcome``.
"""

from typing import Literal, NamedTuple, Never, TypeAlias, final

__pyx_capi__: dict[str, object]
_Mode: TypeAlias = Literal["auto", "forced_open", "disabled", "metrics_only"]

class StateChange(NamedTuple):
    """One transition.

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

    A result is judged only when it is a failure or slow: ``consecutive_failures`` failures in a row open the circuit,
    and so do, once ``min_calls`` results are in the window, a share of failures of at least ``failure_rate`` or a
    share of slow calls of at least ``slow_rate``. A slow success of a trial is a success.

    Parameters
    ----------
    window_ns
        Length of the sliding window, cut into ten buckets.
    min_calls
        Results in the window below which rates decide nothing.
    failure_rate, slow_rate
        Shares of results in (0, 1].
    consecutive_failures
        Failures in a row that open the circuit.
    slow_call_ns
        Duration from which a call is slow; 0 turns slowness off.
    open_ns, open_max_ns
        How long the circuit stays open the first time; doubles with every trip up to the maximum.
    jitter
        Spread of the open time in [0, 1), 0.2 for ±20 %; the maximum is kept.
    trip_decay_ns
        Time of closed circuit that forgives one trip; 0 forgives none.
    half_open_permits
        Trials at a time.
    half_open_successes
        Trials that must succeed in one half-open round before the circuit closes.
    probe_ttl_ns
        Time after which an unanswered trial counts as failed.
    active_first
        Whether trials are first reserved for ``probe=True``: other callers are admitted to a half-open circuit once a
        probe of that round succeeded, or ``probe_grace_ns`` after the open time ended without one.
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
    """The right to make one call, stamped with the generation it was given in."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def generation(self) -> int:
        """The generation of the circuit it belongs to; in another one its release changes nothing."""

    @property
    def trial(self) -> bool:
        """Whether it is a half-open trial."""

@final
class Rejected:
    """The refusal of a permit; false as a condition."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def retry_after_ns(self) -> int:
        """How long until an acquisition of this kind is admitted: exact if no trial is under way.

        A trial under way may end it sooner, by success, or put it off, by failing or hanging. When nothing but a free
        slot is missing, it is the time until the oldest trial counts as failed. 0 if the circuit is forced open, which
        no time changes.
        """

    def __bool__(self) -> Literal[False]: ...

@final
class CircuitSnapshot:
    """A circuit at one instant."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def state(self) -> int:
        """0 closed, 1 open (also when forced), 2 half open."""

    @property
    def mode(self) -> str:
        """``auto``, ``forced_open``, ``disabled`` or ``metrics_only``."""

    @property
    def generation(self) -> int:
        """Rises with every transition and reset."""

    @property
    def retry_after_ns(self) -> int:
        """How long an open circuit still admits nothing, not even a probe; 0 otherwise, and if forced open."""

    @property
    def trips(self) -> int:
        """How often it opened, less what time has forgiven: the exponent of the next open time."""

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
    """One circuit. The router embeds the same one; this class serves a breaker on its own.

    Parameters
    ----------
    settings
        When it opens and closes.
    """

    def __new__(cls, settings: BreakerSettings) -> Breaker: ...
    @property
    def settings(self) -> BreakerSettings:
        """When it opens and closes."""

    @property
    def state(self) -> int:
        """The state of the last operation: 0 closed, 1 open, 2 half open; :meth:`snapshot` takes the time into account."""

    @property
    def generation(self) -> int:
        """Rises with every transition and reset."""

    def acquire(self, now_ns: int, *, probe: bool = False) -> Permit | Rejected:
        """Ask for a permit, as a health probe or as a caller; every permit must be released."""

    def release(
        self,
        permit: Permit,
        outcome: int,
        duration_ns: int,
        now_ns: int,
        retry_after_ns: int = 0,
        random: float = 0.5,
    ) -> None:
        """Give a permit back with the result of its call; a second time changes nothing.

        Parameters
        ----------
        outcome
            0 success, 1 failure, 2 ignored: the slot is returned and nothing is counted.
        duration_ns
            How long the call took.
        retry_after_ns
            If this failure opens the circuit, the server asked for at least this long; ``open_max_ns`` is kept.
        random
            Uniform in [0, 1], for the jitter of the open time.

        Raises
        ------
        ValueError
            ``outcome`` or ``random`` is out of range.
        """

    def trip(self, now_ns: int, random: float = 0.5, *, hold_ns: int = 0) -> None:
        """Open the circuit at once; nothing happens if its mode is not ``auto``.

        With ``hold_ns`` above 0 it admits nothing for that long, neither more nor less, also if it is open already, and
        others as well as probes after that. Else an open one is left as it is.

        Raises
        ------
        ValueError
            ``hold_ns`` is out of range.
        """

    def reset(self, now_ns: int) -> None:
        """Close the circuit and forget its past; calls under way will not count. The mode remains."""

    def set_mode(self, mode: _Mode, now_ns: int = 0) -> None:
        """Change the mode; a change starts afresh with a closed circuit.

        ``forced_open`` admits nothing, ``disabled`` everything; ``metrics_only`` admits everything and counts.

        Raises
        ------
        ValueError
            There is no such mode.
        """

    def snapshot(self, now_ns: int) -> CircuitSnapshot:
        """Return the circuit as of ``now_ns`` without changing it."""

    def take_transitions(self) -> list[StateChange]:
        """Return the transitions since the last call, oldest first, at most the last two."""
