"""``Accounting``: what each request of a client uses of its limits, and what the audit log says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from mcp_manager._core.client_limits import RouteUse
from mcp_manager._core.jsonrpc import Message
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.security import audit_lines
from mcp_manager.gateway.security.audit import AuditLog
from mcp_manager.gateway.security.audit_lines import AuditLine, Named, Outcome
from mcp_manager.gateway.security.limits import Account, Counter, LimitReachedError, Limits, Scope
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.refused_requests import Party, RefusedRequest
from mcp_manager.protocol.methods import CALL_TOOL, DISCOVER, INITIALIZE, PING, SUBSCRIBE, UNSUBSCRIBE

__all__ = ["CURRENT", "HANDSHAKE", "REASONS", "STATELESS", "Accounting", "Sender", "Usage", "note_refusal"]

REASONS: Final = ("limit", "authentication", "scope", "host", "origin", "rule", "pin", "session", "malformed")
"""Why requests are refused, the values of the label ``reason``."""

_FREE: Final = frozenset({INITIALIZE, DISCOVER, PING})
"""What opens a session, or asks whether the gateway lives: no limit counts it, and no server gets it."""
HANDSHAKE: Final = "handshake"
STATELESS: Final = "stateless"
_TRACEPARENT: Final = b"traceparent"
_NAMING: Final = frozenset({CALL_TOOL, "prompts/get", "resources/read", SUBSCRIBE, UNSUBSCRIBE, "subscriptions/listen"})
# A longer message is read at once, so that none waits in the queue.
_LONGEST_KEPT: Final = 2_048


class Sender:
    """A client that sends requests to one endpoint: one request over HTTP, or all of a connection.

    Attributes
    ----------
    account, scope
        What its principal uses, and the limits that count its requests.
    endpoint, era, session, client, traceparent
        What the audit log says of it.
    """

    __slots__ = ("account", "accounting", "client", "endpoint", "era", "scope", "session", "traceparent")

    def __init__(self, accounting: Accounting, account: Account, endpoint: str, era: str, session: str) -> None:
        self.accounting: Accounting = accounting
        self.account: Account = account
        self.scope: Scope = account.scope(endpoint)
        self.endpoint: str = endpoint
        self.era: str = era
        self.session: str = session
        self.client: object = None
        self.traceparent: str = ""

    def current(self, principal: Principal | None = None) -> Sender | None:
        """Return it with the limits that are in force by now; ``None`` if nothing is counted.

        Parameters
        ----------
        principal
            Its principal, if that has shown newer credentials.
        """
        if not self.accounting.is_on:
            return None
        self.account = self.accounting.limits.of(self.account.principal if principal is None else principal)
        self.scope = self.account.scope(self.endpoint)
        return self

    def begin(self, message: Message, size: int) -> Usage | None:
        """Count a request; ``refusal`` of what is returned says whether a limit is reached.

        Parameters
        ----------
        message
            The request.
        size
            Its bytes.

        Returns
        -------
        What it uses, until :meth:`Usage.end`; ``None`` for messages that nothing is counted of.
        """
        method = message.method
        return (
            None if method is None or method in _FREE or message.id_raw is None else Usage(self, message, method, size)
        )

    def came(self, party: Party) -> None:
        """Take note of the HTTP request that came from it, for the audit log."""
        self.client = self.accounting.client_of(party)
        traceparent = party.header(_TRACEPARENT)
        if traceparent is not None:
            self.traceparent = traceparent.decode("latin-1")

    def answered_line(self, method: str, asked: Named, server_id: str, own: Named) -> bytes | None:
        """Return the audit line of a request that was answered, from after its time to before its numbers.

        Parameters
        ----------
        method, asked
            The method, and what the client names.
        server_id, own
            The server, and how that names it.

        Returns
        -------
        ``None`` if it differs from request to request.
        """
        if not self.accounting.has_same_lines(asked.name, own.name):
            return None
        return audit_lines.between_time_and_numbers(
            AuditLine(
                time="",
                principal=self.account.principal.name,
                client=audit_lines.address_of(self.client),
                endpoint=self.endpoint,
                era=self.era,
                session=audit_lines.digest(self.session),
                method=method,
                name=asked.name,
                server=server_id,
                server_name=own.name,
                outcome="ok",
                delivery="answered",
            )
        )

    def stream(self) -> Callable[[], None]:
        """Count a stream, or raise :class:`LimitReachedError`; return what is to be called once at its end."""
        counters = self.scope.counters
        self.account.open_stream(counters)
        return partial(self.account.close_stream, counters)


class Usage:
    """One request of a client that is under way.

    Attributes
    ----------
    refusal
        The limit that was reached; ``None`` if it may go on.
    reason
        Why it was refused, one of :data:`REASONS`; "" if it was not.
    route
        Where it goes, once that is known.
    """

    __slots__ = (
        "_account",
        "_began_at_ns",
        "_began_ns",
        "_counters",
        "_duration_ns",
        "_has_ended",
        "_is_counted",
        "_is_stream",
        "_message",
        "_method",
        "_own",
        "_reply",
        "_sender",
        "_size",
        "_size_out",
        "reason",
        "refusal",
        "route",
    )

    def __init__(self, sender: Sender, message: Message, method: str, size: int) -> None:
        self._set_out(sender, message, method, size)
        if sender.accounting.audit is not None:
            self.began(time.time_ns(), time.monotonic_ns())
        self._counters: tuple[Counter, ...] = sender.scope.counters
        try:
            self._account.begin(self._counters)
        except LimitReachedError as refusal:
            self._is_counted = False
            self._refuse(refusal)
        else:
            self._is_counted = True

    @classmethod
    def going_on(cls, use: RouteUse, message: Message, size: int) -> Usage:
        """Return a call of a tool that compiled code has counted; ``use`` says in which limits."""
        usage = cls.__new__(cls)
        usage._set_out(use.sender, message, CALL_TOOL, size)
        # The sender may have another one by now.
        usage._account, usage._counters, usage._is_counted = use.account, use.counters, True
        return usage

    @classmethod
    def refused_by(cls, sender: Sender, message: Message, size: int, refusal: LimitReachedError) -> Usage:
        """Return a call of a tool that a limit has refused before."""
        usage = cls.__new__(cls)
        usage._set_out(sender, message, CALL_TOOL, size)
        usage._counters, usage._is_counted = (), False
        if sender.accounting.audit is not None:
            usage.began(time.time_ns(), time.monotonic_ns())
        usage._refuse(refusal)
        return usage

    def _set_out(self, sender: Sender, message: Message, method: str, size: int) -> None:
        self._sender = sender
        self._account = sender.account
        self._message: Message | Named = message
        self._method = method
        self._size = size
        self._is_stream = self._has_ended = False
        self.route: Route | None = None
        self.refusal: LimitReachedError | None = None
        self.reason: str = ""
        self._began_ns = 0

    def began(self, at_ns: int, began_ns: int) -> None:
        """Have a line in the audit log.

        Parameters
        ----------
        at_ns
            When it came, in nanoseconds since the epoch.
        began_ns
            The same by the monotonic clock.
        """
        self._began_at_ns, self._began_ns = at_ns, began_ns

    def routed(self, route: Route) -> LimitReachedError | None:
        """Take note of where it goes; return the limit of the tool that is reached, if one is.

        What the gateway asks servers in order to answer, such as for a list of tools, is no route of it.
        """
        if self.route is None and not self._has_ended and audit_lines.is_of(route.request, self._method):
            self.route = route
            if self._sender.scope.has_tools and self._is_counted and self._method == CALL_TOOL:
                self._count_tool(route)
        return self.refusal

    def refused_status(self, status: int) -> int:
        """Return the HTTP status of the reply, if a limit is reached.

        Clients of the stateless era read the error in the body of a 429. Those of the handshake era get the error with
        status 200, as all errors of requests: older SDKs end their session at any other status.
        """
        return 429 if self._sender.era == STATELESS else status

    def refused(self, reason: str) -> None:
        """Take note that it is refused; ``reason`` is one of :data:`REASONS`."""
        self.reason = reason
        self._sender.accounting.count_refused(reason)

    def become_stream(self) -> None:
        """Count it as an open stream from now on, until :meth:`end`; raises :class:`LimitReachedError`."""
        if self._is_stream or self._has_ended or not self._is_counted:
            return
        account, counters = self._account, self._counters
        try:
            account.open_stream(counters)
        except LimitReachedError as refusal:
            self._refuse(refusal)
            raise
        self._is_stream = True
        account.end(counters)

    def close(self) -> None:
        """Take note that the request is over, unless it has become a stream. Idempotent."""
        if not self._is_stream:
            self.end(None)

    def end(self, reply: bytes | None) -> None:
        """Take note of the reply, or that there is none. Only the first call counts."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._is_counted:
            if self._is_stream:
                self._account.close_stream(self._counters)
            else:
                self._account.end(self._counters)
        # There may be one only since it began.
        audit = self._sender.accounting.audit if self._began_ns else None
        if audit is not None and (self.route is not None or self.reason or self._method in _NAMING or _is_error(reply)):
            self._record(audit, reply)

    def line(self) -> bytes:
        """Return its line of the audit log."""
        sender, outcome = self._sender, self._reply
        if isinstance(outcome, bytes):
            outcome = audit_lines.outcome_of(outcome)
        asked = self._message if isinstance(self._message, Named) else audit_lines.named(self._message)
        own = self._own
        if own is not None and not isinstance(own, Named):
            own = asked if own is self._message else audit_lines.named(own)
        return audit_lines.encoded(
            AuditLine(
                time=audit_lines.rfc3339(self._began_at_ns),
                principal=self._account.principal.name,
                client=audit_lines.address_of(sender.client),
                endpoint=sender.endpoint,
                era=sender.era,
                session=audit_lines.digest(sender.session),
                method=self._method,
                name=sender.accounting.shown_name(asked.name),
                server="" if self.route is None else self.route.server_id,
                server_name=None if own is None else sender.accounting.shown_name(own.name),
                outcome="refused" if self.reason else outcome.outcome,
                code=outcome.code,
                reason=self.reason,
                delivery=outcome.delivery,
                duration_ms=self._duration_ns // 1000 / 1000,
                bytes_in=self._size,
                bytes_out=self._size_out,
                trace_id=asked.trace_id or audit_lines.trace_id(sender.traceparent),
                arguments=sender.accounting.arguments_of(asked, self.route, self._account.principal),
            )
        )

    def _count_tool(self, route: Route) -> None:
        tool = audit_lines.named(route.request).name
        counters = () if tool is None else self._sender.scope.of_tool(route.server_id, tool)
        try:
            self._account.take(counters)
        except LimitReachedError as refusal:
            self._refuse(refusal)
        else:
            self._counters += counters

    def _record(self, audit: AuditLog, reply: bytes | None) -> None:
        self._duration_ns = time.monotonic_ns() - self._began_ns
        route = self.route
        self._own: Message | bytes | Named | None = None if route is None else route.request
        if self._size > _LONGEST_KEPT and isinstance(self._message, Message):
            self._message = audit_lines.named(self._message).small()
            self._own = None if self._own is None else audit_lines.named(self._own).small()
            self.route = None if route is None else Route(route.server_id, b"")
        self._size_out = 0 if reply is None else len(reply)
        if reply is None:
            self._reply: bytes | Outcome = audit_lines.CANCELLED
        else:
            self._reply = reply if len(reply) <= _LONGEST_KEPT else audit_lines.outcome_of(reply)
        audit.write(self)

    def _refuse(self, refusal: LimitReachedError) -> None:
        # It is raised later, elsewhere.
        self.refusal = refusal.with_traceback(None)
        self.refused("limit")


