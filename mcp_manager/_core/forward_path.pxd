"""Layout of the compiled forward path."""

from libc.stdint cimport int64_t

from mcp_manager._core.call_path cimport CallPath, DirectCall
from mcp_manager._core.client_limits cimport RouteUse
from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.known_calls cimport ForwardRoute, KnownClient, KnownFields
from mcp_manager._core.recipients cimport Recipient
from mcp_manager._core.serving cimport ServedRequest


cdef class ForwardedCall(Recipient):
    cdef ForwardPath path
    cdef readonly ServedRequest incoming
    cdef readonly KnownClient known
    cdef readonly ForwardRoute route
    cdef readonly Message message
    cdef readonly Message request
    cdef readonly bytes id_raw
    cdef readonly DirectCall direct
    # The use of the client's own session; None if the session is shared.
    cdef readonly object checkout
    # What it counts in, until it is over or the general path goes on with it; None if it is not counted, or by
    # ``usage``.
    cdef readonly RouteUse counted
    # What it uses of the limits, and says in the audit log, if Python code finds that out; else None.
    cdef readonly object usage
    # Nanoseconds since the epoch; 0 if the audit log says nothing of it.
    cdef readonly int64_t came_ns
    cdef readonly int64_t started_ns
    cdef readonly int64_t deadline_ns
    cdef public object waits_since
    cdef tuple key
    # What goes on with it on the general path; None as long as it is here.
    cdef object sent
    cdef bint is_over
    # Where the text of the server goes on after another beginning.
    cdef Py_ssize_t goes_on

    cdef object general(self)
    cdef object answer(self, Message reply)
    cdef int let_go(self) except -1
    cdef int end_use(self, bytes body) except -1
    cdef bytes opening(self, Message reply)
    cdef bytes adapted(self, Message reply)


cdef class ForwardPath:
    cdef CallPath calls
    cdef object clock
    cdef object take
    cdef object go_on
    cdef object failed
    cdef object adapt
    cdef object context
    # The registries of the gateway that calls under way are in, each with its owner
    cdef dict servers
    cdef dict paths
    cdef dict granted_paths
    cdef object security
    cdef dict ended
    cdef dict running
    cdef dict counts
    cdef dict names
    cdef dict parameters
    cdef dict quiet
    cdef object keep_alives
    cdef object count_first
    # Whether calls are counted or recorded one by one, and what does it where compiled code does not.
    cdef object accounting
    cdef object limits
    cdef object counted_calls
    cdef object sent_requests
    cdef set waiting
    cdef readonly int64_t forwarded

    cdef bint forward(self, ServedRequest request) except -1
    cdef bint send(
        self, ServedRequest request, KnownClient known, ForwardRoute route, Message message, Message sent
    ) except -1
    cdef bint admit(self, ForwardedCall call, int64_t now_ns) except -1
    cdef int count(self, KnownFields fields) except -1
