"""Load balancing: which backend of a server takes a call.

A tier is chosen first, by its share of healthy backends, then a backend in it by the server's policy. A pool's list
begins with the backends that may take a call, so a choice costs the same among ten backends as among a hundred
thousand.
"""

cimport cython
from libc.math cimport exp, log, pow
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from mcp_manager._core.breaker cimport ADMITTED, circuit_wait
from mcp_manager._core.records cimport (
    BARRED, CONNECTING, CONSISTENT, ELIGIBLE, LEAST_CONNECTIONS, P2C, ROUND_ROBIN, WEIGHTED, Balancing,
    note_transitions, update_part,
)

cdef enum:
    MEDIAN_OF = 9
    MEDIAN_AMONG = 64
    SLOW_START_FROM = 3
    PANIC_FROM = 4
    MOST_DRAWS = 32

cdef double DECAY_NS = 10e9
cdef double UNKNOWN_NS = 30e6
cdef double FAILED_NS = 1e9
cdef double PENALTY = 1e18
cdef double LEAST_SHARE = 0.1
cdef double TO_UNIT = 1.0 / 18446744073709551616.0


cdef uint64_t mixed(uint64_t number) noexcept:
    """Return 64 bits that look independent of ``number`` (finalizer of SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    number += 0x9E3779B97F4A7C15ULL
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ULL
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBULL
    return number ^ (number >> 31)


@cython.nonecheck(False)
cdef double latency_of(Backend backend, int64_t now_ns) noexcept:
    """Return the latency estimate in ns, decayed to now; 0 if there is none."""
    cdef int64_t age_ns = now_ns - backend.latency_at_ns
    if age_ns <= 0 or backend.latency_ns <= 0:
        return backend.latency_ns
    return backend.latency_ns * exp(-<double> age_ns / DECAY_NS)


@cython.nonecheck(False)
cdef void observe_latency(Backend backend, double sample_ns, bint failed, bint is_result, int64_t now_ns) noexcept:
    """Update the peak-EWMA with the latency of a call.

    A failure counts as slow: otherwise a backend that fails fast would attract all calls. A fast error says nothing
    about how long a result takes, so it does not lower the estimate.
    """
    cdef double old_ns = backend.latency_ns
    cdef double weight
    if failed:
        sample_ns = max(sample_ns, old_ns, FAILED_NS)
        backend.is_punished = True
    elif not is_result:
        if old_ns <= 0:
            return
        sample_ns = max(sample_ns, old_ns)
    # 0 stands for "no estimate".
    sample_ns = max(sample_ns, 1.0)
    if sample_ns > old_ns:
        backend.latency_ns = sample_ns
    else:
        weight = exp(-<double> max(now_ns - backend.latency_at_ns, 0) / DECAY_NS)
        backend.latency_ns = old_ns * weight + sample_ns * (1.0 - weight)
    backend.latency_at_ns = max(now_ns, backend.latency_at_ns)


cdef double median_latency(Pool pool, int64_t now_ns) noexcept:
    """Return the median of the pool's first few estimates in ns; 30 ms if there are none."""
    cdef double[MEDIAN_OF] known
    cdef int count = 0
    cdef int slot
    cdef double latency_ns
    cdef Py_ssize_t position
    for position in range(min(pool.ends[CONNECTING], <Py_ssize_t> MEDIAN_AMONG)):
        latency_ns = latency_of(<Backend> pool.backends[position], now_ns)
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


@cython.nonecheck(False)
cdef double weight_of(Backend backend, Pool pool, int64_t now_ns) noexcept:
    """Return the current weight: a new or recovered backend starts with a tenth of its own (Envoy, slow start)."""
    cdef Balancing balancing
    cdef int64_t age_ns
    if backend.since_ns == 0:
        return backend.weight
    balancing = backend.server.balancing
    age_ns = now_ns - backend.since_ns
    if age_ns >= balancing.slow_start_ns:
        backend.since_ns = 0
        return backend.weight
    # There are too few others to take its share meanwhile.
    if pool.ends[CONNECTING] < SLOW_START_FROM:
        return backend.weight
    if age_ns <= 0:
        return backend.weight * LEAST_SHARE
    return backend.weight * max(
        LEAST_SHARE, pow(<double> age_ns / <double> balancing.slow_start_ns, balancing.slow_start_exponent)
    )


