"""Circuit breaker: closed, open and half open, with generations, stamped permits and a sliding time window."""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from mcp_manager._core.sealing cimport seal
from mcp_manager._core.times cimport later, span_end

from typing import NamedTuple

cdef enum:
    AUTO = 0
    FORCED_OPEN = 1
    DISABLED = 2
    METRICS_ONLY = 3

cdef enum:
    TRIPPED = 0
    CONSECUTIVE_FAILURES = 1
    FAILURE_RATE = 2
    SLOW_RATE = 3
    TRIAL_FAILED = 4
    TRIAL_EXPIRED = 5
    TRIAL_DUE = 6
    RECOVERED = 7
    RESET = 8
    MODE_CHANGED = 9

cdef tuple MODES = ("auto", "forced_open", "disabled", "metrics_only")
cdef tuple REASONS = (
    "tripped", "consecutive_failures", "failure_rate", "slow_rate", "trial_failed", "trial_expired", "trial_due",
    "recovered", "reset", "mode_changed",
)
# A century in ns: the sum of two such times still fits 64 bits.
cdef int64_t LONGEST_NS = 3_153_600_000_000_000_000
cdef uint32_t MOST_TRIPS = 1_000_000
cdef double NO_JITTER = 0.5


class StateChange(NamedTuple):
    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str


cdef void circuit_init(Circuit* circuit) noexcept nogil:
    memset(circuit, 0, sizeof(Circuit))
    circuit.generation = 1
    circuit.passing = True


cdef void circuit_free(Circuit* circuit) noexcept nogil:
    free(circuit.trials)
    circuit.trials = NULL


cdef inline int64_t advance_clock(Circuit* circuit, int64_t now_ns) noexcept nogil:
    if now_ns > circuit.newest_ns:
        circuit.newest_ns = now_ns
    return circuit.newest_ns


cdef void push_transition(
    Circuit* circuit, uint8_t source, uint8_t target, uint8_t reason, int64_t at_ns
) noexcept nogil:
    cdef Transition* transition
    if circuit.pending == MAX_TRANSITIONS:
        circuit.transitions[0] = circuit.transitions[1]
        circuit.pending -= 1
    transition = &circuit.transitions[circuit.pending]
    transition.at_ns = at_ns
    transition.generation = circuit.generation
    transition.source = source
    transition.target = target
    transition.reason = reason
    circuit.pending += 1


cdef inline uint8_t visible_state(const Circuit* circuit) noexcept nogil:
    return OPEN if circuit.mode == FORCED_OPEN else circuit.state


cdef void forget_window(Circuit* circuit) noexcept nogil:
    memset(&circuit.total, 0, sizeof(Counts))
    memset(circuit.window, 0, sizeof(circuit.window))
    circuit.failures_in_a_row = 0


cdef uint32_t decayed_trips(const Circuit* circuit, const Policy* policy, int64_t now_ns) noexcept nogil:
    """Return the trips that still count: a closed circuit is forgiven one per decay time."""
    cdef int64_t forgiven
    if circuit.state != CLOSED or policy.trip_decay_ns == 0 or now_ns <= circuit.closed_ns:
        return circuit.trips
    forgiven = (now_ns - circuit.closed_ns) // policy.trip_decay_ns
    return circuit.trips - <uint32_t> min(forgiven, <int64_t> circuit.trips)


cdef int64_t open_time(
    const Policy* policy, uint32_t trips, int64_t retry_after_ns, double random
) noexcept nogil:
    """Return the open time of the n-th trip: doubled each time, with jitter, limited, at least ``retry_after_ns``."""
    cdef int64_t duration = policy.open_ns
    cdef double spread
    cdef uint32_t trip = 1
    while trip < trips and duration < policy.open_max_ns:
        duration *= 2
        trip += 1
    duration = min(duration, policy.open_max_ns)
    spread = <double> duration * (1.0 + policy.jitter * (2.0 * random - 1.0))
    duration = <int64_t> min(max(spread, 1.0), <double> policy.open_max_ns)
    duration = min(duration, policy.open_max_ns)
    return max(duration, min(retry_after_ns, policy.open_max_ns))


