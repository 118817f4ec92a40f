"""Limits and audit lines of calls on the compiled forward path.

Compiled code counts a call that its limits admit, and makes the audit line of a call that was answered. This module does
the rest: it finds the limits of a route, answers calls that a limit refuses, and takes over calls that compiled code
gives back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager._core.client_limits import Counter, RouteUse
from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.security import audit_lines
from mcp_manager.gateway.security.accounting import Accounting, Sender, Usage
from mcp_manager.gateway.security.limits import LimitReachedError
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = ["CountedCalls"]

_SESSION: Final = b"mcp-session-id"
_TRACEPARENT: Final = b"traceparent"


class CountedCalls:
    """Count calls of the forward path.

    Parameters
    ----------
    accounting
        What clients use.
    refuse
        Answers a call that a limit refuses.
    """

    def __init__(
        self, accounting: Accounting, refuse: Callable[[ForwardedCall, Usage, LimitReachedError], None]
    ) -> None:
        self._accounting = accounting
        self._refuse = refuse

    def use_of_route(self, call: ForwardedCall) -> RouteUse:
        """Return the limits and the audit line of a route, until other limits or another audit log are in force."""
        sender, accounting, route = self._sender(call), self._accounting, call.route
        asked, own = audit_lines.named(call.message), audit_lines.named(call.request)
        counters = sender.scope.counters
        if sender.scope.has_tools and own.name is not None:
            counters += sender.scope.of_tool(route.server_id, own.name)
        line = None if accounting.audit is None else sender.answered_line(CALL_TOOL, asked, route.server_id, own)
        limits = accounting.limits
        return RouteUse(sender, sender.account, counters, limits.most_running, limits.epoch, accounting.audit, line)

    def usage_of(self, call: ForwardedCall) -> Usage | None:
        """Return what a call uses, which is to be ended from now on; ``None`` if it is not counted."""
        use = call.hand_over_use()
        if use is None:
            usage: Usage | None = call.usage
            return usage
        usage = Usage.going_on(use, call.message, len(call.incoming.body))
        if call.came_ns:
            usage.began(call.came_ns, call.started_ns)
        usage.route = Route(call.route.server_id, call.request, call.route.adapt)
        return usage

    def begin(self, call: ForwardedCall, refusal: tuple[Counter | None, int] | None) -> Usage | None:
        """Count a call before it is sent, and answer it if a limit refuses it: then return ``None``.

        Parameters
        ----------
        call
            The call.
        refusal
            What refuses it, as :meth:`UseCounts.begin_request` says it; ``None`` if that is not known yet.
        """
        sender, route = self._sender(call), Route(call.route.server_id, call.request, call.route.adapt)
        size = len(call.incoming.body)
        if refusal is not None:
            usage = Usage.refused_by(sender, call.message, size, sender.account.refusal(*refusal))
            usage.route = route
        else:
            usage = Usage(sender, call.message, CALL_TOOL, size)
            if usage.refusal is None:
                usage.routed(route)
        if usage.refusal is None:
            return usage
        self._refuse(call, usage, usage.refusal)
        return None

    def _sender(self, call: ForwardedCall) -> Sender:
        fields, incoming = call.known.fields, call.incoming
        found: Sender | None = fields.sender
        if found is not None and not (self._accounting.audit is not None and incoming.header(_TRACEPARENT) is not None):
            found.current()
            return found
        # A line of the audit log is written later: what differs with each request is in a sender of its own.
        session = (incoming.header(_SESSION) or b"").decode("latin-1")
        sender = self._accounting.sender(fields.principal, fields.endpoint.name, fields.era, session)
        sender.came(incoming)
        if not sender.traceparent:
            fields.sender = sender
        return sender