@cython.nonecheck(False)
cdef double cost_of(Backend backend, Pool pool, int64_t now_ns) noexcept:
    """Return the peak-EWMA cost (Finagle): latency estimate times calls in flight, this one included, by weight."""
    cdef double weight = 1.0
    if backend.since_ns or backend.weight != 1.0:
        weight = weight_of(backend, pool, now_ns)
    if backend.latency_ns > 0:
        return latency_of(backend, now_ns) * <double> (backend.inflight + 1) / weight
    # A backend without an estimate gets one call, and no second one until that has ended.
    if backend.inflight:
        return PENALTY * <double> (backend.inflight + 1)
    return median_latency(pool, now_ns) / weight


@cython.nonecheck(False)
cdef inline bint is_better(Backend one, Backend other, Pool pool, bint by_connections, int64_t now_ns) noexcept:
    """Return whether to prefer ``one``; at equal cost, a backend without an estimate is preferred."""
    cdef double cost, other_cost
    if by_connections:
        cost = <double> (one.inflight + 1) / weight_of(one, pool, now_ns)
        other_cost = <double> (other.inflight + 1) / weight_of(other, pool, now_ns)
        return cost < other_cost
    cost = cost_of(one, pool, now_ns)
    other_cost = cost_of(other, pool, now_ns)
    return cost < other_cost or (cost == other_cost and one.latency_ns <= 0)


@cython.nonecheck(False)
cdef Backend better_of_two(
    Pool pool, Py_ssize_t size, bint by_connections, int64_t now_ns, uint64_t random, Backend avoided
):
    """Choose among the first ``size`` backends of a pool, at least two, by power of two choices."""
    cdef uint64_t one = ((random >> 32) * <uint64_t> size) >> 32
    cdef uint64_t two = ((random & 0xFFFFFFFFULL) * <uint64_t> (size - 1)) >> 32
    cdef Backend first, second
    two += two >= one
    first = <Backend> pool.backends[one]
    second = <Backend> pool.backends[two]
    if first is avoided:
        return second
    if second is avoided:
        return first
    return second if is_better(second, first, pool, by_connections, now_ns) else first


cdef Backend next_in_turn(Pool pool, Py_ssize_t size, Backend avoided):
    cdef Backend backend
    pool.cursor = pool.cursor + 1 if pool.cursor + 1 < size else 0
    backend = <Backend> pool.backends[pool.cursor]
    if backend is avoided:
        pool.cursor = pool.cursor + 1 if pool.cursor + 1 < size else 0
        backend = <Backend> pool.backends[pool.cursor]
    return backend


cdef double heaviest(Pool pool) noexcept:
    cdef double weight = 0.0
    cdef Py_ssize_t position
    for position in range(len(pool.backends)):
        weight = max(weight, (<Backend> pool.backends[position]).weight)
    return weight


cdef Backend drawn_by_weight(Pool pool, Py_ssize_t size, int64_t now_ns, uint64_t random, Backend avoided):
    """Draw a backend with a probability proportional to its weight, by rejection; after many rejections, by a scan."""
    cdef Backend backend
    cdef double left = 0.0
    cdef int _
    cdef Py_ssize_t position
    for _ in range(MOST_DRAWS):
        random = mixed(random)
        backend = <Backend> pool.backends[((random >> 32) * <uint64_t> size) >> 32]
        if backend is avoided:
            continue
        if <double> (random & 0xFFFFFFFFULL) * pool.max_weight < weight_of(backend, pool, now_ns) * 4294967296.0:
            return backend
    # Draws are rejected this often only if the heaviest backend is gone or much lighter than before.
    pool.max_weight = heaviest(pool)
    for position in range(size):
        if pool.backends[position] is not avoided:
            left += weight_of(<Backend> pool.backends[position], pool, now_ns)
    left *= <double> mixed(random) * TO_UNIT
    for position in range(size):
        if pool.backends[position] is avoided:
            continue
        backend = <Backend> pool.backends[position]
        left -= weight_of(backend, pool, now_ns)
        if left < 0.0:
            break
    return backend


cdef Backend drawn_evenly(Pool pool, Py_ssize_t size, uint64_t random, Backend avoided):
    cdef Py_ssize_t position = <Py_ssize_t> (((random >> 32) * <uint64_t> size) >> 32)
    if pool.backends[position] is avoided:
        position = position + 1 if position + 1 < size else 0
    return <Backend> pool.backends[position]


