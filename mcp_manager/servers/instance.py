"""One instance of a server: at most one live session, made by a single flight and replaced under a generation."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Backend
from mcp_manager.backoff import backoff_delay
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ServerExitedError,
    SessionLostError,
)
from mcp_manager.runtime.background import background_task, to_its_end
from mcp_manager.session import ProgressReports, Session, SessionTemplate
from mcp_manager.session.attempt import Attempt
from mcp_manager.session.slot_policy import Urgency
from mcp_manager.transports.base import Sendable

__all__ = ["Instance"]

_log = logging.getLogger(__name__)

# By how much the time that a program may take to start grows at most while its starts run out.
_MOST_GROWTH: Final = 10


class Instance:
    """Keep one session to one place where a server runs, and replace it when it is lost.

    Every replacement raises ``generation``; whatever belongs to an older session changes nothing any more.

    Parameters
    ----------
    template
        Shared by all instances of one configuration of the server.
    index
        Which place it takes, from 0: its URL in a list or template.
    number
        Tells it from all other instances that the server has had.
    on_change
        Called after a session was made (``None``) or lost (the reason).
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_closing",
        "_connected_at",
        "_ending",
        "_failed_starts",
        "_has_failed",
        "_idle",
        "_last_error",
        "_late_attempt",
        "_lost",
        "_not_before",
        "_on_change",
        "_overruns",
        "_restart_loop",
        "_retired",
        "backend",
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
        self.template = template
        self._on_change = on_change
        # The live session, if there is one; set here alone.
        self.session: Session | None = None
        # The one that :meth:`aclose` ends, for whoever comes by meanwhile.
        self._ending: Session | None = None
        self._attempt: Attempt | None = None
        # One that had no answer in time and still waits for it, beside further ones; over HTTP alone.
        self._late_attempt: Attempt | None = None
        self._idle: asyncio.Future[None] | None = None
        self._retired: set[asyncio.Task[None]] | None = None
        # Sessions that were lost: their calls under way hold them, and end with the instance.
        self._lost: weakref.WeakSet[Session] | None = None
        self._closing = False
        self._not_before = 0.0
        self._restart_loop: asyncio.AbstractEventLoop | None = None
        self._failed_starts = 0
        # Whether the last attempt to make a session failed.
        self._has_failed = False
        # How many starts in a row took longer than they may.
        self._overruns = 0
        self._connected_at = 0.0
        self.index = index
        self.number = number
        self.generation = 0
        self._last_error: CallError | None = None
        self.backend: Backend | None = None

    @property
    def pid(self) -> int:
        """The process id of the live session's child, 0 if there is none."""
        session = self.session
        return session.pid if session is not None else 0

    @property
    def label(self) -> tuple[int, int, str | None]:
        """What a call's record says of where it went: index, generation, revision of the session."""
        return self.index, self.generation, self.session.revision if self.session is not None else None

    @property
    def is_connecting(self) -> bool:
        """Whether an attempt to make a session is under way."""
        return self._attempt is not None

    @property
    def is_starting(self) -> bool:
        """Whether it is on its way to a session, and nothing speaks against its getting there."""
        return self._attempt is not None and not self._attempt.has_failed_before

    @property
    def start_progress(self) -> str:
        """What is known of a start that is under way, in words; "" if none is."""
        attempt = self._attempt
        return attempt.progress if attempt is not None else ""

    @property
    def last_error(self) -> CallError | None:
        """What its session was lost of, or could not be made for; ``None`` once it has one again."""
        return self._last_error

    @last_error.setter
    def last_error(self, error: CallError | None) -> None:
        # A copy, which has no traceback: the frames in that hold the request and all that was on its way.
        self._last_error = None if error is None else error.for_caller(error.delivery)

    @property
    def messages(self) -> int:
        """How many messages the live session's child has written, 0 if there is none."""
        signs = self.session.life_signs if self.session is not None else None
        return signs.messages if signs is not None else 0

    @property
    def called_until_ns(self) -> int:
        """Until when the live session's child may be busy with calls, of :func:`time.monotonic_ns`; 0 if it may not."""
        signs = self.session.life_signs if self.session is not None else None
        return signs.called_until_ns() if signs is not None else 0

    @property
    def restart_at(self) -> float:
        """The loop time before which a child process is not started again; 0 if it may be at once."""
        return self._not_before

    @property
    def restarts_in_s(self) -> float:
        """Seconds until a child process that was there, and is gone, is started again; 0 where none waits for that."""
        # Also asked on other threads than the loop's.
        loop = self._restart_loop
        if loop is None or self.session is not None or self._attempt is not None or not self._connected_at:
            return 0.0
        return max(0.0, self._not_before - loop.time())

    async def call(
        self, request: Sendable, deadline_ns: int, progress: tuple[str, ProgressReports] | None = None
    ) -> Message:
        """Send a request on the live session, made first if need be, and return its reply.

        Raises
        ------
        CallError
            No reply arrived; see :meth:`Session.call`.
        """
        session = self.session or await self.ready_session(deadline_ns)
        try:
            return await session.call(request, deadline_ns, progress)
        except SessionLostError as lost:
            return await self.call_again(session, lost, request, deadline_ns, progress)

    async def call_again(
        self,
        session: Session,
        lost: SessionLostError,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None = None,
    ) -> Message:
        """Send a request once more, on the session that replaces one the server no longer knows.

        The refusal proves that the request was not executed (2025-11-25, session management), or it does no harm twice.
        Raises as :meth:`call`.
        """
        self.lose(session, lost)
        try:
            replacement = await self.ready_session(deadline_ns)
            return await replacement.call(request, deadline_ns, progress)
        except CallError as error:
            if lost.delivery == "unknown" and error.delivery in ("not_sent", "rejected"):
                # The first one was sent, and nothing is proven of it.
                error.delivery = "unknown"
            raise

    def _keep_until_it_ends(self, task: asyncio.Task[None]) -> None:
        """Have a task that ends by itself waited for by whoever closes this before."""
        if self._retired is None:
            self._retired = set()
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def lose(self, session: Session, error: CallError, *, is_known: bool = False) -> None:
        """Retire a session, unless another caller already did; whoever comes next makes a new one.

        ``is_known`` tells that the server may know it still.
        """
        if session is not self.session:
            return
        self._set_session(None)
        self.generation += 1
        self.last_error = error
        if self._lost is None:
            self._lost = weakref.WeakSet()
        self._lost.add(session)
        task = background_task(session.retire(is_known=is_known), "retire a session")
        self._keep_until_it_ends(task)
        task.add_done_callback(self.template.containment.read_failure)
        if not self._closing:
            self._on_change(self, error)

    async def notify(self, method_raw: bytes, params: bytes | None, deadline_ns: int) -> None:
        """Send a notification on the live session, made first if need be."""
        session = self.session or await self.ready_session(deadline_ns)
        try:
            await session.notify(method_raw, params, deadline_ns)
        except SessionLostError as lost:
            self.lose(session, lost)
            session = await self.ready_session(deadline_ns)
            await session.notify(method_raw, params, deadline_ns)

    async def ready_session(self, deadline_ns: int) -> Session:
        """Return the live session, joining the one attempt to make it that is under way.

        Raises
        ------
        CallError
            It could not be made; delivery is ``not_sent`` whatever the handshake met.
        """
        if self.session is not None:
            return self.session
        attempt = self._attempt or self._begin(Urgency.CALLER)
        attempt.turn.hasten()
        await asyncio.wait({attempt.outcome}, timeout=max(0, deadline_ns - time.monotonic_ns()) / 1e9)
        if not attempt.outcome.done():
            raise self._not_ready_yet(attempt)
        return self._result(attempt)

    async def connect(self) -> Session:
        """Return the live session, however long the attempt to make it may take; raises as :meth:`ready_session`."""
        if self.session is not None:
            return self.session
        attempt = self._attempt or self._begin(Urgency.AGAIN if self._connected_at else Urgency.FIRST)
        # Not awaited itself: whoever gives up would cancel it for the others who wait.
        await asyncio.wait({attempt.outcome})
        return self._result(attempt)

    async def renew(self, session: Session, error: CallError) -> bool:
        """Make another session beside one that does not answer, and have it take over; tell whether it has.

        Unless it can be made, the one that there is stays: its server may come back and know it.
        """
        if session is not self.session or self._attempt is not None:
            return False
        attempt = self._begin(Urgency.AGAIN)
        attempt.replaces = session, error
        await asyncio.wait({attempt.outcome})
        return self.session is not None and self.session is not session

    async def wait_connected(self) -> None:
        """Wait for the end of the attempt to make a session that is under way, whatever comes of it."""
        if self._attempt is not None:
            await asyncio.wait({self._attempt.outcome})

    async def wait_idle(self) -> None:
        """Wait until no call is under way."""
        backend = self.backend
        while backend is not None and backend.inflight:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
                backend.on_idle = partial(_resolve, self._idle)
            # Not awaited itself: whoever gives up would cancel it for the others who wait.
            await asyncio.wait({self._idle})

    def stop_connecting(self) -> None:
        """Make no session any more: an attempt under way ends, and whoever waits for it learns that at once."""
        self._closing = True
        for attempt in (self._attempt, self._late_attempt):
            # Once: a second time would cut short how it takes leave of the server.
            if attempt is not None and not attempt.task.cancelling():
                attempt.task.cancel()
                attempt.outcome.cancel()

    async def aclose(self, grace_s: float) -> None:
        """End the session, giving it ``grace_s`` seconds; idempotent, safe to cancel, and the most urgent call wins."""
        self.stop_connecting()
        if self.session is not None:
            self._ending = self.session
            self._set_session(None)
        attempts = [each.task for each in (self._attempt, self._late_attempt) if each is not None]
        for lost in list(self._lost or ()):
            lost.interrupt()
        try:
            if self._ending is not None:
                await self._ending.aclose(grace_s)
        finally:
            pending = [*attempts, *(self._retired or ())]
            if pending:
                await asyncio.gather(*pending, return_exceptions=True)

    def _begin(self, urgency: Urgency) -> Attempt:
        loop = asyncio.get_running_loop()
        server_id = self.template.server_id
        if self._closing:
            raise ConnectError("the server is being stopped", server_id=server_id, retryable=False)
        wait_s = self._not_before - loop.time()
        if wait_s > 0:
            raise self._not_restarted_yet(wait_s)
        turn = self.template.connect_slots.ask(urgency, has_failed=self._has_failed)
        session = Session(self.template, self.index, self.number, self.give_up)
        attempt = self._attempt = Attempt(session, turn, self._has_failed)
        if self.template.config.transport == "stdio":
            turn.is_idle = attempt.is_idle
        attempt.task = background_task(self._carry_out(attempt), "connect")
        attempt.task.add_done_callback(partial(self._ended, attempt))
        attempt.task.add_done_callback(self.template.containment.read_failure)
        return attempt

    def _not_restarted_yet(self, wait_s: float) -> CallError:
        """Say why the child process is gone, and when it is started again."""
        last = self.last_error
        what = last.message if last is not None else "the server process has ended"
        kind = ServerExitedError if isinstance(last, ServerExitedError) else ConnectError
        return kind(
            f"{what}; it is started again in {wait_s:.1f} s",
            server_id=self.template.server_id,
            delivery="not_sent",
            retry_after_s=wait_s,
            hint=last.hint if last is not None else "",
        )

    def _result(self, attempt: Attempt) -> Session:
        outcome = attempt.outcome
        if outcome.cancelled():
            raise ConnectError("the server is being stopped", server_id=self.template.server_id, retryable=False)
        error = outcome.exception()
        if error is None:
            return outcome.result()
        raise _for_caller(error) from None

    def _not_ready_yet(self, attempt: Attempt) -> DeadlineExceededError:
        server_id = self.template.server_id
        if self.template.config.transport != "stdio":
            return DeadlineExceededError(
                "the session was not ready within the deadline", server_id=server_id, delivery="not_sent"
            )
        error = DeadlineExceededError(
            f"the program is {attempt.stage}",
            server_id=server_id,
            delivery="not_sent",
            hint=attempt.session.last_words or "it has written nothing; a longer timeout waits longer for it",
        )
        error.is_starting = not attempt.has_failed_before
        return error

    async def _carry_out(self, attempt: Attempt) -> None:
        """Make a session, and tell all who wait for it what became of that."""
        try:
            await attempt.turn.granted()
            attempt.began_at = asyncio.get_running_loop().time()
            if self.template.config.transport == "stdio":
                await self._start(attempt)
            else:
                await self._reach(attempt)
        except BaseException as error:
            error = self.template.containment.failure(error, "not_sent")
            if not isinstance(error, CallError):
                raise
            self._failed(attempt, error)
            return
        await self._succeeded(attempt)

    async def _start(self, attempt: Attempt) -> None:
        """Start a program and settle with it how it is spoken to; while it lives, it has all of its time."""
        configured_s = self.template.config.start_timeout_s
        limit_s = configured_s * min(2**self._overruns, _MOST_GROWTH)
        try:
            async with asyncio.timeout(limit_s):
                await attempt.session.connect()
        except TimeoutError as error:
            if isinstance(error, CallError):
                raise
            self._overruns += 1
            grown = f", raised to {limit_s:g} s after starts that took too long" if limit_s > configured_s else ""
            raise ConnectError(
                f"no handshake within start_timeout_s ({configured_s:g} s{grown})",
                server_id=self.template.server_id,
                hint=attempt.session.last_words or "it wrote nothing; raise start_timeout_s if it needs longer",
            ) from None

    async def _reach(self, attempt: Attempt) -> None:
        """Connect to a URL and settle how it is spoken to."""
        config = self.template.config
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                attempt.overdue = loop.call_later(config.connect_timeout_s, self._is_overdue, attempt, limit)
                try:
                    await attempt.session.connect()
                finally:
                    attempt.overdue.cancel()
        except TimeoutError as error:
            if isinstance(error, CallError):
                raise
            raise self._no_handshake() from None

    def _is_overdue(self, attempt: Attempt, limit: asyncio.Timeout) -> None:
        """Have nobody wait any longer for an answer; what was asked may be answered yet, and counts then.

        A bridge may have to start a program for every session. One attempt at a time may go on so. What the loop was
        blocked for is given back: the server may have answered long ago.
        """
        config = self.template.config
        loop = asyncio.get_running_loop()
        lost_s = min(self.template.host.lag.lost_since(attempt.began_at), config.connect_timeout_s)
        if lost_s > attempt.given_back_s:
            delay_s, attempt.given_back_s = lost_s - attempt.given_back_s, lost_s
            attempt.overdue = loop.call_later(delay_s, self._is_overdue, attempt, limit)
            return
        may_go_on = (
            config.transport == "http"
            and self.template.authorizations is None
            and self._late_attempt is None
            and self._attempt is attempt
            and attempt.turn.stay()
        )
        if not may_go_on:
            limit.reschedule(loop.time())
            return
        self._late_attempt = attempt
        left_s = max(config.start_timeout_s - config.connect_timeout_s, 0.0)
        attempt.overdue = loop.call_later(left_s, lambda: limit.reschedule(loop.time()))
        error = self._no_handshake()
        error.hint = f"a late answer still counts, for up to {config.start_timeout_s:g} s in all"
        self._failed(attempt, error)

    def _no_handshake(self) -> CallError:
        template = self.template
        if template.authorizations is not None and template.authorizations.is_pending:
            return AuthError(
                "the server waits for an authorization that is under way",
                server_id=template.server_id,
                retryable=True,
                hint="it goes on: call again once the user has agreed",
            )
        return ConnectError(
            f"no handshake within connect_timeout_s ({template.config.connect_timeout_s:g} s)",
            server_id=template.server_id,
        )

    def _failed(self, attempt: Attempt, error: CallError) -> None:
        if self._attempt is not attempt:
            # Those who waited for it were told already.
            return
        self._attempt = None
        self.last_error = error
        if not error.is_local:
            self._has_failed = True
            self._delay_restart()
        attempt.fail(error)

    async def _succeeded(self, attempt: Attempt) -> None:
        session = attempt.session
        if attempt.replaces is not None:
            self.lose(*attempt.replaces, is_known=True)
        if self.session is not None or self._closing:
            # It came late, and the server knows it: it is told.
            await to_its_end(session.aclose(self.template.config.shutdown_grace_s))
            return
        for other in (self._attempt, self._late_attempt):
            if other is not None:
                other.succeed(session)
                if other is not attempt:
                    other.task.cancel()
                    self._keep_until_it_ends(other.task)
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
        self._on_change(self, None)

    def _ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Take back what an attempt had, whatever became of it."""
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

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        if self.backend is not None:
            self.backend.channel = None if session is None else session.channel

    def give_up(self, session: Session, error: CallError) -> None:
        """Retire a session with its process, which is started again when its time has come."""
        if session is self.session:
            self._delay_restart()
            self.lose(session, error)

    def _delay_restart(self) -> None:
        """Hold back the next start of a child process; a URL is not ours to restart and may be tried at once."""
        if self.template.config.transport != "stdio":
            return
        restart = self.template.config.restart
        self._restart_loop = asyncio.get_running_loop()
        now = self._restart_loop.time()
        if self.session is not None and now - self._connected_at >= restart.stable_after_s:
            self._failed_starts = 0
        delay_s = backoff_delay(self._failed_starts, restart.initial_s, restart.max_s, restart.jitter, random.random())
        self._failed_starts += 1
        self._not_before = now + delay_s


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _for_caller(error: BaseException) -> BaseException:
    """Turn the failure of a shared attempt into one waiter's own."""
    if isinstance(error, ConnectionLostError | SessionLostError) and not isinstance(error, ServerExitedError):
        return ConnectError(error.message, server_id=error.server_id, hint=error.hint)
    # Whatever became of the handshake, the caller's own request never left.
    return error.for_caller("not_sent") if isinstance(error, CallError) else error
