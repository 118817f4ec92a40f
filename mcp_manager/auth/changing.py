"""Credentials that a file, a program or a function gives, and gives again when they change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final

from mcp_manager.auth.challenge import Challenge
from mcp_manager.auth.sources import Source, SourceError
from mcp_manager.errors import AuthError
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["ChangingCredentials"]

# How often a file is looked at while sessions use it. A refused request looks at it at once.
_LOOK_S: Final = 10.0
# A program or function whose credentials were refused, or that failed, is not asked again at once.
_FIRST_HOLD_OFF_S: Final = 1.0
_LONGEST_HOLD_OFF_S: Final = 60.0


class ChangingCredentials:
    """Keep the credentials of one server, and read them again when they are refused or have changed.

    One object serves all endpoints of a server; see :class:`~mcp_manager.auth.base.Authorization` and
    :class:`~mcp_manager.auth.base.Authorizations`. One reading serves all callers that wait for it.

    Parameters
    ----------
    server_id
        Names the server in errors.
    source
        Where the credentials come from.
    """

    per_request = False
    pending_hint = "its credentials are still being obtained: call again soon"

    def __init__(self, server_id: str, source: Source) -> None:
        self._server_id = server_id
        self._source = source
        self._headers: Mapping[str, str] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._look: asyncio.TimerHandle | None = None
        self._failure: AuthError | None = None
        self._hold_offs = 0
        self._not_before = 0.0
        self._closed = False
        self.generation: int = 0

    @property
    def is_pending(self) -> bool:
        """Whether credentials are being read."""
        return self._reading is not None

    def of(self, url: str) -> ChangingCredentials:
        """Return the authorization for an endpoint: the same for all of a server."""
        return self

    def headers(self) -> Mapping[str, str]:
        """Return the header fields with the credentials; none before they were first read."""
        return self._headers or {}

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields with the credentials."""
        return dict(self.headers())

    def take_nonce(self, nonce: str) -> None:
        """Do nothing: these credentials need none."""

    async def make_ready(self) -> None:
        """Read the credentials if there are none yet, or a file has changed; raises :class:`AuthError`."""
        if self._headers is None:
            self._check_hold_off()
            await self._read()
        elif self._source.has_changed:
            try:
                await self._read()
            except AuthError:
                # The present ones may still be accepted; if not, the challenge reports the failure.
                return

    async def challenged(self, challenge: Challenge, generation: int) -> bool:
        """Read the credentials again after a 401; tell whether they have changed."""
        if generation != self.generation:
            return True
        if challenge.status != 401:
            return False
        if self._source.is_costly:
            self._check_hold_off()
            if self._is_held_off:
                return False
        await self._read()
        if self.generation == generation:
            self._hold_off(None)
            return False
        return True

    def refused_again(self) -> None:
        """Note that new credentials were refused as well."""
        self._hold_off(None)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever the credentials have changed, until the returned function is called."""
        self._listeners.append(changed)
        if self._look is None and self._source.is_watched and not self._closed:
            self._look_later()

        def unsubscribe() -> None:
            if changed in self._listeners:
                self._listeners.remove(changed)
            if not self._listeners:
                self._stop_looking()

        return unsubscribe

    async def aclose(self) -> None:
        """Stop reading, and wait for the end of that; idempotent."""
        self.stop()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def stop(self) -> None:
        """Stop reading; idempotent."""
        self._closed = True
        self._stop_looking()
        if self._reading is not None:
            self._reading.cancel()

    # One reading at a time

    async def _read(self) -> None:
        """Wait for the reading in progress, or start one; a caller that stops waiting leaves it running."""
        reading = self._begin()
        await asyncio.wait({reading})
        if reading.cancelled():
            raise AuthError("the server is being stopped", server_id=self._server_id)
        error = reading.exception()
        if isinstance(error, AuthError):
            raise error.for_caller("not_sent")

    def _begin(self) -> asyncio.Task[None]:
        if self._closed:
            raise AuthError("the server is being stopped", server_id=self._server_id)
        if self._reading is None:
            self._reading = background_task(self._run(), "read credentials", context=bare_context())
            self._reading.add_done_callback(self._ended)
        return self._reading

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            # All callers may have stopped waiting: retrieve the exception, so that asyncio logs none.
            task.exception()

    async def _run(self) -> None:
        try:
            headers = await self._source.read()
        except SourceError as error:
            self._fail(str(error), error.hint)
        except Exception as error:
            # Its text may quote what was read, so it is not passed on.
            self._fail(f"its credentials could not be read ({type(error).__name__})")
        self._failure = None
        if headers != self._headers:
            self._headers = headers
            self.generation += 1
            for changed in list(self._listeners):
                changed()

    def _fail(self, text: str, hint: str = "") -> None:
        failure = AuthError(text, server_id=self._server_id, hint=hint)
        self._hold_off(failure)
        try:
            raise failure from None
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del failure

    @property
    def _is_held_off(self) -> bool:
        return asyncio.get_running_loop().time() < self._not_before

    def _check_hold_off(self) -> None:
        """Raise the last failure again for a while, in place of another reading."""
        wait_s = self._not_before - asyncio.get_running_loop().time()
        if self._failure is not None and self._source.is_costly and wait_s > 0:
            failure = self._failure.for_caller("not_sent")
            failure.retry_after_s = wait_s
            try:
                raise failure
            finally:
                # Break the reference cycle: the traceback refers to this frame.
                del failure

    def _hold_off(self, failure: AuthError | None) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s > self._not_before + _LONGEST_HOLD_OFF_S:
            self._hold_offs = 0
        hold_off_s = min(_LONGEST_HOLD_OFF_S, _FIRST_HOLD_OFF_S * 2.0**self._hold_offs)
        self._hold_offs = min(self._hold_offs + 1, 16)
        # A copy without a traceback, whose frames hold what was read.
        self._failure = None if failure is None else failure.for_caller("not_sent")
        self._not_before = now_s + hold_off_s

    # Files that change

    def _look_later(self) -> None:
        delay_s = _LOOK_S * (0.8 + 0.4 * random.random())
        self._look = asyncio.get_running_loop().call_later(delay_s, self._look_now, context=bare_context())

    def _look_now(self) -> None:
        self._look_later()
        if self._source.has_changed and self._reading is None and not self._closed:
            self._begin()

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
