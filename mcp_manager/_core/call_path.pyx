"""The compiled call path of a call without complications, in two crossings from Python.

The first leases a backend and sends the request over an idle wire; the second checks the reply and settles the lease.
"""

cimport cython
from cpython.contextvars cimport PyContextVar_CheckExact, get_value_no_default
from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.balancing cimport LIMITED
from mcp_manager._core.breaker cimport SUCCESS
from mcp_manager._core.stateless_frame cimport is_complete
from mcp_manager._core.call_ring cimport CallRing
from mcp_manager._core.http_message cimport JSON, Exchange, Request, WireReply
from mcp_manager._core.jsonrpc cimport IS_RESULT, Message, scan_one
from mcp_manager._core.records cimport Backend, Lease, Server
from mcp_manager._core.recipients cimport Recipient
from mcp_manager._core.router cimport Router
from mcp_manager._core.sealing cimport seal
from mcp_manager._core.tool_calls cimport is_tool_error, name_call
from mcp_manager._core.wire cimport Wire, WirePool

from mcp_manager._core.jsonrpc import FrameError

cdef enum:
    # A reply that arrives later than this after its deadline is late: deadlines are checked no more precisely.
    LATE_NS = 50_000_000
    SUCCESS_STATUS = 0
    TOOL_ERROR_STATUS = 12
    MAX_DEPTH = 512


@cython.final
cdef class RequestIds:
    def __cinit__(self, int64_t first):
        self.following = first

    cpdef int64_t take(self):
        cdef int64_t taken = self.following
        self.following = taken + 1
        return taken


@cython.final
cdef class Channel:
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
        self.stateless_frame = None if dialect is None else dialect.stateless_frame

    @property
    def head(self):
        return self.opening

    @head.setter
    def head(self, bytes head not None):
        self.opening = head


LATE_AFTER_NS = LATE_NS


cdef bint accepts(Channel channel, Message reply):
    """Return whether a result completes its call, most often without asking the dialect."""
    return is_complete(reply) or channel.dialect.accepts(reply)


@cython.final
@cython.freelist(64)
cdef class DirectCall:
    def __init__(self):
        raise TypeError("a DirectCall comes from CallPath.begin()")

    @property
    def session(self):
        return None if self.channel is None else self.channel.session

    def abandon(self):
        if self.wire is not None:
            self.wire.abandon(self.future)
        # The traceback of the future's exception refers to this object: this breaks the cycle.
        self.future = None
        self.wire = None


