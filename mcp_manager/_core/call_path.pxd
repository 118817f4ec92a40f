"""Layout of the compiled call path, for what forwards calls of clients on it."""

from libc.stdint cimport int64_t, uint64_t

from mcp_manager._core.call_ring cimport CallRing
from mcp_manager._core.http_message cimport Exchange
from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.records cimport Backend, Lease, Server
from mcp_manager._core.recipients cimport Recipient
from mcp_manager._core.router cimport Router
from mcp_manager._core.stateless_frame cimport StatelessFrame
from mcp_manager._core.wire cimport Wire, WirePool


cdef class RequestIds:
    cdef int64_t following
    cpdef int64_t take(self)


cdef class Channel:
    cdef WirePool pool
    cdef RequestIds ids
    cdef object listener
    cdef Py_ssize_t limit
    cdef bytes opening
    cdef readonly object session
    cdef public object label
    # None if requests go out as they are: the session is one of the handshake era.
    cdef object dialect
    cdef StatelessFrame stateless_frame
    # Whether the server keeps tasks, which it tells apart by session: 0 until that is known, then 1 for no, 2 for yes.
    cdef int tasks
    # The era of the session: 0 until that is known, then 1 for a handshake, 2 for none.
    cdef int era


cdef class DirectCall:
    cdef readonly Lease lease
    cdef readonly Exchange exchange
    # None if it was not sent, or if a recipient waits for its reply.
    cdef readonly object future
    cdef Channel channel
    cdef Wire wire
    cdef readonly str method


cdef class CallPath:
    cdef Router router
    cdef object clock
    cdef uint64_t random
    cdef CallRing ring
    # Called with slow calls; None unless they are watched for.
    cdef object on_slow
    # Counts the measurements of when calls are slow, from 1 on: earlier ones are not valid any more.
    cdef uint64_t slow_epoch

    cdef uint64_t draw(self) noexcept
    # What begin() does, for compiled code.
    cdef DirectCall start(
        self, Server server, str method, object request, int64_t now_ns, int64_t deadline_ns, uint64_t key,
        Channel own, Backend its, Recipient recipient
    )
    cdef Exchange framed(self, Channel channel, object request, int64_t deadline_ns)
    # None if it takes the Python call path to finish the call.
    cpdef Message land(self, DirectCall direct, object reply)
    cdef int settle(self, DirectCall direct, Message reply, int64_t now_ns) except -1
