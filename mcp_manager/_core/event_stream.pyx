"""Handles the events of one stream in time slices: what is too much for one event-loop iteration waits for the next."""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from libc.stdint cimport int64_t

from mcp_manager._core.http_message cimport Exchange

from collections import deque

from mcp_manager._core.sse import SseParser

cdef enum:
    # Bytes parsed at once: two thousand of the shortest events or comments.
    MAX_PARSED = 4096
    # Parsing this many bytes is not measured: that is time for a hundred comments.
    MAX_UNMEASURED = 256

# Assumed cost of the first unsolicited message of a time slice: measuring begins only with it.
cdef int64_t FIRST_NS = 20_000


@cython.final
cdef class EventStream:
    def __cinit__(self, Exchange exchange not None, taker not None, Py_ssize_t limit, turns=None):
        self.exchange = exchange
        self.taker = taker
        self.parser = SseParser(max_line=limit, max_event=limit)
        self.turns = turns
        self.clock = None if turns is None else turns.clock

    @property
    def is_behind(self):
        return self.behind()

    cdef bint behind(self) noexcept:
        return self.chunks is not None or (self.events is not None and self.at < PyList_GET_SIZE(self.events))

    cpdef object add(self, bytes chunk):
        if chunk is None:
            raise TypeError("a chunk is bytes")
        if self.stopped or PyBytes_GET_SIZE(chunk) == 0:
            return
        if self.chunks is None:
            self.chunks = deque()
        self.chunks.append(chunk)

    cpdef object take(self, bytes chunk):
        if chunk is None:
            raise TypeError("a chunk is bytes")
        if self.stopped:
            return None
        if self.used_up:
            self.add(chunk)
            return None
        if PyBytes_GET_SIZE(chunk) > MAX_PARSED or self.behind():
            self.add(chunk)
        elif PyBytes_GET_SIZE(chunk) > MAX_UNMEASURED and self.turns is not None:
            self.parse_measured(chunk)
            if self.used_up:
                return None
        else:
            self.parse(chunk)
        return self.work()

    cpdef object work(self):
        cdef int64_t last_ns = 0
        cdef int64_t now_ns
        self.used_up = False
        if self.chunks is not None and self.turns is not None:
            last_ns = self.clock()
        while self.behind():
            if self.events is None or self.at == PyList_GET_SIZE(self.events):
                self.parse_next()
                if self.turns is None or PyList_GET_SIZE(self.events) > 0:
                    continue
            else:
                event = self.events[self.at]
                self.at += 1
                if not event.data:
                    # There is nothing to handle, but parsing it took time.
                    pass
                elif event.event == "message":
                    reply = self.taker.take_event(self.exchange, event.data)
                    if reply is not None:
                        return reply
                elif self.exchange.request_id < 0:
                    self.taker.take_named_event(event.event, event.data)
                if self.turns is None or self.stopped:
                    continue
            now_ns = self.clock()
            if not self.turns.spend(now_ns - last_ns if last_ns else FIRST_NS):
                self.used_up = True
                break
            last_ns = now_ns
        return None

    cdef int parse(self, bytes chunk) except -1:
        self.at = 0
        self.events = None
        self.events = self.parser.feed(chunk)
        return 0

    cdef int parse_measured(self, bytes chunk) except -1:
        """Parse a chunk; charge its cost to the time slice if it completes no event, as comments and blank lines do."""
        cdef int64_t began_ns = self.clock()
        self.parse(chunk)
        if PyList_GET_SIZE(self.events) == 0 and not self.turns.spend(self.clock() - began_ns):
            self.used_up = True
        return 0

    cdef int parse_next(self) except -1:
        cdef bytes chunk = <bytes> self.chunks[0]
        cdef Py_ssize_t size = PyBytes_GET_SIZE(chunk)
        if size - self.offset > MAX_PARSED:
            chunk = chunk[self.offset:self.offset + MAX_PARSED]
            self.offset += MAX_PARSED
        else:
            if self.offset > 0:
                chunk = chunk[self.offset:]
            self.offset = 0
            self.chunks.popleft()
            if not self.chunks:
                self.chunks = None
        return self.parse(chunk)

    cpdef object stop(self):
        self.stopped = True
        self.chunks = None
        self.events = None
        self.exchange = None
        self.taker = None
