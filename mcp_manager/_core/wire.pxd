"""Layout of wires and their pools, for the compiled call path."""

from libc.stdint cimport int64_t

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.event_stream cimport EventStream
from mcp_manager._core.http_message cimport Exchange
from mcp_manager._core.recipients cimport AwaitedReader, Recipient
from mcp_manager._core.response_reader cimport KnownHead

cdef enum State:
    # The value 0: a wire has it before it is attached.
    CLOSED
    IDLE
    WAITING
    BODY
    STREAM
    # The reply is delivered, but its stream has not ended.
    ENDING


cdef class WireGroup:
    # Offered each wire that becomes free, as long as somebody waits for one.
    cdef public object on_return
    cdef readonly Py_ssize_t idle


cdef class WirePool:
    cdef readonly WireGroup group
    cdef DeadlineWheel wheel
    cdef object clock
    # One receive buffer for all wires: what is received is parsed before anything else can be.
    cdef bytearray storage
    cdef object view
    # The loop's read budget, which bounds the reading of floods; None sets no bound.
    cdef object turns
    cdef list unused
    # The head of a response that the parser has found to be one.
    cdef KnownHead known
    cdef readonly set wires
    # Sweeps during which every wire is checked before it is used again.
    cdef int wary
    # The server closes after each reply without announcing it.
    cdef readonly bint single_use

    cpdef Wire take(self, int64_t now_ns=*)
    cdef object put_back(self, Wire wire)
    cdef object rest(self, Wire wire)
    cdef object forget(self, Wire wire)


cdef class Wire(AwaitedReader):
    cdef WirePool pool
    cdef object write
    cdef object parser
    cdef object feed
    cdef State state
    cdef int sweeps
    cdef int64_t used_ns
    # Complete exchanges that it has carried, and when the first of them ended.
    cdef readonly Py_ssize_t served
    cdef int64_t first_end_ns
    # Kept idle as a test of whether the server keeps it open.
    cdef bint resting
    # The server or the network ended it.
    cdef readonly bint broken
    # The exchange under way
    cdef Exchange exchange
    cdef object listener
    cdef bint watch_write
    # Its response
    cdef int status
    cdef Py_ssize_t silent
    cdef EventStream events
    # Pieces of the body in the last receive.
    cdef Py_ssize_t pieces
    cdef bint finished
    cdef bint early
    cdef bint reusable
    # The exchange under way is the last one, however it ends.
    cdef bint retired
    # The rest of the body is received in place, past the parser.
    cdef bint direct
    cdef bint asked_parser
    cdef bint kept_alive

    cdef object transmit(self, bytes head, Exchange exchange, object listener, Py_ssize_t limit, Recipient recipient)
    cdef object receive(self, Py_ssize_t size)
    cdef bint repeats(self, const char* received, Py_ssize_t size) except -1
    cpdef object abandon(self, object future)
    cpdef object close(self)
    cpdef object lost(self, object error)
    cpdef bint has_news(self) except -1
    cdef object replace_parser(self)
    cdef object take_in_place(self, Py_ssize_t size)
    cdef object take_events(self, bytes chunk)
    cdef object answer(self, reply)
    cdef object finish(self)
    cdef object conclude(self)
    cdef bint reusable_now(self)
    cdef object settle(self)
    cdef object end_of_input(self)
    cdef object broke(self, str detail, object cause)
    cdef object learn_from_end(self)
    cdef object fail(self, error)
    cdef object resolve(self, reply)
    cdef object reject(self, error, cause)
    cdef object keep_head(self)
    cdef object forget_exchange(self)
    cdef object forget_head(self)
