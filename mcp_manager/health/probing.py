"""One probe: what is asked, what its failure says of the server, and what is done about one that has fallen silent."""

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
# Of what offers no list: whoever does not know the method says so, which is an answer.
_ANY_LIST: Final = b'"tools/list"'
# How many probes a program without lists gets at least that has answered none yet: it may know none of them.
_FEWEST_PROBES: Final = 3
# How late the end of a probe may be noticed: beyond that it was this side that did not look, and the answer may be there.
_OVERSLEPT_S: Final = 0.25


class Prober:
    """Probe instances.

    Parameters
    ----------
    router
        Admits and counts probes.
    clock
        Monotonic nanoseconds.
    """

    def __init__(self, router: Router, clock: Callable[[], int]) -> None:
        self._router = router
        self._clock = clock

    async def probe(self, watch: Watch, backend: Backend) -> bool:
        """Ask an instance if its circuit allows it, take note of what comes of it, and tell whether it answered."""
        instance, session = watch.instance, watch.instance.session
        started_ns = self._clock()
        watch.supervisor.release(instance)
        watch.heard(backend.last_success_ns)
        lease = self._router.pick_probe(backend, started_ns)
        # A child process that is gone, or a server never reached, is not the breaker's business: there is no
        # traffic to protect it from, and the session's own backoff governs.
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
            # A copy, which has no traceback: that holds this frame.
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
            # It was this side that failed, which says nothing of the server.
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
            # The handshake is the probe: a server that completes it is alive. It is bounded where it is made.
            await watch.instance.connect()
        else:
            await watch.instance.call(request, self._clock() + int(watch.limit_s * 1e9))

    def _overslept(self, watch: Watch, started_ns: int) -> bool:
        """Tell whether it was this side that did not look for the answer in time."""
        return (self._clock() - started_ns) / 1e9 > watch.limit_s + _OVERSLEPT_S

    def _told_by(self, error: CallError, watch: Watch, lease: Lease) -> tuple[Outcome, CallStatus, bool]:
        """Tell what the failure of a probe means to the circuit and the accounts, and whether it is an answer."""
        outcome, status = classify_error(error, 0.0, 0.0)
        if outcome is Outcome.SUCCESS and not isinstance(error, AuthError):
            return outcome, status, True
        if error.is_local:
            return Outcome.IGNORED, status, False
        if status is CallStatus.OVERLOADED and error.delivery == "rejected":
            # A closed circuit ignores "come back later"; a circuit on trial takes it for a no.
            return (Outcome.FAILURE if lease.trial else Outcome.IGNORED), status, True
        backend = watch.instance.backend
        if backend is not None and watch.instance.session is not None and not isinstance(error, ConnectError):
            has_answered = backend.last_success_ns >= lease.started_ns
            is_undisputed = backend.last_failure_ns <= backend.last_success_ns
            # Calls are the better witnesses: where none of them failed, they are to try a circuit that probes opened.
            if has_answered or (is_undisputed and (watch.is_doubted or lease.trial)):
                return Outcome.IGNORED, status, False
        return Outcome.FAILURE, status, False

    async def _replaced(self, watch: Watch, backend: Backend, session: Session) -> bool:
        """Replace what has fallen silent for good, if it is to be replaced; tell whether another session has answered."""
        instance, config = watch.instance, watch.config
        probes = watch.silence.probes
        if probes < _probes_needed(watch, session) or not config.restart.on_hang:
            return False
        if watch.is_child:
            if called_until_ns(instance) <= self._clock():
                watch.replaced()
                instance.give_up(session, _hung(watch, session, probes))
            return False
        # A program of others is not ours to end; but the session may be what is stuck, or the connection that it lives on.
        # That is tried when the server is shown as what it seems to be.
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
    """Return what a live session is asked."""
    silence = watch.silence
    # Some programs ignore pings: whether one is dead is not decided by what it may never have answered.
    is_last = not silence.has_answered and silence.probes >= _probes_needed(watch, session) - 1
    is_doubtful = watch.is_child and not session.is_stateless and (is_last or silence.is_asked_for_lists)
    return Request(session.listing or _ANY_LIST, None) if is_doubtful else _PING


def _probes_needed(watch: Watch, session: Session) -> int:
    """Return how many probes in a row a session leaves unanswered before it is replaced."""
    fall = watch.config.health.fall
    is_known = session.listing is not None or watch.silence.has_answered or not watch.is_child
    return fall if is_known else max(fall, _FEWEST_PROBES)


def _is_silence(error: CallError, watch: Watch) -> bool:
    """Tell whether nothing came back in time; a program may not even have taken what it was sent."""
    return isinstance(error, DeadlineExceededError) and (watch.is_child or error.delivery == "unknown")


def _hung(watch: Watch, session: Session, probes: int) -> ServerExitedError:
    times = "a probe" if probes == 1 else f"{probes} probes in a row"
    error = ServerExitedError(
        f"the server process did not answer {times} and was killed",
        server_id=watch.supervisor.server_id,
        hint=session.last_words or "it wrote nothing to stderr",
    )
    error.has_hung = True
    return error
