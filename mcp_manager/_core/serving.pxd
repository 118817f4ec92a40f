"""Layout of served connections, for the module itself."""

from libc.stdint cimport int64_t

from mcp_manager._core.chunked_body cimport ChunkedBody
from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_response cimport Ending
from mcp_manager._core.paced cimport PacedReader
from mcp_manager._core.request_head cimport MessageCheck, RequestHead
from mcp_manager._core.serving_limits cimport ServingLimits

cdef enum Phase:
    # The value 0: a connection has it before it is made. Also after it was handed over.
    CLOSED
    # Between requests, or in the middle of a head
    HEAD
    # A body of known length is received in place.
    BODY
    # A chunked body is received.
    CHUNKS
    # A request is being answered.
    BUSY
    # The last response is sent, and what the client still sends is discarded.
    LINGERING

# In the order of the times in await_for().
cdef enum Wait:
    FOR_REQUEST
    FOR_HEAD
    FOR_BODY
    FOR_READER
    FOR_END


cdef class ServingPool:
    cdef readonly ServingLimits limits
    cdef DeadlineWheel wheel
    cdef object clock
    cdef object turns
    # One receive buffer for all connections: what is received is handled or copied before anything else can be.
    cdef bytearray storage
    cdef object view
    cdef MessageCheck check
    cdef object on_request
    cdef object on_session_request
    cdef object is_endpoint
    cdef object make_web_protocol
    cdef readonly set connections
    cdef readonly int64_t requests
    cdef readonly int64_t handed_over
    cdef readonly bint draining
    cdef bytes current_date(self)


cdef class ServedConnection(PacedReader):
    cdef ServingPool pool
    cdef object write
    cdef Phase phase
    cdef Wait wait
    # Requests so far, and how many of them there were when the current wait began.
    cdef readonly int64_t served
    cdef int64_t served_before
    # Received and not handled yet.
    cdef bytes unread
    # Where the search for the end of the head goes on.
    cdef Py_ssize_t searched
    cdef ServedRequest request
    # The body under way
    cdef bytes body
    cdef int64_t received
    cdef ChunkedBody chunks
    # Reading stopped because too much waits for the response under way.
    cdef bint held
    cdef bint working
    cdef bint write_paused
    cdef Py_ssize_t queued_before
    # The head of an earlier request that llhttp has checked; the body came with it.
    cdef RequestHead last_head
    cdef object last_target
    cdef str last_path
    cdef int in_turn
    # What is known of the client from its earlier requests; see forward_path.
    cdef object known

    cdef int await_for(self, Wait wait) except -1
    cdef object work(self, const char* data, Py_ssize_t size)
    cdef Py_ssize_t take_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_repeated(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_request(
        self, const char* data, Py_ssize_t size, Py_ssize_t end, ServedRequest request
    ) except -1
    cdef Py_ssize_t take_chunks(self, const char* data, Py_ssize_t size) except -1
    cdef object room(self)
    cdef object take_in_place(self, Py_ssize_t size)
    cdef bint knows(self, ServedRequest request) except -1
    cdef object deliver(self, ServedRequest request, bytes body)
    cdef object hand_over(self, bytes data)
    cdef object refuse(self, int status)
    cdef object linger(self)
    cdef object completed(self, ServedRequest request)
    cdef object go_on(self)
    cdef object shut(self)
    cdef object release(self)
    cdef object cut_off(self)


cdef class ServedRequest(RequestHead):
    cdef ServedConnection connection
    cdef public object on_gone
    cdef readonly bytes body
    cdef readonly str path
    # Whether its response was begun, and whether that is an event stream.
    cdef bint begun
    cdef bint streams
    cdef object write_response(self, int status, bytes body, object rest, bytes fields)
    cdef Ending ending(self) noexcept