def note_refusal(reason: str) -> None:
    """Take note that the request that the running task answers is refused; ``reason`` is one of :data:`REASONS`."""
    usage = CURRENT.get()
    if usage is not None and not usage.reason:
        usage.refused(reason)


def _is_error(reply: bytes | None) -> bool:
    """Tell whether a reply of the gateway itself is an error, which is short."""
    if reply is None or len(reply) > _LONGEST_KEPT or b'"error"' not in reply:
        return False
    return audit_lines.outcome_of(reply).outcome == "error"


def _peer_of(party: Party) -> object:
    return party.peer


CURRENT: Final[ContextVar[Usage | None]] = ContextVar("usage", default=None)
"""The request that the running task answers, as far as it is counted."""


class Accounting:
    """Count what clients use, and write what they do into the audit log.

    Parameters
    ----------
    limits
        What each principal may use.
    audit
        The audit log; ``None`` without one.

    Attributes
    ----------
    is_on
        Whether requests have to be counted or recorded at all.
    client_of
        Returns the address of the client that a request comes from.
    secrets
        Returns the texts that the audit log does not show, the longest first; works on any thread.
    """

    def __init__(self, limits: Limits, audit: AuditLog | None) -> None:
        self.limits: Limits = limits
        self.audit: AuditLog | None = audit
        self.is_on: bool = False
        self.limits_changed()
        # Lines that were written and dropped by earlier audit logs.
        self._lines = (0, 0)
        self.client_of: Callable[[Any], object] = _peer_of
        self.secrets: Callable[[], Sequence[str]] = tuple
        self._refused: dict[str, int] = dict.fromkeys(REASONS, 0)

    def sender(self, principal: Principal, endpoint: str, era: str, session: str | None = None) -> Sender:
        """Return a client that sends requests to an endpoint.

        Parameters
        ----------
        principal
            Whom it acts for.
        endpoint
            The name of the endpoint.
        era, session
            The era of its requests, and the id of its session, for the audit log.
        """
        return Sender(self, self.limits.of(principal), endpoint, era, session or "")

    def connected(self, principal: Principal, endpoint: str, session: str = "") -> Sender:
        """Return a client whose connection is its session; :meth:`Sender.current` of it counts its messages."""
        return self.sender(principal, endpoint, HANDSHAKE, session)

    def start(self) -> None:
        """Begin to write; raises :class:`ConfigError` if the audit log cannot be opened."""
        if self.audit is not None:
            self.audit.start()

    def write_into(self, audit: AuditLog | None) -> AuditLog | None:
        """Write into another audit log from now on, which has been started; return the one of before, for :meth:`end`."""
        before, self.audit = self.audit, audit
        self.limits_changed()
        return before

    async def end(self, audit: AuditLog | None) -> None:
        """Write what is left for an audit log that was replaced."""
        if audit is not None:
            await audit.aclose()
            self._lines = (self._lines[0] + audit.written, self._lines[1] + audit.dropped)

    def limits_changed(self) -> None:
        """Take note that other limits are in force."""
        self.is_on = self.limits.applies or self.audit is not None

    async def aclose(self) -> None:
        """Write what is left. Idempotent."""
        if self.audit is not None:
            await self.audit.aclose()

    def deny(self, party: Party, reason: str, principal: str = "") -> None:
        """Take note that a request was refused before it was a message.

        Parameters
        ----------
        party
            The request.
        reason
            One of :data:`REASONS`.
        principal
            Whom the client acts for, if that is known.
        """
        self.count_refused(reason)
        if self.audit is not None:
            self.audit.write_denial(RefusedRequest(party, reason, principal, self.client_of(party)))

    def count_refused(self, reason: str) -> None:
        """Count a request that was refused."""
        self._refused[reason] += 1

    def arguments_of(self, asked: Named, route: Route | None, principal: Principal) -> msgspec.Raw | None:
        """Return the arguments of a call for the audit log; ``None`` if they are not to be written."""
        if self.audit is None or not self.audit.arguments or route is None:
            return None
        own = () if principal.credential is None else (principal.credential,)
        return audit_lines.shown_arguments(asked.arguments, (*own, *self.secrets()))

    def has_same_lines(self, *names: str | None) -> bool:
        """Tell whether all audit lines of answered requests for these names differ only in times and numbers."""
        arguments = self.audit is not None and self.audit.arguments
        return not arguments and not any(name is not None and audit_lines.may_have_secrets(name) for name in names)

    def shown_name(self, name: str | None) -> str | None:
        """Return what a request names for the audit log, without secrets in URIs."""
        return audit_lines.shown_name(name, self.secrets)

    def families(self) -> Iterator[Metric]:
        """Yield the metrics."""
        refused = CounterMetricFamily(
            "mcp_gateway_refused", "Requests of clients that were refused", labels=("reason",)
        )
        for reason, count in self._refused.items():
            refused.add_metric((reason,), count)
        yield refused
        if self.audit is not None:
            lines = CounterMetricFamily("mcp_gateway_audit_lines", "Lines of the audit log", labels=("outcome",))
            lines.add_metric(("written",), self._lines[0] + self.audit.written)
            lines.add_metric(("dropped",), self._lines[1] + self.audit.dropped)
            yield lines
