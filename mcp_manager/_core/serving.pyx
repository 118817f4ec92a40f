"""The server half of HTTP/1.1 connections for requests of MCP clients. All else is handed over to another server.

llhttp checks the heads and takes chunked bodies apart, through httptools. This module decides which bytes are a
message, how long they may be and take, and in which order responses go out.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.chunked_body cimport ChunkedBody, new_chunked_body
from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_message cimport lend_body, room_in
from mcp_manager._core.http_response cimport (
    CLOSES, KEEPS, UNSAID, Ending, chunk_of, date_line, events_head, refusal, response,
)
from mcp_manager._core.request_head cimport CHUNKED, POST, RequestHead, end_of_head, head_to_repeat, method_size_of
from mcp_manager._core.sealing cimport seal
from mcp_manager._core.serving_limits cimport ServingLimits

import asyncio
import logging

cdef enum:
    STORAGE = 65536
    MAX_HEAD = 16384
    # Bytes that may wait behind a request that is being answered.
    MAX_WAITING = 65536
    # Requests of one connection in one event-loop iteration.
    MAX_IN_TURN = 8
    MAX_PIECES = 64
    # A body of known length gets at most this much memory before its bytes arrive.
    FIRST_BLOCK = 262144
    # A shorter response is sent in one piece.
    MAX_JOINED = 32768
    MAX_LINGERED = 67108864

cdef int64_t PIECE_NS = 400, REQUEST_NS = 20_000, SECOND_NS = 1_000_000_000, LINGER_NS = 2_000_000_000

cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef object log = logging.getLogger(__name__)


@cython.final
cdef class ServingPool:
    def __cinit__(
        self, DeadlineWheel wheel not None, clock, *, on_request, is_endpoint, make_web_protocol,
        on_session_request=None, ServingLimits limits=None, turns=None,
    ):
        self.wheel = wheel
        self.clock = clock
        self.turns = turns
        self.limits = ServingLimits() if limits is None else limits
        self.on_request = on_request
        self.on_session_request = on_session_request
        self.is_endpoint = is_endpoint
        self.make_web_protocol = make_web_protocol
        self.storage = bytearray(STORAGE)
        self.view = memoryview(self.storage)
        self.check = MessageCheck()
        self.connections = set()

    def __call__(self):
        return Connection(self)

    @property
    def open(self):
        return len(self.connections)

    @property
    def busy(self):
        cdef ServedConnection each
        return sum([each.phase != HEAD and each.phase != LINGERING for each in self.connections])

    def drain(self):
        cdef ServedConnection connection
        self.draining = True
        for connection in list(self.connections):
            if connection.phase == HEAD and connection.unread is None:
                connection.shut()

    def abort(self):
        cdef ServedConnection connection
        for connection in list(self.connections):
            connection.cut_off()

    cdef bytes current_date(self):
        return date_line(<int64_t> self.clock() // SECOND_NS)


cdef class ServedConnection(PacedReader):
    def __init__(self, ServingPool pool not None):
        if self.pool is not None:
            raise RuntimeError("the connection has a pool already")
        self.pool = pool
        self.turns = pool.turns

    # Callbacks of asyncio.BufferedProtocol

    def connection_made(self, transport):
        if self.transport is not None or self.pool is None:
            raise RuntimeError("a connection is made once")
        self.transport = transport
        if self.pool.draining or len(self.pool.connections) >= self.pool.limits.max_connections:
            transport.abort()
            return
        self.write = transport.write
        self.phase = HEAD
        self.pool.connections.add(self)
        self.await_for(FOR_HEAD)

    def get_buffer(self, sizehint):
        if self.phase == BODY:
            return self.room()
        return self.pool.view

    def buffer_updated(self, Py_ssize_t size):
        cdef char* data
        cdef bytes waiting
        if not 0 <= size <= (
            STORAGE if self.phase != BODY else PyBytes_GET_SIZE(self.body) - <Py_ssize_t> self.received
        ):
            raise ValueError(f"the buffer has no room for {size} bytes")
        data = PyByteArray_AS_STRING(self.pool.storage)
        self.in_turn = 0
        if self.phase == CLOSED:
            return
        if self.phase == LINGERING:
            self.received += size
            if self.received > MAX_LINGERED:
                self.cut_off()
        elif self.phase == BODY:
            self.take_in_place(size)
        elif self.phase == BUSY or self.paused or self.write_paused:
            waiting = PyBytes_FromStringAndSize(data, size)
            self.unread = waiting if self.unread is None else self.unread + waiting
            if PyBytes_GET_SIZE(self.unread) > MAX_WAITING and not self.held and not self.paused:
                self.held = True
                self.transport.pause_reading()
        elif self.unread is not None:
            waiting = self.unread + PyBytes_FromStringAndSize(data, size)
            self.unread = None
            self.work(PyBytes_AS_STRING(waiting), PyBytes_GET_SIZE(waiting))
        else:
            self.work(data, size)

    def eof_received(self):
        # A client that closes its side closes the connection: most can do nothing else.
        return False

    def connection_lost(self, error):
        self.release()
        self.transport = self.write = None

    def pause_writing(self):
        self.write_paused = True
        if self.phase != CLOSED and self.wait != FOR_END:
            self.queued_before = self.transport.get_write_buffer_size()
            self.await_for(FOR_READER)

    def resume_writing(self):
        self.write_paused = False
        if self.wait == FOR_READER and self.phase != CLOSED and self.phase != LINGERING:
            self.await_for(FOR_BODY if self.phase == BODY or self.phase == CHUNKS else FOR_REQUEST)
            self.go_on()

    # Deadlines

    cdef int await_for(self, Wait wait) except -1:
        """Set the deadline of the connection; that of an idle one is set once, and looked at when it has passed."""
        cdef ServingLimits limits = self.pool.limits
        cdef int64_t[5] spans_ns = [limits.idle_ns, limits.head_ns, limits.body_ns, limits.write_ns, LINGER_NS]
        self.wait = wait
        self.served_before = self.served
        self.pool.wheel.take(self)
        self.pool.wheel.put(self, <int64_t> self.pool.clock() + spans_ns[<int> wait])
        return 0

    cpdef object expired(self):
        cdef Py_ssize_t queued
        if self.wait == FOR_REQUEST:
            if self.phase == HEAD and self.served == self.served_before and self.unread is None and not self.paused:
                self.shut()
            else:
                self.await_for(FOR_REQUEST)
        elif self.wait == FOR_HEAD or self.wait == FOR_BODY:
            if self.paused:
                # It is this side that did not read.
                self.await_for(self.wait)
            elif self.wait == FOR_HEAD and self.unread is None:
                self.shut()
            else:
                self.refuse(408)
        else:
            queued = self.transport.get_write_buffer_size()
            if self.wait == FOR_READER and queued < self.queued_before:
                self.queued_before = queued
                self.await_for(FOR_READER)
            else:
                self.cut_off()

    # Reading

    cdef object work(self, const char* data, Py_ssize_t size):
        """Take requests from received bytes; keep those that have to wait."""
        cdef Py_ssize_t taken, at = 0
        self.working = True
        try:
            while at < size and (self.phase == HEAD or self.phase == CHUNKS) and not self.write_paused:
                if self.in_turn >= MAX_IN_TURN and self.turns is not None:
                    self.in_turn = 0
                    if not self.turns.spend(MAX_IN_TURN * REQUEST_NS):
                        self.pause()
                        break
                if self.phase == HEAD:
                    taken = self.take_repeated(data + at, size - at) or self.take_head(data + at, size - at)
                    if taken == 0:
                        break
                else:
                    taken = self.take_chunks(data + at, size - at)
                at += taken
                if self.paused:
                    break
        finally:
            self.working = False
        if at < size and self.phase != CLOSED and self.phase != LINGERING:
            self.unread = PyBytes_FromStringAndSize(data + at, size - at)
            if self.phase == HEAD and not self.paused and not self.write_paused:
                if PyBytes_GET_SIZE(self.unread) > MAX_HEAD:
                    self.refuse(431)
                elif self.wait != FOR_HEAD:
                    self.await_for(FOR_HEAD)

    cdef Py_ssize_t take_head(self, const char* data, Py_ssize_t size) except -1:
        """Take a request, or the head of one; return the bytes used up, 0 if more have to arrive first."""
        cdef Py_ssize_t end, used
        cdef ServedRequest request
        cdef int method_size = method_size_of(data, size)
        cdef int status
        if data[0] == 0x0D or data[0] == 0x0A:
            # RFC 9112, section 2.2
            return 1
        if method_size == 0 or method_size != POST and self.pool.on_session_request is None:
            self.hand_over(PyBytes_FromStringAndSize(data, size))
            return size
        end = end_of_head(data, size if size < MAX_HEAD else MAX_HEAD, self.searched)
        if end == 0:
            self.searched = size - 3 if size > 3 else 0
            return 0
        self.searched = 0
        request = ServedRequest.__new__(ServedRequest)
        request.head = PyBytes_FromStringAndSize(data, end)
        request.method_size = method_size
        status = request.read()
        if status == 505 or status == 400 and request.target_size < 1:
            self.refuse(status)
            return size
        if not self.knows(request) or request.upgrades or method_size != POST and not request.is_of_session():
            self.hand_over(PyBytes_FromStringAndSize(data, size))
            return size
        if status != 0:
            self.refuse(status)
            return size
        if request.framing != CHUNKED and request.length <= size - end:
            used = end + <Py_ssize_t> request.length
            if not self.pool.check.is_one_message(data, used, request.keeps_alive):
                self.refuse(400)
            elif request.length > self.pool.limits.max_body:
                self.refuse(413)
            else:
                self.last_head = head_to_repeat(request)
                self.deliver(request, PyBytes_FromStringAndSize(data + end, <Py_ssize_t> request.length))
            return used
        return self.take_request(data, size, end, request)

    cdef Py_ssize_t take_repeated(self, const char* data, Py_ssize_t size) except -1:
        """Take a whole request whose head is the last one but for the length; return the bytes used up, else 0."""
        cdef RequestHead last = self.last_head
        cdef int64_t length = 0
        cdef Py_ssize_t end = 0 if last is None else last.repeated(data, size, &length)
        cdef ServedRequest request
        if end == 0 or length > size - end or length > self.pool.limits.max_body:
            return 0
        request = ServedRequest.__new__(ServedRequest)
        request.repeat(last, data, length)
        if not self.knows(request):
            return 0
        self.searched = 0
        self.deliver(request, PyBytes_FromStringAndSize(data + end, <Py_ssize_t> length))
        return end + length

    cdef Py_ssize_t take_request(
        self, const char* data, Py_ssize_t size, Py_ssize_t end, ServedRequest request
    ) except -1:
        """Begin to receive a body that is chunked, or of which a part is missing; return the bytes used up."""
        cdef ChunkedBody chunks = new_chunked_body(self.pool.limits.max_body)
        try:
            chunks.feed(request.head)
        except Exception:
            self.refuse(400)
            return size
        if request.length > self.pool.limits.max_body:
            self.refuse(413)
            return size
        self.request = request
        self.received = 0
        self.await_for(FOR_BODY)
        if request.expects and request.minor == 1:
            self.write(CONTINUE)
        if request.framing == CHUNKED:
            self.chunks = chunks
            self.phase = CHUNKS
            return end
        self.phase = BODY
        self.received = size - end
        self.body = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> min(request.length, <int64_t> FIRST_BLOCK))
        memcpy(PyBytes_AS_STRING(self.body), data + end, size - end)
        return size

    cdef object room(self):
        """Return room for the rest of the body, or for a part of it."""
        cdef bytes block
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.body)
        if self.received == size:
            # What was promised and what has arrived both bound the memory of a body.
            size = min(2 * size, <Py_ssize_t> self.request.length)
            block = PyBytes_FromStringAndSize(NULL, size)
            memcpy(PyBytes_AS_STRING(block), PyBytes_AS_STRING(self.body), <size_t> self.received)
            self.body = block
        return room_in(self.body, <Py_ssize_t> self.received, size - <Py_ssize_t> self.received)

    cdef object take_in_place(self, Py_ssize_t size):
        cdef bytes body
        self.received += size
        if self.received == self.request.length:
            body, self.body = self.body, None
            self.deliver(self.request, body)

    cdef Py_ssize_t take_chunks(self, const char* data, Py_ssize_t size) except -1:
        """Feed a part of a chunked body that ends where the message may end; return its size."""
        cdef ChunkedBody chunks = self.chunks
        cdef Py_ssize_t part = chunks.cut(data, size)
        cdef int status = chunks.add(data, part)
        if status != 0:
            self.refuse(status)
            return size
        if chunks.completed:
            self.chunks = None
            self.deliver(self.request, chunks.take())
        elif chunks.pieces > MAX_PIECES and self.turns is not None:
            cost_ns = chunks.pieces * PIECE_NS
            chunks.pieces = 0
            if not self.turns.spend(cost_ns):
                self.pause()
        return part

    cdef bint knows(self, ServedRequest request) except -1:
        """Set the path of a request; return whether it is an endpoint."""
        cdef const char* target = PyBytes_AS_STRING(request.head) + request.method_size
        cdef bytes last = <bytes> self.last_target
        cdef bytes path
        cdef const char* query
        if last is not None and PyBytes_GET_SIZE(last) == request.target_size:
            if memcmp(PyBytes_AS_STRING(last), target, request.target_size) == 0:
                request.path = self.last_path
                return True
        query = <const char*> memchr(target, 0x3F, request.target_size)
        path = PyBytes_FromStringAndSize(target, request.target_size if query is NULL else query - target)
        if not self.pool.is_endpoint(path):
            return False
        self.last_target = PyBytes_FromStringAndSize(target, request.target_size)
        self.last_path = request.path = path.decode("latin-1")
        return True

    cdef object deliver(self, ServedRequest request, bytes body):
        """Give a whole request to the gateway."""
        request.body = body
        request.connection = self
        self.request = request
        self.phase = BUSY
        self.served += 1
        self.in_turn += 1
        self.pool.requests += 1
        if self.wait != FOR_REQUEST and self.wait != FOR_READER:
            self.await_for(FOR_REQUEST)
        try:
            (self.pool.on_request if request.method_size == POST else self.pool.on_session_request)(request)
        except Exception:
            log.exception("a request failed")
            if self.request is request:
                if request.begun:
                    self.cut_off()
                else:
                    request.write_response(500, refusal(500), None, b"")

    # Going on after a pause

    cdef bint catch_up(self) except -1:
        cdef bytes waiting = self.unread
        self.in_turn = 0
        self.paused = False
        if waiting is not None and not self.write_paused and (self.phase == HEAD or self.phase == CHUNKS):
            self.unread = None
            self.work(PyBytes_AS_STRING(waiting), PyBytes_GET_SIZE(waiting))
            if self.paused:
                return False
        self.leave_turns()
        return not self.held and self.phase != CLOSED

    def flooded(self):
        pass

    cdef object go_on(self):
        """Take the next request, after a response."""
        cdef bytes waiting = self.unread
        if self.working or self.paused or self.write_paused or (self.phase != HEAD and self.phase != CHUNKS):
            return
        self.in_turn = 0
        if waiting is not None:
            self.unread = None
            self.work(PyBytes_AS_STRING(waiting), PyBytes_GET_SIZE(waiting))
        if self.held and self.phase != CLOSED and not self.paused:
            if self.unread is None or PyBytes_GET_SIZE(self.unread) <= MAX_WAITING:
                self.held = False
                self.transport.resume_reading()

    cdef object hand_over(self, bytes data):
        """Give the connection to another server, for good, with what was received of its requests."""
        transport = self.transport
        cdef bint stopped = self.held or self.paused
        if self.pool.draining:
            self.shut()
            return
        self.release()
        self.pool.handed_over += 1
        web = self.pool.make_web_protocol()
        transport.set_protocol(web)
        web.connection_made(transport)
        web.data_received(data)
        if self.write_paused:
            web.pause_writing()
        if stopped and not transport.is_closing():
            transport.resume_reading()

    # Responses

    cdef object completed(self, ServedRequest request):
        """Handle the end of a response."""
        request.connection = request.on_gone = self.request = None
        self.phase = HEAD
        self.served_before = -1  # It is idle only from now on.
        if not request.keeps_alive or self.pool.draining:
            self.shut()
        else:
            self.go_on()

    cdef object refuse(self, int status):
        """Answer what is not a request, and close."""
        cdef bytes body = refusal(status)
        self.unread = self.body = self.chunks = self.request = None
        self.write(response(status, PyBytes_GET_SIZE(body), b"", self.pool.current_date(), CLOSES, body))
        self.linger()

    cdef object linger(self):
        """Close once the client has, so that it gets the response although it still sends (RFC 9112, section 9.6)."""
        self.phase = LINGERING
        self.received = 0
        self.leave_turns()
        self.await_for(FOR_END)
        if self.paused or self.held:
            self.paused = self.held = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    cdef object shut(self):
        """Close the connection after what is written has been sent."""
        self.unread = None
        if self.transport.get_write_buffer_size() > 0:
            self.phase = LINGERING
            self.received = 0
            self.queued_before = self.transport.get_write_buffer_size()
            self.await_for(FOR_READER)
            self.transport.close()
            return
        transport = self.transport
        self.release()
        transport.close()

    cdef object cut_off(self):
        transport = self.transport
        self.release()
        if transport is not None:
            transport.abort()

    cdef object release(self):
        """Let go of everything but the transport; tell the request under way that its client is gone."""
        cdef ServedRequest request = self.request
        if self.phase == CLOSED:
            return
        self.phase = CLOSED
        self.pool.wheel.take(self)
        self.pool.connections.discard(self)
        self.leave_turns()
        self.request = self.chunks = self.unread = self.body = self.known = self.last_head = None
        if request is not None and request.connection is not None:
            request.connection = None
            on_gone, request.on_gone = request.on_gone, None
            if on_gone is not None:
                try:
                    on_gone()
                except Exception:
                    log.exception("what follows the end of a client failed")


@cython.final
cdef class ServedRequest(RequestHead):
    def __init__(self):
        raise TypeError("a ServedRequest comes from a ServedConnection")

    @property
    def is_open(self):
        return self.connection is not None

    @property
    def peer(self):
        return None if self.connection is None else self.connection.transport.get_extra_info("peername")

    def reply(self, int status, bytes body not None, bytes fields not None=b""):
        if self.begun:
            raise RuntimeError("the request is answered already")
        if self.connection is not None:
            self.write_response(status, body, None, fields)

    cdef object write_response(self, int status, bytes body, object rest, bytes fields):
        cdef ServedConnection connection = self.connection
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body) + (0 if rest is None else len(rest))
        if rest is None and size > MAX_JOINED:
            lend_body(body)
            body, rest = b"", body
        if connection.pool.draining:
            self.keeps_alive = False
        body = response(status, size, fields, connection.pool.current_date(), self.ending(), body)
        self.begun = True
        if rest is None:
            connection.write(body)
        else:
            connection.transport.writelines((body, rest))  # One system call: each may wake the client.
        if self.connection is connection:
            connection.completed(self)

    cdef Ending ending(self) noexcept:
        return CLOSES if not self.keeps_alive else KEEPS if self.minor == 0 else UNSAID

    def open_events(self, bytes fields not None=b""):
        cdef ServedConnection connection = self.connection
        if self.begun:
            raise RuntimeError("the request is answered already")
        self.begun = self.streams = True
        self.forget()
        self.body = b""
        if connection is not None:
            connection.last_head = None
            if self.minor == 0 or connection.pool.draining:
                self.keeps_alive = False
            connection.write(events_head(fields, connection.pool.current_date(), self.ending(), self.minor == 1))
        return self

    def send(self, bytes events not None):
        cdef ServedConnection connection = self.connection
        if not self.streams:
            raise RuntimeError("no event stream was begun")
        if connection is None or PyBytes_GET_SIZE(events) == 0:
            return
        # What waits already counts: one event alone may be longer.
        if connection.write_paused and connection.transport.get_write_buffer_size() > connection.pool.limits.max_queued:
            connection.cut_off()
        else:
            connection.write(chunk_of(events) if self.minor == 1 else events)

    def end(self):
        cdef ServedConnection connection = self.connection
        if not self.streams:
            raise RuntimeError("no event stream was begun")
        if connection is not None:
            if self.minor == 1:
                connection.write(b"0\r\n\r\n")
            if self.connection is connection:
                connection.completed(self)


class Connection(ServedConnection, asyncio.BufferedProtocol):
    __slots__ = ()


seal(ServedRequest)
