"""One session with a server: its transport, its calls, and the messages that the server sends by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from random import choice
from typing import Any, Final

import orjson

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.jsonrpc import ERROR, REQUEST, Message, notification_frame
from mcp_manager.errors import CallError, ConnectionLostError, ProtocolError, SessionLostError
from mcp_manager.protocol import methods
from mcp_manager.protocol.capabilities import offered_list, offers
from mcp_manager.protocol.error_codes import HEADER_MISMATCH, METHOD_NOT_FOUND, UNSUPPORTED_VERSION
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.request import encode_method
from mcp_manager.protocol.revisions import Era
from mcp_manager.protocol.session_loss import Refusal
from mcp_manager.protocol.subscriptions import Interest, offered_kinds
from mcp_manager.runtime.background import to_its_end
from mcp_manager.session.cancellations import Cancellations, all_sent
from mcp_manager.session.listening import Listening
from mcp_manager.session.log_level import request_log_level, restore_log_level
from mcp_manager.session.loss_detection import LossDetection
from mcp_manager.session.negotiation import Negotiated, Negotiation, farewell_s
from mcp_manager.session.progress import ProgressListeners
from mcp_manager.session.resubscription import Resubscription
from mcp_manager.session.server_requests import ServerRequests
from mcp_manager.session.stateless import StatelessDialect
from mcp_manager.session.tasks import TaskFollower
from mcp_manager.session.template import SessionTemplate
from mcp_manager.session.tracing import Tracing
from mcp_manager.transports.base import (
    CallListener,
    Exchange,
    LifeSigns,
    Request,
    Sendable,
    Transport,
    takes_every_result,
)

__all__ = ["Session"]

_log = logging.getLogger(__name__)

# Ten digits for as long as a session is likely to last, and below 2**31, because some servers cannot count further.
# Most callers' ids have ten digits too, so that they can be written over ours in a long reply without copying it.
_FIRST_IDS: Final = range(1_000_000_000, 2_000_000_000)
# How long a server may take to accept a cancellation or a reply.
_CANCEL_NOTICE_NS: Final = 2_000_000_000
_CALL_TOOL_RAW: Final = b'"tools/call"'
_KEPT: Final = {encode_method(method): method for method in methods.KEPT_BY_SESSION}
# How long cancelled handlers may take to clean up before the session ends without them.
_CANCELLED_S: Final = 2.0


class Session:
    """Hold one session over one transport.

    Parameters
    ----------
    template
        The template of the server's sessions.
    index
        The index of the server's endpoint.
    number
        The number of the instance; its next session continues the subscriptions of this one.
    on_closed
        Called when the session turns out to be lost, or its transport dies.
    """

    def __init__(
        self, template: SessionTemplate, index: int, number: int, on_closed: Callable[[Session, CallError], None]
    ) -> None:
        self._template = template
        self._server_id = template.server_id
        self._index = index
        self._number = number
        self._on_closed = on_closed
        self._transport: Transport | None = None
        # Random, because some bridges send every reply to all clients.
        self._ids = RequestIds(choice(_FIRST_IDS))
        self.progress: ProgressListeners = ProgressListeners(template.knowledge.faults.count)
        self._requests = ServerRequests(
            template.containment,
            template.host.handlers,
            template.host.identity.capabilities,
            template.knowledge.faults,
            self._send_quietly,
            template.host.handler_timeout_s,
            template.host.context,
        )
        self._dialect: StatelessDialect | None = None
        self._tracing: Tracing | None = None
        self._listening: Listening | None = None
        self._resubscription: Resubscription | None = None
        self._is_over = False
        # Made on first use: most sessions never need them.
        self._over: asyncio.Event | None = None
        self._cancellations: Cancellations | None = None
        self._era_may_change = False
        # None if the server cannot lose the session while the transport is open.
        self._loss: LossDetection | None = None
        self._death: CallError | None = None
        # Whether the transport is HTTP+SSE, as configured or after a fallback.
        self.is_sse: bool = False
        self.identity: ServerIdentity | None = None
        self.revision: str | None = None
        # By which the compiled call path can send requests itself; None if they must pass through here.
        self.channel: Channel | None = None

    @property
    def pid(self) -> int:
        """The process id of the transport's child, 0 if it has none."""
        return self._transport.pid if self._transport is not None else 0

    @property
    def life_signs(self) -> LifeSigns | None:
        """The signs of life of the transport's child, ``None`` if it has none."""
        return self._transport.life_signs if self._transport is not None else None

    @property
    def listing(self) -> bytes | None:
        """The method of a list that the server offers, as JSON; ``None`` if it offers none."""
        return offered_list(self.identity.capabilities) if self.identity is not None else None

    @property
    def last_words(self) -> str:
        """What the transport's child wrote that may explain why it does not answer; "" if nothing."""
        return self._transport.last_words if self._transport is not None else ""

    @property
    def is_stateless(self) -> bool:
        """Whether the session speaks a stateless revision."""
        return self._dialect is not None

    async def connect(self) -> None:
        """Open a transport and negotiate; the caller limits the time.

        Raises
        ------
        CallError
            The server cannot be reached, refuses the client, or gives invalid answers. The session is closed.
        """
        template = self._template
        negotiation = Negotiation(template, self._endpoint_key, self._make_transport, self._ids)
        try:
            settled = await negotiation.run()
            self._adopt(settled)
            if settled.era is Era.HANDSHAKE:
                await settled.transport.listen()
                self._restore_log_level()
            if self._death is not None:
                # The transport died after the negotiation, when on_closed had no effect yet.
                raise self._death
        except BaseException as error:
            if isinstance(error, ProtocolError):
                template.knowledge.faults.count_error(error)
            if isinstance(error, CallError):
                template.secrets.hide_in(error)
            await to_its_end(self.aclose(0.0 if self._transport is None else farewell_s(self._transport)))
            if not isinstance(error, CallError):
                error = template.containment.failure(error, "not_sent")
                raise error from None
            raise
        self.channel = settled.transport.channel(self, self._ids, self._dialect or self._tracing)
        self._start_subscriptions()

    def call(self, request: Sendable, deadline_ns: int, listener: CallListener | None = None) -> Awaitable[Message]:
        """Return an awaitable that sends a request and returns its reply.

        Parameters
        ----------
        request
            The method and its params.
        deadline_ns
            A time of :func:`time.monotonic_ns`.
        listener
            Takes what the server sends for the request before its reply.

        Raises
        ------
        DeadlineExceededError
            The deadline passed; the server gets a cancellation.
        CallError
            No reply arrived.
        """
        transport = self._transport
        assert transport is not None
        sending: Awaitable[Message]
        if self._dialect is not None:
            sending = self._dialect.call(request, deadline_ns, listener)
        else:
            if self._tracing is not None:
                request = self._tracing.traced(request)
            exchange = request.exchange(self._ids.take(), deadline_ns)
            exchange.listener = listener
            sending = self._with_follow_up(request, exchange, transport.exchange(exchange))
        if listener is None or listener.token is None:
            return sending
        return self.progress.during(sending, listener.token, listener)

    def landed(self, request: Sendable, exchange: Exchange, answer: Any) -> Awaitable[Message]:
        """Return an awaitable for the reply to a request that the channel sent; raises as :meth:`call`."""
        assert self._transport is not None
        if self._dialect is not None:
            return self._dialect.landed(request, exchange, answer)
        landing = self._transport.landed(exchange, answer)
        return self._with_follow_up(request, exchange, landing)

    def _with_follow_up(self, request: Sendable, exchange: Exchange, sending: Awaitable[Message]) -> Awaitable[Message]:
        """Return an awaitable for the reply in the handshake era that also does what the reply requires."""
        if self._era_may_change:
            sending = self._era_checked(sending, exchange)
        if self._loss is not None:
            sending = self._loss.watched(request, exchange, sending)
        method_raw = request.method if type(request) is Request else request.method_raw
        if method_raw == _CALL_TOOL_RAW and not takes_every_result(exchange.listener):
            return self._repeated_as_task(request, sending, exchange)
        if method_raw in _KEPT and self._resubscription is not None:
            return self._resubscription.noted(_KEPT[method_raw], request.params, sending)
        return sending

    async def notify(self, method_raw: bytes, params: bytes | None, deadline_ns: int) -> None:
        """Send a notification; raises :class:`CallError` if that fails or takes until after the deadline."""
        transport = self._transport
        assert transport is not None
        fields = None
        if self._dialect is not None:
            fields = self._dialect.fields(orjson.loads(method_raw), params)
        try:
            await transport.notify(notification_frame(method_raw, params), deadline_ns, fields)
        except CallError as error:
            if self._loss is None:
                raise
            raise await self._loss.explained(error, deadline_ns) from None

    async def retire(self, *, is_known: bool = False) -> None:
        """End a session that is lost or replaced; each call under way still gets its own reply or error.

        ``is_known`` says whether the server may still know the session, and so needs time to be told of its end.
        """
        if self._loss is not None:
            self._loss.settle()
        grace_s = farewell_s(self._transport) if is_known and self._transport is not None else 0.0
        await self._end(await all_sent(self._cancellations, grace_s))

    async def aclose(self, grace_s: float) -> None:
        """End the session with everything that belongs to it, calls under way included; idempotent."""
        try:
            grace_s = await all_sent(self._cancellations, grace_s)
        finally:
            self.interrupt()
        await self._end(grace_s)

    def interrupt(self) -> None:
        """Fail the calls under way; see :meth:`Transport.interrupt`."""
        if self._transport is not None:
            self._transport.interrupt()

    async def _end(self, grace_s: float) -> None:
        self._is_over = True
        if self._over is not None:
            self._over.set()
        for keeping in (self._listening, self._resubscription):
            if keeping is not None:
                keeping.close()
        tasks = self._requests.close()
        try:
            if self._transport is not None:
                await self._transport.aclose(grace_s)
        finally:
            if tasks:
                _, stuck = await asyncio.wait(tasks, timeout=_CANCELLED_S)
                if stuck:
                    _log.warning("server %r: %d cancelled handlers have not ended", self._server_id, len(stuck))

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        """Take a request, a notification or an unmatched reply; see :class:`MessageSink`."""
        try:
            self._take(message, listener if listener is not None and listener.takes_messages else None)
        except Exception as error:
            # Reading must go on: the same stream may carry the reply to a call.
            self._template.containment.failure_of_fault(error, "unknown")

    def _take(self, message: Message, listener: CallListener | None) -> None:
        method = message.method
        if method is None:
            self._template.knowledge.faults.count("a reply that nobody waits for")
        elif message.kind == REQUEST:
            if self._dialect is not None:
                # 2026-07-28, streamable HTTP and stdio: servers send no requests, clients no responses.
                self._template.knowledge.faults.count("a request in a stateless revision", method[:60])
            else:
                self._requests.answer(message, method, listener)
        elif method == methods.PROGRESS:
            reported = self.progress.take(message.params or b"")
            if reported is None or not reported.takes_messages:
                self._requests.take_notification(method, message.params)
        elif listener is not None and method not in methods.OF_THE_SESSION:
            self._requests.hand_over(listener, method, message.params)
        elif self._listening is None or not self._listening.take(method, message.params):
            self._pass_on(method, message.params)

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        """Send a cancellation for a request whose reply nobody awaits any longer; see :class:`MessageSink`.

        ``initialize`` must not be cancelled (2025-11-25, basic/utilities/cancellation). Where a stateless request has a
        response of its own, closing that is the cancellation (2026-07-28, basic/patterns/cancellation).
        """
        transport = self._transport
        if self.revision is None or transport is None:
            return
        if self._dialect is not None and transport.has_request_streams:
            return
        if self._listening is not None and self._listening.has_ended(exchange.request_id):
            # The server itself has cancelled the request.
            return
        if self._cancellations is None:
            self._cancellations = Cancellations(self._requests.spawn, self._send_quietly)
        self._cancellations.send(exchange.request_id, reason)

    def on_fault(self, kind: str, detail: str) -> None:
        """Count a fault of the server; see :class:`MessageSink`."""
        self._template.knowledge.faults.count(kind, detail)

    async def is_lost(self, refusal: Refusal) -> bool:
        """Check whether the session is lost; see :class:`MessageSink`."""
        return self._loss is not None and await self._loss.is_meant_by(refusal)

    def on_closed(self, error: CallError) -> None:
        """Pass on that the transport died; see :class:`MessageSink`."""
        self._death = error
        self._on_closed(self, error)

    def _make_transport(self, sse: bool) -> Transport:
        # Set before the transport opens, because a server may send messages at once.
        self._death = None
        self._transport = self._template.transport(self._index, self, sse, self._number)
        self.is_sse = sse or self._template.config.transport == "sse"
        return self._transport

    def _adopt(self, settled: Negotiated) -> None:
        template = self._template
        self.identity = settled.identity
        self.revision = settled.revision
        if settled.era is Era.STATELESS:
            self._dialect = StatelessDialect(
                template, self._endpoint_key, settled.revision, settled.transport, self._ids, self._requests, self.pause
            )
        else:
            if settled.transport.keeps_session:
                self._loss = LossDetection(
                    template.server_id,
                    settled.transport,
                    self._ids,
                    lambda: template.config.health.timeout_s,
                    self.listing,
                    self._requests.spawn,
                    self.on_closed,
                )
            if template.host.trace_context is not None:
                self._tracing = Tracing(template.host.trace_context)
            # The era of a program changes only with a restart, which ends the session.
            self._era_may_change = settled.transport.has_request_streams and not template.knowledge.eras.is_certain(
                self._endpoint_key
            )

    @property
    def _endpoint_key(self) -> str:
        return self._template.endpoint_key(self._index)

    async def _era_checked(self, sending: Awaitable[Message], exchange: Exchange) -> Message:
        """Return the reply, unless it shows that a stateless server has replaced the server.

        Raises
        ------
        SessionLostError
            It does: the server refused the request with an error of the stateless era.
        """
        reply = await sending
        if (
            reply.kind == ERROR
            and exchange.status == 400
            and reply.error_code in (HEADER_MISMATCH, UNSUPPORTED_VERSION)
        ):
            self._template.knowledge.eras.doubt(self._endpoint_key)
            raise SessionLostError("the server no longer speaks a handshake revision", server_id=self._server_id)
        return reply

    def _restore_log_level(self) -> None:
        """Set the log level of the previous session on this one, in the handshake era."""
        level = self._template.knowledge.log_level
        if level is not None and self._has_logging:
            self._requests.spawn(restore_log_level(self._template, self.call, level))

    async def set_log_level(self, level: str, deadline_ns: int) -> Message | None:
        """Request log messages of this level and above; return the reply, ``None`` if the server does not log.

        Raises
        ------
        CallError
            No reply arrived; see :meth:`call`.
        """
        if self._dialect is None and not self._has_logging:
            return None
        return await request_log_level(self.call, level, deadline_ns)

    @property
    def _has_logging(self) -> bool:
        return self.identity is not None and "logging" in self.identity.capabilities

    def _start_subscriptions(self) -> None:
        """Start the task that keeps the session's subscriptions."""
        template = self._template
        capabilities = self.identity.capabilities if self.identity is not None else {}
        if self._dialect is not None:
            self._listening = self._dialect.listening = Listening(
                template, self._number, offered_kinds(capabilities), self._ids, self._dialect.listen, self._catch_up
            )
            self._listening.start(self._requests.spawn)
        elif "resources" in capabilities:
            self._resubscription = Resubscription(template, self._number, self._ask, self._catch_up)
            self._resubscription.start(self._requests.spawn)

    def _pass_on(self, method: str, params: bytes | None) -> None:
        """Let the cache and the handlers take a notification."""
        self._template.knowledge.cache.changed(method, params)
        self._requests.take_notification(method, params)

    def _catch_up(self, missed: Interest) -> None:
        """Treat all of this as changed, because notifications may have been missed."""
        self._template.knowledge.cache.drop_all()
        self._requests.spawn(self._requests.deliver_all(missed.news()))

    async def _repeated_as_task(self, request: Sendable, sending: Awaitable[Message], exchange: Exchange) -> Message:
        """Call a tool again as a task if it can be called only as one (2025-11-25, basic/utilities/tasks)."""
        reply = await sending
        if reply.kind != ERROR or reply.error_code != METHOD_NOT_FOUND or self.identity is None:
            return reply
        offered = self.identity.capabilities.get("tasks")
        if not isinstance(offered, dict) or not offers(offered, "requests", "tools", "call"):
            return reply
        follower = TaskFollower(self._server_id, self._ask_raw, self._requests, self.pause)
        as_task = await follower.run(
            request.params, exchange.deadline_ns, exchange.listener, can_cancel="cancel" in offered
        )
        # If it is refused as a task as well, there is no such tool.
        if as_task is None or (as_task.kind == ERROR and as_task.error_code == METHOD_NOT_FOUND):
            return reply
        return as_task

    async def _ask(self, method: str, params: bytes) -> Message:
        deadline_ns = time.monotonic_ns() + round(self._template.config.request_timeout_s * 1e9)
        return await self._ask_raw(orjson.dumps(method), params, deadline_ns)

    async def _ask_raw(
        self, method_raw: bytes, params: bytes, deadline_ns: int, listener: CallListener | None = None
    ) -> Message:
        assert self._transport is not None
        request = Request(method_raw, params)
        exchange = request.exchange(self._ids.take(), deadline_ns)
        exchange.listener = listener
        sending: Awaitable[Message] = self._transport.exchange(exchange)
        if self._loss is not None:
            sending = self._loss.watched(request, exchange, sending)
        return await sending

    async def pause(self, delay_s: float) -> None:
        """Wait for ``delay_s`` seconds; raises :class:`ConnectionLostError` if the session ends first."""
        if self._over is None:
            self._over = asyncio.Event()
        if self._is_over:
            self._over.set()
        try:
            async with asyncio.timeout(delay_s):
                await self._over.wait()
        except TimeoutError:
            return
        raise ConnectionLostError("the server was stopped during the call", server_id=self._server_id)

    async def _send_quietly(self, frame: bytes) -> None:
        transport = self._transport
        assert transport is not None
        try:
            await transport.notify(frame, time.monotonic_ns() + _CANCEL_NOTICE_NS)
        except CallError as error:
            _log.debug("server %r: a message without a reply was not delivered: %s", self._server_id, error)
            if error.http_status is not None:
                self._template.knowledge.faults.count(
                    "a message without a reply was refused", f"HTTP {error.http_status}"
                )
            if self._loss is not None:
                await self._loss.explained(error)