cdef inline double affinity_of(Backend backend, uint64_t key) noexcept:
    """Return the score of weighted rendezvous hashing (Schindelhauer and Schomaker, 2005), between 0 and infinity."""
    cdef double unit = (<double> (mixed(key ^ backend.identity) >> 11) + 0.5) / 9007199254740992.0
    return backend.weight / -log(unit)


cdef Backend nearest(Pool pool, int64_t now_ns, uint64_t key, Backend avoided):
    """Return the backend that a key maps to, among those that take calls now or after connecting."""
    cdef Backend best = None
    cdef Backend backend
    cdef double score
    cdef double highest = 0.0
    cdef Py_ssize_t position = -1
    while position + 1 < pool.ends[CONNECTING]:
        position += 1
        if pool.ends[ELIGIBLE] <= position < pool.ends[BARRED]:
            continue
        backend = <Backend> pool.backends[position]
        if backend is avoided or (position >= pool.ends[ELIGIBLE] and not admits(backend, now_ns)):
            continue
        score = affinity_of(backend, key)
        if best is None or score > highest:
            best = backend
            highest = score
    if best is None and avoided is not None and avoided.pool is pool and avoided.part == ELIGIBLE:
        return avoided
    return best


cdef bint admits(Backend backend, int64_t now_ns) except -1:
    """Return whether a backend that must connect first may be tried."""
    return backend.inflight < backend.cap and time_barred(backend, now_ns) == ADMITTED


cdef Backend recalled(Pool pool, int64_t now_ns):
    """End the ejections and pauses that are over, and return a backend that is due for a trial; take no permit."""
    cdef Backend trial = None
    cdef Backend backend
    cdef int64_t wait_ns
    cdef int64_t due_ns = INT64_MAX
    cdef Py_ssize_t position = pool.ends[ELIGIBLE] - 1
    # The end of the part is read each time: backends that return leave it, and noting a transition may start the
    # garbage collector, which may run any code.
    while position + 1 < pool.ends[BARRED]:
        position += 1
        backend = <Backend> pool.backends[position]
        if backend.is_full:
            continue
        wait_ns = time_barred(backend, now_ns)
        if wait_ns < 0:
            continue
        if wait_ns > 0:
            due_ns = min(due_ns, now_ns + wait_ns)
        elif backend.circuit.passing:
            update_part(backend)
        elif backend.inflight < backend.cap:
            due_ns = now_ns
            if trial is None:
                trial = backend
    pool.due_ns = due_ns
    return trial


cdef int64_t time_barred(Backend backend, int64_t now_ns):
    """Return the ns until a barred backend may take a call, 0 if it may now, -1 if unknown; end what is over."""
    cdef int64_t wait_ns
    if backend.ejected_until_ns and now_ns >= backend.ejected_until_ns:
        backend.ejected_until_ns = 0
        backend.server.ejected -= 1
        backend.since_ns = now_ns
    if backend.paused_until_ns and now_ns >= backend.paused_until_ns:
        backend.paused_until_ns = 0
    wait_ns = circuit_wait(&backend.circuit, &backend.settings.policy, now_ns, False)
    if backend.circuit.pending:
        note_transitions(backend, now_ns)
    if wait_ns < 0:
        return wait_ns
    if backend.ejected_until_ns:
        wait_ns = max(wait_ns, backend.ejected_until_ns - now_ns)
    if backend.paused_until_ns:
        wait_ns = max(wait_ns, backend.paused_until_ns - now_ns)
    return wait_ns


cdef bint is_in_panic(Pool pool, Server server) noexcept:
    """Return whether so few of a pool are healthy that its ejected backends are needed (Envoy, panic threshold)."""
    cdef Py_ssize_t total = pool.ends[CONNECTING]
    cdef double healthy = <double> (pool.ends[ELIGIBLE] + pool.full)
    cdef Balancing balancing = server.balancing
    if total < PANIC_FROM or healthy >= balancing.panic_threshold * <double> total:
        return False
    if server.tiers is None:
        return balancing.overprovision * healthy < <double> total
    return available(server) < 100.0