@cython.final
cdef class CallPath:
    def __cinit__(self, Router router not None, clock, uint64_t seed, CallRing ring=None):
        self.slow_epoch = 1
        self.router = router
        self.clock = clock
        self.random = seed
        self.ring = ring

    cdef uint64_t draw(self) noexcept:
        """Return the next number of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014)."""
        cdef uint64_t number
        self.random += 0x9E3779B97F4A7C15ULL
        number = self.random
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ULL
        number = (number ^ (number >> 27)) * 0x94D049BB133111EBULL
        return number ^ (number >> 31)

    def begin(
        self, Server server not None, str method not None, request, int64_t now_ns, int64_t deadline_ns,
        uint64_t key=0, Channel channel=None, Backend backend=None,
    ):
        return self.start(server, method, request, now_ns, deadline_ns, key, channel, backend, None)

    cdef DirectCall start(
        self, Server server, str method, object request, int64_t now_ns, int64_t deadline_ns, uint64_t key,
        Channel own, Backend its, Recipient recipient,
    ):
        cdef DirectCall direct = DirectCall.__new__(DirectCall)
        cdef Lease lease
        cdef Channel channel
        cdef Exchange exchange = None
        cdef Wire wire
        if server.events is not self.router.events:
            raise ValueError("the server is of another router")
        direct.lease = lease = self.router.lease(server, method, now_ns, self.draw(), key, None, False, False)
        if lease.series.is_of_tools and request is not None and self.router.tools is not None:
            name_call(self.router.tools, lease, request)
            if 0 < lease.rejection < LIMITED:
                self.router.tools.count(lease, lease.rejection)
        if request is None or lease.backend is None:
            return direct
        if its is not None:
            channel = own if lease.backend is its else None
        else:
            channel = <Channel?> lease.backend.channel if lease.backend.channel is not None else None
        if channel is None:
            return direct
        if channel.dialect is not None:
            exchange = self.framed(channel, request, deadline_ns)
            if exchange is None:
                return direct
        wire = channel.pool.take(now_ns)
        if wire is None:
            return direct
        direct.channel = channel
        direct.method = method
        if exchange is None:
            if type(request) is Message:
                exchange = (<Message> request).exchange(channel.ids.take(), deadline_ns)
            else:
                exchange = (<Request?> request).exchange(channel.ids.take(), deadline_ns)
        exchange.began_ns = now_ns
        direct.exchange = exchange
        direct.wire = wire
        direct.future = wire.transmit(channel.opening, direct.exchange, channel.listener, channel.limit, recipient)
        return direct

    cdef Exchange framed(self, Channel channel, request, int64_t deadline_ns):
        cdef int64_t request_id = channel.ids.take()
        cdef Exchange exchange
        if channel.stateless_frame is not None:
            exchange = channel.stateless_frame.frame(request, request_id, deadline_ns)
            if exchange is not None:
                return exchange
        try:
            return channel.dialect.exchange(request, request_id, deadline_ns)
        except Exception:
            # The Python call path meets the same error, and counts it.
            return None

    cpdef Message land(self, DirectCall direct, object reply):
        cdef WireReply response
        cdef Message message
        cdef bytes body
        cdef int64_t now_ns = self.clock()
        if direct is None:
            raise TypeError("direct must be a DirectCall")
        if direct.channel is None:
            raise ValueError("the call was not sent: there is no reply to take")
        if 0 < direct.exchange.deadline_ns < now_ns - LATE_NS:
            # The Python call path counts late replies.
            return None
        if type(reply) is WireReply:
            response = <WireReply> reply
            if response.status != 200 or response.content != JSON or response.body is None:
                return None
            # The future still holds the response: without its body, the message alone owns that, and need not copy it.
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
                or message.id != direct.exchange.request_id
            ):
                response.body = body
                return None
            if direct.channel.dialect is not None and not accepts(direct.channel, message):
                response.body = body
                return None
        else:
            if type(reply) is not Message or (<Message> reply).kind != IS_RESULT:
                return None
            message = <Message> reply
            if direct.channel.dialect is not None and not accepts(direct.channel, message):
                return None
        self.settle(direct, message, now_ns)
        return message

    cdef int settle(self, DirectCall direct, Message reply, int64_t now_ns) except -1:
        cdef Lease lease = direct.lease
        cdef int status = SUCCESS_STATUS
        if lease.finished:
            return 0
        if lease.series.is_of_tools and is_tool_error(reply):
            status = TOOL_ERROR_STATUS
        self.router.settle(lease, SUCCESS, status, now_ns, 0, 0)
        if self.ring is not None:
            self.ring.note(
                lease.server.server_id, direct.method, direct.channel.label, lease.started_ns, now_ns,
                lease.backend.inflight, lease.backend.circuit.state, status,
            )
        if self.on_slow is not None and (
            lease.server.slow_epoch != self.slow_epoch or now_ns - lease.started_ns >= lease.server.slow_ns
        ):
            self.on_slow(direct, reply, now_ns)
        return 0

    def watch(self, on_slow not None):
        self.on_slow = on_slow

    def slow_ns(self, Server server not None):
        return server.slow_ns if server.slow_epoch == self.slow_epoch else None

    def set_slow(self, Server server not None, int64_t slow_ns):
        server.slow_ns = slow_ns
        server.slow_epoch = self.slow_epoch

    def measure_again(self):
        self.slow_epoch += 1


@cython.final
cdef class Sampler:
    cdef object make
    cdef object decide
    cdef object variable
    cdef bint asks
    cdef public int64_t left_out

    def __cinit__(self, make not None, decide not None, variable=None, *, bint asks=False):
        if variable is not None and not PyContextVar_CheckExact(variable):
            raise TypeError("variable must be a ContextVar")
        self.make = make
        self.decide = decide
        self.variable = variable
        self.asks = asks

    def call(self, supervisor, method, request, started_ns, deadline_ns):
        if self.variable is not None:
            context = get_value_no_default(self.variable, None)
            if context is not None and len(context) > 0:
                return self.decide(supervisor, method, request, started_ns, deadline_ns)
        elif self.asks:
            return self.decide(supervisor, method, request, started_ns, deadline_ns)
        self.left_out -= 1
        if self.left_out < 0:
            return self.decide(supervisor, method, request, started_ns, deadline_ns)
        return self.make(supervisor, method, request, started_ns, deadline_ns)


seal(DirectCall)
