"""The retry loop: it repeats a failed call while its server's configuration allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.admission import MAY_WAIT
from mcp_manager.calls.attempts import Attempts
from mcp_manager.calls.availability import has_other, is_on_trial
from mcp_manager.calls.call import Call, Choice
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.deadlines import tell_deadline
from mcp_manager.calls.retry_rules import (
    Circumstances,
    cover_all_attempts,
    mark_final,
    may_be_repeated,
    next_backoff_s,
    pause_s,
    way_to_repeat,
)
from mcp_manager.config import RetryConfig
from mcp_manager.errors import CallError, DeadlineExceededError, SessionLostError
from mcp_manager.runtime.current_trace import note_event
from mcp_manager.transports.base import put_off
from mcp_manager.types import CallStatus, Rejection

__all__ = ["Retries"]


class Retries:
    """Retry failed calls as their server's :class:`~mcp_manager.config.RetryConfig` allows.

    Parameters
    ----------
    attempts
        Makes each attempt.
    router
        Keeps the retry budgets.
    clock
        Returns monotonic nanoseconds.
    log
        Records the calls that fail after their last attempt.
    """

    def __init__(self, attempts: Attempts, router: Router, clock: Callable[[], int], log: CallLog) -> None:
        self._attempts = attempts
        self._router = router
        self._clock = clock
        self._log = log

    async def retry(self, call: Call, lease: Lease | None, error: CallError) -> tuple[Message, Lease]:
        """Retry a call whose first attempt has failed; return the reply of a later attempt and its lease.

        Parameters
        ----------
        call
            The call.
        lease, error
            The lease of the first attempt (``None`` if it got none) and its failure.

        Raises
        ------
        CallError
            The failure of the last attempt, once no further attempt is allowed or there is no time for one. Its
            ``attempts`` and ``delivery`` cover all attempts.
        """
        config = call.supervisor.config.retry
        attempts, backoff_s = error.attempts, config.backoff_s
        may_have_run = error.delivery == "unknown"
        try:
            while attempts < config.attempts and error.retryable and lease is not None:
                if not self._may_repeat(call, error, config):
                    break
                backoff_s = next_backoff_s(backoff_s, config, random())
                if not await self._paused(call, lease, error, backoff_s):
                    break
                # The rate limit and load shedding do not count the calls that they refuse.
                again = lease.rejection not in (Rejection.RATE, Rejection.SHED)
                choice = Choice(lease.backend, again=again)
                try:
                    leased = self._attempts.lease(call, self._clock(), choice)
                except KeyError:
                    # The server was removed in the meantime.
                    break
                except SessionLostError as lost:
                    error = lost
                    break
                call.attempts, call.may_resend = attempts, attempts + 1 < config.attempts
                try:
                    leased = await self._attempts.admitted(call, leased, choice)
                    call.supervisor.count_recovery("retry")
                    note_event("retry", error)
                    return await self._attempts.carry(call, leased), leased.lease
                except CallError as failure:
                    if leased.lease.rejection and not lease.rejection:
                        # The failure of the call says more than the reason why it is not retried.
                        break
                    lease, error = leased.lease, failure
                attempts += error.attempts
                may_have_run = may_have_run or error.delivery == "unknown"
            cover_all_attempts(error, attempts, may_have_run=may_have_run)
            if call.supervisor.is_over and error.retryable:
                mark_final(error)
            if isinstance(error, DeadlineExceededError):
                tell_deadline(error, call)
            self._attempts.errors.count(call.server_id, error)
            self._log.note(call, lease, attempts, error=error)
            raise error
        finally:
            # An exception's traceback holds this frame.
            del error

    def _may_repeat(self, call: Call, error: CallError, config: RetryConfig) -> bool:
        is_safe = error.delivery != "unknown" or call.is_safe
        if isinstance(error, DeadlineExceededError):
            # There is no time for another attempt, whatever the tool is.
            return may_be_repeated(error, is_safe)
        if not is_safe and not call.supervisor.is_over:
            way = way_to_repeat(call.method, call.request, config)
            # The hint of a status is short; others quote what a program wrote, to their end.
            told = error.hint if error.http_status is None else "; ".join(filter(None, (error.hint, way)))
            error.hint = told or way
        return may_be_repeated(error, is_safe)

    async def _paused(self, call: Call, lease: Lease, error: CallError, backoff_s: float) -> bool:
        """Wait before the next attempt; tell whether there may be one: budget and deadline must allow it."""
        supervisor, now_ns = call.supervisor, self._clock()
        if supervisor.is_over or lease.rejection in MAY_WAIT:
            # The server is going away, or the call has already waited in a queue for as long as it may.
            return False
        known = self._circumstances(call, lease, now_ns)
        wait_s = pause_s(error, supervisor.config.retry, backoff_s, known)
        if wait_s is None:
            return False
        left_s = (put_off(call.listener, call.deadline_ns) - now_ns) / 1e9 - wait_s
        if left_s <= 0 or left_s < self._attempts.latencies.median_s(call.server_id):
            return False
        if not known.is_local and not self._router.withdraw(supervisor.record, now_ns):
            return False
        if wait_s:
            # The supervisor owns the pause, so that removing the server or stopping the manager cancels it.
            pause = supervisor.spawn(asyncio.sleep(wait_s))
            try:
                await asyncio.wait({pause})
            finally:
                pause.cancel()
        return not supervisor.is_over

    def _circumstances(self, call: Call, lease: Lease, now_ns: int) -> Circumstances:
        is_local = lease.rejection != 0
        return Circumstances(
            is_local,
            has_other=not is_local
            and call.where.backend is None
            and has_other(self._router, call.supervisor, lease.backend, now_ns),
            is_on_trial=lease.rejection == CallStatus.CIRCUIT_OPEN
            and is_on_trial(self._router, call.supervisor, now_ns),
        )