cdef Backend choose_in_panic(Pool pool, uint64_t random, Backend avoided):
    """Draw a backend that takes calls or is ejected, but none whose circuit or limit refuses."""
    cdef list candidates = pool.backends[: pool.ends[ELIGIBLE]]
    cdef Py_ssize_t position
    for position in range(pool.ends[ELIGIBLE], pool.ends[BARRED]):
        if is_ejected_only(<Backend> pool.backends[position]):
            candidates.append(pool.backends[position])
    if avoided in candidates and len(candidates) > 1:
        candidates.remove(avoided)
    if not candidates:
        return None
    return <Backend> candidates[((random >> 32) * <uint64_t> len(candidates)) >> 32]


cdef bint is_ejected_only(Backend backend) noexcept:
    return (
        backend.ejected_until_ns != 0
        and backend.paused_until_ns == 0
        and backend.circuit.passing
        and backend.inflight < backend.cap
    )


@cython.nonecheck(False)
cdef Backend choose_eligible(
    Pool pool, Server server, int64_t now_ns, uint64_t random, uint64_t key, Backend avoided
):
    """Choose among the backends of a pool that may take a call at once."""
    cdef Py_ssize_t size = pool.ends[ELIGIBLE]
    cdef int policy = server.balancing.policy
    if server.ejected and is_in_panic(pool, server):
        return choose_in_panic(pool, random, avoided)
    if policy == CONSISTENT and key:
        return nearest(pool, now_ns, key, avoided)
    if size < 2:
        return <Backend> pool.backends[0] if size else None
    if policy == P2C or policy == CONSISTENT:
        return better_of_two(pool, size, False, now_ns, random, avoided)
    if policy == LEAST_CONNECTIONS:
        return better_of_two(pool, size, True, now_ns, random, avoided)
    if policy == ROUND_ROBIN:
        return next_in_turn(pool, size, avoided)
    if policy == WEIGHTED:
        return drawn_by_weight(pool, size, now_ns, random, avoided)
    return drawn_evenly(pool, size, random, avoided)


cdef Backend choose_connecting(Pool pool, int64_t now_ns, uint64_t random, Backend avoided):
    """Choose among the backends of a pool that must connect first, by power of two choices."""
    cdef Py_ssize_t start = pool.ends[BARRED]
    cdef uint64_t size = pool.ends[CONNECTING] - start
    cdef uint64_t one, two
    cdef Backend first, second
    if size == 0:
        return None
    one = ((random >> 32) * size) >> 32
    first = first_admitting(pool, start + one, avoided, now_ns)
    if first is None or size == 1:
        return first
    two = ((random & 0xFFFFFFFFULL) * (size - 1)) >> 32
    two += two >= one
    second = first_admitting(pool, start + two, first, now_ns)
    if second is None or second is avoided:
        return first
    return second if is_better(second, first, pool, False, now_ns) else first


cdef Backend first_admitting(Pool pool, Py_ssize_t position, Backend but, int64_t now_ns):
    """Return the first backend from ``position`` on, cyclically, that may be tried; ``but`` only as the last resort."""
    cdef Py_ssize_t left = pool.ends[CONNECTING] - pool.ends[BARRED]
    cdef Backend backend
    cdef Backend found = None
    while left > 0 and position < pool.ends[CONNECTING]:
        backend = <Backend> pool.backends[position]
        if admits(backend, now_ns):
            if backend is not but:
                return backend
            found = backend
        position += 1
        if position >= pool.ends[CONNECTING]:
            position = pool.ends[BARRED]
        left -= 1
    return found


cdef double available(Server server) noexcept:
    """Return the percentage of calls that all tiers together can take, at most 100 (Envoy, overprovisioning factor)."""
    cdef double total = 0.0
    cdef Pool pool
    for pool in server.tiers:
        total += capacity_of(pool, server)
    return min(total, 100.0)


cdef double capacity_of(Pool pool, Server server) noexcept:
    """Return ``min(100, 100 * overprovision * healthy / total)`` (Envoy, priority levels)."""
    if pool.ends[CONNECTING] == 0:
        return 0.0
    return min(
        100.0,
        100.0 * server.balancing.overprovision * <double> (pool.ends[ELIGIBLE] + pool.full)
        / <double> pool.ends[CONNECTING],
    )