cdef void open_circuit(
    Circuit* circuit, const Policy* policy, int64_t at_ns, uint8_t reason, int64_t retry_after_ns, double random
) noexcept nogil:
    cdef uint8_t source = circuit.state
    circuit.trips = min(decayed_trips(circuit, policy, at_ns) + 1, MOST_TRIPS)
    circuit.until_ns = later(at_ns, open_time(policy, circuit.trips, retry_after_ns, random))
    circuit.state = OPEN
    circuit.held = False
    circuit.passing = False
    circuit.generation += 1
    push_transition(circuit, source, OPEN, reason, at_ns)


cdef void close_circuit(Circuit* circuit, int64_t now_ns, uint8_t reason) noexcept nogil:
    cdef uint8_t source = circuit.state
    circuit.state = CLOSED
    circuit.passing = circuit.mode != FORCED_OPEN
    circuit.held = False
    circuit.closed_ns = now_ns
    circuit.generation += 1
    forget_window(circuit)
    # Free the trial slots: most circuits never open again.
    circuit_free(circuit)
    if source != CLOSED:
        push_transition(circuit, source, CLOSED, reason, now_ns)


cdef int half_open_circuit(Circuit* circuit, const Policy* policy, int64_t now_ns) noexcept nogil:
    """Begin a round of trials; return -1, with nothing changed, if memory is short."""
    cdef int32_t slot
    if circuit.trials == NULL:
        circuit.trials = <int64_t*> calloc(policy.half_open_permits, sizeof(int64_t))
        if circuit.trials == NULL:
            return -1
    for slot in range(policy.half_open_permits):
        circuit.trials[slot] = NO_TRIAL
    circuit.state = HALF_OPEN
    circuit.successes = 0
    circuit.generation += 1
    push_transition(circuit, OPEN, HALF_OPEN, TRIAL_DUE, now_ns)
    return 0


cdef int64_t first_expiry(const Circuit* circuit, const Policy* policy) noexcept nogil:
    """Return when the oldest trial under way counts as failed, or NEVER if there is none."""
    cdef int64_t oldest = NO_TRIAL
    cdef int32_t slot
    for slot in range(policy.half_open_permits):
        if circuit.trials[slot] != NO_TRIAL and (oldest == NO_TRIAL or circuit.trials[slot] < oldest):
            oldest = circuit.trials[slot]
    return NEVER if oldest == NO_TRIAL else later(oldest, policy.probe_ttl_ns)


cdef void expire_trials(
    Circuit* circuit, const Policy* policy, int64_t now_ns, double random
) noexcept nogil:
    """Reopen a half-open circuit whose trial has not ended in time, as of the moment its time was over."""
    cdef int64_t expiry
    if circuit.state == HALF_OPEN:
        expiry = first_expiry(circuit, policy)
        if expiry != NEVER and now_ns >= expiry:
            open_circuit(circuit, policy, expiry, TRIAL_EXPIRED, 0, random)


cdef int32_t free_slot(const Circuit* circuit, const Policy* policy) noexcept nogil:
    cdef int32_t slot
    for slot in range(policy.half_open_permits):
        if circuit.trials[slot] == NO_TRIAL:
            return slot
    return NO_SLOT


cdef int64_t circuit_wait_slow(Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe) noexcept nogil:
    cdef int64_t due_ns
    if circuit.passing:
        return ADMITTED
    if circuit.mode == FORCED_OPEN:
        return NEVER
    now_ns = advance_clock(circuit, now_ns)
    expire_trials(circuit, policy, now_ns, NO_JITTER)
    due_ns = circuit.until_ns
    # Only probes are admitted during the grace period, so any success until now was a probe's.
    if policy.active_first and not (probe or circuit.held or (circuit.state == HALF_OPEN and circuit.successes)):
        due_ns = later(due_ns, policy.probe_grace_ns)
    if now_ns < due_ns:
        return due_ns - now_ns
    if circuit.state == HALF_OPEN and free_slot(circuit, policy) == NO_SLOT:
        return first_expiry(circuit, policy) - now_ns
    return ADMITTED


