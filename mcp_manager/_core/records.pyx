"""The router's records: servers, their pools of backends, and the leases of calls under way.

A pool is one list in four parts, so that a pick draws from the backends that may take a call without searching for one.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free

from collections import deque
from typing import NamedTuple

from mcp_manager._core.allowance cimport SPANS, RateLimiter
from mcp_manager._core.breaker cimport CLOSED, NO_SLOT, OPEN, circuit_adjust, circuit_free, circuit_take_transitions
from mcp_manager._core.histogram cimport buckets_clear
from mcp_manager._core.limiter cimport LimiterSettings, limiter_cap, limiter_free, limiter_restart, same_policy
from mcp_manager._core.sealing cimport seal

cdef enum:
    MOST_EVENTS = 4096

READY, PENDING, EXCLUDED = C_READY, C_PENDING, C_EXCLUDED
STATUS_COUNT = STATUSES
POLICIES = ("p2c", "least_connections", "round_robin", "weighted", "random", "consistent")


class BreakerEvent(NamedTuple):
    backend: object
    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str


@cython.final
cdef class Balancing:
    def __cinit__(
        self,
        *,
        str policy not None="p2c",
        double overprovision=1.4,
        double panic_threshold=0.5,
        double max_ejection=0.5,
        int64_t slow_start_ns=0,
        double slow_start_aggression=1.0,
    ):
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        if not overprovision >= 1.0:
            raise ValueError(f"overprovision must be at least 1, not {overprovision}")
        if not 0.0 <= panic_threshold <= 1.0 or not 0.0 <= max_ejection <= 1.0:
            raise ValueError("panic_threshold and max_ejection must be from 0 to 1")
        if slow_start_ns < 0 or not slow_start_aggression > 0.0:
            raise ValueError("slow_start_ns must be at least 0 and slow_start_aggression above 0")
        self.policy = POLICIES.index(policy)
        self.overprovision = overprovision
        self.panic_threshold = panic_threshold
        self.max_ejection = max_ejection
        self.slow_start_ns = slow_start_ns
        self.slow_start_aggression = slow_start_aggression
        self.slow_start_exponent = 1.0 / slow_start_aggression


@cython.final
cdef class Limits:
    def __cinit__(
        self,
        LimiterSettings limiter not None=LimiterSettings(mode="off"),
        RateLimiter rate not None=RateLimiter(rate=0.0),
        *,
        int64_t max_concurrent=0,
        double shed_multiple=0.0,
        int64_t shed_window_ns=120_000_000_000,
        frozenset never_shed not None=frozenset(),
        double budget_ratio=0.2,
        double budget_min_per_s=10.0,
        int64_t budget_ttl_ns=10_000_000_000,
    ):
        for name in never_shed:
            # Only real strings: a look-up in the middle of a pick must not run foreign code.
            if type(name) is not str:
                raise TypeError(f"never_shed must hold names of methods, not {name!r:.40}")
        if max_concurrent < 0:
            raise ValueError(f"max_concurrent must be at least 0, not {max_concurrent}")
        if shed_multiple != 0.0 and not 1.0 <= shed_multiple <= 1e6:
            raise ValueError(f"shed_multiple must be 0 or at least 1, not {shed_multiple}")
        if not 0.0 <= budget_ratio <= 1e6 or not 0.0 <= budget_min_per_s <= 1e9:
            raise ValueError("budget_ratio and budget_min_per_s must be at least 0, and finite")
        if min(shed_window_ns, budget_ttl_ns) < SPANS:
            raise ValueError(f"windows must be at least {SPANS} ns")
        self.limiter = limiter.policy
        self.rate = rate.policy
        self.max_concurrent = max_concurrent
        self.shed_multiple = shed_multiple
        self.shed_span_ns = shed_window_ns // SPANS
        self.never_shed = never_shed
        self.budget_ratio = budget_ratio
        self.budget_reserve = budget_min_per_s * <double> budget_ttl_ns / 1e9
        self.budget_span_ns = budget_ttl_ns // SPANS


@cython.final
cdef class EventQueue:
    def __cinit__(self):
        self.events = deque(maxlen=MOST_EVENTS)

    cdef list take(self):
        cdef list taken = list(self.events)
        self.events.clear()
        return [BreakerEvent(*each) for each in taken]

    cdef int forget_removed(self) except -1:
        """Drop the events of removed backends: nobody may ever take them, and each keeps a whole server alive."""
        if self.events:
            self.events = deque([each for each in self.events if not (<Backend> each[0]).removed], maxlen=MOST_EVENTS)
        return 0


@cython.final
cdef class Series:
    """Counters and latencies of one method of one server."""

    def __cinit__(self):
        self.latency = Histogram()


cdef class Pool:
    """The backends of one tier."""

    def __cinit__(self, *_):
        self.backends = []
        self.tier = -1


@cython.final
cdef class Server(Pool):
    def __cinit__(
        self, str server_id not None, Balancing balancing not None, Limits limits not None, EventQueue events not None
    ):
        self.server_id = server_id
        self.balancing = balancing
        self.limits = limits
        self.events = events

    def __dealloc__(self):
        free(self.spent)
        free(self.sent)
        if self.other_tools is not NULL:
            buckets_clear(&self.other_tools.latency)
            free(self.other_tools)

    @property
    def max_concurrent(self):
        return self.limits.max_concurrent


@cython.final
cdef class Backend:
    def __init__(self):
        raise TypeError("a Backend comes from Router.add_backend()")

    def __dealloc__(self):
        circuit_free(&self.circuit)
        limiter_free(&self.limiter)

    @property
    def server_id(self):
        return self.server.server_id

    @property
    def tier(self):
        return self.pool.tier

    @property
    def limit(self):
        return None if self.cap == INT64_MAX else self.cap

    def __repr__(self):
        return f"<Backend {self.position} of {self.server.server_id!r}, {self.inflight} in flight>"


@cython.final
@cython.freelist(256)
cdef class Lease:
    def __init__(self):
        raise TypeError("a Lease comes from Router.pick()")

    @property
    def payload(self):
        return None if self.backend is None else self.backend.payload

    @property
    def server_id(self):
        return self.server.server_id

    @property
    def trial(self):
        return self.slot != NO_SLOT

    def __repr__(self):
        end = f"rejected with {self.rejection}" if self.rejection else "done" if self.finished else "out"
        return f"<Lease of {self.server.server_id!r}, {end}>"


seal(Backend)
seal(Lease)


cdef PairWindow* new_window(int64_t span_ns) except NULL:
    cdef PairWindow* window = <PairWindow*> calloc(1, sizeof(PairWindow))
    if window == NULL:
        raise MemoryError
    window.span_ns = span_ns
    return window


cdef int begin_anew(Server server, Limits before) except -1:
    """Reset what was learned or counted under settings that have changed; keep the rest."""
    cdef Limits now = server.limits
    cdef Backend backend
    cdef Pool pool
    if not same_policy(&now.limiter, &before.limiter):
        for pool in [server] if server.tiers is None else server.tiers:
            # A copy, since the limit decides a backend's place in the list.
            for backend in pool.backends[:]:
                limiter_restart(&backend.limiter, &now.limiter)
                backend.cap = limiter_cap(&backend.limiter)
                update_part(backend)
    if now.rate.interval_ns != before.rate.interval_ns or now.rate.tolerance_ns != before.rate.tolerance_ns:
        server.arrival_ns = 0
    if (
        now.budget_span_ns != before.budget_span_ns or now.budget_ratio != before.budget_ratio
        or now.budget_reserve != before.budget_reserve
    ):
        free(server.spent)
        server.spent = NULL
    if now.shed_span_ns != before.shed_span_ns or now.shed_multiple != before.shed_multiple:
        free(server.sent)
        server.sent = NULL
    return 0


cdef void swap_places(Pool pool, Py_ssize_t first, Py_ssize_t second) noexcept:
    cdef Backend a = <Backend> pool.backends[first]
    cdef Backend b = <Backend> pool.backends[second]
    pool.backends[first] = b
    pool.backends[second] = a
    b.position = first
    a.position = second


cdef void place(Backend backend, int part) noexcept:
    """Move a backend into its part of the list, one boundary at a time."""
    cdef Pool pool = backend.pool
    while backend.part < part:
        pool.ends[backend.part] -= 1
        swap_places(pool, backend.position, pool.ends[backend.part])
        backend.part += 1
    while backend.part > part:
        backend.part -= 1
        swap_places(pool, backend.position, pool.ends[backend.part])
        pool.ends[backend.part] += 1


@cython.nonecheck(False)
cdef void update_part(Backend backend) noexcept:
    """Move a backend to the part that its state requires; if it is barred, the next return is computed again."""
    cdef Pool pool = backend.pool
    cdef bint was_full = backend.part == BARRED and backend.is_full
    cdef int part
    if backend.removed:
        return
    backend.is_full = False
    if backend.availability == C_EXCLUDED:
        part = OUT
    elif backend.availability == C_PENDING:
        part = CONNECTING
    elif not backend.circuit.passing or backend.ejected_until_ns or backend.paused_until_ns:
        part = BARRED
    elif backend.inflight >= backend.cap:
        part = BARRED
        backend.is_full = True
    else:
        part = ELIGIBLE
    pool.full += (part == BARRED and backend.is_full) - was_full
    if part == BARRED:
        pool.due_ns = 0
    if part != backend.part:
        place(backend, part)
        backend.server.loads_stale = True


cdef int note_transitions(Backend backend, int64_t now_ns) except -1:
    """Queue the new transitions of a backend's circuit, in place of the oldest if full, and act on them."""
    cdef EventQueue queue = backend.server.events
    for change in circuit_take_transitions(&backend.circuit):
        if backend.removed:
            continue
        if len(queue.events) == MOST_EVENTS:
            queue.dropped += 1
        # Not a named tuple yet: Python code makes those, and other code could run and see a pick half done.
        queue.events.append((backend, *change))
        if change[1] == CLOSED:
            backend.since_ns = now_ns
        elif change[0] == CLOSED and change[1] == OPEN:
            backend.server.openings += 1
    update_part(backend)
    return 0


