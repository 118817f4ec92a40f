"""The router: picks the backend of a call, and updates breakers, latencies and counters when the call ends.

A call takes one ``pick()`` and one ``done()``. Breaker, latency estimate, histogram, window and counters are reached
through C inside them, because the crossings from Python would cost more than the work.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport free

from mcp_manager._core.allowance cimport budget_balance, pair_add, pair_add_part, rate_take, shed_decides
from mcp_manager._core.balancing cimport LIMITED, NO_INSTANCE, PAUSED, choose, mixed, observe_latency, why_none
from mcp_manager._core.breaker cimport ADMITTED, FAILURE, IGNORED, NO_SLOT, SUCCESS
from mcp_manager._core.breaker cimport BreakerSettings as Settings
from mcp_manager._core.breaker cimport (
    checked_ns, circuit_acquire, circuit_init, circuit_on_trial, circuit_release, circuit_reset, circuit_set_mode,
    circuit_snapshot, circuit_trip,
)
from mcp_manager._core.histogram cimport LatencyWindow, buckets_record, empty_summary
from mcp_manager._core.limiter cimport OTHERWISE, OVERLOAD, WELL, limiter_begin, limiter_cap, limiter_ended
from mcp_manager._core.records cimport (
    BARRED, C_EXCLUDED, C_READY, STATUSES, Pool, adjust, begin_anew, check_place, enter, leave, new_window,
    note_transitions, pool_of_tier, update_part,
)
from mcp_manager._core.snapshots cimport (
    OTHER, gauges_of, snapshot_backend, snapshot_methods, snapshot_server, snapshot_tools, tier_loads,
)
from mcp_manager._core.times cimport later
from mcp_manager._core.tool_table cimport NO_TOOL, ToolTable


cdef enum:
    RESULT = 0
    RPC_ERROR = 1
    CONNECT_ERROR = 2
    CONNECTION_LOST = 3
    TIMEOUT = 4
    OVERLOADED = 7
    CIRCUIT_OPEN = 10
    TOOL_ERROR = 12
    RATE = 13
    SHED = 14
    TOGETHER = 16

cdef double TO_UNIT = 1.0 / 18446744073709551616.0

# A server may ask for a longer pause, but is tried again once a minute.
cdef int64_t LONGEST_PAUSE_NS = 60 * 10**9


@cython.nonecheck(False)
cdef inline bint is_full(Router router, bint waited) noexcept:
    """Return whether all servers together have as many calls under way as they may; callers that wait go first."""
    cdef int64_t most = router.together.max_concurrent
    return most > 0 and (router.inflight >= most or (router.waiting > 0 and not waited))


@cython.nonecheck(False)
cdef inline Lease taken(Router router, Lease lease, Series series):
    """Count a call as under way on the backend that was granted."""
    cdef Backend backend = lease.backend
    cdef Server server = lease.server
    lease.series = series
    router.inflight += 1
    server.inflight += 1
    if server.sent != NULL:
        pair_add(server.sent, lease.started_ns)
    backend.inflight += 1
    if backend.inflight >= backend.cap:
        update_part(backend)
    return lease


cdef Lease refused(Lease lease, Series series, int rejection, int64_t wait_ns):
    """Reject a lease, with the reason and the shortest wait that was found, if any.

    A call that a limit refuses may wait and try again: it is counted when its caller gives up.
    """
    lease.series = series
    lease.rejection = rejection
    lease.retry_after_ns = 0 if wait_ns == INT64_MAX else wait_ns
    lease.slot = NO_SLOT
    lease.finished = True
    if rejection < LIMITED:
        series.counts[rejection] += 1
    return lease


@cython.nonecheck(False)
cdef inline int tell_waiting(Server server) except -1:
    if server.waiting > 0 and server.on_slot is not None:
        server.on_slot()
    return 0


cdef inline void learn_limit(
    Backend backend, int outcome, int status, int64_t duration_ns, int64_t now_ns
) noexcept:
    """Adapt the limit of a backend to the end of a call: 429, 503 and timeouts that are failures show overload."""
    cdef int end = OTHERWISE
    if status == OVERLOADED or (status == TIMEOUT and outcome == FAILURE):
        end = OVERLOAD
    elif outcome == SUCCESS and (backend.limiter.limit > 0.0):
        end = WELL
    if end == OTHERWISE:
        return
    limiter_ended(
        &backend.limiter, &backend.server.limits.limiter, backend.inflight, end, duration_ns, now_ns
    )
    backend.cap = limiter_cap(&backend.limiter)


@cython.nonecheck(False)
cdef inline void count_fruitless(Backend backend, int outcome, int status, int64_t now_ns) noexcept:
    """Count the calls in a row that brought no result, except those that say nothing about the backend."""
    if status == RESULT or status == TOOL_ERROR:
        backend.fruitless = backend.refused = backend.broken = 0
    elif outcome != IGNORED or status == OVERLOADED:
        backend.last_fruitless_ns = max(now_ns, backend.last_fruitless_ns)
        if CONNECT_ERROR <= status <= TIMEOUT:
            backend.broken += 1
            return
        backend.fruitless += 1
        backend.refused += outcome != IGNORED and status != RPC_ERROR


@cython.final
cdef class Router:
    def __cinit__(
        self, *, Py_ssize_t max_methods=64, Limits together=None, frozenset own_methods=frozenset(),
        Py_ssize_t max_tools=1000,
    ):
        if max_methods < 0:
            raise ValueError(f"max_methods must be at least 0, not {max_methods}")
        self.servers = {}
        self.max_methods = max_methods
        self.own_methods = own_methods
        self.tools = ToolTable(max_tools) if max_tools else None
        self.events = EventQueue.__new__(EventQueue)
        self.window = LatencyWindow()
        self.balancing = Balancing()
        self.limits = Limits()
        self.together = self.limits if together is None else together
        self.spent = new_window(self.together.budget_span_ns)

    def __dealloc__(self):
        free(self.spent)

    def __len__(self):
        return len(self.servers)

    def __contains__(self, server_id):
        return server_id in self.servers

    @property
    def dropped_events(self):
        return self.events.dropped

    def server_ids(self):
        return list(self.servers)

    def add_server(self, str server_id not None, Balancing balancing=None, Limits limits=None):
        if server_id in self.servers:
            raise ValueError(f"server {server_id!r} is already known")
        self.servers[server_id] = Server.__new__(
            Server,
            server_id,
            self.balancing if balancing is None else balancing,
            self.limits if limits is None else limits,
            self.events,
        )

    def configure(self, str server_id not None, Balancing balancing not None, Limits limits not None):
        cdef Server server = self.servers[server_id]
        cdef Limits before = server.limits
        server.balancing = balancing
        server.limits = limits
        server.loads_stale = True
        if limits is not before:
            begin_anew(server, before)
        tell_waiting(server)

    def remove_server(self, str server_id not None):
        cdef Server server = self.servers.pop(server_id)
        cdef Pool pool
        for pool in [server] if server.tiers is None else server.tiers:
            for backend in pool.backends:
                (<Backend> backend).removed = True
            pool.backends = []
            pool.ends[0] = pool.ends[1] = pool.ends[2] = pool.full = 0
        server.tiers = None
        server.ejected = 0
        server.is_forgotten = True
        if self.tools is not None:
            self.tools.forget(server)
        self.events.forget_removed()
        tell_waiting(server)

    def add_backend(
        self,
        str server_id not None,
        object payload,
        Settings settings not None,
        *,
        double weight=1.0,
        int tier=0,
        uint64_t identity=0,
    ):
        cdef Server server = self.servers[server_id]
        cdef Backend backend
        check_place(weight, tier)
        backend = Backend.__new__(Backend)
        circuit_init(&backend.circuit)
        self.identities += 1
        backend.server = server
        backend.payload = payload
        backend.settings = settings
        backend.weight = weight
        backend.identity = mixed(identity if identity else self.identities)
        limiter_begin(&backend.limiter, &server.limits.limiter)
        backend.cap = limiter_cap(&backend.limiter)
        enter(backend, pool_of_tier(server, tier))
        tell_waiting(server)
        return backend

    def adjust_backend(
        self, Backend backend not None, Settings settings not None, double weight, int tier, uint64_t identity,
        int64_t now_ns,
    ):
        check_place(weight, tier)
        if backend.removed:
            return
        adjust(backend, settings, weight, pool_of_tier(backend.server, tier), now_ns)
        if identity:
            backend.identity = mixed(identity)
        tell_waiting(backend.server)

    def remove_backend(self, Backend backend not None):
        if not backend.removed:
            leave(backend)
            self.events.forget_removed()

    def set_availability(self, Backend backend not None, int availability, int64_t now_ns=0):
        if not C_READY <= availability <= C_EXCLUDED:
            raise ValueError(f"availability must be 0 to 2, not {availability}")
        if backend.removed or backend.availability == availability:
            return
        backend.availability = availability
        if availability == C_READY and backend.server.balancing.slow_start_ns:
            backend.since_ns = now_ns
        update_part(backend)
        tell_waiting(backend.server)

    def set_weight(self, Backend backend not None, double weight):
        check_place(weight, 0)
        backend.weight = weight
        backend.pool.max_weight = max(backend.pool.max_weight, weight)

    def eject(self, Backend backend not None, int64_t until_ns):
        cdef Server server = backend.server
        cdef Pool pool
        cdef Py_ssize_t total = 0
        if backend.removed or until_ns <= 0:
            return False
        if not backend.ejected_until_ns:
            for pool in [server] if server.tiers is None else server.tiers:
                total += pool.ends[2]
            if server.ejected + 1 > max(1, <Py_ssize_t> (server.balancing.max_ejection * <double> total)):
                return False
            server.ejected += 1
        backend.ejected_until_ns = until_ns
        update_part(backend)
        return True

    @cython.nonecheck(False)
    cdef Series series_of(self, Server server, str method):
        """Return the counters of a method; methods beyond the limit share one set."""
        cdef Series series
        if method is server.last_method:
            return server.last_series
        if server.methods is None:
            server.methods = {}
        found = server.methods.get(method)
        if found is not None:
            series = <Series> found
        elif method in self.own_methods or (method != OTHER and server.foreign < self.max_methods):
            series = server.methods[method] = Series.__new__(Series)
            series.is_of_tools = method == "tools/call"
            server.foreign += method not in self.own_methods
        else:
            if server.other is None:
                server.other = Series.__new__(Series)
            series = server.other
        server.last_method = method
        server.last_series = series
        return series

    def server(self, str server_id not None):
        return self.servers[server_id]

    def pick(
        self,
        str server_id not None,
        str method not None,
        int64_t now_ns,
        uint64_t random,
        uint64_t key=0,
        Backend avoid=None,
        *,
        bint waited=False,
        bint again=False,
    ):
        return self.lease(<Server> self.servers[server_id], method, now_ns, random, key, avoid, waited, again)

    @cython.nonecheck(False)
    cdef Lease lease(
        self, Server server, str method, int64_t now_ns, uint64_t random, uint64_t key, Backend avoid, bint waited,
        bint again,
    ):
        cdef Series series = self.series_of(server, method)
        cdef Lease lease = Lease.__new__(Lease)
        cdef int64_t wait_ns = INT64_MAX
        cdef Backend backend
        cdef int rejection
        lease.server = server
        lease.started_ns = now_ns
        if not waited and not again:
            rejection = self.refuses(server, method, now_ns, random, &wait_ns)
            if rejection:
                return refused(lease, series, rejection, wait_ns)
        if is_full(self, waited):
            return refused(lease, series, TOGETHER, wait_ns)
        # Callers that wait go first.
        if (server.waiting > 0 and not waited) or server.inflight >= server.limits.max_concurrent > 0:
            return refused(lease, series, LIMITED, wait_ns)
        backend = choose(server, now_ns, random, key, avoid)
        if backend is None and server.activator is not None:
            server.activator.activate()
            backend = choose(server, now_ns, random, key, avoid)
        if backend is None:
            return refused(lease, series, why_none(server, now_ns, &wait_ns), wait_ns)
        if not self.grant(lease, backend, now_ns, &wait_ns):
            return refused(lease, series, CIRCUIT_OPEN, wait_ns)
        return taken(self, lease, series)

    @cython.nonecheck(False)
    cdef int refuses(self, Server server, str method, int64_t now_ns, uint64_t random, int64_t* wait_ns) except -1:
        """Count a call on its first pick, and return the rejection if the rate or shedding stops it, else 0."""
        cdef Limits limits = server.limits
        if server.spent == NULL:
            server.spent = new_window(limits.budget_span_ns)
        pair_add(server.spent, now_ns)
        pair_add(self.spent, now_ns)
        if limits.rate.interval_ns:
            wait_ns[0] = rate_take(&server.arrival_ns, &limits.rate, now_ns)
            if wait_ns[0]:
                return RATE
            wait_ns[0] = INT64_MAX
        if limits.shed_multiple:
            if server.sent == NULL:
                server.sent = new_window(limits.shed_span_ns)
            if method not in limits.never_shed and shed_decides(
                server.sent, limits.shed_multiple, now_ns, mixed(~random)
            ):
                return SHED
        return 0

    @cython.nonecheck(False)
    cdef bint grant(self, Lease lease, Backend backend, int64_t now_ns, int64_t* wait_ns) except -1:
        """Take a permit of the backend's circuit; return whether it was granted."""
        cdef int64_t wait = circuit_acquire(
            &backend.circuit, &backend.settings.policy, now_ns, lease.probe, &lease.generation, &lease.slot
        )
        if backend.circuit.pending:
            note_transitions(backend, now_ns)
        if wait != ADMITTED:
            wait_ns[0] = max(wait, 0)
            return False
        lease.backend = backend
        return True

    def pick_on(self, Backend backend not None, str method not None, int64_t now_ns, *, bint waited=False):
        cdef Server server = backend.server
        cdef Lease lease = Lease.__new__(Lease)
        cdef Series series = self.series_of(server, method)
        cdef int64_t wait_ns = INT64_MAX
        if server.events is not self.events:
            raise ValueError("the backend is of another router")
        lease.server = server
        lease.started_ns = now_ns
        if backend.removed or backend.availability == C_EXCLUDED:
            return refused(lease, series, NO_INSTANCE, wait_ns)
        if is_full(self, waited):
            return refused(lease, series, TOGETHER, wait_ns)
        if (
            (server.waiting > 0 and not waited)
            or backend.inflight >= backend.cap
            or server.inflight >= server.limits.max_concurrent > 0
        ):
            return refused(lease, series, LIMITED, wait_ns)
        if backend.paused_until_ns > now_ns:
            return refused(lease, series, PAUSED, backend.paused_until_ns - now_ns)
        if not self.grant(lease, backend, now_ns, &wait_ns):
            return refused(lease, series, CIRCUIT_OPEN, wait_ns)
        return taken(self, lease, series)

    def pick_probe(self, Backend backend not None, int64_t now_ns):
        cdef Lease lease = Lease.__new__(Lease)
        cdef int64_t wait_ns = 0
        lease.server = backend.server
        lease.started_ns = now_ns
        lease.probe = True
        if not self.grant(lease, backend, now_ns, &wait_ns):
            lease.backend = backend
            lease.rejection = CIRCUIT_OPEN
            lease.retry_after_ns = wait_ns
            lease.slot = NO_SLOT
            # No circuit has generation 0, so done() counts the health check and leaves the breaker alone.
            lease.generation = 0
        return lease

    def count_refused(self, Lease lease not None, int status=OVERLOADED):
        if not 0 <= status < STATUSES:
            raise ValueError(f"status must be 0 to {STATUSES - 1}, not {status}")
        if lease.rejection >= LIMITED and lease.series is not None:
            lease.series.counts[status] += 1
            if lease.tool != NO_TOOL:
                self.tools.count(lease, status)
            # Count it only once.
            lease.series = None

    def count_unpicked(self, Server server not None, str method not None, str tool=None):
        cdef Lease lease = Lease.__new__(Lease)
        lease.server = server
        refused(lease, self.series_of(server, method), RATE, 0)
        self.name_tool(lease, tool)
        self.count_refused(lease)

    def name_tool(self, Lease lease not None, str tool):
        if self.tools is not None and lease.series is not None and lease.series.is_of_tools:
            self.tools.name_by(lease, tool)
            if 0 < lease.rejection < LIMITED:
                self.tools.count(lease, lease.rejection)

    def withdraw(self, Server server not None, int64_t now_ns):
        cdef Limits limits = server.limits
        cdef Limits together = self.together
        if server.spent == NULL:
            server.spent = new_window(limits.budget_span_ns)
        if budget_balance(server.spent, limits.budget_ratio, limits.budget_reserve, now_ns) < 1.0:
            return False
        if budget_balance(self.spent, together.budget_ratio, together.budget_reserve, now_ns) < 1.0:
            return False
        pair_add_part(server.spent, now_ns)
        pair_add_part(self.spent, now_ns)
        return True

    def budget(self, Server server not None, int64_t now_ns):
        cdef Limits limits = server.limits
        if server.spent == NULL:
            return limits.budget_reserve
        return budget_balance(server.spent, limits.budget_ratio, limits.budget_reserve, now_ns)

    def done(
        self, Lease lease not None, int outcome, int status, int64_t now_ns, int64_t retry_after_ns=0, uint64_t random=0
    ):
        self.settle(lease, outcome, status, now_ns, retry_after_ns, random)

    @cython.nonecheck(False)
    cdef object settle(
        self, Lease lease, int outcome, int status, int64_t now_ns, int64_t retry_after_ns, uint64_t random
    ):
        cdef Backend backend = lease.backend
        cdef Server server = lease.server
        cdef int64_t duration_ns = max(now_ns - lease.started_ns, <int64_t> 0)
        if not SUCCESS <= outcome <= IGNORED:
            raise ValueError(f"outcome must be 0 to 2, not {outcome}")
        if not 0 <= status < STATUSES:
            raise ValueError(f"status must be 0 to {STATUSES - 1}, not {status}")
        if server.events is not self.events:
            raise ValueError("the lease is of another router")
        if lease.finished:
            return
        lease.finished = True
        circuit_release(
            &backend.circuit, &backend.settings.policy, lease.generation, lease.slot, outcome, duration_ns, now_ns,
            retry_after_ns, <double> random * TO_UNIT,
        )
        if backend.is_punished and outcome == SUCCESS and (lease.probe or lease.slot != NO_SLOT):
            # It answers again. The penalty in its estimate takes a minute to decay, and would keep all calls away
            # meanwhile.
            backend.is_punished = False
            backend.latency_ns = 0
        if lease.slot != NO_SLOT and backend.circuit.passing:
            backend.broken = 0
        if lease.probe:
            server.health_successes += outcome == SUCCESS
            server.health_failures += outcome == FAILURE
        else:
            if server.limits.limiter.mode:
                learn_limit(backend, outcome, status, duration_ns, now_ns)
            if server.sent != NULL and status != OVERLOADED:
                pair_add_part(server.sent, now_ns)
            backend.inflight -= 1
            server.inflight -= 1
            self.inflight -= 1
            lease.series.counts[status] += 1
            if lease.tool != NO_TOOL:
                self.tools.settle(lease, status, duration_ns if outcome != IGNORED else -1)
            count_fruitless(backend, outcome, status, now_ns)
            if outcome != IGNORED:
                self.measure(lease, duration_ns, outcome == FAILURE, status in (RESULT, TOOL_ERROR), now_ns)
            elif status == OVERLOADED and retry_after_ns > 0:
                # A closed circuit ignores 429 and 503, but the backend gets its pause.
                backend.paused_until_ns = later(now_ns, min(retry_after_ns, LONGEST_PAUSE_NS))
                update_part(backend)
        if backend.circuit.pending:
            note_transitions(backend, now_ns)
        elif backend.part == BARRED or backend.inflight >= backend.cap:
            update_part(backend)
        if backend.inflight == 0 and backend.on_idle is not None and not lease.probe:
            backend.on_idle()
        if server.waiting > 0:
            tell_waiting(server)
        if self.waiting > 0 and self.on_slot is not None:
            self.on_slot()

    @cython.nonecheck(False)
    cdef int measure(self, Lease lease, int64_t duration_ns, bint failed, bint is_result, int64_t now_ns) except -1:
        cdef Server server = lease.server
        cdef Backend backend = lease.backend
        if failed:
            backend.last_failure_ns = max(now_ns, backend.last_failure_ns)
        else:
            backend.last_success_ns = max(now_ns, backend.last_success_ns)
        observe_latency(backend, <double> duration_ns, failed, is_result, now_ns)
        if server.window is None:
            server.window = LatencyWindow()
        if backend.latencies is not None and backend.latencies.add(now_ns, duration_ns, not is_result) < 0:
            raise MemoryError
        if (
            self.window.add(now_ns, duration_ns, failed) < 0
            or server.window.add(now_ns, duration_ns, failed) < 0
            or buckets_record(&lease.series.latency.buckets, duration_ns, 1) < 0
        ):
            raise MemoryError
        return 0

    def trip(self, Backend backend not None, int64_t now_ns, uint64_t random=1 << 63, *, int64_t hold_ns=0):
        checked_ns("hold_ns", hold_ns, 0)
        circuit_trip(&backend.circuit, &backend.settings.policy, now_ns, <double> random * TO_UNIT, hold_ns)
        note_transitions(backend, now_ns)

    def reset_breaker(self, Backend backend not None, int64_t now_ns):
        circuit_reset(&backend.circuit, now_ns)
        backend.fruitless = backend.refused = backend.broken = 0
        note_transitions(backend, now_ns)

    def reconnected(self, Backend backend not None):
        backend.broken = 0

    def set_breaker_mode(self, Backend backend not None, str mode not None, int64_t now_ns=0):
        circuit_set_mode(&backend.circuit, mode, now_ns)
        note_transitions(backend, now_ns)

    def take_events(self):
        return self.events.take()

    def breaker_state(self, Backend backend not None, int64_t now_ns):
        return circuit_snapshot(&backend.circuit, &backend.settings.policy, now_ns).state

    def is_on_trial(self, Backend backend not None, int64_t now_ns):
        return circuit_on_trial(&backend.circuit, &backend.settings.policy, now_ns)

    def tier_loads(self, str server_id not None):
        return tier_loads(<Server> self.servers[server_id])

    def backend_reading(self, Backend backend not None, int64_t now_ns):
        return snapshot_backend(backend, now_ns)

    def window_of(self, Server server not None, int64_t now_ns):
        return empty_summary() if server.window is None else server.window.summarize(now_ns)

    def fleet_window(self, int64_t now_ns):
        return self.window.summarize(now_ns)

    def gauges_of(self, Server server not None, list backends not None, int64_t now_ns):
        return gauges_of(server, backends, now_ns)

    def methods_of(self, Server server not None):
        return snapshot_methods(server)

    def tools_of(self, Server server not None):
        return snapshot_tools(self.tools, server)

    def server_counts(self, str server_id not None, int64_t now_ns):
        return snapshot_server(<Server> self.servers[server_id], now_ns)

    def snapshot(self, int64_t now_ns):
        return [snapshot_server(<Server> server, now_ns) for server in list(self.servers.values())]
