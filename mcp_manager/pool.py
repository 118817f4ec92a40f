"""One instance of a server: at most one live session, made by a single flight and replaced under a generation."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Callable
from functools import partial

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Instance as RouterInstance
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ServerExitedError,
    SessionLostError,
)
from mcp_manager.policy import backoff_delay
from mcp_manager.session import ProgressReports, Session, SessionSettings
from mcp_manager.transports.base import Sendable

__all__ = ["Instance"]

_log = logging.getLogger(__name__)


class Instance:
    """Keep one session to one place where a server runs, and replace it when it is lost.

    Every replacement raises ``generation``; whatever belongs to an older session changes nothing any more.

    Parameters
    ----------
    settings
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
        "_closing",
        "_connected_at",
        "_connecting",
        "_ending",
        "_failed_starts",
        "_idle",
        "_lost",
        "_not_before",
        "_on_change",
        "_retired",
        "generation",
        "handle",
        "index",
        "last_error",
        "number",
        "session",
        "settings",
    )

    def __init__(
        self,
        settings: SessionSettings,
        index: int,
        number: int,
        on_change: Callable[[Instance, CallError | None], None],
    ) -> None:
        self.settings = settings
        self._on_change = on_change
        # The live session, if there is one; set here alone.
        self.session: Session | None = None
        # The one that :meth:`aclose` ends, for whoever comes by meanwhile.
        self._ending: Session | None = None
        self._connecting: asyncio.Task[Session] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._retired: set[asyncio.Task[None]] | None = None
        # Sessions that were lost: their calls under way hold them, and end with the instance.
        self._lost: weakref.WeakSet[Session] | None = None
        self._closing = False
        self._not_before = 0.0
        self._failed_starts = 0
        self._connected_at = 0.0
        self.index = index
        self.number = number
        self.generation = 0
        self.last_error: CallError | None = None
        self.handle: RouterInstance | None = None

    @property
    def pid(self) -> int:
        """The process id of the live session's child, 0 if there is none."""
        return self.session.pid if self.session is not None else 0

    @property
    def label(self) -> tuple[int, int, str | None]:
        """What a call's record says of where it went: index, generation, revision of the session."""
        return self.index, self.generation, self.session.revision if self.session is not None else None

    @property
    def is_connecting(self) -> bool:
        """Whether an attempt to make a session is under way."""
        return self._connecting is not None

    @property
    def restart_at(self) -> float:
        """The loop time before which a child process is not started again; 0 if it may be at once."""
        return self._not_before

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

        The refusal proves that the request was not executed (2025-11-25, session management). Raises as :meth:`call`.
        """
        self.lose(session, lost)
        replacement = await self.ready_session(deadline_ns)
        return await replacement.call(request, deadline_ns, progress)

    def lose(self, session: Session, error: CallError) -> None:
        """Retire a session, unless another caller already did; whoever comes next makes a new one."""
        if session is not self.session:
            return
        self._set_session(None)
        self.generation += 1
        self.last_error = error
        if self._lost is None:
            self._lost = weakref.WeakSet()
        self._lost.add(session)
        task = asyncio.get_running_loop().create_task(session.retire())
        if self._retired is None:
            self._retired = set()
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
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
        connecting = self._connecting or self._start_connecting()
        done, _ = await asyncio.wait({connecting}, timeout=max(0, deadline_ns - time.monotonic_ns()) / 1e9)
        if not done:
            raise DeadlineExceededError(
                "the session was not ready within the deadline",
                server_id=self.settings.server_id,
                delivery="not_sent",
            )
        if connecting.cancelled():
            raise ConnectError("the server is being stopped", server_id=self.settings.server_id, retryable=False)
        error = connecting.exception()
        if error is None:
            return connecting.result()
        raise _for_caller(error) from None

    async def wait_connected(self) -> None:
        """Wait for the end of the attempt to make a session that is under way, whatever comes of it."""
        if self._connecting is not None:
            await asyncio.wait({self._connecting})

    async def wait_idle(self) -> None:
        """Wait until no call is under way."""
        handle = self.handle
        while handle is not None and handle.inflight:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
                handle.on_idle = partial(_resolve, self._idle)
            # Not awaited itself: whoever gives up would cancel it for the others who wait.
            await asyncio.wait({self._idle})

    async def aclose(self, grace_s: float) -> None:
        """End the session, giving it ``grace_s`` seconds; idempotent, safe to cancel, and the most urgent call wins."""
        self._closing = True
        if self.session is not None:
            self._ending = self.session
            self._set_session(None)
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
        for lost in list(self._lost or ()):
            lost.interrupt()
        try:
            if self._ending is not None:
                await self._ending.aclose(grace_s)
        finally:
            pending = [task for task in (connecting, *(self._retired or ())) if task is not None]
            if pending:
                await asyncio.gather(*pending, return_exceptions=True)

    def _start_connecting(self) -> asyncio.Task[Session]:
        loop = asyncio.get_running_loop()
        server_id = self.settings.server_id
        if self._closing:
            raise ConnectError("the server is being stopped", server_id=server_id, retryable=False)
        wait_s = self._not_before - loop.time()
        if wait_s > 0:
            raise self._not_restarted_yet(wait_s)
        self._connecting = loop.create_task(self._connect())
        self._connecting.add_done_callback(self._connecting_done)
        return self._connecting

    def _not_restarted_yet(self, wait_s: float) -> CallError:
        """Say why the child process is gone, and when it is started again."""
        last = self.last_error
        what = last.message if last is not None else "the server process has ended"
        kind = ServerExitedError if isinstance(last, ServerExitedError) else ConnectError
        return kind(
            f"{what}; it is started again in {wait_s:.1f} s",
            server_id=self.settings.server_id,
            delivery="not_sent",
            retry_after_s=wait_s,
            hint=last.hint if last is not None else "",
        )

    def _connecting_done(self, task: asyncio.Task[Session]) -> None:
        if self._connecting is task:
            self._connecting = None
        if not task.cancelled():
            # Retrieved here: callers may all have given up waiting.
            task.exception()

    async def _connect(self) -> Session:
        settings = self.settings
        timeout_s = settings.config.connect_timeout_s
        session = Session(settings, self.index, self.number, self._session_died)
        try:
            async with settings.connect_slots:
                try:
                    async with asyncio.timeout(timeout_s):
                        await session.connect()
                except TimeoutError as error:
                    if isinstance(error, CallError):
                        raise
                    authorizations = settings.authorizations
                    if authorizations is not None and authorizations.is_pending:
                        raise AuthError(
                            "the server waits for an authorization that is under way",
                            server_id=settings.server_id,
                            retryable=True,
                            hint="it goes on: call again once the user has agreed",
                        ) from None
                    raise ConnectError(
                        f"no handshake within connect_timeout_s ({timeout_s:g} s)", server_id=settings.server_id
                    ) from None
        except CallError as error:
            self.last_error = error
            self._delay_restart()
            raise
        self._set_session(session)
        self.generation += 1
        if session.channel is not None:
            session.channel.label = self.label
        self.last_error = None
        self._connected_at = asyncio.get_running_loop().time()
        self._on_change(self, None)
        return session

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        if self.handle is not None:
            self.handle.channel = None if session is None else session.channel

    def _session_died(self, session: Session, error: CallError) -> None:
        if session is self.session:
            self._delay_restart()
            self.lose(session, error)

    def _delay_restart(self) -> None:
        """Hold back the next start of a child process; a URL is not ours to restart and may be tried at once."""
        if self.settings.config.transport != "stdio":
            return
        restart = self.settings.config.restart
        now = asyncio.get_running_loop().time()
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
    if isinstance(error, ConnectionLostError) and not isinstance(error, ServerExitedError):
        return ConnectError(error.message, server_id=error.server_id, hint=error.hint)
    # Whatever became of the handshake, the caller's own request never left.
    return error.for_caller("not_sent") if isinstance(error, CallError) else error