cdef int64_t circuit_acquire_slow(
    Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe, int32_t* slot
) noexcept nogil:
    cdef int64_t wait_ns = circuit_wait_slow(circuit, policy, now_ns, probe)
    if wait_ns != ADMITTED or circuit.passing:
        return wait_ns
    now_ns = circuit.newest_ns
    if circuit.state == OPEN and half_open_circuit(circuit, policy, now_ns) < 0:
        return policy.open_ns
    slot[0] = free_slot(circuit, policy)
    circuit.trials[slot[0]] = now_ns
    return ADMITTED


cdef void roll_window(Circuit* circuit, const Policy* policy, int64_t now_ns) noexcept nogil:
    """Drop the buckets that have left the window."""
    cdef int64_t epoch, steps
    cdef Counts* bucket
    if now_ns < circuit.bucket_end_ns:
        return
    epoch = now_ns // policy.bucket_ns
    steps = min(epoch - circuit.epoch, <int64_t> WINDOW_BUCKETS)
    while steps > 0:
        bucket = &circuit.window[(epoch - steps + 1) % WINDOW_BUCKETS]
        circuit.total.calls -= bucket.calls
        circuit.total.failures -= bucket.failures
        circuit.total.slow -= bucket.slow
        memset(bucket, 0, sizeof(Counts))
        steps -= 1
    circuit.epoch = epoch
    circuit.bucket_end_ns = span_end(epoch, policy.bucket_ns)


cdef void record_call(
    Circuit* circuit, const Policy* policy, bint failed, bint slow, int64_t now_ns, int64_t retry_after_ns,
    double random
) noexcept nogil:
    """Count a call of a closed circuit, and open the circuit if that reaches a threshold."""
    cdef Counts* bucket
    cdef double calls
    roll_window(circuit, policy, now_ns)
    bucket = &circuit.window[circuit.epoch % WINDOW_BUCKETS]
    bucket.calls += 1
    circuit.total.calls += 1
    if not failed:
        circuit.failures_in_a_row = 0
        if not slow:
            return
    else:
        bucket.failures += 1
        circuit.total.failures += 1
        circuit.failures_in_a_row += 1
    if slow:
        bucket.slow += 1
        circuit.total.slow += 1
    if circuit.mode != AUTO:
        return
    calls = <double> circuit.total.calls
    if circuit.failures_in_a_row >= policy.consecutive_failures:
        open_circuit(circuit, policy, now_ns, CONSECUTIVE_FAILURES, retry_after_ns, random)
    elif circuit.total.calls < policy.min_calls:
        return
    elif <double> circuit.total.failures / calls >= policy.failure_rate:
        open_circuit(circuit, policy, now_ns, FAILURE_RATE, retry_after_ns, random)
    elif <double> circuit.total.slow / calls >= policy.slow_rate:
        open_circuit(circuit, policy, now_ns, SLOW_RATE, retry_after_ns, random)


cdef void finish_trial(
    Circuit* circuit, const Policy* policy, int32_t slot, int outcome, int64_t now_ns, int64_t retry_after_ns,
    double random
) noexcept nogil:
    circuit.trials[slot] = NO_TRIAL
    if outcome == FAILURE:
        open_circuit(circuit, policy, now_ns, TRIAL_FAILED, retry_after_ns, random)
    elif outcome == SUCCESS:
        circuit.successes += 1
        if circuit.successes >= policy.half_open_successes:
            close_circuit(circuit, now_ns, RECOVERED)


