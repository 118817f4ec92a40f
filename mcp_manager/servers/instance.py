"""One instance of a server: its one live session, the attempts to make it, and its replacement when it is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Backend
from mcp_manager.errors import CallError, ConnectError, SessionLostError
from mcp_manager.runtime.background import background_task, to_its_end
from mcp_manager.servers.connecting import (
    no_handshake,
    not_ready_yet,
    not_restarted_yet,
    reach_endpoint,
    result_of,
    start_program,
)
from mcp_manager.servers.idle import backend_idle
from mcp_manager.servers.instance_events import InstanceEvents
from mcp_manager.servers.lost_sessions import LostSessions
from mcp_manager.servers.restart_delay import RestartDelay
from mcp_manager.session import Session, SessionTemplate
from mcp_manager.session.attempt import Attempt
from mcp_manager.session.slot_policy import Urgency
from mcp_manager.transports.base import CallListener, Sendable

__all__ = ["Instance"]


class Instance:
    """Keep one session with one process, URL or address of a server, and replace it when it is lost.

    Callers that need a session share one attempt to make it. ``generation`` increases whenever a session is made or
    lost, so that events of an older session can be told from those of the present one.

    Parameters
    ----------
    template
        The session template, shared by all instances of one configuration.
    index
        The index of the instance, from 0: it selects the URL of a list or template, or the discovered address.
    number
        A number that no other instance of the server has or had.
    on_change
        ``on_change(instance, error)`` is called after a session was made (``None``) or lost (the reason).
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_closing",
        "_connected_at",
        "_ending",
        "_has_failed",
        "_last_error",
        "_late_attempt",
        "_lost",
        "_on_change",
        "_overruns",
        "_restart",
        "backend",
        "events",
        "generation",
        "index",
        "number",
        "session",
        "template",
    )

    def __init__(
        self,
        template: SessionTemplate,
        index: int,
        number: int,
        on_change: Callable[[Instance, CallError | None], None],
    ) -> None:
        self.template: SessionTemplate = template
        self._on_change = on_change
        # The live session, ``None`` without one; only this class sets it.
        self.session: Session | None = None
        # The session that aclose() is ending, so that a second aclose() can hurry it.
        self._ending: Session | None = None
        self._attempt: Attempt | None = None
        # An attempt over HTTP that timed out but still waits for its answer, in parallel with later attempts.
        self._late_attempt: Attempt | None = None
        # Made when the first session is lost: most instances lose none.
        self._lost: LostSessions | None = None
        self._closing = False
        # Only for child processes: the manager cannot restart a URL, which may be tried again at once.
        self._restart = RestartDelay() if template.config.runs_here else None
        # Whether the last attempt to make a session failed.
        self._has_failed = False
        # How many starts in a row have timed out.
        self._overruns = 0
        self._connected_at = 0.0
        self.index: int = index
        self.number: int = number
        self.generation: int = 0
        self._last_error: CallError | None = None
        self.events: InstanceEvents = InstanceEvents(template, index)
        self.backend: Backend | None = None

    @property
    def pid(self) -> int:
        """The process id of the live session's program, 0 without one."""
        session = self.session
        return session.pid if session is not None else 0

    @property
    def label(self) -> tuple[int, int, str | None]:
        """The index, generation and protocol revision that flight records show for a call to this instance."""
        return self.index, self.generation, self.session.revision if self.session is not None else None

    @property
    def is_connecting(self) -> bool:
        """Whether an attempt to make a session is in progress."""
        return self._attempt is not None

    @property
    def is_starting(self) -> bool:
        """Whether an attempt to make a session is in progress and the one before did not fail."""
        return self._attempt is not None and not self._attempt.has_failed_before

    @property
    def start_progress(self) -> str:
        """A description of the progress of the present attempt; "" without one."""
        attempt = self._attempt
        return attempt.progress if attempt is not None else ""

    @property
    def last_error(self) -> CallError | None:
        """Why its session was lost or could not be made; ``None`` while it has one."""
        return self._last_error

    @last_error.setter
    def last_error(self, error: CallError | None) -> None:
        # A copy without the traceback, whose frames would keep the request and everything around it in memory.
        self._last_error = None if error is None else error.for_caller(error.delivery)

    @property
    def restart_at(self) -> float:
        """The loop time before which a child process is not restarted; 0 if there is no such time."""
        return self._restart.until if self._restart is not None else 0.0

    @property
    def restarts_in_s(self) -> float:
        """Seconds until the manager restarts a child process that has ended; 0 if no restart is pending."""
        # This is also read on other threads than the loop's.
        restart = self._restart
        if restart is None or self.session is not None or self._attempt is not None or not self._connected_at:
            return 0.0
        return restart.left_s

    async def call(self, request: Sendable, deadline_ns: int, listener: CallListener | None = None) -> Message:
        """Send a request on the live session and return the reply; make a session first if there is none.

        Parameters
        ----------
        request
            The encoded request.
        deadline_ns
            When the call must have ended, in nanoseconds of :func:`time.monotonic_ns`.
        listener
            Takes what the server sends for the call before its reply, ``None`` without one.

        Raises
        ------
        CallError
            No reply arrived; see :meth:`Session.call`.
        """
        session = self.session or await self.ready_session(deadline_ns)
        try:
            return await session.call(request, deadline_ns, listener)
        except SessionLostError as lost:
            return await self.call_again(session, lost, request, deadline_ns, listener)

    async def call_again(
        self,
        session: Session,
        lost: SessionLostError,
        request: Sendable,
        deadline_ns: int,
        listener: CallListener | None = None,
    ) -> Message:
        """Send a request once more, on the session that replaces a lost one.

        This is safe: the refusal proves that the request was not executed (2025-11-25, session management), or the
        request is safe to repeat.

        Parameters
        ----------
        session, lost
            The lost session, and the error that reported its loss.
        request, deadline_ns, listener
            See :meth:`call`.

        Raises
        ------
        CallError
            No reply arrived; ``delivery`` covers both attempts.
        """
        self.lose(session, lost)
        try:
            replacement = await self.ready_session(deadline_ns)
            return await replacement.call(request, deadline_ns, listener)
        except CallError as error:
            if lost.delivery == "unknown" and error.delivery in ("not_sent", "rejected"):
                # The first attempt may have been executed.
                error.delivery = "unknown"
            raise

    def lose(self, session: Session, error: CallError, *, is_known: bool = False) -> None:
        """Retire a lost session; the next call makes a new one. Does nothing if the session was already replaced.

        Parameters
        ----------
        session
            The lost session.
        error
            Why it is lost.
        is_known
            Whether the server may still know the session.
        """
        if session is not self.session:
            return
        self._set_session(None)
        self.generation += 1
        self.last_error = error
        task = self._lost_sessions().retire(session, is_known=is_known)
        task.add_done_callback(self.template.containment.read_failure)
        if not self._closing:
            self.events.session_lost(session, error, self._connected_at, self.restart_at)
            self._on_change(self, error)

    async def notify(self, method_raw: bytes, params: bytes | None, deadline_ns: int) -> None:
        """Send a notification on the live session; make a session first if there is none.

        Raises
        ------
        CallError
            It could not be sent.
        """
        session = self.session or await self.ready_session(deadline_ns)
        try:
            await session.notify(method_raw, params, deadline_ns)
        except SessionLostError as lost:
            self.lose(session, lost)
            session = await self.ready_session(deadline_ns)
            await session.notify(method_raw, params, deadline_ns)

    async def ready_session(self, deadline_ns: int) -> Session:
        """Return the live session, or wait until the deadline for the shared attempt to make one.

        Raises
        ------
        CallError
            There is none; ``delivery`` is ``not_sent``, because the caller's request was not part of the attempt.
        """
        if self.session is not None:
            return self.session
        attempt = self._attempt or self._begin(Urgency.CALLER)
        attempt.turn.hasten()
        await asyncio.wait({attempt.outcome}, timeout=max(0, deadline_ns - time.monotonic_ns()) / 1e9)
        if not attempt.outcome.done():
            raise not_ready_yet(self.template, attempt)
        return result_of(self.template, attempt)

    async def connect(self) -> Session:
        """Return the live session, or wait without a deadline for one; errors as for :meth:`ready_session`."""
        if self.session is not None:
            return self.session
        attempt = self._attempt or self._begin(Urgency.AGAIN if self._connected_at else Urgency.FIRST)
        # Not awaited directly: a caller that gives up would cancel it for the others.
        await asyncio.wait({attempt.outcome})
        return result_of(self.template, attempt)

    async def renew(self, session: Session, error: CallError) -> bool:
        """Replace a session that does not answer by a new one; tell whether a new one has taken over.

        If none can be made, the old session stays: the server may come back and still know it.

        Parameters
        ----------
        session
            The session that does not answer.
        error
            The reason for its replacement.
        """
        if session is not self.session or self._attempt is not None:
            return False
        attempt = self._begin(Urgency.AGAIN)
        attempt.replaces = session, error
        await asyncio.wait({attempt.outcome})
        return self.session is not None and self.session is not session

    async def wait_connected(self) -> None:
        """Wait for the end of the present attempt to make a session, whether it succeeds or fails."""
        if self._attempt is not None:
            await asyncio.wait({self._attempt.outcome})

    async def wait_idle(self) -> None:
        """Wait until no call is in flight."""
        if self.backend is not None:
            await backend_idle(self.backend)

    def stop_connecting(self) -> None:
        """Cancel the attempts to make a session and make no further ones; those who wait get an error at once."""
        self._closing = True
        for attempt in (self._attempt, self._late_attempt):
            # Only once: a second cancellation would interrupt the orderly end of its session.
            if attempt is not None and not attempt.task.cancelling():
                attempt.task.cancel()
                attempt.outcome.cancel()

    async def aclose(self, grace_s: float) -> None:
        """End the session and all attempts; idempotent, and safe to cancel.

        Parameters
        ----------
        grace_s
            Seconds the session may take to end in an orderly way; of several calls, the shortest time counts.
        """
        self.stop_connecting()
        if self.session is not None:
            self._ending = self.session
            self._set_session(None)
        attempts = [each.task for each in (self._attempt, self._late_attempt) if each is not None]
        if self._lost is not None:
            self._lost.interrupt()
        try:
            if self._ending is not None:
                await self._ending.aclose(grace_s)
        finally:
            pending = [*attempts, *(self._lost.ending if self._lost is not None else ())]
            if pending:
                await asyncio.gather(*pending, return_exceptions=True)

    def _begin(self, urgency: Urgency) -> Attempt:
        loop = asyncio.get_running_loop()
        server_id = self.template.server_id
        if self._closing:
            raise ConnectError("the server is being stopped", server_id=server_id, retryable=False)
        wait_s = self.restart_at - loop.time()
        if wait_s > 0:
            raise not_restarted_yet(self.template, self.last_error, wait_s)
        turn = self.template.connect_slots.ask(urgency, has_failed=self._has_failed)
        session = Session(self.template, self.index, self.number, self.give_up)
        attempt = self._attempt = Attempt(session, turn, self._has_failed)
        if self.template.config.transport == "stdio":
            turn.is_idle = attempt.is_idle
        attempt.task = background_task(self._carry_out(attempt), "connect")
        attempt.task.add_done_callback(partial(self._ended, attempt))
        attempt.task.add_done_callback(self.template.containment.read_failure)
        return attempt

    async def _carry_out(self, attempt: Attempt) -> None:
        """Make a session, and pass the outcome to all who wait for it."""
        try:
            await attempt.turn.granted()
            attempt.began_at = asyncio.get_running_loop().time()
            if self.template.config.runs_here:
                await start_program(self.template, attempt, self._overruns)
            else:
                await reach_endpoint(self.template, attempt, partial(self._on_overdue, attempt))
        except BaseException as error:
            error = self.template.containment.failure(error, "not_sent")
            if not isinstance(error, CallError):
                raise
            self._overruns += attempt.has_timed_out
            self._failed(attempt, error)
            return
        await self._succeeded(attempt)

    def _on_overdue(self, attempt: Attempt, limit: asyncio.Timeout) -> None:
        """Fail an attempt that timed out for those who wait; over HTTP, one such attempt may go on for a late answer.

        Over HTTP it may go on because the server may be a bridge, which starts a program for every session. The attempt
        first gets back the time for which the loop was blocked, because the server may have answered in time.
        """
        template, loop = self.template, asyncio.get_running_loop()
        config = template.config
        blocked_s = min(template.host.lag.lost_since(attempt.began_at), config.connect_timeout_s)
        if blocked_s > attempt.given_back_s:
            delay_s, attempt.given_back_s = blocked_s - attempt.given_back_s, blocked_s
            attempt.overdue = loop.call_later(delay_s, self._on_overdue, attempt, limit)
            return
        may_go_on = (
            config.transport == "http"
            and template.authorizations is None
            and self._late_attempt is None
            and self._attempt is attempt
            and attempt.turn.lend_for_long()
        )
        if not may_go_on:
            limit.reschedule(loop.time())
            return
        self._late_attempt = attempt
        left_s = max(config.start_timeout_s - config.connect_timeout_s, 0.0)
        attempt.overdue = loop.call_later(left_s, lambda: limit.reschedule(loop.time()))
        error = no_handshake(template)
        if isinstance(error, ConnectError):
            late = f"a late answer still counts, for up to {config.start_timeout_s:g} s in total"
            error.hint = f"check that an MCP server listens at url; {late}"
        self._failed(attempt, error)

    def _failed(self, attempt: Attempt, error: CallError) -> None:
        if self._attempt is not attempt:
            # The attempt is late: those who waited for it already have an outcome.
            return
        self._attempt = None
        self.last_error = error
        if not error.is_local:
            self._has_failed = True
            self._delay_restart()
            self.events.start_failed(attempt.session, error, self.restart_at)
        attempt.fail(error)

    async def _succeeded(self, attempt: Attempt) -> None:
        session = attempt.session
        if attempt.replaces is not None:
            self.lose(*attempt.replaces, is_known=True)
        if self.session is not None or self._closing:
            # The session came too late. The server knows it, so it is ended in an orderly way.
            await to_its_end(session.aclose(self.template.config.shutdown_grace_s))
            return
        for other in (self._attempt, self._late_attempt):
            if other is not None:
                other.succeed(session)
                if other is not attempt:
                    other.task.cancel()
                    self._lost_sessions().keep(other.task)
        self._attempt = None
        attempt.succeed(session)
        self._has_failed = False
        self._overruns = 0
        self._set_session(session)
        self.generation += 1
        if session.channel is not None:
            session.channel.label = self.label
        self.last_error = None
        self._connected_at = asyncio.get_running_loop().time()
        self.events.session_made(session)
        self._on_change(self, None)

    def _ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Clean up after an attempt, whatever its outcome."""
        attempt.turn.leave()
        error = None if task.cancelled() else task.exception()
        if self._attempt is attempt:
            self._attempt = None
            if error is not None:
                self._has_failed = True
                self._delay_restart()
        if self._late_attempt is attempt:
            self._late_attempt = None
        if error is not None:
            attempt.fail(error)
        attempt.outcome.cancel()

    def _lost_sessions(self) -> LostSessions:
        if self._lost is None:
            self._lost = LostSessions()
        return self._lost

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        if self.backend is not None:
            # Hedged calls, and calls whose results are kept, must pass through Python.
            has_channel = session is not None and not self.template.calls_need_python
            self.backend.channel = session.channel if session is not None and has_channel else None

    def _delay_restart(self) -> None:
        if self._restart is not None:
            connected_at = self._connected_at if self.session is not None else None
            self._restart.begin(self.template.config.restart, connected_at)

    def give_up(self, session: Session, error: CallError) -> None:
        """Retire a session and its process; the process is restarted after the delay of ``restart``."""
        if session is self.session:
            self._delay_restart()
            self.lose(session, error)

    def adjust(self) -> None:
        """Follow settings that have changed while the session goes on."""
        self._set_session(self.session)
        if self._restart is not None:
            self._restart.shorten(self.template.config.restart)
