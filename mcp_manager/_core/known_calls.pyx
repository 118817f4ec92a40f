"""What the gateway knows of calls that clients repeat: their header fields, who sends them, and where they go."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t
from libc.string cimport memcmp

from mcp_manager._core.call_path cimport Channel
from mcp_manager._core.records cimport Backend, Server
from mcp_manager._core.serving cimport ServedRequest

cdef enum:
    # Backends that are looked at for whether they are still of the same era.
    MAX_LOOKED_AT = 8
    # The fields that say who a client is, and how it wants to be answered: host, origin, accept, content-type,
    # mcp-session-id, mcp-protocol-version, authorization.
    WHO_FIELDS = 0b100111111


@cython.final
cdef class KnownFields:
    def __cinit__(
        self, ServedRequest request not None, endpoint, accepted, bytes fields not None, str era not None, principal
    ):
        cdef int number
        self.head = request.head
        for number in range(NOTED):
            self.starts[number] = request.starts[number]
            self.sizes[number] = request.sizes[number]
        self.path = request.path
        self.is_granted = principal.grant is not None
        self.path_key = (request.path, principal.grant) if self.is_granted else request.path
        self.principal = principal
        self.endpoint = endpoint
        self.accepted = accepted
        self.fields = fields
        self.era = era
        self.counted = (endpoint.name, era, 200)
        self.is_stateless = era == "stateless"
        self.clients = {}

    def believe(self, int64_t until_ns, epoch):
        self.valid_until_ns = until_ns
        if self.epoch is not epoch:
            # Where calls go may be different as well, such as to a server that gets credentials of clients by now.
            self.clients.clear()
            self.epoch = epoch

    cdef bint are_those_of(self, ServedRequest request) noexcept:
        """Return whether a request has the same fields, apart from those that say what it is about."""
        cdef const char* mine = PyBytes_AS_STRING(self.head)
        cdef const char* its = PyBytes_AS_STRING(request.head)
        cdef int number
        if request.several != 0:
            return False
        if request.head is self.head:
            return True
        for number in range(NOTED):
            if not (WHO_FIELDS >> number) & 1:
                continue
            if (
                (self.starts[number] == 0) != (request.starts[number] == 0)
                or self.sizes[number] != request.sizes[number]
            ):
                return False
            if memcmp(mine + self.starts[number], its + request.starts[number], self.sizes[number]) != 0:
                return False
        return True


@cython.final
cdef class KnownClient:
    def __cinit__(self, KnownFields fields not None, client, bytes meta):
        self.fields = fields
        self.client = client
        self.meta = meta
        self.routes = {}


@cython.final
cdef class ForwardRoute:
    def __cinit__(
        self, str server_id not None, str name not None, supervisor, adapt, routing, *, bint adapts_few,
        bint minds_tasks, bint is_stateless=False, check_out=None,
    ):
        self.server_id = server_id
        self.name = name
        self.supervisor = supervisor
        self.adapt = adapt
        self.routing = routing
        self.adapts_few = adapts_few
        self.minds_tasks = minds_tasks
        self.check_out = check_out
        self.is_stateless = is_stateless


cdef bint is_shared(Server record, ForwardRoute route) except -1:
    """Return whether the first backends of a server that have a session are as the route says, and one has one."""
    cdef Backend backend
    cdef bint one = False
    cdef int looked_at = 0
    for backend in record.backends:
        if backend.channel is not None:
            if not is_of_era(<Channel?> backend.channel, route.is_stateless):
                return False
            if route.minds_tasks and keeps_tasks(<Channel> backend.channel):
                return False
            one = True
        looked_at += 1
        if looked_at == MAX_LOOKED_AT:
            break
    return one


cdef bint is_of_era(Channel channel, bint is_stateless) except -1:
    """Return whether a session is of an era; those that are traced are of none."""
    if not is_stateless:
        return channel.dialect is None
    if channel.era == 0:
        channel.era = 2 if channel.session.is_stateless else 1
    return channel.era == 2


cdef bint keeps_tasks(Channel channel) except -1:
    """Return whether a server keeps tasks; it says so once for each session."""
    if channel.tasks == 0:
        identity = channel.session.identity
        if identity is None:
            return True
        channel.tasks = 2 if "tasks" in identity.capabilities else 1
    return channel.tasks == 2


cdef bint says(ServedRequest request, int number, const char* text, Py_ssize_t size) noexcept:
    """Return whether a header field has this plain value."""
    cdef const char* value = PyBytes_AS_STRING(request.head) + request.starts[number]
    if request.starts[number] == 0 or request.sizes[number] != size or size == 0:
        return False
    # Perhaps an encoded value: 2026-07-28, streamable HTTP, value encoding.
    return value[0] != 0x3D and memcmp(value, text, size) == 0