cdef void circuit_release(
    Circuit* circuit, const Policy* policy, uint64_t generation, int32_t slot, int outcome, int64_t duration_ns,
    int64_t now_ns, int64_t retry_after_ns, double random
) noexcept nogil:
    """Give a permit back; one of an earlier generation changes nothing."""
    cdef bint slow
    if generation != circuit.generation or circuit.mode == DISABLED:
        return
    now_ns = advance_clock(circuit, now_ns)
    if circuit.state == CLOSED:
        if outcome != IGNORED:
            slow = policy.slow_call_ns > 0 and duration_ns >= policy.slow_call_ns
            record_call(circuit, policy, outcome == FAILURE, slow, now_ns, retry_after_ns, random)
        return
    expire_trials(circuit, policy, now_ns, random)
    if generation == circuit.generation and slot != NO_SLOT:
        finish_trial(circuit, policy, slot, outcome, now_ns, retry_after_ns, random)


cdef void circuit_trip(
    Circuit* circuit, const Policy* policy, int64_t now_ns, double random, int64_t hold_ns
) noexcept nogil:
    """Open the circuit now unless it is open or its mode is not ``auto``; hold it open if ``hold_ns`` is above 0."""
    if circuit.mode != AUTO:
        return
    now_ns = advance_clock(circuit, now_ns)
    expire_trials(circuit, policy, now_ns, random)
    if circuit.state != OPEN:
        open_circuit(circuit, policy, now_ns, TRIPPED, 0, random)
    if hold_ns > 0:
        circuit.until_ns = later(now_ns, hold_ns)
        circuit.held = True


cdef void circuit_reset(Circuit* circuit, int64_t now_ns) noexcept nogil:
    """Close the circuit and forget its history; results of calls under way will not count."""
    now_ns = advance_clock(circuit, now_ns)
    circuit.trips = 0
    close_circuit(circuit, now_ns, RESET)


cdef int circuit_set_mode(Circuit* circuit, str mode, int64_t now_ns) except -1:
    cdef uint8_t before = visible_state(circuit)
    cdef uint8_t wanted
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    wanted = MODES.index(mode)
    if wanted == circuit.mode:
        return 0
    now_ns = advance_clock(circuit, now_ns)
    circuit.mode = wanted
    circuit.trips = 0
    # This close makes no transition of its own: the one that callers see is pushed below.
    circuit.state = CLOSED
    close_circuit(circuit, now_ns, MODE_CHANGED)
    if visible_state(circuit) != before:
        push_transition(circuit, before, visible_state(circuit), MODE_CHANGED, now_ns)
    return 0


cdef list circuit_take_transitions(Circuit* circuit):
    """Return the fields of the transitions since the last call, oldest first."""
    cdef list changes = []
    cdef Transition[MAX_TRANSITIONS] taken = circuit.transitions
    cdef int count = circuit.pending
    cdef int each
    circuit.pending = 0
    for each in range(count):
        changes.append((
            taken[each].source, taken[each].target, taken[each].generation, taken[each].at_ns,
            REASONS[taken[each].reason],
        ))
    return changes


cdef bint circuit_on_trial(const Circuit* circuit, const Policy* policy, int64_t now_ns) noexcept nogil:
    """Return whether the open time is over, so that trials, due or under way, decide whether the circuit closes."""
    cdef Circuit copy = circuit[0]
    now_ns = advance_clock(&copy, now_ns)
    expire_trials(&copy, policy, now_ns, NO_JITTER)
    return copy.state == HALF_OPEN or (copy.state == OPEN and copy.until_ns <= now_ns)


