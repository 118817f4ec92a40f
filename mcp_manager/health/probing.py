"""Makes one probe: chooses its request, classifies its failure, and replaces an instance that stopped answering."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from mcp_manager._core.http_message import Request
from mcp_manager._core.records import Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    DeadlineExceededError,
    ServerExitedError,
    SessionLostError,
)
from mcp_manager.health.assessment import Watch
from mcp_manager.health.life_signs import called_until_ns
from mcp_manager.outcomes import classify_error
from mcp_manager.session import Session
from mcp_manager.types import CallStatus, Outcome

__all__ = ["Prober"]

_PING: Final = Request(b'"ping"', None)
# For servers without lists: one that does not know the method says so, which is an answer.
_ANY_LIST: Final = b'"tools/list"'
# The fewest probes for a program without lists that has answered none yet: it may not support any of them.
_CANCELLED: Final = "the server in memory did not answer {} and was cancelled"
_FEWEST_PROBES: Final = 3
# If a timeout is noticed later than this, the event loop was blocked, and the answer may have arrived.
_OVERSLEPT_S: Final = 0.25


class Prober:
    """Probe instances.

    Parameters
    ----------
    router
        Admits and counts probes.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(self, router: Router, clock: Callable[[], int]) -> None:
        self._router = router
        self._clock = clock

    async def probe(self, watch: Watch, backend: Backend) -> bool:
        """Probe an instance if its circuit allows it, record the outcome, and return whether it answered."""
        instance, session = watch.instance, watch.instance.session
        started_ns = self._clock()
        watch.supervisor.release(instance)
        watch.heard(backend.last_success_ns)
        lease = self._router.pick_probe(backend, started_ns)
        # The breaker does not apply to a child process that ended or a server that was never reached: there is no
        # traffic to protect it from, and sessions have a backoff of their own.
        exempt = session is None and (watch.is_child or instance.generation == 0)
        if lease.rejection and not exempt:
            return False
        watch.silence.probed(instance)
        watch.probe_begins(started_ns)
        request = None if session is None else _request(watch, session)
        outcome, status = Outcome.IGNORED, CallStatus.CANCELLED
        failure: CallError | None = None
        is_answered = False
        try:
            await self._ask(watch, request)
            outcome, status, is_answered = Outcome.SUCCESS, CallStatus.SUCCESS, True
        except CallError as error:
            if session is not None and isinstance(error, DeadlineExceededError) and self._overslept(watch, started_ns):
                error.is_local = True
            outcome, status, is_answered = self._told_by(error, watch, lease)
            # A copy has no traceback, which would keep this frame alive.
            failure = error.for_caller(error.delivery)
        finally:
            self._router.done(lease, outcome, status, self._clock(), random=random.getrandbits(64))
        watch.supervisor.hold(instance)
        if is_answered or failure is None:
            if request is not None:
                watch.silence.answered(by_list=request is not _PING)
            watch.probe_answered((self._clock() - started_ns) / 1e9 if session is not None else 0.0)
            return True
        if failure.is_local:
            # The failure was local: it says nothing about the server.
            return False
        instance.last_error = failure
        ran_out = session is not None and status is CallStatus.TIMEOUT
        watch.probe_failed(started_ns, ran_out=ran_out, was_busy=called_until_ns(instance) > self._clock())
        watch.heard(backend.last_success_ns)
        if session is None or session is not instance.session or not _is_silence(failure, watch):
            return False
        watch.silence.unanswered(instance)
        return await self._replaced(watch, backend, session)

    async def _ask(self, watch: Watch, request: Request | None) -> None:
        if request is None:
            # The handshake is the probe: a server that completes it is alive. connect() bounds its time.
            await watch.instance.connect()
        else:
            await watch.instance.call(request, self._clock() + int(watch.limit_s * 1e9))

    def _overslept(self, watch: Watch, started_ns: int) -> bool:
        """Return whether this side noticed the timeout so late that the answer may have arrived."""
        return (self._clock() - started_ns) / 1e9 > watch.limit_s + _OVERSLEPT_S

    def _told_by(self, error: CallError, watch: Watch, lease: Lease) -> tuple[Outcome, CallStatus, bool]:
        """Return a failed probe's outcome for the circuit, its status for the counters, and whether it is an answer."""
        outcome, status = classify_error(error, 0.0, 0.0)
        if outcome is Outcome.SUCCESS and not isinstance(error, AuthError):
            return outcome, status, True
        if error.is_local:
            return Outcome.IGNORED, status, False
        if status is CallStatus.OVERLOADED and error.delivery == "rejected":
            # A closed circuit ignores HTTP 429 and 503; in a trial they are failures.
            return (Outcome.FAILURE if lease.trial else Outcome.IGNORED), status, True
        backend = watch.instance.backend
        if backend is not None and watch.instance.session is not None and not isinstance(error, ConnectError):
            has_answered = backend.last_success_ns >= lease.started_ns
            is_undisputed = backend.last_failure_ns <= backend.last_success_ns
            # Calls are better evidence: if none of them failed, they should try a circuit that probes have opened.
            if has_answered or (is_undisputed and (watch.is_doubted or lease.trial)):
                return Outcome.IGNORED, status, False
        return Outcome.FAILURE, status, False

    async def _replaced(self, watch: Watch, backend: Backend, session: Session) -> bool:
        """Replace a process or session that stopped answering, if allowed; return whether a new session answered."""
        instance, config = watch.instance, watch.config
        probes = watch.silence.probes
        if probes < _probes_needed(watch, session) or not config.restart.on_hang:
            return False
        if watch.is_child:
            if called_until_ns(instance) <= self._clock():
                watch.replaced()
                instance.give_up(session, _hung(watch, session, probes))
            return False
        # This side cannot restart a remote server. But its session may be stuck, or the connection below: try a new
        # one, once the server is shown as Unhealthy.
        is_stuck = watch.silence.has_answered and watch.failures > config.health.fall and not session.is_stateless
        if not is_stuck or backend.inflight:
            return False
        lost = SessionLostError(
            f"the session did not answer {probes} probes in a row", server_id=watch.supervisor.server_id
        )
        if not await instance.renew(session, lost):
            return False
        watch.probe_answered(0.0)
        return True


