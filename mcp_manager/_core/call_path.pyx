"""The way of one call as long as nothing unusual happens: lease, frame and wire in one crossing, reply and accounts in
another.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.breaker cimport SUCCESS
from mcp_manager._core.dressing cimport Dressing, is_complete
from mcp_manager._core.flight_recorder cimport FlightRecorder
from mcp_manager._core.http_message cimport JSON, Exchange, Request, WireReply
from mcp_manager._core.jsonrpc cimport IS_RESULT, Message, scan_one
from mcp_manager._core.records cimport Lease, Server
from mcp_manager._core.router cimport Router
from mcp_manager._core.sealing cimport seal
from mcp_manager._core.wire cimport Wire, WirePool

from mcp_manager._core.jsonrpc import FrameError

cdef enum:
    # A reply that is later than this after its deadline is late: deadlines are not visited more exactly.
    LATE_NS = 50_000_000
    SUCCESS_STATUS = 0
    MAX_DEPTH = 512


@cython.final
cdef class RequestIds:
    cdef int64_t following

    def __cinit__(self, int64_t first):
        self.following = first

    cpdef int64_t take(self):
        cdef int64_t taken = self.following
        self.following = taken + 1
        return taken


@cython.final
cdef class Channel:
    cdef WirePool pool
    cdef RequestIds ids
    cdef object listener
    cdef Py_ssize_t limit
    cdef bytes opening
    cdef readonly object session
    cdef public object label
    cdef object dialect
    cdef Dressing dressing

    def __cinit__(
        self,
        WirePool pool not None,
        RequestIds ids not None,
        listener,
        Py_ssize_t limit,
        bytes head not None,
        session,
        dialect=None,
    ):
        self.pool = pool
        self.ids = ids
        self.listener = listener
        self.limit = limit
        self.opening = head
        self.session = session
        self.dialect = dialect
        self.dressing = None if dialect is None else dialect.dressing

    @property
    def head(self):
        return self.opening

    @head.setter
    def head(self, bytes head not None):
        self.opening = head


LATE_AFTER_NS = LATE_NS


cdef bint accepts(Channel channel, Message reply):
    """Tell whether a result is the end of its call, most often without asking."""
    return is_complete(reply) or channel.dialect.accepts(reply)


@cython.final
@cython.freelist(64)
cdef class Flight:
    cdef readonly Lease lease
    cdef readonly Exchange exchange
    cdef readonly object future
    cdef Channel channel
    cdef Wire wire
    cdef str method

    def __init__(self):
        raise TypeError("a Flight comes from CallPath.begin()")

    @property
    def session(self):
        return None if self.channel is None else self.channel.session

    def abandon(self):
        if self.wire is not None:
            self.wire.abandon(self.future)
        # It has an exception, whose traceback has the frame that has this.
        self.future = None
        self.wire = None


@cython.final
cdef class CallPath:
    cdef Router router
    cdef object clock
    cdef uint64_t random
    cdef FlightRecorder recorder

    def __cinit__(self, Router router not None, clock, uint64_t seed, FlightRecorder recorder=None):
        self.router = router
        self.clock = clock
        self.random = seed
        self.recorder = recorder

    cdef uint64_t draw(self) noexcept:
        """Return the next number of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014)."""
        cdef uint64_t number
        self.random += 0x9E3779B97F4A7C15ULL
        number = self.random
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ULL
        number = (number ^ (number >> 27)) * 0x94D049BB133111EBULL
        return number ^ (number >> 31)

    def begin(
        self, Server server not None, str method not None, request, int64_t now_ns, int64_t deadline_ns, uint64_t key=0
    ):
        cdef Flight flight = Flight.__new__(Flight)
        cdef Lease lease
        cdef Channel channel
        cdef Exchange exchange = None
        cdef Wire wire
        if server.events is not self.router.events:
            raise ValueError("the server is of another router")
        flight.lease = lease = self.router.lease(server, method, now_ns, self.draw(), key, None, False, False)
        if request is None or lease.instance is None or lease.instance.channel is None:
            return flight
        channel = <Channel?> lease.instance.channel
        if channel.dialect is not None:
            exchange = self.dressed(channel, request, deadline_ns)
            if exchange is None:
                return flight
        wire = channel.pool.take(now_ns)
        if wire is None:
            return flight
        flight.channel = channel
        flight.method = method
        if exchange is None:
            if type(request) is Message:
                exchange = (<Message> request).exchange(channel.ids.take(), deadline_ns)
            else:
                exchange = (<Request?> request).exchange(channel.ids.take(), deadline_ns)
        exchange.began_ns = now_ns
        flight.exchange = exchange
        flight.wire = wire
        flight.future = wire.transmit(channel.opening, flight.exchange, channel.listener, channel.limit)
        return flight

    cdef Exchange dressed(self, Channel channel, request, int64_t deadline_ns):
        cdef int64_t request_id = channel.ids.take()
        cdef Exchange exchange
        if channel.dressing is not None:
            exchange = channel.dressing.dress(request, request_id, deadline_ns)
            if exchange is not None:
                return exchange
        try:
            return channel.dialect.exchange(request, request_id, deadline_ns)
        except Exception:
            # The ordinary way meets it again, and accounts for it.
            return None

    def land(self, Flight flight not None, reply):
        cdef WireReply response
        cdef Message message
        cdef bytes body
        cdef int64_t now_ns = self.clock()
        if flight.channel is None:
            raise ValueError("the flight did not take off: there is nothing to land")
        if 0 < flight.exchange.deadline_ns < now_ns - LATE_NS:
            # It came too late, which is accounted for where everything unusual is.
            return None
        if type(reply) is WireReply:
            response = <WireReply> reply
            if response.status != 200 or response.content != JSON or response.body is None:
                return None
            # Taken out: the future that brought it is alive still, and a long reply is worth having alone.
            body = response.body
            response.body = b""
            try:
                message = scan_one(body, MAX_DEPTH, 0, False, True)
            except FrameError:
                message = None
            if (
                message is None
                or message.kind != IS_RESULT
                or message.oddity is not None
                or message.id != flight.exchange.request_id
            ):
                response.body = body
                return None
            if flight.channel.dialect is not None and not accepts(flight.channel, message):
                response.body = body
                return None
        else:
            if type(reply) is not Message or (<Message> reply).kind != IS_RESULT:
                return None
            message = <Message> reply
            if flight.channel.dialect is not None and not accepts(flight.channel, message):
                return None
        self.settle(flight, now_ns)
        return message

    cdef int settle(self, Flight flight, int64_t now_ns) except -1:
        cdef Lease lease = flight.lease
        if lease.finished:
            return 0
        self.router.settle(lease, SUCCESS, SUCCESS_STATUS, now_ns, 0, 0)
        if self.recorder is not None:
            self.recorder.note(
                lease.server.server_id, flight.method, flight.channel.label, lease.started_ns, now_ns,
                lease.instance.inflight, lease.instance.circuit.state,
            )
        return 0


seal(Flight)
