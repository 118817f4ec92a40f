"""Layout of what the gateway knows of calls that clients repeat."""

from libc.stdint cimport int64_t, uint16_t

from mcp_manager._core.call_path cimport Channel
from mcp_manager._core.client_limits cimport RouteUse
from mcp_manager._core.records cimport Server
from mcp_manager._core.request_head cimport NOTED
from mcp_manager._core.serving cimport ServedRequest


cdef class KnownFields:
    # The head of the request that they were learned from, and where its noted fields are.
    cdef bytes head
    cdef uint16_t[NOTED] starts
    cdef uint16_t[NOTED] sizes
    cdef str path
    # That of the endpoint among those that were found
    cdef object path_key
    cdef bint is_granted
    cdef readonly object principal
    # That of the rules when they were applied
    cdef object epoch
    cdef readonly object endpoint
    cdef readonly object accepted
    cdef readonly bytes fields
    cdef readonly str era
    cdef tuple counted
    cdef int64_t valid_until_ns
    # What counts and records the calls of its connection, once that was needed.
    cdef public object sender
    # By the bytes of ``_meta``, b"" where these do not matter
    cdef dict clients
    cdef bint is_stateless

    cdef bint are_those_of(self, ServedRequest request) noexcept


cdef class KnownClient:
    cdef readonly object client
    cdef readonly KnownFields fields
    # By name
    cdef dict routes
    # What a server of the handshake era gets in place of ``_meta``: None for the same, b"" for nothing.
    cdef bytes meta


cdef class ForwardRoute:
    cdef readonly str server_id
    cdef readonly str name
    cdef readonly object supervisor
    cdef readonly object adapt
    # Other than the name that the client uses; else None.
    cdef bytes own
    cdef object routing
    # Begins a call on the session of the client, if it has one of its own there; else None.
    cdef object check_out
    # Whether the client has a session of its own as soon as the server keeps tasks.
    cdef bint minds_tasks
    # Whether the server is one of 2026-07-28, as the client then is.
    cdef readonly bint is_stateless
    # Whether only responses that mention certain members have to be adapted.
    cdef bint adapts_few
    # What its calls count in; None until that was needed.
    cdef public RouteUse use


cdef bint is_shared(Server record, ForwardRoute route) except -1
cdef bint is_of_era(Channel channel, bint is_stateless) except -1
cdef bint keeps_tasks(Channel channel) except -1
cdef bint says(ServedRequest request, int number, const char* text, Py_ssize_t size) noexcept
