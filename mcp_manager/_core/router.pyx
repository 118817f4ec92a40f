"""Router: which instance takes a call, and what its end means for breakers, latencies and counters.

One ``pick()`` and one ``done()`` per call: breaker, latency estimate, histogram, window and counters are reached
through C inside them, because the crossings from Python would cost more than the work.
"""

cimport cython
from libc.math cimport exp
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from collections import deque
from typing import NamedTuple

from mcp_manager._core.breaker cimport ADMITTED, CLOSED, FAILURE, IGNORED, NO_SLOT, SUCCESS
from mcp_manager._core.breaker cimport BreakerSettings as Settings
from mcp_manager._core.breaker cimport (
    CircuitSnapshot, circuit_acquire, circuit_free, circuit_init, circuit_release, circuit_reset,
    circuit_set_mode, circuit_snapshot, circuit_take_transitions, circuit_trip, circuit_wait,
)
from mcp_manager._core.histogram cimport (
    Buckets, Histogram, LatencyWindow, WindowSummary, buckets_le, buckets_record, empty_summary,
)

from mcp_manager._core.breaker import BreakerSettings  # no-cython-lint: part of the interface here, too

cdef enum:
    CIRCUIT_OPEN = 10
    NO_INSTANCE = 11
    LOWEST_LE = -12
    HIGHEST_LE = 7
    MEDIAN_OF = 9
    MEDIAN_AMONG = 64
    MOST_EVENTS = 4096

cdef enum:
    C_READY = 0
    C_PENDING = 1
    C_EXCLUDED = 2

READY, PENDING, EXCLUDED = C_READY, C_PENDING, C_EXCLUDED
STATUS_COUNT = STATUSES
OTHER_METHOD = "other"
LE_BOUNDS_S = tuple([2.0**exponent for exponent in range(LOWEST_LE, HIGHEST_LE + 1)])

cdef double DECAY_NS = 10e9
cdef double UNKNOWN_NS = 30e6
cdef double FAILED_NS = 1e9
cdef double PENALTY = 1e18
cdef double TO_UNIT = 1.0 / 18446744073709551616.0


class BreakerEvent(NamedTuple):
    instance: object
    from_state: int
    to_state: int
    generation: int
    now_ns: int
    reason: str


@cython.final
cdef class Series:
    """Counters and latencies of one method of one server."""

    def __cinit__(self):
        self.latency = Histogram()


@cython.final
cdef class Server:
    def __cinit__(self, str server_id):
        self.server_id = server_id
        self.instances = []


@cython.final
cdef class Instance:
    def __init__(self):
        raise TypeError("an Instance comes from Router.add_instance()")

    def __dealloc__(self):
        circuit_free(&self.circuit)

    @property
    def server_id(self):
        return self.server.server_id

    def __repr__(self):
        return f"<Instance {self.position} of {self.server.server_id!r}, {self.inflight} in flight>"


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Lease:
    def __init__(self):
        raise TypeError("a Lease comes from Router.pick()")

    @property
    def payload(self):
        return None if self.instance is None else self.instance.payload

    @property
    def server_id(self):
        return self.server.server_id

    @property
    def trial(self):
        return self.slot != NO_SLOT

    def __repr__(self):
        end = f"rejected with {self.rejection}" if self.rejection else "done" if self.finished else "out"
        return f"<Lease of {self.server.server_id!r}, {end}>"


class InstanceSnapshot(NamedTuple):
    payload: object
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
    method: str
    counts: tuple[int, ...]
    buckets: tuple[tuple[float, int], ...]
    count: int
    sum_s: float


class ServerSnapshot(NamedTuple):
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


cdef void swap_places(Server server, Py_ssize_t first, Py_ssize_t second) noexcept:
    cdef Instance a = <Instance> server.instances[first]
    cdef Instance b = <Instance> server.instances[second]
    server.instances[first] = b
    server.instances[second] = a
    b.position = first
    a.position = second