cdef CircuitSnapshot circuit_snapshot(const Circuit* circuit, const Policy* policy, int64_t now_ns):
    """Return the state of the circuit as of now; it works on a copy, so reading changes nothing."""
    cdef Circuit copy = circuit[0]
    cdef CircuitSnapshot snapshot = CircuitSnapshot.__new__(CircuitSnapshot)
    cdef int32_t slot
    now_ns = advance_clock(&copy, now_ns)
    # This can only reopen the circuit, which does not touch the trial slots that the copy shares.
    expire_trials(&copy, policy, now_ns, NO_JITTER)
    roll_window(&copy, policy, now_ns)
    snapshot.state = visible_state(&copy)
    snapshot.mode = MODES[copy.mode]
    snapshot.generation = copy.generation
    snapshot.trips = decayed_trips(&copy, policy, now_ns)
    snapshot.consecutive_failures = copy.failures_in_a_row
    snapshot.window_calls = copy.total.calls
    snapshot.window_failures = copy.total.failures
    snapshot.window_slow = copy.total.slow
    if copy.state == OPEN and copy.until_ns > now_ns:
        snapshot.retry_after_ns = copy.until_ns - now_ns
    elif copy.state == HALF_OPEN:
        snapshot.trial_successes = copy.successes
        for slot in range(policy.half_open_permits):
            snapshot.trials += copy.trials[slot] != NO_TRIAL
    return snapshot


cdef int64_t checked_ns(str name, int64_t value, int64_t lowest) except -1:
    if not lowest <= value <= LONGEST_NS:
        raise ValueError(f"{name} must be {lowest} to {LONGEST_NS} ns, not {value}")
    return value


cdef double checked_rate(str name, double value) except -1:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {value!r}")
    return value


cdef int32_t checked_count(str name, int64_t value) except -1:
    if not 1 <= value <= 1_000_000:
        raise ValueError(f"{name} must be 1 to 1000000, not {value}")
    return <int32_t> value


@cython.final
cdef class BreakerSettings:

    def __cinit__(
        self,
        *,
        window_ns=10_000_000_000,
        min_calls=20,
        failure_rate=0.5,
        consecutive_failures=5,
        slow_call_ns=0,
        slow_rate=0.8,
        open_ns=5_000_000_000,
        open_max_ns=300_000_000_000,
        jitter=0.2,
        trip_decay_ns=30_000_000_000,
        half_open_permits=1,
        half_open_successes=2,
        probe_ttl_ns=30_000_000_000,
        active_first=True,
        probe_grace_ns=2_000_000_000,
    ):
        cdef Policy* policy = &self.policy
        policy.bucket_ns = checked_ns("window_ns", window_ns, WINDOW_BUCKETS) // WINDOW_BUCKETS
        self.window_ns = policy.bucket_ns * WINDOW_BUCKETS
        policy.min_calls = self.min_calls = checked_count("min_calls", min_calls)
        policy.failure_rate = self.failure_rate = checked_rate("failure_rate", failure_rate)
        policy.consecutive_failures = checked_count("consecutive_failures", consecutive_failures)
        self.consecutive_failures = policy.consecutive_failures
        policy.slow_call_ns = self.slow_call_ns = checked_ns("slow_call_ns", slow_call_ns, 0)
        policy.slow_rate = self.slow_rate = checked_rate("slow_rate", slow_rate)
        policy.open_ns = self.open_ns = checked_ns("open_ns", open_ns, 1)
        policy.open_max_ns = self.open_max_ns = checked_ns("open_max_ns", open_max_ns, 1)
        if open_max_ns < open_ns:
            raise ValueError(f"open_max_ns must be at least open_ns ({open_ns}), not {open_max_ns}")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be at least 0 and below 1, not {jitter!r}")
        policy.jitter = self.jitter = jitter
        policy.trip_decay_ns = self.trip_decay_ns = checked_ns("trip_decay_ns", trip_decay_ns, 0)
        policy.half_open_permits = self.half_open_permits = checked_count("half_open_permits", half_open_permits)
        policy.half_open_successes = checked_count("half_open_successes", half_open_successes)
        self.half_open_successes = policy.half_open_successes
        policy.probe_ttl_ns = self.probe_ttl_ns = checked_ns("probe_ttl_ns", probe_ttl_ns, 1)
        policy.active_first = self.active_first = active_first
        policy.probe_grace_ns = self.probe_grace_ns = checked_ns("probe_grace_ns", probe_grace_ns, 0)

    def __repr__(self):
        fields = (
            "window_ns", "min_calls", "failure_rate", "consecutive_failures", "slow_call_ns", "slow_rate", "open_ns",
            "open_max_ns", "jitter", "trip_decay_ns", "half_open_permits", "half_open_successes", "probe_ttl_ns",
            "active_first", "probe_grace_ns",
        )
        return f"BreakerSettings({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


