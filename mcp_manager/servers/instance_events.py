"""Tells of the sessions and programs of one instance: when they end by themselves, and when there is a new one."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Final

from mcp_manager.config.redaction import printable
from mcp_manager.errors import CallError, ServerExitedError
from mcp_manager.events.records import ChildExited, ChildStarted, SessionLost, SessionReplaced
from mcp_manager.session import Session, SessionTemplate

__all__ = ["InstanceEvents"]

_STDERR_ENDS: Final = "its stderr ends: "
_SAID_NOTHING: Final = "it wrote nothing to stderr"


class InstanceEvents:
    """Tell of the sessions and programs of one instance; not of the sessions of callers, which come and go.

    ``last_exit`` is how its program last ended by itself. ``is_leaving`` tells that it drains, and that its program is not
    started again; ``is_staged`` that it is new in a rollout, which fails if its program does not start.

    Parameters
    ----------
    template
        The session template.
    index
        The index of the instance.
    """

    __slots__ = ("_index", "_lost_at", "_template", "is_leaving", "is_staged", "last_exit")

    def __init__(self, template: SessionTemplate, index: int) -> None:
        self._template = template
        self._index = index
        # The loop's time at which the last session was lost; 0 if none was.
        self._lost_at = 0.0
        self.last_exit: ChildExited | None = None
        self.is_leaving: bool = False
        self.is_staged: bool = False

    def session_made(self, session: Session) -> None:
        """Tell of a new session, or of the program that it is with."""
        template, events = self._template, self._template.host.events
        outage_s = asyncio.get_running_loop().time() - self._lost_at if self._lost_at else None
        if template.config.command is not None:
            is_back = outage_s is not None or self.last_exit is not None
            level = logging.INFO if is_back else logging.DEBUG
            if events.is_heard(level):
                started = ChildStarted(
                    server_id=template.server_id,
                    instance=self._index,
                    pid=session.pid,
                    revision=session.revision,
                    outage_s=outage_s,
                )
                events.tell(started, level)
        elif outage_s is not None and template.caller is None and events.is_heard(logging.INFO):
            events.tell(
                SessionReplaced(
                    server_id=template.server_id,
                    instance=self._index,
                    revision=session.revision,
                    outage_s=outage_s,
                )
            )

    def session_lost(self, session: Session, error: CallError, connected_at: float, restart_at: float) -> None:
        """Tell that a session, or its program, has ended without having been asked to.

        Parameters
        ----------
        session
            The session that the instance had.
        error
            Why it ended.
        connected_at, restart_at
            The loop's time at which the session was made, and that at which its program is started again.
        """
        template, events = self._template, self._template.host.events
        self._lost_at = asyncio.get_running_loop().time()
        if template.config.command is not None:
            self._child_exited(session, error, restart_at, uptime_s=self._lost_at - connected_at)
        elif template.caller is None and events.is_heard(logging.INFO):
            reason = self._said(error.message)
            events.tell(SessionLost(server_id=template.server_id, instance=self._index, reason=reason))

    def start_failed(self, session: Session, error: CallError, restart_at: float) -> None:
        """Tell that a program ended while it was being started; of a server in memory, its state says so."""
        if isinstance(error, ServerExitedError) and self._template.config.command is not None:
            self._child_exited(session, error, restart_at, uptime_s=None)

    def _child_exited(self, session: Session, error: CallError, restart_at: float, uptime_s: float | None) -> None:
        code = error.exit_code if isinstance(error, ServerExitedError) else None
        is_final = self.is_leaving or (self.is_staged and uptime_s is None)
        # Advice may precede it.
        hint = error.hint.partition(_STDERR_ENDS)[2] or error.hint
        event = self.last_exit = ChildExited(
            server_id=self._template.server_id,
            instance=self._index,
            pid=session.pid,
            reason=self._said(error.message),
            was_ready=uptime_s is not None,
            exit_status=code if code is not None and code >= 0 else None,
            signal=_signal_name(code),
            stderr="" if hint == _SAID_NOTHING else self._said(hint),
            restart_in_s=None if is_final else max(restart_at - asyncio.get_running_loop().time(), 0.0),
            uptime_s=uptime_s,
        )
        self._template.host.events.tell(event, logging.WARNING)

    def _said(self, text: str) -> str:
        return printable(self._template.secrets.masked(text))


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