cdef void place(Instance instance, int availability) noexcept:
    """Move an instance into its part of the list, one boundary at a time."""
    cdef Server server = instance.server
    while instance.availability < availability:
        if instance.availability == C_READY:
            server.ready_end -= 1
            swap_places(server, instance.position, server.ready_end)
        else:
            server.pending_end -= 1
            swap_places(server, instance.position, server.pending_end)
        instance.availability += 1
    while instance.availability > availability:
        if instance.availability == C_PENDING:
            swap_places(server, instance.position, server.ready_end)
            server.ready_end += 1
        else:
            swap_places(server, instance.position, server.pending_end)
            server.pending_end += 1
        instance.availability -= 1


cdef inline double latency_of(Instance instance, int64_t now_ns) noexcept:
    """Return the latency estimate in ns, decayed to now, or 0 if nothing is known."""
    cdef int64_t age_ns = now_ns - instance.latency_at_ns
    if age_ns <= 0 or instance.latency_ns <= 0:
        return instance.latency_ns
    return instance.latency_ns * exp(-<double> age_ns / DECAY_NS)


cdef double median_latency(Server server, int64_t now_ns) noexcept:
    """Return the median of the first few known estimates of the pool in ns, or 30 ms."""
    cdef double[MEDIAN_OF] known
    cdef int count = 0
    cdef int slot
    cdef double latency_ns
    cdef Py_ssize_t position
    for position in range(min(server.pending_end, <Py_ssize_t> MEDIAN_AMONG)):
        latency_ns = latency_of(<Instance> server.instances[position], now_ns)
        if latency_ns <= 0:
            continue
        slot = count
        while slot > 0 and known[slot - 1] > latency_ns:
            known[slot] = known[slot - 1]
            slot -= 1
        known[slot] = latency_ns
        count += 1
        if count == MEDIAN_OF:
            break
    return known[count // 2] if count else UNKNOWN_NS


cdef double cost_of(Instance instance, Server server, int64_t now_ns) noexcept:
    """Return the peak-EWMA cost (Finagle): the latency estimate times the calls there would be."""
    if instance.latency_ns > 0:
        return latency_of(instance, now_ns) * <double> (instance.inflight + 1)
    # Nothing is known until the first call ends: it gets one, and no second one meanwhile.
    if instance.inflight:
        return PENALTY * <double> (instance.inflight + 1)
    return median_latency(server, now_ns)


cdef bint is_better(Instance one, Instance other, Server server, int64_t now_ns) noexcept:
    """Tell whether one is to be chosen over the other; of equals, the one of which nothing is known."""
    cdef double cost = cost_of(one, server, now_ns)
    cdef double other_cost = cost_of(other, server, now_ns)
    return cost < other_cost or (cost == other_cost and one.latency_ns <= 0)


cdef void observe_latency(Instance instance, double sample_ns, bint failed, int64_t now_ns) noexcept:
    """Update the peak-EWMA; a failure is slow by definition, or an instance that fails fast would attract all."""
    cdef double old_ns = instance.latency_ns
    cdef double weight
    if failed:
        sample_ns = max(sample_ns, old_ns, FAILED_NS)
    # A measured zero must not look like "unknown".
    sample_ns = max(sample_ns, 1.0)
    if sample_ns > old_ns:
        instance.latency_ns = sample_ns
    else:
        weight = exp(-<double> max(now_ns - instance.latency_at_ns, 0) / DECAY_NS)
        instance.latency_ns = old_ns * weight + sample_ns * (1.0 - weight)
    instance.latency_at_ns = max(now_ns, instance.latency_at_ns)


cdef inline Lease taken(Lease lease, Series series):
    """Count a call as under way on the instance that was granted."""
    lease.series = series
    lease.server.inflight += 1
    lease.instance.inflight += 1
    return lease


cdef Lease refused(Lease lease, Series series, int rejection, int64_t wait_ns):
    """End a lease before it began, with the reason and the shortest wait that was met, if any was."""
    lease.rejection = rejection
    lease.retry_after_ns = 0 if wait_ns == INT64_MAX else wait_ns
    lease.slot = NO_SLOT
    lease.finished = True
    series.counts[rejection] += 1
    return lease


@cython.final
cdef class Router:
    def __cinit__(self, *, Py_ssize_t max_methods=64):
        if max_methods < 0:
            raise ValueError(f"max_methods must be at least 0, not {max_methods}")
        self.servers = {}
        self.max_methods = max_methods
        self.events = deque(maxlen=MOST_EVENTS)

    def __len__(self):
        return len(self.servers)

    def __contains__(self, server_id):
        return server_id in self.servers

    def server_ids(self):
        return list(self.servers)

    def add_server(self, str server_id not None):
        if server_id in self.servers:
            raise ValueError(f"server {server_id!r} is already known")
        self.servers[server_id] = Server.__new__(Server, server_id)

    def remove_server(self, str server_id not None):
        cdef Server server = self.servers.pop(server_id)
        for instance in server.instances:
            (<Instance> instance).removed = True
        server.instances = []
        server.ready_end = server.pending_end = 0

    def add_instance(self, str server_id not None, object payload, Settings settings not None):
        cdef Server server = self.servers[server_id]
        cdef Instance instance = Instance.__new__(Instance)
        circuit_init(&instance.circuit)
        instance.server = server
        instance.payload = payload
        instance.settings = settings
        instance.availability = C_EXCLUDED
        instance.position = len(server.instances)
        server.instances.append(instance)
        place(instance, C_READY)
        return instance

    def remove_instance(self, Instance instance not None):
        cdef Server server = instance.server
        if instance.removed:
            return
        place(instance, C_EXCLUDED)
        swap_places(server, instance.position, len(server.instances) - 1)
        server.instances.pop()
        instance.removed = True

    def set_availability(self, Instance instance not None, int availability):
        if not C_READY <= availability <= C_EXCLUDED:
            raise ValueError(f"availability must be 0 to 2, not {availability}")
        if not instance.removed:
            place(instance, availability)

    cdef Series series_of(self, Server server, str method):
        """Return the counters of a method; those above the limit share one."""
        cdef Series series
        if method is server.last_method:
            return server.last_series
        if server.methods is None:
            server.methods = {}
        found = server.methods.get(method)
        if found is not None:
            series = <Series> found
        elif method == OTHER_METHOD or len(server.methods) >= self.max_methods:
            if server.other is None:
                server.other = Series.__new__(Series)
            series = server.other
        else:
            series = server.methods[method] = Series.__new__(Series)
        server.last_method = method
        server.last_series = series
        return series

    cdef int note_transitions(self, Instance instance) except -1:
        """Queue what has just happened to an instance's circuit; the oldest event gives way."""
        for change in circuit_take_transitions(&instance.circuit):
            if instance.removed:
                continue
            if len(self.events) == MOST_EVENTS:
                self.dropped_events += 1
            self.events.append(BreakerEvent(instance, *change))
        return 0

    cdef Instance admitted(
        self, Server server, Py_ssize_t start, Py_ssize_t end, Py_ssize_t first, Instance but, int64_t now_ns,
        int64_t* wait_ns,
    ):
        """Return the first instance from ``first`` on, cyclically, whose breaker admits a call; take no permit."""
        cdef Py_ssize_t position = first
        cdef Py_ssize_t left = end - start
        cdef Instance instance
        cdef int64_t wait
        while left > 0:
            instance = <Instance> server.instances[position]
            if instance is not but:
                wait = circuit_wait(&instance.circuit, &instance.settings.policy, now_ns, False)
                if instance.circuit.pending:
                    self.note_transitions(instance)
                if wait == ADMITTED:
                    return instance
                if 0 < wait < wait_ns[0]:
                    wait_ns[0] = wait
            position += 1
            if position == end:
                position = start
            left -= 1
        return None

    cdef Instance choose(
        self, Server server, Py_ssize_t start, Py_ssize_t end, int64_t now_ns, uint64_t random, int64_t* wait_ns
    ):
        """Choose among ``instances[start:end]`` by power of two choices, or return None; take no permit."""
        cdef uint64_t size = end - start
        cdef uint64_t one, two
        cdef Instance first, second
        if size == 0:
            return None
        if size == 1:
            return self.admitted(server, start, end, start, None, now_ns, wait_ns)
        one = ((random >> 32) * size) >> 32
        two = ((random & 0xFFFFFFFFULL) * (size - 1)) >> 32
        two += two >= one
        first = self.admitted(server, start, end, start + one, None, now_ns, wait_ns)
        if first is None:
            return None
        second = self.admitted(server, start, end, start + two, first, now_ns, wait_ns)
        if second is None:
            return first
        # A trial is due and permitted: recovery must not wait until the estimate of the failures has decayed.
        if first.circuit.state != CLOSED:
            return first
        if second.circuit.state != CLOSED:
            return second
        return second if is_better(second, first, server, now_ns) else first

    def server(self, str server_id not None):
        return self.servers[server_id]

    def pick(self, str server_id not None, str method not None, int64_t now_ns, uint64_t random):
        return self.lease(<Server> self.servers[server_id], method, now_ns, random)

    cdef Lease lease(self, Server server, str method, int64_t now_ns, uint64_t random):
        cdef Series series = self.series_of(server, method)
        cdef Lease lease = Lease.__new__(Lease)
        cdef int64_t wait_ns = INT64_MAX
        cdef Instance instance = self.choose(server, 0, server.ready_end, now_ns, random, &wait_ns)
        if instance is None:
            instance = self.choose(server, server.ready_end, server.pending_end, now_ns, random, &wait_ns)
        lease.server = server
        lease.started_ns = now_ns
        if instance is None or not self.grant(lease, instance, now_ns, &wait_ns):
            return refused(lease, series, CIRCUIT_OPEN if server.pending_end else NO_INSTANCE, wait_ns)
        return taken(lease, series)

    cdef bint grant(self, Lease lease, Instance instance, int64_t now_ns, int64_t* wait_ns) except -1:
        """Take the permit of the chosen instance; it fails only without memory for its trials."""
        cdef int64_t wait = circuit_acquire(
            &instance.circuit, &instance.settings.policy, now_ns, lease.probe, &lease.generation, &lease.slot
        )
        if instance.circuit.pending:
            self.note_transitions(instance)
        if wait != ADMITTED:
            wait_ns[0] = max(wait, 0)
            return False
        lease.instance = instance
        return True

    def pick_on(self, Instance instance not None, str method not None, int64_t now_ns):
        cdef Server server = instance.server
        cdef Lease lease = Lease.__new__(Lease)
        cdef Series series = self.series_of(server, method)
        cdef int64_t wait_ns = INT64_MAX
        lease.server = server
        lease.started_ns = now_ns
        if instance.removed or instance.availability == C_EXCLUDED:
            return refused(lease, series, NO_INSTANCE, wait_ns)
        if not self.grant(lease, instance, now_ns, &wait_ns):
            return refused(lease, series, CIRCUIT_OPEN, wait_ns)
        return taken(lease, series)

    def pick_probe(self, Instance instance not None, int64_t now_ns):
        cdef Lease lease = Lease.__new__(Lease)
        cdef int64_t wait_ns = 0
        lease.server = instance.server
        lease.started_ns = now_ns
        lease.probe = True
        if not self.grant(lease, instance, now_ns, &wait_ns):
            lease.instance = instance
            lease.rejection = CIRCUIT_OPEN
            lease.retry_after_ns = wait_ns
            lease.slot = NO_SLOT
            # No generation is 0: done() counts the health check and leaves the breaker alone.
            lease.generation = 0
        return lease

    def done(
        self, Lease lease not None, int outcome, int status, int64_t now_ns, int64_t retry_after_ns=0, uint64_t random=0
    ):
        self.settle(lease, outcome, status, now_ns, retry_after_ns, random)

    cdef object settle(
        self, Lease lease, int outcome, int status, int64_t now_ns, int64_t retry_after_ns, uint64_t random
    ):
        cdef Instance instance = lease.instance
        cdef Server server = lease.server
        cdef int64_t duration_ns = max(now_ns - lease.started_ns, <int64_t> 0)
        if not SUCCESS <= outcome <= IGNORED:
            raise ValueError(f"outcome must be 0 to 2, not {outcome}")
        if not 0 <= status < STATUSES:
            raise ValueError(f"status must be 0 to 11, not {status}")
        if lease.finished:
            return
        lease.finished = True
        circuit_release(
            &instance.circuit, &instance.settings.policy, lease.generation, lease.slot, outcome, duration_ns, now_ns,
            retry_after_ns, <double> random * TO_UNIT,
        )
        if lease.probe:
            server.health_successes += outcome == SUCCESS
            server.health_failures += outcome == FAILURE
        else:
            instance.inflight -= 1
            server.inflight -= 1
            if instance.inflight == 0 and instance.on_idle is not None:
                instance.on_idle()
            lease.series.counts[status] += 1
            if outcome != IGNORED:
                self.measure(server, instance, lease.series, duration_ns, outcome == FAILURE, now_ns)
        if instance.circuit.pending:
            self.note_transitions(instance)

    cdef int measure(
        self, Server server, Instance instance, Series series, int64_t duration_ns, bint failed, int64_t now_ns
    ) except -1:
        if not failed:
            instance.last_success_ns = max(now_ns, instance.last_success_ns)
        observe_latency(instance, <double> duration_ns, failed, now_ns)
        if server.window is None:
            server.window = LatencyWindow()
        if (
            server.window.add(now_ns, duration_ns, failed) < 0
            or buckets_record(&series.latency.buckets, duration_ns, 1) < 0
        ):
            raise MemoryError
        return 0

    def trip(self, Instance instance not None, int64_t now_ns, uint64_t random=1 << 63):
        circuit_trip(&instance.circuit, &instance.settings.policy, now_ns, <double> random * TO_UNIT)
        self.note_transitions(instance)

    def reset_breaker(self, Instance instance not None, int64_t now_ns):
        circuit_reset(&instance.circuit, now_ns)
        self.note_transitions(instance)

    def set_breaker_mode(self, Instance instance not None, str mode not None, int64_t now_ns=0):
        circuit_set_mode(&instance.circuit, mode, now_ns)
        self.note_transitions(instance)

    def take_events(self):
        cdef list taken = list(self.events)
        self.events.clear()
        return taken

    def breaker_state(self, Instance instance not None, int64_t now_ns):
        return circuit_snapshot(&instance.circuit, &instance.settings.policy, now_ns).state

    def instance_snapshot(self, Instance instance not None, int64_t now_ns):
        return snapshot_instance(instance, now_ns)

    def server_snapshot(self, str server_id not None, int64_t now_ns):
        return snapshot_server(<Server> self.servers[server_id], now_ns)

    def snapshot(self, int64_t now_ns):
        return [snapshot_server(<Server> server, now_ns) for server in list(self.servers.values())]


cdef object snapshot_instance(Instance instance, int64_t now_ns):
    cdef CircuitSnapshot circuit = circuit_snapshot(&instance.circuit, &instance.settings.policy, now_ns)
    return InstanceSnapshot(
        instance.payload,
        instance.availability,
        instance.inflight,
        instance.last_success_ns,
        latency_of(instance, now_ns) / 1e9 if instance.latency_ns > 0 else None,
        circuit,
        circuit.state,
        circuit.retry_after_ns,
        circuit.window_calls,
        circuit.window_failures,
    )


cdef object snapshot_method(str method, Series series):
    cdef Buckets* latency = &series.latency.buckets
    return MethodSnapshot(
        method,
        tuple([series.counts[status] for status in range(STATUSES)]),
        tuple(zip(LE_BOUNDS_S, buckets_le(latency, LOWEST_LE, HIGHEST_LE))),
        latency.count,
        <double> latency.sum_ns / 1e9,
    )


cdef object snapshot_server(Server server, int64_t now_ns):
    cdef WindowSummary window = empty_summary() if server.window is None else server.window.summarize(now_ns)
    cdef list methods = []
    if server.methods is not None:
        methods = [snapshot_method(<str> method, <Series> each) for method, each in list(server.methods.items())]
    if server.other is not None:
        methods.append(snapshot_method(OTHER_METHOD, server.other))
    return ServerSnapshot(
        server.server_id,
        tuple([snapshot_instance(<Instance> each, now_ns) for each in list(server.instances)]),
        tuple(methods),
        server.inflight,
        server.health_successes,
        server.health_failures,
        window,
        window.count,
        window.failures,
        <double> window.sum_ns / 1e9,
    )