def _request(watch: Watch, session: Session) -> Request:
    """Return the request that probes a live session."""
    silence = watch.silence
    # Some programs ignore pings, so a program that never answered one gets another request before it is killed.
    is_last = not silence.has_answered and silence.probes >= _probes_needed(watch, session) - 1
    is_doubtful = watch.is_child and not session.is_stateless and (is_last or silence.is_asked_for_lists)
    return Request(session.listing or _ANY_LIST, None) if is_doubtful else _PING


def _probes_needed(watch: Watch, session: Session) -> int:
    """Return how many probes in a row a session must leave unanswered before it is replaced."""
    fall = watch.config.health.fall
    is_known = session.listing is not None or watch.silence.has_answered or not watch.is_child
    return fall if is_known else max(fall, _FEWEST_PROBES)


def _is_silence(error: CallError, watch: Watch) -> bool:
    """Return whether nothing came back in time; a program may not even have read the request."""
    return isinstance(error, DeadlineExceededError) and (watch.is_child or error.delivery == "unknown")


def _hung(watch: Watch, session: Session, probes: int) -> ServerExitedError:
    times = "a probe" if probes == 1 else f"{probes} probes in a row"
    is_program = watch.config.command is not None
    what = "the server process did not answer {} and was killed" if is_program else _CANCELLED
    error = ServerExitedError(
        what.format(times),
        server_id=watch.supervisor.server_id,
        hint=session.last_words or ("it wrote nothing to stderr" if is_program else ""),
    )
    error.has_hung = True
    return error
