"""An HTTP/1.1 connection after aiohttp has opened it: a request in one write, its reply straight to who waits.

llhttp parses, through httptools. This module decides which message may follow which, how long they may be, and whether
the connection may carry another request.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.event_stream cimport EventStream
from mcp_manager._core.http_message cimport EVENTS, OTHER, Exchange, make_reply, new_body, render, room_in
from mcp_manager._core.recipients cimport AwaitedReader, Recipient
from mcp_manager._core.response_reader cimport KnownHead, known_head, objection
from mcp_manager._core.sealing cimport seal

from httptools import HttpResponseParser

from mcp_manager._core.http_message import (
    EXPIRED as _EXPIRED, LOST as _LOST, MALFORMED as _MALFORMED, OVERSIZE as _OVERSIZE, STOPPED as _STOPPED,
    UNANSWERED as _UNANSWERED, WireError,
)
from mcp_manager._core.sse import SseLimitError

cdef enum:
    # Most bytes in a row without any body: a head and those of interim responses, trailers, sizes of chunks.
    MAX_SILENT = 131072
    # Most bytes received at once by a wire that had to wait for a time slice.
    MAX_IN_TURN = 16384
    # With more pieces of a body than this in one receive, they are charged to the read budget.
    MAX_PIECES = 64
    # A body with at least this many bytes left is received in place.
    MIN_DIRECT = 32768
    MAX_COPIED = 4096
    # A request that fits the smallest socket buffer has been sent before its reply can arrive.
    MAX_UNWATCHED_WRITE = 16384
    # Sweeps that an idle connection survives.
    IDLE_SWEEPS = 2
    WARY_SWEEPS = 30

cdef int64_t STREAM_END_NS = 1_000_000_000
# A wire that was used this recently needs no check: the loop has just served it, and knows if it ended.
cdef int64_t FRESH_NS = 5_000_000
cdef int64_t PIECE_NS = 400
# A server that closes a connection this soon after its first reply does so after every reply.
cdef int64_t AT_ONCE_NS = 500_000_000


@cython.final
cdef class WireGroup:
    pass


@cython.final
cdef class WirePool:
    def __cinit__(
        self, DeadlineWheel wheel not None, clock, bytearray storage not None, WireGroup group=None, turns=None
    ):
        self.wheel = wheel
        self.clock = clock
        self.storage = storage
        self.view = memoryview(storage)
        self.turns = turns
        self.unused = []
        self.wires = set()
        self.group = WireGroup() if group is None else group

    @property
    def idle(self):
        return list(self.unused)

    cpdef Wire take(self, int64_t now_ns=0):
        cdef Wire wire
        cdef Wire taken = None
        cdef list aside = None
        while self.unused:
            wire = <Wire> self.unused.pop()
            self.group.idle -= 1
            # connection_lost() follows a fatal error in a later event-loop iteration.
            if wire.state != IDLE or wire.transport.is_closing():
                continue
            if wire.resting or (
                (now_ns == 0 or self.wary > 0 or now_ns - wire.used_ns > FRESH_NS) and wire.has_news()
            ):
                # The loop must read what has arrived: most likely the end.
                if aside is None:
                    aside = []
                aside.append(wire)
                continue
            wire.used_ns = now_ns
            taken = wire
            break
        if aside is not None:
            self.unused[:0] = aside
            self.group.idle += len(aside)
        return taken

    def sweep(self):
        cdef Wire wire
        cdef list old = []
        if self.wary > 0:
            self.wary -= 1
        for wire in self.unused:
            if wire.resting and <int64_t> self.clock() - wire.first_end_ns > AT_ONCE_NS:
                # The server keeps it open.
                wire.resting = self.single_use = False
            wire.sweeps += 1
            if wire.sweeps >= IDLE_SWEEPS:
                old.append(wire)
        for wire in old:
            wire.close()

    def interrupt(self, listener=None):
        cdef Wire wire
        for wire in list(self.wires):
            if listener is None or wire.listener is listener:
                wire.fail(WireError(_STOPPED))

    def deliver(self, listener not None, int64_t request_id, reply):
        cdef Wire wire
        for wire in self.wires:
            if wire.listener is listener and wire.is_awaited() and wire.exchange.request_id == request_id:
                wire.resolve(reply)
                wire.forget_exchange()
                # What it still brings belongs to no request.
                wire.close()
                return True
        return False

    cdef object put_back(self, Wire wire):
        wire.sweeps = 0
        if self.single_use:
            self.rest(wire)
        elif self.group.on_return is None or not self.group.on_return(wire):
            self.unused.append(wire)
            self.group.idle += 1

    cdef object rest(self, Wire wire):
        """Close a wire that the server is about to close, but keep one: if it stays open, wires are reused again."""
        cdef Wire other
        if self.group.on_return is None and wire.served == 1:
            for other in self.unused:
                if other.resting:
                    break
            else:
                wire.resting = True
                self.unused.insert(0, wire)
                self.group.idle += 1
                return
        wire.close()

    cdef object forget(self, Wire wire):
        self.wires.discard(wire)
        if wire in self.unused:
            self.unused.remove(wire)
            self.group.idle -= 1


cdef class Wire(AwaitedReader):
    def __init__(self, WirePool pool not None, create_future):
        if self.pool is not None:
            raise RuntimeError("the wire has a pool already")
        self.pool = pool
        self.turns = pool.turns
        self.create_future = create_future

    # Interface for the pool and the transport

    def attach(self, transport):
        if self.pool is None or self.state != CLOSED:
            raise RuntimeError("a wire is attached once, and has a pool before")
        self.transport = transport
        self.write = transport.write
        self.replace_parser()
        self.length = -1
        self.state = IDLE
        self.pool.wires.add(self)

    @property
    def idle(self):
        return self.state == IDLE and not self.transport.is_closing()

    @property
    def closed(self):
        return self.state == CLOSED

    def send(self, bytes head not None, Exchange exchange not None, listener, Py_ssize_t limit):
        return self.transmit(head, exchange, listener, limit, None)

    cdef object transmit(self, bytes head, Exchange exchange, object listener, Py_ssize_t limit, Recipient recipient):
        cdef bytes request
        if self.state != IDLE:
            raise RuntimeError("the connection carries another exchange")
        request = render(head, exchange.fields, exchange.frame)
        future = self.expect(recipient)
        self.exchange = exchange
        self.listener = listener
        self.limit = limit
        self.state = WAITING
        self.watch_write = PyBytes_GET_SIZE(request) > MAX_UNWATCHED_WRITE
        if exchange.deadline_ns > 0:
            self.pool.wheel.put(self, exchange.deadline_ns)
        exchange.sent = True
        exchange.wire = self
        self.write(request)
        return future

    cpdef object abandon(self, object future):
        if self.future is future:
            self.keep_head()
            self.forget_exchange()
            self.close()

    def retire(self):
        self.retired = True
        if self.state == IDLE:
            self.close()

    cpdef object close(self):
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self.pool.wheel.take(self)
        self.pool.forget(self)
        if self.events is not None:
            self.events.stop()
        self.transport.abort()
        self.leave_turns()

    cpdef object lost(self, object error):
        pass

    cpdef bint has_news(self) except -1:
        return False

    cpdef object expired(self):
        if self.state == ENDING:
            self.close()
        elif self.pool is None or not self.is_put_off(self.exchange, self.pool.wheel):
            self.fail(WireError(_EXPIRED))

    # Callbacks of asyncio.BufferedProtocol

    def get_buffer(self, sizehint):
        if self.direct:
            # One byte beyond the body, in place of its terminating zero: it shows that more follows. If the buffer
            # ended with the body, that would arrive only later, when the connection may carry another exchange.
            return room_in(self.body, self.received, self.length - self.received + 1)
        return self.pool.view if not self.in_turns else self.pool.view[:MAX_IN_TURN]

    def buffer_updated(self, Py_ssize_t size):
        self.receiving = True
        try:
            self.receive(size)
        finally:
            self.receiving = False
            if self.due is not None:
                self.hand_over()

    cdef object receive(self, Py_ssize_t size):
        cdef char* received
        cdef bint begins
        if self.state == CLOSED:
            return
        if not 0 <= size <= (
            self.length - self.received + 1 if self.direct else PyByteArray_GET_SIZE(self.pool.storage)
        ):
            raise ValueError(f"the buffer has no room for {size} bytes")
        if self.direct:
            self.take_in_place(size)
            return
        if self.state == IDLE:
            # Nothing was requested.
            self.close()
            return
        received = PyByteArray_AS_STRING(self.pool.storage)
        begins = self.state == WAITING and self.silent == 0
        if begins and self.repeats(received, size):
            self.settle()
            return
        self.silent += size
        self.pieces = 0
        if self.events is not None:
            self.events.used_up = False
        try:
            # A copy of a few bytes costs less than a view of them.
            if size <= MAX_COPIED:
                self.feed(PyBytes_FromStringAndSize(received, size))
            else:
                self.feed(PyMemoryView_FromMemory(received, size, PyBUF_READ))
        except Exception as error:
            # This includes an upgrade, which was not requested.
            if self.state != CLOSED:
                if self.finished:
                    self.close()
                else:
                    self.fail(objection(error, received, size if self.state == WAITING and self.silent == size else 0))
            return
        if self.pieces > MAX_PIECES and not self.paused and not self.finished and self.turns is not None:
            if self.state != CLOSED and not self.turns.spend(self.pieces * PIECE_NS):
                self.pause()
        if begins and self.finished and self.reusable and self.state == BODY and not self.chunked and not self.early:
            self.pool.known = known_head(received, size, self.status, self)
        self.settle()

    cdef bint repeats(self, const char* received, Py_ssize_t size) except -1:
        """Take a whole response if its head is known, apart from the length; return whether it is."""
        cdef KnownHead known = self.pool.known
        cdef Py_ssize_t begin = 0 if known is None else known.size_of(received, size)
        if begin == 0 or size - begin > self.limit:
            return False
        self.recall(known)
        self.status = known.status
        self.body = PyBytes_FromStringAndSize(received + begin, size - begin)
        self.state = BODY
        # The parser has seen nothing of it, and goes on with the next response.
        self.kept_alive = self.asked_parser = True
        self.finish()
        return True

    def eof_received(self):
        if not self.paused:
            self.end_of_input()

    def connection_lost(self, error):
        if self.paused and self.state != CLOSED:
            # First handle what was received before.
            self.ended = (error,)
            return
        self.ended = None
        if self.state != CLOSED:
            if error is None:
                self.end_of_input()
            if self.state != CLOSED:
                self.learn_from_end()
                self.broke(f"{type(error).__name__}", error)
                self.state = CLOSED
                self.pool.wheel.take(self)
                self.pool.forget(self)
        self.leave_turns()
        self.parser = self.feed = self.write = self.transport = self.events = None
        self.lost(error)

    # Callbacks of llhttp

    def on_message_begin(self):
        if self.finished or self.state != WAITING:
            # A second response to one request: it is not known which request it belongs to.
            self.early = True

    def on_header(self, bytes name not None, bytes value not None):
        if not self.early and self.state == WAITING and not self.take_field(name, value):
            self.fail(WireError(_OVERSIZE, "", 1 << 62))

    def on_headers_complete(self):
        if self.early or self.state != WAITING:
            return
        self.status = self.parser.get_status_code()
        if self.status < 200:
            return
        if self.cookies is not None:
            self.listener.take_cookies(self.cookies)
            self.cookies = None
            if self.state != WAITING:
                return
        if self.chunked:
            self.length = -1
        if self.content != EVENTS or self.encoded or self.status != 200:
            if self.length > self.limit:
                self.fail(WireError(_OVERSIZE, "", self.length))
                return
            self.state = BODY
            return
        self.state = STREAM
        self.events = EventStream(self.exchange, self.listener, self.limit, self.turns)
        self.exchange.head = make_reply(self.status, self.headers, self.media_type, b"", self.content)
        if self.exchange.request_id == 0:
            # The message gets no reply, so nothing on the stream can be one.
            self.answer(self.exchange.head)
        elif self.exchange.request_id < 0:
            self.listener.stream_opened(self.exchange)

    def on_body(self, bytes chunk not None):
        if self.early:
            return
        self.silent = 0
        self.pieces += 1
        if self.state == BODY:
            error = self.take_body(chunk)
            if error is not None:
                self.fail(error)
        elif self.state == STREAM or self.state == ENDING:
            self.take_events(chunk)

    def on_message_complete(self):
        if self.early or self.state == IDLE or self.state == CLOSED:
            return
        if self.state == WAITING:
            # An interim response (RFC 9110, section 15.2): the final one follows. MAX_SILENT bounds all of them
            # together.
            self.forget_head()
            return
        self.finish()

    cdef object replace_parser(self):
        self.parser = HttpResponseParser(self)
        self.feed = self.parser.feed_data

    cdef object take_in_place(self, Py_ssize_t size):
        self.received += size
        if self.received < self.length:
            return
        self.direct = False
        if self.received > self.length:
            PyBytes_AS_STRING(self.body)[self.length] = 0
            self.early = True
        # The parser has not seen these bytes, so its state is no longer valid.
        self.replace_parser()
        # The transport still refers to the body. A recipient would have to copy it now.
        self.receiving = False
        self.finish()
        self.settle()

    cdef object take_events(self, bytes chunk):
        """Handle the events in a chunk, or those that waited for a time slice."""
        cdef EventStream events = self.events
        if self.paused and chunk is not None:
            events.add(chunk)
            return
        try:
            reply = events.take(chunk) if chunk is not None else events.work()
            while reply is not None and self.state != CLOSED:
                if self.state == STREAM:
                    self.answer(reply)
                reply = events.work()
        except SseLimitError as error:
            self.fail(WireError(_MALFORMED, f"{error}"))
        except Exception as error:
            self.fail(error)
        if self.state != CLOSED and (events.behind() or (chunk is not None and events.used_up)):
            self.pause()

    cdef bint catch_up(self) except -1:
        if self.state != CLOSED and self.events is not None:
            self.take_events(None)
        return self.state != CLOSED and (self.events is None or not self.events.behind())

    cdef object caught_up(self):
        if self.finished:
            self.conclude()
        self.settle()

    def flooded(self):
        if self.listener is not None:
            self.listener.flooded()

    cdef object answer(self, reply):
        """Deliver the reply while its stream continues."""
        self.state = ENDING
        self.pool.wheel.take(self)
        self.resolve(reply)

    cdef object finish(self):
        """Handle the end of the response."""
        self.finished = True
        self.reusable = self.reusable_now()
        if not self.paused:
            self.conclude()

    cdef object conclude(self):
        cdef bytes body
        if self.state == STREAM:
            # It may have been the response to another request: then so would be the next one.
            self.reusable = False
            self.reject(WireError(_UNANSWERED), None)
        elif self.state == BODY:
            if self.growing is not None:
                body = self.growing.take()
            else:
                body = self.body if self.body is not None else b""
            self.resolve(
                make_reply(self.status, self.headers, self.media_type, body, OTHER if self.encoded else self.content)
            )

    cdef bint reusable_now(self):
        if self.watch_write and self.transport.get_write_buffer_size() > 0:
            # The reply overtook its request: the rest of that would be read as the next request.
            return False
        return self.kept_alive if self.asked_parser else self.parser.should_keep_alive()

    cdef object settle(self):
        """Decide what happens to the connection, after the received bytes are parsed."""
        if self.state == CLOSED:
            return
        if self.paused and self.state != ENDING:
            return
        if self.finished and not self.paused:
            if self.early or self.retired or not self.reusable:
                self.close()
                return
            self.pool.wheel.take(self)
            self.forget_exchange()
            self.forget_head()
            self.silent = 0
            self.state = IDLE
            self.served += 1
            if self.served == 1:
                self.first_end_ns = self.used_ns = self.pool.clock()
            self.pool.put_back(self)
        elif (self.early or self.silent > MAX_SILENT) and not self.paused:
            self.fail(WireError(_MALFORMED, "it is a duplicate" if self.early else "its head or trailer is too long"))
        elif self.state == ENDING:
            if self.slot < 0:
                self.pool.wheel.put(self, <int64_t> self.pool.clock() + STREAM_END_NS)
        elif self.state == BODY and self.length - self.received >= MIN_DIRECT:
            if self.body is None:
                self.body = new_body(self.length)
            self.kept_alive = self.parser.should_keep_alive()
            self.asked_parser = True
            self.direct = True

    cdef object end_of_input(self):
        if self.state == CLOSED:
            return
        if (self.state == BODY or self.state == STREAM) and not self.chunked and self.length < 0:
            # The end of the connection is the end of such a body (RFC 9112, section 6.3).
            self.finish()
        self.learn_from_end()
        self.broke("the server closed it", None)
        self.close()

    cdef object broke(self, str detail, object cause):
        """Fail the exchange because its connection ended."""
        error = WireError(_LOST, detail)
        error.unread = self.state == WAITING and self.silent == 0
        error.reused = self.served > 0
        self.reject(error, cause)

    cdef object learn_from_end(self):
        """Learn how the server ends connections without announcing it."""
        self.broken = True
        if self.served == 0 or self.finished:
            return
        if self.state == WAITING and self.silent == 0:
            self.pool.wary = WARY_SWEEPS
        if self.served == 1 and self.state in (IDLE, WAITING):
            if <int64_t> self.pool.clock() - self.first_end_ns < AT_ONCE_NS:
                self.pool.single_use = True
                self.pool.wary = WARY_SWEEPS

    cdef object fail(self, error):
        self.reject(error, None)
        self.close()

    cdef object resolve(self, reply):
        self.pool.wheel.take(self)
        self.fulfil(reply)

    cdef object reject(self, error, cause):
        future = self.waiting()
        self.keep_head()
        self.forget_exchange()
        if future is not None:
            if cause is not None:
                error.__cause__ = cause
            if self.events is not None and type(error) is WireError:
                error.last_event_id = self.events.parser.last_event_id
                error.retry_ms = self.events.parser.retry_ms
            future.set_exception(error)

    cdef object keep_head(self):
        """Store the head received so far in its exchange: the server may have begun a session."""
        if self.state == WAITING or self.state == BODY:
            self.leave_head(self.exchange, self.status if self.state == BODY else self.parser.get_status_code())

    cdef object forget_exchange(self):
        self.future = self.recipient = None
        self.exchange = None
        self.listener = None

    cdef object forget_head(self):
        self.forget_fields()
        self.received = 0
        self.body = None
        self.growing = None
        self.events = None
        self.leave_turns()
        self.finished = self.early = False
        self.direct = self.asked_parser = False


seal(Wire)