cdef void refresh_loads(Server server) noexcept:
    """Share the calls among the tiers: each takes what it can, the first ones first (Envoy, priority levels)."""
    cdef double together = 0.0
    cdef double left = 100.0
    cdef Pool pool
    server.loads_stale = False
    if server.tiers is None:
        server.load = 100.0
        return
    together = available(server)
    for pool in server.tiers:
        pool.load = 0.0 if together <= 0.0 else min(left, 100.0 * capacity_of(pool, server) / together)
        left -= pool.load


cdef Pool drawn_tier(Server server, uint64_t random):
    """Draw a tier with the probability of its load; if rounding leaves none, return the first that has a load."""
    cdef double left = 100.0 * <double> mixed(random) * TO_UNIT
    cdef Pool pool
    cdef Pool loaded = None
    if server.loads_stale:
        refresh_loads(server)
    for pool in server.tiers:
        left -= pool.load
        if left < 0.0:
            return pool
        if loaded is None and pool.load > 0.0:
            loaded = pool
    return loaded


@cython.nonecheck(False)
cdef Backend choose(
    Server server, int64_t now_ns, uint64_t random, uint64_t key, Backend avoided
):
    """Choose the backend of a call, or return None; take no permit.

    A backend that is due for a trial takes the call at once: recovery must not wait until its estimate, or its tier's
    share, makes the policy choose it.
    """
    cdef Backend backend
    cdef Backend trial = None
    if server.tiers is not None:
        return choose_among_tiers(server, now_ns, random, key, avoided)
    if server.ends[BARRED] > server.ends[ELIGIBLE] and now_ns >= server.due_ns:
        trial = recalled(server, now_ns)
        if trial is not None and trial is not avoided:
            return trial
    backend = choose_eligible(server, server, now_ns, random, key, avoided)
    if backend is None:
        backend = choose_connecting(server, now_ns, random, avoided)
    return backend if backend is not None else trial


cdef Backend choose_among_tiers(
    Server server, int64_t now_ns, uint64_t random, uint64_t key, Backend avoided
):
    cdef Backend backend
    cdef Backend trial = None
    cdef Pool pool, drawn
    for pool in server.tiers:
        if pool.ends[BARRED] > pool.ends[ELIGIBLE] and now_ns >= pool.due_ns:
            backend = recalled(pool, now_ns)
            if backend is not None and backend is not avoided:
                return backend
            trial = backend if backend is not None else trial
    drawn = drawn_tier(server, random)
    if drawn is not None:
        backend = choose_eligible(drawn, server, now_ns, random, key, avoided)
        if backend is not None and backend is not avoided:
            return backend
    # Regardless of the shares, a call that one tier cannot take goes to the next.
    for pool in server.tiers:
        backend = choose_eligible(pool, server, now_ns, random, key, avoided) if pool is not drawn else None
        if backend is not None and backend is not avoided:
            return backend
    if avoided is not None and not avoided.removed and avoided.server is server and avoided.part == ELIGIBLE:
        return avoided
    for pool in server.tiers:
        backend = choose_connecting(pool, now_ns, random, avoided)
        if backend is not None and backend is not avoided:
            return backend
        trial = backend if backend is not None else trial
    return trial


cdef int why_none(Server server, int64_t now_ns, int64_t* wait_ns) except -1:
    """Return why no backend was chosen; set ``wait_ns`` to the shortest wait after which one may be, if any."""
    cdef list pools = server.tiers if server.tiers is not None else [server]
    cdef Pool pool
    cdef Backend backend
    cdef Py_ssize_t position
    cdef int64_t wait
    cdef bint paused = False
    cdef bint full = False
    cdef bint any_left = False
    for pool in pools:
        position = pool.ends[ELIGIBLE] - 1
        while position + 1 < pool.ends[CONNECTING]:
            position += 1
            backend = <Backend> pool.backends[position]
            any_left = True
            if backend.inflight >= backend.cap and backend.circuit.passing:
                full = True
                continue
            wait = time_barred(backend, now_ns)
            paused = paused or (backend.circuit.passing and backend.paused_until_ns != 0)
            if 0 < wait < wait_ns[0]:
                wait_ns[0] = wait
    if full:
        wait_ns[0] = INT64_MAX
        return LIMITED
    if paused:
        return PAUSED
    return CIRCUIT_OPEN if any_left else NO_INSTANCE
