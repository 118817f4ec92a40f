"""Layout and C interface of the circuit breaker."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from mcp_manager._core.times cimport later

cdef enum:
    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2

cdef enum:
    SUCCESS = 0
    FAILURE = 1
    IGNORED = 2

cdef enum:
    WINDOW_BUCKETS = 10
    NO_SLOT = -1
    NO_TRIAL = -1
    # Two are pending only if an expired trial reopens the circuit and the same call starts the next trial.
    MAX_TRANSITIONS = 2

cdef enum:
    ADMITTED = 0
    NEVER = -1

cdef struct Policy:
    int64_t bucket_ns
    int64_t slow_call_ns
    int64_t open_ns
    int64_t open_max_ns
    int64_t trip_decay_ns
    int64_t probe_ttl_ns
    int64_t probe_grace_ns
    double failure_rate
    double slow_rate
    double jitter
    uint32_t min_calls
    uint32_t consecutive_failures
    int32_t half_open_permits
    int32_t half_open_successes
    bint active_first

cdef struct Counts:
    uint32_t calls
    uint32_t failures
    uint32_t slow

cdef struct Transition:
    int64_t at_ns
    uint64_t generation
    uint8_t source
    uint8_t target
    uint8_t reason

cdef struct Circuit:
    # Fields that a call through a closed circuit reads come first, to share a cache line.
    uint8_t state
    uint8_t mode
    uint8_t passing
    uint8_t pending
    uint32_t failures_in_a_row
    uint64_t generation
    int64_t newest_ns
    int64_t bucket_end_ns
    int64_t epoch
    Counts total
    Counts[WINDOW_BUCKETS] window
    int64_t until_ns
    int64_t closed_ns
    uint32_t trips
    int32_t successes
    # Opened by circuit_trip() with a hold: the server is expected back when it ends, so callers need not wait for a
    # probe.
    uint8_t held
    # When the trial in each slot began, or NO_TRIAL; NULL unless the circuit has been half open since it last closed.
    int64_t* trials
    Transition[MAX_TRANSITIONS] transitions

cdef int64_t checked_ns(str name, int64_t value, int64_t lowest) except -1
cdef void circuit_init(Circuit* circuit) noexcept nogil
cdef void circuit_free(Circuit* circuit) noexcept nogil
cdef int64_t circuit_wait_slow(Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe) noexcept nogil
cdef int64_t circuit_acquire_slow(
    Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe, int32_t* slot
) noexcept nogil
cdef void circuit_release(
    Circuit* circuit,
    const Policy* policy,
    uint64_t generation,
    int32_t slot,
    int outcome,
    int64_t duration_ns,
    int64_t now_ns,
    int64_t retry_after_ns,
    double random,
) noexcept nogil
cdef void circuit_trip(
    Circuit* circuit, const Policy* policy, int64_t now_ns, double random, int64_t hold_ns
) noexcept nogil
cdef void circuit_reset(Circuit* circuit, int64_t now_ns) noexcept nogil
cdef int circuit_set_mode(Circuit* circuit, str mode, int64_t now_ns) except -1
cdef list circuit_take_transitions(Circuit* circuit)
cdef bint circuit_on_trial(const Circuit* circuit, const Policy* policy, int64_t now_ns) noexcept nogil
cdef CircuitSnapshot circuit_snapshot(const Circuit* circuit, const Policy* policy, int64_t now_ns)

cdef inline int64_t circuit_wait(Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe) noexcept nogil:
    """Return ADMITTED if a permit would be granted, else the ns until one may be, or NEVER; take nothing."""
    if circuit.passing:
        return ADMITTED
    return circuit_wait_slow(circuit, policy, now_ns, probe)


cdef inline int64_t circuit_acquire(
    Circuit* circuit, const Policy* policy, int64_t now_ns, bint probe, uint64_t* generation, int32_t* slot
) noexcept nogil:
    """Take a permit, or return what circuit_wait() would."""
    cdef int64_t wait_ns = ADMITTED
    slot[0] = NO_SLOT
    if circuit.passing:
        if now_ns > circuit.newest_ns:
            circuit.newest_ns = now_ns
    else:
        wait_ns = circuit_acquire_slow(circuit, policy, now_ns, probe, slot)
    generation[0] = circuit.generation
    return wait_ns


cdef inline int circuit_adjust(
    Circuit* circuit, const Policy* before, const Policy* after, int64_t now_ns
) noexcept nogil:
    """Go on under another policy; return -1, with nothing changed, if memory is short.

    The state is kept. A window of another length starts empty, with another number of trials those under way no longer
    count, and an open circuit stays open no longer than the new policy allows.
    """
    cdef int64_t* trials = NULL
    cdef int32_t slot
    if before.half_open_permits != after.half_open_permits and circuit.trials != NULL:
        if circuit.state == HALF_OPEN:
            trials = <int64_t*> malloc(after.half_open_permits * sizeof(int64_t))
            if trials == NULL:
                return -1
            for slot in range(after.half_open_permits):
                trials[slot] = NO_TRIAL
            circuit.generation += 1
        free(circuit.trials)
        circuit.trials = trials
    if before.bucket_ns != after.bucket_ns:
        memset(&circuit.total, 0, sizeof(Counts))
        memset(circuit.window, 0, sizeof(circuit.window))
        circuit.epoch = 0
        circuit.bucket_end_ns = 0
    if circuit.state == OPEN and not circuit.held:
        circuit.until_ns = min(circuit.until_ns, later(max(now_ns, circuit.newest_ns), after.open_max_ns))
    return 0


cdef class BreakerSettings:
    cdef Policy policy
    cdef readonly int64_t window_ns
    cdef readonly uint32_t min_calls
    cdef readonly double failure_rate
    cdef readonly uint32_t consecutive_failures
    cdef readonly int64_t slow_call_ns
    cdef readonly double slow_rate
    cdef readonly int64_t open_ns
    cdef readonly int64_t open_max_ns
    cdef readonly double jitter
    cdef readonly int64_t trip_decay_ns
    cdef readonly int32_t half_open_permits
    cdef readonly int32_t half_open_successes
    cdef readonly int64_t probe_ttl_ns
    cdef readonly bint active_first
    cdef readonly int64_t probe_grace_ns

cdef class CircuitSnapshot:
    cdef readonly int state
    cdef readonly str mode
    cdef readonly uint64_t generation
    cdef readonly int64_t retry_after_ns
    cdef readonly uint32_t trips
    cdef readonly uint32_t consecutive_failures
    cdef readonly uint32_t window_calls
    cdef readonly uint32_t window_failures
    cdef readonly uint32_t window_slow
    cdef readonly int32_t trials
    cdef readonly int32_t trial_successes