cdef Pool pool_of_tier(Server server, int tier):
    """Return the pool of a tier; make it when its first backend comes."""
    cdef Pool pool
    cdef Py_ssize_t position = 0
    if server.tier < 0:
        server.tier = tier
    if server.tier == tier:
        return server
    if server.tiers is None:
        server.tiers = [server]
    for pool in server.tiers:
        if pool.tier == tier:
            return pool
        position += pool.tier < tier
    pool = Pool.__new__(Pool)
    pool.tier = tier
    server.tiers.insert(position, pool)
    server.loads_stale = True
    return pool


cdef int check_place(double weight, int tier) except -1:
    if not 0.0 < weight < 1e300:
        raise ValueError(f"weight must be above 0 and finite, not {weight}")
    if not 0 <= tier < 256:
        raise ValueError(f"tier must be 0 to 255, not {tier}")


cdef int enter(Backend backend, Pool pool) except -1:
    """Add a new backend to the pool of its tier."""
    pool.backends.append(backend)
    backend.pool = pool
    backend.part = OUT
    backend.position = len(pool.backends) - 1
    pool.max_weight = max(pool.max_weight, backend.weight)
    backend.server.loads_stale = True
    update_part(backend)
    return 0


cdef void step_out(Backend backend) noexcept:
    """Take a backend out of its pool."""
    cdef Pool pool = backend.pool
    backend.availability = C_EXCLUDED
    update_part(backend)
    swap_places(pool, backend.position, len(pool.backends) - 1)
    pool.backends.pop()


cdef int adjust(Backend backend, Settings settings, double weight, Pool pool, int64_t now_ns) except -1:
    """Give a backend other settings and another pool, if it is not in that already; what it has learned stays."""
    cdef int8_t availability = backend.availability
    if circuit_adjust(&backend.circuit, &backend.settings.policy, &settings.policy, now_ns) < 0:
        raise MemoryError
    backend.settings = settings
    backend.weight = weight
    if pool is backend.pool:
        pool.max_weight = max(pool.max_weight, weight)
        update_part(backend)
        return 0
    step_out(backend)
    backend.availability = availability
    return enter(backend, pool)


cdef void leave(Backend backend) noexcept:
    """Remove a backend for good."""
    cdef Server server = backend.server
    step_out(backend)
    server.ejected -= backend.ejected_until_ns != 0
    server.loads_stale = True
    backend.removed = True