@cython.final
cdef class CircuitSnapshot:

    def __init__(self):
        raise TypeError("a CircuitSnapshot comes from Breaker.snapshot()")

    def __repr__(self):
        return (
            f"CircuitSnapshot(state={self.state}, mode={self.mode!r}, generation={self.generation}, "
            f"retry_after_ns={self.retry_after_ns}, trips={self.trips}, window_calls={self.window_calls}, "
            f"window_failures={self.window_failures}, window_slow={self.window_slow}, trials={self.trials})"
        )


@cython.final
@cython.freelist(8)
cdef class Permit:
    cdef readonly uint64_t generation
    cdef readonly bint trial
    cdef int32_t slot
    cdef bint released
    # The breaker that granted it.
    cdef Breaker breaker

    def __init__(self):
        raise TypeError("a Permit comes from Breaker.acquire()")


@cython.final
cdef class Rejected:
    cdef readonly int64_t retry_after_ns

    def __init__(self):
        raise TypeError("a Rejected comes from Breaker.acquire()")

    def __bool__(self):
        return False


@cython.final
cdef class Breaker:
    cdef Circuit circuit
    cdef readonly BreakerSettings settings

    def __cinit__(self, BreakerSettings settings not None):
        circuit_init(&self.circuit)
        self.settings = settings

    def __dealloc__(self):
        circuit_free(&self.circuit)

    @property
    def state(self):
        return visible_state(&self.circuit)

    @property
    def generation(self):
        return self.circuit.generation

    def acquire(self, int64_t now_ns, *, bint probe=False):
        cdef uint64_t generation
        cdef int32_t slot
        cdef int64_t wait_ns = circuit_acquire(
            &self.circuit, &self.settings.policy, now_ns, probe, &generation, &slot
        )
        cdef Permit permit
        cdef Rejected rejected
        if wait_ns == ADMITTED:
            permit = Permit.__new__(Permit)
            permit.breaker = self
            permit.generation = generation
            permit.slot = slot
            permit.trial = slot != NO_SLOT
            return permit
        rejected = Rejected.__new__(Rejected)
        rejected.retry_after_ns = max(wait_ns, 0)
        return rejected

    def release(
        self,
        Permit permit not None,
        int outcome,
        int64_t duration_ns,
        int64_t now_ns,
        int64_t retry_after_ns=0,
        double random=NO_JITTER,
    ):
        if not SUCCESS <= outcome <= IGNORED:
            raise ValueError(f"outcome must be 0 to 2, not {outcome}")
        if not 0 <= random <= 1:
            raise ValueError(f"random must lie in [0, 1], not {random!r}")
        if permit.breaker is not self:
            raise ValueError("the permit is of another breaker")
        if permit.released:
            return
        permit.released = True
        circuit_release(
            &self.circuit, &self.settings.policy, permit.generation, permit.slot, outcome, duration_ns, now_ns,
            retry_after_ns, random,
        )

    def trip(self, int64_t now_ns, double random=NO_JITTER, *, int64_t hold_ns=0):
        checked_ns("hold_ns", hold_ns, 0)
        circuit_trip(&self.circuit, &self.settings.policy, now_ns, random, hold_ns)

    def reset(self, int64_t now_ns):
        circuit_reset(&self.circuit, now_ns)

    def set_mode(self, str mode not None, int64_t now_ns=0):
        circuit_set_mode(&self.circuit, mode, now_ns)

    def snapshot(self, int64_t now_ns):
        return circuit_snapshot(&self.circuit, &self.settings.policy, now_ns)

    def take_transitions(self):
        return [StateChange(*change) for change in circuit_take_transitions(&self.circuit)]


seal(CircuitSnapshot)
seal(Permit)
seal(Rejected)
