"""``Reception``: what happens to every request of a client, whoever has read it from the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Final, Protocol

from mcp_manager._core.jsonrpc import FrameError, Message, scan, scan_batch
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.channels import EventStream, Incoming
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.classification import is_stateless
from mcp_manager.gateway.eras.handshake import HandshakeEra
from mcp_manager.gateway.eras.stateless import StatelessEra
from mcp_manager.gateway.http import refusals
from mcp_manager.gateway.http.accepting import accepted, is_json
from mcp_manager.gateway.http.counted_streams import CountedStream
from mcp_manager.gateway.http.endpoint_paths import EndpointPaths
from mcp_manager.gateway.http.hosts import Hosts
from mcp_manager.gateway.http.keep_alives import KeepAlives
from mcp_manager.gateway.http.posts import PostChannel
from mcp_manager.gateway.http.traffic import Traffic
from mcp_manager.gateway.security.accounting import CURRENT, HANDSHAKE, STATELESS, Sender
from mcp_manager.gateway.security.authentication import Denial
from mcp_manager.gateway.security.limits import LimitReachedError
from mcp_manager.gateway.security.principal import SIBLING, Principal
from mcp_manager.gateway.security.security import Security
from mcp_manager.gateway.sent_requests import SentRequest, SentRequests, failed
from mcp_manager.gateway.workers.passing import Passing
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["Eras", "Reception", "cors_fields"]

_log = logging.getLogger(__name__)

_REVISIONS: Final = frozenset(revision.encode() for revision in HANDSHAKE_REVISIONS)
_EXPOSED: Final = b"Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"
"""The header fields that scripts of web pages may read."""
_CORS: Final = b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\nAccess-Control-Expose-Headers: %b\r\n"
_POST_ONLY: Final = b"Allow: POST, OPTIONS\r\n"
_NONE: Final = ""

Then = Callable[[Incoming, Principal, Endpoint, bytes], None]
"""Goes on with a request: who sends it, to what, and the header fields of its responses."""


class Eras:
    """The two eras of clients."""

    def __init__(self, handshake: HandshakeEra, stateless: StatelessEra) -> None:
        self.handshake: HandshakeEra = handshake
        self.stateless: StatelessEra = stateless


class Learner(Protocol):
    """Takes note how calls were sent, so that later ones cost less."""

    def learn(self, channel: PostChannel, message: Message, principal: Principal, request: SentRequest) -> None:
        """Take note of a call."""


class Reception:
    """Check each request, find its endpoint and its era, and let that answer it: a POST at once, or in a task.

    Parameters
    ----------
    eras
        Answer the messages.
    endpoints
        The endpoints by path.
    hosts
        Which hosts and origins are accepted.
    keep_alives
        Keeps connections alive.
    security
        Knows who sends a request, and what that party may do.
    """

    def __init__(
        self, eras: Eras, endpoints: EndpointPaths, hosts: Hosts, keep_alives: KeepAlives, security: Security
    ) -> None:
        self.eras: Eras = eras
        self.endpoints: EndpointPaths = endpoints
        self.hosts: Hosts = hosts
        self.keep_alives: KeepAlives = keep_alives
        self.security: Security = security
        self.traffic: Traffic = Traffic(
            {
                ("mcp_gateway_open_streams", "Event streams that are open"): lambda: keep_alives.streams,
                ("mcp_gateway_active_requests", "Requests of clients under way"): lambda: self.under_way,
                ("mcp_gateway_live_sessions", "Sessions of clients that something is kept for"): lambda: len(
                    eras.handshake.sessions
                ),
            },
            security.accounting.families,
        )
        self.passing: Passing | None = None
        """Passes requests to the worker process that they belong to; ``None`` if there are no others."""
        self.sent: SentRequests = SentRequests()
        """The requests that no task answers."""
        self.learner: Learner | None = None
        """Is told how calls were sent."""
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self._requests) + len(self.sent)

    def take(self, incoming: Incoming) -> None:
        """Take a POST; its response comes later, unless it is refused at once."""
        self.admit(incoming, self._take)

    def _take(self, incoming: Incoming, principal: Principal, endpoint: Endpoint, fields: bytes) -> None:
        name = principal.name
        header = incoming.header
        kinds = accepted(header(b"accept"))
        if not kinds.json and not kinds.events:
            self._refuse_malformed(incoming, principal, 406, refusals.NOT_ACCEPTABLE, fields, endpoint)
            return
        if not is_json(header(b"content-type")):
            self._refuse_malformed(incoming, principal, 415, refusals.UNSUPPORTED_MEDIA, fields, endpoint)
            return
        body = incoming.body
        batch = None
        try:
            # An array is a batch, which only some revisions have.
            if body[:1] == b"{":
                message = scan(body)
            else:
                batch = scan_batch(body)
                message = batch[0]
                batch = batch if body.lstrip()[:1] == b"[" else None
        except FrameError as error:
            refusal = refusals.malformed(body, str(error))
            self._refuse_malformed(incoming, principal, 400, refusal, fields, endpoint)
            return
        session = header(b"mcp-session-id")
        version = header(b"mcp-protocol-version")
        if session is not None and version is not None and version not in _REVISIONS:
            self._refuse_malformed(incoming, principal, 400, refusals.UNKNOWN_REVISION, fields, endpoint)
            return
        is_of_stateless = batch is None and is_stateless(message, version, session)
        era = STATELESS if is_of_stateless else HANDSHAKE
        session_id = None if session is None else session.decode("latin-1")
        if session_id is not None and self.security.leases.of_sessions:
            self.security.leases.renew(session_id, principal)
        if self.passing is not None:
            worker = self.passing.place_of(incoming, batch or [message], endpoint, session_id, name)
            if worker is not None:
                self._begin(self.passing.forward(worker, incoming, name), f"pass a request to worker {worker}")
                return
        is_counted = self._is_counted(incoming)
        count = _count_nothing if is_counted else partial(self.traffic.count, endpoint.name, era)
        channel = PostChannel(incoming, kinds, self.keep_alives, count, fields)
        self.keep_alives.wait_for(channel)
        accounting = self.security.accounting
        if accounting.is_on and not is_counted:
            sender = accounting.sender(principal, endpoint.name, era, session_id)
            if self._is_refused(incoming, sender, channel, message if batch is None else None):
                return
        if batch is None and self.sent.is_enabled and message.id_raw is not None:
            go_on = partial(self.go_on, channel, message.id_raw)
            context = bare_context()
            try:
                if is_of_stateless:
                    sent = self.eras.stateless.begin(message, channel, endpoint, incoming, name, context)
                else:
                    sent = self.eras.handshake.begin(message, channel, endpoint, session_id, name, context)
            except Exception as error:
                go_on(failed(error))
                return
            if sent is not None:
                self.sent.add(sent, context, go_on)
                if self.learner is not None:
                    self.learner.learn(channel, message, principal, sent)
                return
        context = self.context_of(incoming, principal)
        if is_of_stateless:
            work = self.eras.stateless.take(message, channel, endpoint, incoming, principal)
        else:
            handshake = self.eras.handshake
            if batch is not None:
                work = handshake.take_batch(batch, channel, endpoint, session_id, name)
            else:
                work = handshake.take(message, channel, endpoint, session_id, name)
        self._begin(self._answered(work, channel, message.id_raw), "answer a request of a client", context)

    def _is_refused(self, incoming: Incoming, sender: Sender, channel: PostChannel, message: Message | None) -> bool:
        """Count a message, or a batch, whose messages are counted later; return whether a limit refuses it."""
        channel.sender = sender
        if sender.accounting.audit is not None:
            sender.came(incoming)
        if message is None:
            return False
        usage = channel.usage = sender.begin(message, len(incoming.body))
        if usage is None or usage.refusal is None:
            return False
        channel.finish(failures.as_response(message.id_raw or messages.NO_ID, usage.refusal))
        return True

    def go_on(self, channel: PostChannel, id_raw: bytes, work: Coroutine[Any, Any, None]) -> None:
        """Let a task do the work that is left of a request."""
        self._begin(self._answered(work, channel, id_raw), "answer a request of a client")

    def admit(self, incoming: Incoming, then: Then) -> None:
        """Let a request go on if its host, its origin and its credentials are accepted; otherwise refuse it.

        Only then is its path looked at: who may not use the gateway does not learn what there is.
        """
        if self.passing is not None and self.passing.is_own(incoming):
            self._admitted(SIBLING, incoming, then, b"")
            return
        origin = incoming.header(b"origin")
        if not self.hosts.accepts_host(incoming.header(b"host")):
            self.security.accounting.deny(incoming, "host")
            self._refuse(incoming, 403, refusals.BAD_HOST)
            return
        if not self.hosts.accepts_origin(origin):
            self.security.accounting.deny(incoming, "origin")
            self._refuse(incoming, 403, refusals.BAD_ORIGIN)
            return
        fields = b"" if origin is None else cors_fields(origin)
        found = self.security.of(incoming)
        if isinstance(found, Principal):
            self._admitted(found, incoming, then, fields)
        elif isinstance(found, Denial):
            self._deny(incoming, found, fields)
        else:
            self._begin(self._admitted_later(found, incoming, then, fields), "authenticate a client")

    def _admitted(self, found: Principal, incoming: Incoming, then: Then, fields: bytes) -> None:
        if self.passing is not None and not self.passing.agrees(incoming, found.name):
            self.security.accounting.deny(incoming, "authentication", found.name)
            self._refuse(incoming, 403, refusals.OTHER_PRINCIPAL, fields)
            return
        endpoint = self.endpoints.find(incoming.path, found.grant)
        if endpoint is None:
            if found.grant is not None and self.endpoints.is_endpoint(incoming.path.encode("latin-1", "replace")):
                self.security.accounting.deny(incoming, "rule", found.name)
            self._refuse(incoming, 404, refusals.NOT_FOUND, fields)
            return
        then(incoming, found, endpoint, fields)

    async def _admitted_later(
        self, finding: Awaitable[Principal | Denial], incoming: Incoming, then: Then, fields: bytes
    ) -> None:
        running = asyncio.current_task()
        assert running is not None
        is_gone = False

        def gone() -> None:
            nonlocal is_gone
            is_gone = True
            running.cancel()

        incoming.on_gone = gone
        try:
            found = await finding
        except asyncio.CancelledError:
            if is_gone and not running.uncancel():
                return
            self._refuse(incoming, 503, refusals.cancelled(b"null"), fields)
            raise
        except Exception:
            _log.exception("a client could not be authenticated")
            self._refuse(incoming, 500, refusals.internal_error(None), fields)
            return
        finally:
            # Its callback refers to the task, which holds this frame.
            incoming.on_gone = None
        if isinstance(found, Principal):
            self._admitted(found, incoming, then, fields)
        else:
            self._deny(incoming, found, fields)

    def answers_preflight(self, path: str) -> bool:
        """Tell whether a request that asks what requests are allowed is answered: it comes without credentials."""
        is_endpoint = self.endpoints.is_endpoint(path.encode("latin-1", "replace"))
        return is_endpoint and (self.security.is_required or self.endpoints.find(path) is not None)

    def take_session_request(self, incoming: Incoming) -> None:
        """Take a GET, which opens or resumes a stream, or a DELETE, which ends a session."""
        self.admit(incoming, self._take_session_request)

    def _take_session_request(
        self, incoming: Incoming, principal: Principal, endpoint: Endpoint, fields: bytes
    ) -> None:
        name = principal.name
        header = incoming.header
        session, version = header(b"mcp-session-id"), header(b"mcp-protocol-version")
        if version is not None and version not in _REVISIONS and session is None:
            self._refuse(incoming, 405, refusals.NO_SESSIONS, _POST_ONLY + fields, endpoint)
            return
        session_id = None if session is None else session.decode("latin-1")
        if incoming.method == "GET":
            self._open_stream(incoming, principal, endpoint, session_id, fields)
        else:
            status, body = self.eras.handshake.end_session(session_id, endpoint, name)
            if status == 404:
                self.security.accounting.deny(incoming, "session", name)
            if status < 300 and self.passing is not None:
                self.passing.session_ended(incoming, name)
            self._reply(incoming, endpoint, status, body, fields)

    def _open_stream(
        self, incoming: Incoming, principal: Principal, endpoint: Endpoint, session_id: str | None, fields: bytes
    ) -> None:
        name = principal.name
        if not accepted(incoming.header(b"accept")).events:
            self._reply(incoming, endpoint, 406, refusals.NOT_ACCEPTABLE, fields)
            return
        last = incoming.header(b"last-event-id")
        last_event_id = None if last is None else last.decode("latin-1")
        if self.passing is not None:
            worker = self.passing.place_of_stream(incoming, endpoint, session_id, last_event_id, name)
            if worker is not None:
                self._begin(self.passing.forward(worker, incoming, name), f"pass a stream to worker {worker}")
                return

        accounting = self.security.accounting
        counting = None
        if accounting.is_on and principal is not SIBLING:
            sender = accounting.sender(principal, endpoint.name, HANDSHAKE, session_id)
            try:
                counting = sender.stream()
            except LimitReachedError as refusal:
                accounting.deny(incoming, "limit", name)
                body = failures.as_response(messages.NO_ID, refusal)
                self._reply(incoming, endpoint, 429, body, fields + refusal.fields)
                return
        was_standing = self.eras.handshake.sessions.logs.was_standing

        def begin() -> EventStream:
            self._count(incoming, endpoint.name, HANDSHAKE, 200)
            stream: EventStream = incoming.open_events(fields)
            if counting is not None:
                stream = CountedStream(stream, counting)
            self.keep_alives.add(stream)
            # Calls under way may finish.
            if self.security.is_required and (last_event_id is None or was_standing(last_event_id)):
                self.security.leases.add(principal, _Resumable(stream), session_id or "")
            return stream

        refused = self.eras.handshake.open_stream(session_id, last_event_id, endpoint, name, begin)
        if refused is not None:
            if counting is not None:
                counting()
            if refused[0] == 404:
                self.security.accounting.deny(incoming, "session", name)
            self._reply(incoming, endpoint, *refused, fields)

    def _reply(self, incoming: Incoming, endpoint: Endpoint, status: int, body: bytes, fields: bytes) -> None:
        self._count(incoming, endpoint.name, HANDSHAKE, status)
        incoming.reply(status, body, fields)

    def _is_counted(self, incoming: Incoming) -> bool:
        """Return whether another worker counts a request, which it makes itself or tells all of."""
        return self.passing is not None and self.passing.is_counted(incoming)

    def _count(self, incoming: Incoming, endpoint: str, era: str, status: int) -> None:
        if not self._is_counted(incoming):
            self.traffic.count(endpoint, era, status)

    def _begin(self, work: Coroutine[Any, Any, None], name: str, context: Context | None = None) -> None:
        # Not in the context of a connection, which may be another client's by then.
        background_task(work, name, among=self._requests, context=bare_context() if context is None else context)

    def context_of(self, incoming: Incoming, principal: Principal) -> Context:
        """Return the context in which a request is answered: what servers get of the client is known there."""
        context = bare_context()
        credentials = self.security.credentials
        if credentials is not None:
            credentials.take(incoming, principal, context)
        return context

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request is under way; return whether that was in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self.sent.go_on()
        while self._requests:
            left = end - loop.time()
            if left <= 0:
                return False
            await asyncio.wait(set(self._requests), timeout=left)
            self.sent.go_on()
        return True

    async def cancel(self) -> None:
        """Cancel the requests that are under way."""
        self.sent.go_on()
        # What a task has not begun, it cannot clean up.
        await asyncio.sleep(0)
        while self._requests:
            for task in list(self._requests):
                task.cancel()
            await asyncio.wait(set(self._requests))

    async def _answered(self, work: Any, channel: PostChannel, id_raw: bytes | None) -> None:
        if channel.usage is not None:
            CURRENT.set(channel.usage)
        try:
            await work
        except asyncio.CancelledError:
            # The client is gone, or the gateway ends: who still waits is told.
            if not channel.has_begun and id_raw is not None:
                channel.finish(refusals.cancelled(id_raw), 503)
            raise
        except Exception:
            _log.exception("a request of a client failed in the gateway")
            channel.finish(refusals.internal_error(id_raw))
        finally:
            channel.close()

    def _deny(self, incoming: Incoming, found: Denial, fields: bytes) -> None:
        self.security.accounting.deny(incoming, found.cause)
        self._refuse(incoming, found.status, found.body, found.fields + fields)

    def _refuse_malformed(
        self,
        incoming: Incoming,
        principal: Principal,
        status: int,
        body: bytes,
        fields: bytes,
        endpoint: Endpoint,
    ) -> None:
        self.security.accounting.deny(incoming, "malformed", principal.name)
        self._refuse(incoming, status, body, fields, endpoint)

    def _refuse(
        self, incoming: Incoming, status: int, body: bytes, fields: bytes = b"", endpoint: Endpoint | None = None
    ) -> None:
        self._count(incoming, _NONE if endpoint is None else endpoint.name, _NONE, status)
        incoming.reply(status, body, fields)


class _Resumable:
    """A stream that ends as if its client had gone: that may resume it with other credentials."""

    __slots__ = ("_stream",)

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    @property
    def is_open(self) -> bool:
        return self._stream.is_open

    def end(self) -> None:
        stream = self._stream
        called, stream.on_gone = stream.on_gone, None
        stream.end()
        if called is not None:
            called()


def _count_nothing(status: int) -> None:
    """Count nothing."""


def cors_fields(origin: bytes) -> bytes:
    """Return the header fields that let a web page read a response; the origin was accepted."""
    return _CORS % (origin, _EXPOSED)
