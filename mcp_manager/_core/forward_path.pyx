"""The compiled forward path: a client's tools/call that repeats what is known of it, on to a server and back.

The general path of the gateway takes the first call of each kind, and teaches this one what it has found out: who the
client is, which server has the tool, and under which name. All of it is checked again with each call, by identity. As
soon as anything else happens than a plain reply, the general path goes on with the call.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport int64_t, uint8_t

from mcp_manager._core.call_path cimport CallPath, Channel, DirectCall
from mcp_manager._core.call_texts cimport (
    META, TASK, TYPE, URIS, CallParams, is_evidently_complete, mentioned, opening_of, read_params, with_members,
)
from mcp_manager._core.client_limits cimport RouteUse, audit_line, may_have_failed
from mcp_manager._core.http_message cimport lend_body
from mcp_manager._core.json_text cimport Range
from mcp_manager._core.jsonrpc cimport Message, scan_one
from mcp_manager._core.known_calls cimport ForwardRoute, KnownClient, KnownFields, is_shared, says
from mcp_manager._core.member_names cimport ID, RESULT_MEMBER
from mcp_manager._core.recipients cimport Recipient
from mcp_manager._core.records cimport Backend, Server
from mcp_manager._core.sealing cimport seal
from mcp_manager._core.serving cimport ServedRequest
from mcp_manager._core.splicing cimport replaced

from mcp_manager._core.jsonrpc import FrameError
from time import time_ns

cdef enum:
    MAX_DEPTH = 512
    # What is kept for one connection: kinds of clients, and names of tools for each.
    MAX_CLIENTS = 8
    MAX_ROUTES = 64
    REQUEST = 0
    # Numbers of noted header fields
    METHOD_FIELD = 6
    NAME_FIELD = 7
    TRACEPARENT_FIELD = 10
    # A longer response is searched by the general adaptation, which knows where to look.
    MAX_SEARCHED = 65536
    NEAR = 8192

cdef str TOOLS_CALL = "tools/call"
cdef bytes NO_META = b""
# What the call path may ask of the listener of a call.
cdef frozenset OF_LISTENER = frozenset({
    "token", "party", "context", "takes_messages", "takes_every_result", "has_answered", "stands_still",
    "is_delivering", "take_progress", "take_notification", "answer", "finish", "aclose",
})


@cython.final
cdef class ForwardedCall(Recipient):
    def __init__(self):
        raise TypeError("a ForwardedCall comes from a ForwardPath")

    # As the recipient of the reply

    cdef object take_reply(self, object reply):
        """Answer the client if this is a plain reply; leave any other to the callback of a future."""
        cdef ForwardPath path = self.path
        cdef Message message = None
        try:
            # The connection may have the context of another caller, which must not see what follows.
            PyContext_Enter(path.context)
            try:
                message = path.calls.land(self.direct, reply)
                if message is not None:
                    self.answer(message)
            finally:
                PyContext_Exit(path.context)
        except Exception as error:
            path.failed(self, error)
            return
        if message is None:
            future = self.direct.wire.create_future()
            self.take_future(future)
            future.set_result(reply)

    cdef object take_future(self, object future):
        self.direct.future = future
        future.add_done_callback(self, context=self.path.context)

    # As the callback of a future

    def __call__(self, future):
        cdef Message reply = None
        if self.sent is not None or self.is_over:
            return
        if not future.cancelled() and future.exception() is None:
            reply = self.path.calls.land(self.direct, future.result())
        if reply is None:
            self.general()
            return
        try:
            self.answer(reply)
        except Exception as error:
            self.path.failed(self, error)

    cdef object answer(self, Message reply):
        """Send a reply to the client."""
        cdef ServedRequest incoming = self.incoming
        cdef ForwardPath path = self.path
        cdef bytes body
        cdef object rest = None
        self.let_go()
        if self.checkout is not None:
            self.checkout.release()
        if self.known.fields.is_stateless:
            incoming.on_gone = None
        body = self.opening(reply)
        if body is None:
            body = self.adapted(reply)
        else:
            rest = PyMemoryView_FromObject(reply.data)[self.goes_on:reply.whole.end]
            lend_body(reply.data)
        path.count(self.known.fields)
        self.end_use(body)
        if incoming.connection is not None and not incoming.begun:
            incoming.write_response(200, body, rest, self.known.fields.fields)

    cdef bytes opening(self, Message reply):
        """Return what a long response begins with, so that the rest is not copied; ``None`` for other responses."""
        cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
        if reply.whole.end - reply.whole.start <= MAX_SEARCHED or not self.known.fields.is_stateless:
            return None
        if self.route.is_stateless:
            return None
        if self.route.adapt is not None or self.usage is not None or self.came_ns != 0:
            return None
        if mentioned(text, reply.whole.start, reply.whole.start + NEAR) & TYPE:
            return None
        if mentioned(text, reply.whole.end - NEAR, reply.whole.end) & TYPE:
            return None
        return opening_of(reply, self.id_raw, &self.goes_on)

    cdef bytes adapted(self, Message reply):
        """Return the response in the terms of the client, from a server of the handshake era."""
        cdef Range part = reply.members[<int> RESULT_MEMBER]
        cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
        cdef Py_ssize_t size = reply.whole.end - reply.whole.start
        cdef bint is_stateless = self.known.fields.is_stateless
        cdef object adapt = self.route.adapt
        cdef int found
        cdef bytes response
        if size > MAX_SEARCHED:
            found = mentioned(text, reply.whole.start, reply.whole.start + NEAR)
            found |= mentioned(text, reply.whole.end - NEAR, reply.whole.end)
            found |= URIS
        else:
            found = mentioned(text, reply.whole.start, reply.whole.end)
        if adapt is not None and self.route.adapts_few and not found & (URIS | TASK):
            adapt = None
        if self.route.is_stateless and adapt is None and is_evidently_complete(reply):
            return reply.take_frame(self.id_raw)
        if (
            is_stateless
            and adapt is None
            and not self.route.is_stateless
            and size <= MAX_SEARCHED
            and not found & (TYPE | META)
        ):
            if part.start >= 0 and text[part.start] == 0x7B:
                return with_members(reply, self.id_raw, <bytes> self.path.names[self.known.fields.endpoint.name])
        response = reply.take_frame(self.id_raw)
        if adapt is not None or is_stateless or found & TYPE:
            response = self.path.adapt(self, adapt, response)
        return response

    cdef int let_go(self) except -1:
        """Leave all that the call is in, and what leads back to it."""
        cdef ForwardPath path = self.path
        self.is_over = True
        path.waiting.discard(self)
        path.quiet.pop(self, None)
        if self.key is not None and path.running.get(self.key) is self:
            del path.running[self.key]
        if self.direct is not None and self.direct.exchange is not None:
            if self.direct.exchange.listener is self:
                self.direct.exchange.listener = None
        self.direct = None
        return 0

    cdef int end_use(self, bytes body) except -1:
        """Take note that it no longer uses the limits, and write its line of the audit log."""
        cdef RouteUse counted = self.counted
        cdef object audit
        if self.usage is not None:
            self.usage.end(body)
        elif counted is not None:
            audit = None if self.came_ns == 0 else self.path.accounting.audit
            if audit is not None and may_have_failed(body):
                self.path.counted_calls.usage_of(self).end(body)
                return 0
            self.counted = None
            counted.account.leave(counted.counters)
            if audit is not None:
                audit.write(audit_line(
                    self.came_ns, counted.line, self.path.clock() - self.started_ns,
                    PyBytes_GET_SIZE(self.incoming.body), PyBytes_GET_SIZE(body),
                ))
        return 0

    def hand_over_use(self):
        counted, self.counted = self.counted, None
        return counted

    # On the general path

    cdef object general(self):
        """Let the general path go on; return what it has made of the call. ``None`` once the call is over."""
        cdef ForwardPath path = self.path
        cdef DirectCall direct
        if self.sent is None and not self.is_over:
            # Until the end of this method: it may be the last reference.
            direct = self.direct
            if direct.wire is not None and direct.future is None:
                direct.future = direct.wire.promise(self)
            path.waiting.discard(self)
            path.quiet.pop(self, None)
            if self.known.fields.is_stateless:
                self.incoming.on_gone = None
            # In what follows, the listener and the running call are replaced.
            self.sent = path.go_on(self)
            self.direct = None
        return self.sent

    def go_on(self):
        sent = self.general()
        if sent is not None:
            sent.go_on()

    def cancel(self):
        sent = self.general()
        if sent is not None:
            (sent if self.key is None else sent.request.call).cancel()

    def keep_alive(self):
        sent = self.general()
        if sent is not None:
            sent.request.channel.keep_alive()

    # As the listener of the call: whatever comes before the reply takes the general path

    def put_off(self, deadline_ns):
        return deadline_ns

    def __getattr__(self, str name):
        if name not in OF_LISTENER:
            raise AttributeError(name)
        sent = self.general()
        if sent is None:
            raise AttributeError(name)
        return getattr(sent.request.exchange.listener, name)


@cython.final
cdef class ForwardPath:
    def __cinit__(self, CallPath calls not None, clock, *, take, counted_calls, go_on, failed, adapt, context, owners):
        self.calls = calls
        self.clock = clock
        self.take = take
        self.counted_calls = counted_calls
        self.go_on = go_on
        self.failed = failed
        self.adapt = adapt
        self.context = context
        self.servers = owners["servers"]
        self.paths = owners["paths"]
        self.granted_paths = owners["granted_paths"]
        self.security = owners["security"]
        self.accounting = owners["accounting"]
        self.limits = owners["limits"]
        self.ended = owners["ended"]
        self.running = owners["running"]
        self.counts = owners["counts"]
        self.names = owners["names"]
        self.parameters = owners["parameters"]
        self.quiet = owners["quiet"]
        self.keep_alives = owners["keep_alives"]
        self.count_first = owners["count"]
        self.sent_requests = owners["sent_requests"]
        self.waiting = owners["waiting"]

    def __call__(self, ServedRequest request not None):
        if not self.forward(request):
            self.take(request)

    def known_fields(self, ServedRequest request not None):
        """Return what is kept for the connection of a request, if it has the same fields."""
        cdef KnownFields known
        if request.connection is None or request.connection.known is None:
            return None
        known = <KnownFields?> request.connection.known
        return known if known.are_those_of(request) and known.path == request.path else None

    def learn_fields(self, ServedRequest request not None, KnownFields fields not None):
        if request.connection is not None and request.several == 0:
            request.connection.known = fields

    def learn(self, KnownFields fields not None, Message message not None, client, meta, ForwardRoute route not None,
              Message sent not None):
        """Take note where a call goes; return whether there was room, and the call was plain."""
        cdef CallParams params, own
        cdef KnownClient known
        cdef bytes key = NO_META
        cdef bytes name
        if not read_params(message, &params) or not read_params(sent, &own):
            return False
        if fields.is_stateless:
            if params.meta.start < 0:
                return False
            key = message.cut(params.meta)
        known = fields.clients.get(key)
        if known is None or known.client != client:
            if len(fields.clients) >= MAX_CLIENTS and key not in fields.clients:
                return False
            known = KnownClient(fields, client, meta)
            fields.clients[key] = known
        if len(known.routes) >= MAX_ROUTES:
            known.routes.clear()
        name = message.cut(params.name)
        route.own = sent.cut(own.name)
        if route.own == name:
            route.own = None
        known.routes[name] = route
        return True

    cdef bint forward(self, ServedRequest request) except -1:
        """Send a request on if all about it is known; return ``False`` if nothing was done."""
        cdef KnownFields fields
        cdef KnownClient known
        cdef ForwardRoute route
        cdef Message message, sent
        cdef CallParams params
        cdef bytes body = request.body
        cdef Range part
        cdef Py_ssize_t shift
        if request.connection is None or request.connection.known is None:
            return False
        fields = <KnownFields?> request.connection.known
        if not fields.are_those_of(request) or fields.path != request.path:
            return False
        if (self.granted_paths if fields.is_granted else self.paths).get(fields.path_key) is not fields.endpoint:
            return False
        if not self.sent_requests.is_enabled:
            return False
        if PyBytes_GET_SIZE(body) == 0 or PyBytes_AS_STRING(body)[0] != 0x7B:
            return False
        try:
            message = scan_one(body, MAX_DEPTH, 0, False, False)
        except FrameError:
            return False
        if message.kind != REQUEST or message.method != TOOLS_CALL or message.oddity is not None:
            return False
        if not read_params(message, &params):
            return False
        if fields.is_stateless:
            if params.meta.start < 0 or not says(request, METHOD_FIELD, b"tools/call", 10):
                return False
            if not says(
                request, NAME_FIELD, PyBytes_AS_STRING(body) + params.name.start, params.name.end - params.name.start
            ):
                return False
            known = fields.clients.get(message.cut(params.meta))
        else:
            known = fields.clients.get(NO_META)
        if known is None:
            return False
        route = known.routes.get(message.cut(params.name))
        if route is None:
            return False
        sent = message
        if known.meta is not None and params.meta.start >= 0 and not route.is_stateless:
            part = params.meta if PyBytes_GET_SIZE(known.meta) > 0 else params.meta_member
            sent = replaced(sent, part.start, part.end, known.meta)
            # A copy begins with the message.
            shift = -message.whole.start
            if params.name.start > part.start:
                shift += PyBytes_GET_SIZE(known.meta) - (part.end - part.start)
            params.name.start += shift
            params.name.end += shift
        if route.own is not None:
            sent = replaced(sent, params.name.start, params.name.end, route.own)
        return self.send(request, known, route, message, sent)

    cdef bint send(
        self, ServedRequest request, KnownClient known, ForwardRoute route, Message message, Message sent
    ) except -1:
        cdef KnownFields fields = known.fields
        cdef object supervisor = route.supervisor
        cdef int64_t now_ns = self.clock()
        cdef Server record
        cdef ForwardedCall call
        cdef Channel channel = None
        cdef Backend backend = None
        cdef object checkout = None
        cdef str session = known.client.session
        if now_ns >= fields.valid_until_ns or self.security.epoch is not fields.epoch:
            return False
        if self.servers.get(route.server_id) is not supervisor:
            return False
        if fields.endpoint.routing is not route.routing or now_ns >= <int64_t> fields.endpoint.known_until_ns:
            return False
        if supervisor.tool_checks is not None:
            return False
        if fields.is_stateless:
            if fields.endpoint.name not in self.names:
                return False
            parameters = self.parameters.get(fields.endpoint.key)
            if parameters is None or route.name in parameters:
                # Arguments that header fields repeat have to be checked, or it is not known which.
                return False
        elif session in self.ended:
            return False
        record = <Server?> supervisor.record
        if not is_shared(record, route):
            return False
        if route.check_out is not None:
            checkout = route.check_out()
            if checkout is None:
                return False
            channel = <Channel?> checkout.instance.session.channel
            if channel is None or channel.dialect is not None:
                checkout.release()
                return False
            backend = checkout.routed.backend
        call = ForwardedCall.__new__(ForwardedCall)
        call.checkout = checkout
        call.path = self
        call.incoming = request
        call.known = known
        call.route = route
        call.message = message
        call.request = sent
        call.id_raw = message.cut(message.members[<int> ID])
        call.started_ns = now_ns
        call.deadline_ns = now_ns + <int64_t> supervisor.request_timeout_ns
        if self.accounting.is_on and not self.admit(call, now_ns):
            # A limit has refused it, and the client was told.
            if checkout is not None:
                checkout.release()
            return True
        call.direct = self.calls.start(record, TOOLS_CALL, sent, now_ns, call.deadline_ns, 0, channel, backend, call)
        self.forwarded += 1
        if call.direct.wire is None:
            call.general()
            return True
        call.direct.exchange.listener = call
        self.waiting.add(call)
        call.waits_since = self.keep_alives.ticks
        self.quiet[call] = None
        if fields.is_stateless:
            request.on_gone = call.cancel
        else:
            call.key = (session, call.id_raw)
            self.running[call.key] = call
        return True

    cdef bint admit(self, ForwardedCall call, int64_t now_ns) except -1:
        """Count a call, and return whether the limits of its principal admit it."""
        cdef RouteUse use
        cdef object audit = self.accounting.audit
        cdef tuple refusal = None
        # The audit log says which trace a call belongs to.
        if audit is None or (call.incoming.starts[TRACEPARENT_FIELD] == 0 and b"traceparent" not in call.message.data):
            use = call.route.use
            if use is None or not use.holds(self.limits.epoch, audit):
                use = call.route.use = self.counted_calls.use_of_route(call)
            if audit is None or use.line is not None:
                refusal = use.account.admit(use.counters, use.most_running, now_ns)
                if refusal is None:
                    call.counted = use
                    call.came_ns = 0 if audit is None else time_ns()
                    return True
        call.usage = self.counted_calls.begin(call, refusal)
        return call.usage is not None

    cdef int count(self, KnownFields fields) except -1:
        counted = self.counts.get(fields.counted)
        if counted is not None:
            self.counts[fields.counted] = counted + 1
        else:
            self.count_first(*fields.counted)
        return 0


seal(ForwardedCall)
