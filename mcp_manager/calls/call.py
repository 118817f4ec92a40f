"""One call that has left the compiled path: what it asks for, until when, and how far it has come."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from mcp_manager._core.records import Backend
from mcp_manager.calls.retrying import is_executed_safely
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import ProgressReports
from mcp_manager.transports.base import Sendable

__all__ = ["ANYWHERE", "FIRST", "Call", "Choice", "Where"]


class Where(NamedTuple):
    """Where a call may go: to one backend alone, to where its key belongs, or anywhere."""

    backend: Backend | None = None
    key: str | None = None


ANYWHERE: Final = Where()


class Choice(NamedTuple):
    """How the router chooses the backend of one attempt; see :meth:`~mcp_manager._core.router.Router.pick`.

    ``avoid`` is the backend of the attempt before, ``waited`` tells that the call has waited for its turn, ``again`` that
    the server's limits have counted it already.
    """

    avoid: Backend | None = None
    waited: bool = False
    again: bool = False


FIRST: Final = Choice()


class Call(msgspec.Struct, eq=False):
    """A call from where it leaves the compiled path to its end, handed down whole.

    Parameters
    ----------
    supervisor
        The server that it goes to.
    method, request
        What it asks for.
    started_ns, deadline_ns
        When it came, and when it must be over with all its attempts, of the manager's clock.
    progress
        The progress token in its params, and who listens to it, whichever attempt it comes from.
    where
        Which backends may take it.
    attempts
        How many attempts there were before the present one.
    tries
        How often the present attempt was made: twice, if the session of the first had been lost.
    may_resend
        Whether the present attempt is repeated at once if its session turns out to be lost.
    is_hedge
        Whether it runs beside another attempt of the same call.
    """

    supervisor: Supervisor
    method: str
    request: Sendable
    started_ns: int
    deadline_ns: int
    progress: tuple[str, ProgressReports] | None = None
    where: Where = ANYWHERE
    attempts: int = 0
    tries: int = 1
    may_resend: bool = True
    is_hedge: bool = False

    def __repr__(self) -> str:
        # The request may hold what nobody else may read.
        return f"<Call {self.method} to {self.server_id!r}>"

    @property
    def server_id(self) -> str:
        """The id of its server."""
        return self.supervisor.server_id

    @property
    def is_safe(self) -> bool:
        """Whether it may be executed twice, as the server's configuration is now."""
        template = self.supervisor.template
        return is_executed_safely(self.method, self.request, template.config.retry, template.knowledge.hints)

    def hedged(self) -> Call:
        """Return the same call as a hedge: made once, beside this one."""
        return msgspec.structs.replace(self, tries=1, may_resend=False, is_hedge=True)

    def to_other(self, supervisor: Supervisor, now_ns: int) -> Call:
        """Return the same call to another server, begun now and with the same deadline."""
        return Call(supervisor, self.method, self.request, now_ns, self.deadline_ns, self.progress)
