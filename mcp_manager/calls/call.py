"""The state of one call that the compiled path does not handle alone."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from mcp_manager._core.records import Backend
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.retry_rules import is_executed_safely
from mcp_manager.servers.caller_sessions import Checkout
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.transports.base import CallListener, Sendable

__all__ = ["ANYWHERE", "FIRST", "Call", "Choice", "Where"]


class Where(msgspec.Struct, frozen=True, eq=False):
    """Where a call may go: to one ``backend``, to the backend of a ``key``, or with neither to any backend."""

    backend: Backend | None = None
    key: str | None = None


ANYWHERE: Final = Where()


class Choice(NamedTuple):
    """What the router must consider when it chooses a backend; see :meth:`~mcp_manager._core.router.Router.pick`.

    Parameters
    ----------
    avoid
        The backend of the previous attempt: any other is preferred. ``None`` for a first attempt.
    waited
        Whether the call is the first in its queue.
    again
        Whether the server's rate limit and load shedding have already counted the call.
    """

    avoid: Backend | None = None
    waited: bool = False
    again: bool = False


FIRST: Final = Choice()
NO_HINTS: Final = ToolHints()


class Call(msgspec.Struct, eq=False):
    """A call with everything that its attempts, retries, hedges and fallbacks need.

    Parameters
    ----------
    supervisor
        The server that it goes to.
    method, request
        The name of the method, and the encoded request.
    started_ns, deadline_ns
        When it began, and when all of its attempts must have ended, in nanoseconds of the manager's clock.
    listener
        Takes what the server sends for it before its reply, shared by all attempts; ``None`` without one.
    where
        Which backends may take it.
    attempts
        How many attempts came before the present one.
    tries
        How often the present attempt was sent: 2 if the first time hit a lost session.
    may_resend
        Whether the present attempt is sent again at once if its session turns out to be lost.
    is_hedge
        Whether it runs in parallel with another attempt of the same call.
    caller
        Whom it is made for; ``None`` for the manager itself.
    checkout
        The session of its caller that it was begun on; ``None`` if each attempt looks for one.
    """

    supervisor: Supervisor
    method: str
    request: Sendable
    started_ns: int
    deadline_ns: int
    listener: CallListener | None = None
    where: Where = ANYWHERE
    attempts: int = 0
    tries: int = 1
    may_resend: bool = True
    is_hedge: bool = False
    caller: Caller | None = None
    checkout: Checkout | None = None

    def __repr__(self) -> str:
        # The request is left out: it may contain secrets.
        return f"<Call {self.method} to {self.server_id!r}>"

    @property
    def server_id(self) -> str:
        """The id of the server that it goes to."""
        return self.supervisor.server_id

    @property
    def is_safe(self) -> bool:
        """Whether it is safe to repeat according to the server's present configuration."""
        template = self.supervisor.template
        # What the server told the manager of its tools may not hold for a caller.
        hints = template.knowledge.hints if self.caller is None else NO_HINTS
        return is_executed_safely(self.method, self.request, template.config.retry, hints)

    def hedged(self) -> Call:
        """Return the same call as a hedge: one try, which is not resent."""
        return msgspec.structs.replace(self, tries=1, may_resend=False, is_hedge=True)

    def again(self, request: Sendable, now_ns: int) -> Call:
        """Return a new call like this one: it sends ``request``, starts at ``now_ns`` and keeps the deadline."""
        return Call(
            self.supervisor,
            self.method,
            request,
            now_ns,
            self.deadline_ns,
            self.listener,
            self.where,
            caller=self.caller,
        )

    def to_other(self, supervisor: Supervisor, now_ns: int) -> Call:
        """Return the same call to another server: it starts at ``now_ns`` and keeps the deadline."""
        return Call(supervisor, self.method, self.request, now_ns, self.deadline_ns, self.listener)
