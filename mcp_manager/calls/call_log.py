"""DirectCall records: the latest calls in detail, for the question what happened just before something went wrong."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from mcp_manager._core.call_ring import CallRing, PastCall
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.call import Call
from mcp_manager.errors import CallError, Delivery
from mcp_manager.outcomes import classify_error
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.revisions import STATELESS_REVISIONS
from mcp_manager.protocol.safety import tool_of
from mcp_manager.servers.instance import Instance
from mcp_manager.types import CallStatus, CircuitState, Rejection

__all__ = ["CallEnd", "CallLog", "FlightRecord"]

_log = logging.getLogger(__name__)
# Of a program that has set up no logging, the terminal is not filled with records.
_log.addHandler(logging.NullHandler())

_DUMPED: Final = 8
_DUMP_INTERVAL_NS: Final = 60 * 10**9
_DUMPS_AT_MOST: Final = 10


class FlightRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call, without its parameters and its result.

    Parameters
    ----------
    server_id, method, tool
        What was called; ``tool`` where it is known, of a call that did not go the ordinary way.
    started_at
        The time of day in UTC (ISO 8601).
    total_s, queue_wait_s
        Seconds from the call to its end, and those of them that it waited for its turn.
    instance
        The index of the instance that took it last, ``None`` if none did.
    era, revision, session_generation
        Of the session that took it last, ``None`` if there was none.
    attempts, hedged
        How often it was sent, or tried to be, and whether two attempts ran beside each other.
    circuit, inflight, limit
        Of that instance when the call was over: the state of its circuit, the calls under way, how many there may be.
    status, delivery
        How it ended, as in the metrics, and what became of the request.
    error
        The class of the error that the caller got.
    """

    server_id: str
    method: str
    tool: str | None = None
    started_at: str
    total_s: float
    queue_wait_s: float = 0.0
    instance: int | None = None
    era: Literal["handshake", "stateless"] | None = None
    revision: str | None = None
    session_generation: int | None = None
    attempts: int = 1
    hedged: bool = False
    circuit: str | None = None
    inflight: int | None = None
    limit: int | None = None
    status: str
    delivery: Delivery
    error: str | None = None


class CallEnd(NamedTuple):
    """How a call ended: the label of the session that took it last, its status, and the error if it failed."""

    label: object
    status: CallStatus
    error: BaseException | None = None


class CallLog:
    """Remember the latest calls: those that went the ordinary way and those that did not, so many of each.

    A fleet that makes 20,000 calls a second would otherwise have forgotten a failure after a few milliseconds.

    Parameters
    ----------
    capacity
        How many of each kind; 0 remembers nothing and dumps nothing.
    router
        Knows how instances stand.
    clock, wall_clock
        Monotonic nanoseconds, and seconds since 1970.
    """

    def __init__(
        self, capacity: int, router: Router, clock: Callable[[], int], wall_clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._clock = clock
        self._wall_clock = wall_clock
        # Written by the compiled path of a call.
        self.ring = CallRing(capacity) if capacity else None
        self._unusual: deque[tuple[int, FlightRecord]] = deque(maxlen=capacity)
        # When which server's records were dumped, of the last minute.
        self._dumps: deque[tuple[int, str]] = deque()
        self._left_out = 0
        # By server id, what happened in calls that are not over yet.
        self._expected: dict[str, str] = {}

    def ordinary(self, lease: Lease, method: str, label: object) -> None:
        """Remember a call that was answered at its first attempt, on a way that the compiled path does not know.

        ``label`` is :attr:`Instance.label <mcp_manager.servers.instance.Instance.label>`.
        """
        if self.ring is not None and lease.backend is not None:
            circuit = CircuitState.HALF_OPEN if lease.trial else CircuitState.CLOSED
            inflight = lease.backend.inflight
            self.ring.add(lease.server_id, method, label, lease.started_ns, self._clock(), inflight, circuit)

    def note(
        self,
        call: Call,
        lease: Lease | None,
        attempts: int,
        status: CallStatus = CallStatus.SUCCESS,
        error: BaseException | None = None,
    ) -> None:
        """Record a call that is over and was not an ordinary one.

        Parameters
        ----------
        lease
            That of its last attempt, given back, or refused; ``None`` if there was none.
        attempts
            How many attempts there were.
        status, error
            How it ended; an error has a status of its own.
        """
        if self.ring is None:
            return
        details: dict[str, Any] = {"attempts": attempts, "hedged": call.is_hedge}
        label = None
        if lease is not None and lease.backend is not None:
            instance: Instance = lease.payload
            label = instance.label
            circuit = CircuitState(self._router.breaker_state(lease.backend, self._clock()))
            details["circuit"], details["limit"] = circuit.label, lease.backend.limit
            details["inflight"] = lease.backend.inflight
        if lease is not None and attempts == 1:
            details["queue_wait_s"] = (lease.started_ns - call.started_ns) / 1e9
        if call.method == CALL_TOOL:
            details["tool"] = tool_of(call.request.params)
        if error is not None:
            status = _status(lease, error)
        self.unusual(call.server_id, call.method, call.started_ns, CallEnd(label, status, error), **details)

    def unusual(self, server_id: str, method: str, started_ns: int, end: CallEnd, **details: Any) -> None:
        """Record a call that failed, waited, or was tried again; ``details`` are further fields of its record.

        One that may or may not have been executed is an :meth:`anomaly`.
        """
        if self.ring is None:
            return
        label, status, error = end
        ended_ns = self._clock()
        delivery: Delivery = "answered"
        if error is not None:
            # A caller that gave up does not know, and nobody else does.
            delivery = error.delivery if isinstance(error, CallError) else "unknown"
        record = FlightRecord(
            server_id=server_id,
            method=method,
            started_at=self._time_of_day(started_ns, ended_ns),
            total_s=(ended_ns - started_ns) / 1e9,
            **_session(label),
            status=status.label,
            delivery=delivery,
            error=type(error).__name__ if error is not None else None,
            **details,
        )
        self._unusual.append((ended_ns, record))
        expected = self._expected.pop(server_id, None)
        if expected is not None:
            self.anomaly(server_id, expected)
        elif delivery == "unknown" and isinstance(error, CallError):
            self.anomaly(server_id, "a call of which it is not known whether it was executed")

    def forget(self, server_id: str) -> None:
        """Expect no more calls of a server that is gone."""
        self._expected.pop(server_id, None)

    def records(self) -> list[FlightRecord]:
        """Return what is remembered, in the order in which the calls ended."""
        return [record for _, record in self._merged()]

    def anomaly(self, server_id: str, what: str, *, after_next: bool = False) -> None:
        """Write the last calls of a server to the log, unless that was just done, or is being done for many.

        At most once a minute for a server and ten times a minute for all. ``after_next`` waits until another of its
        calls is noted: that which has brought it about.
        """
        if self.ring is None:
            return
        if after_next:
            self._expected[server_id] = what
            return
        now_ns = self._clock()
        while self._dumps and now_ns - self._dumps[0][0] >= _DUMP_INTERVAL_NS:
            self._dumps.popleft()
        if len(self._dumps) >= _DUMPS_AT_MOST or any(dumped == server_id for _, dumped in self._dumps):
            self._left_out += 1
            return
        self._dumps.append((now_ns, server_id))
        left_out, self._left_out = self._left_out, 0
        _log.warning(
            "server %r: %s; its last calls: %s%s",
            server_id,
            what,
            msgspec.json.encode(self._last_of(server_id)).decode(),
            f" ({left_out} such reports were left out before)" if left_out else "",
        )

    def _last_of(self, server_id: str) -> list[FlightRecord]:
        return [record for _, record in self._merged(server_id)[-_DUMPED:]]

    def _merged(self, server_id: str | None = None) -> list[tuple[int, FlightRecord]]:
        if self.ring is None:
            return []
        merged = [
            (each.ended_ns, self._record(each))
            for each in self.ring.past_calls()
            if server_id is None or each.server_id == server_id
        ]
        merged += [each for each in tuple(self._unusual) if server_id is None or each[1].server_id == server_id]
        return sorted(merged, key=lambda each: each[0])

    def _record(self, call: PastCall) -> FlightRecord:
        return FlightRecord(
            server_id=call.server_id,
            method=call.method,
            started_at=self._time_of_day(call.started_ns, self._clock()),
            total_s=(call.ended_ns - call.started_ns) / 1e9,
            **_session(call.label),
            circuit=CircuitState(call.circuit).label,
            inflight=call.inflight,
            status=CallStatus.SUCCESS.label,
            delivery="answered",
        )

    def _time_of_day(self, then_ns: int, now_ns: int) -> str:
        seconds = self._wall_clock() - (now_ns - then_ns) / 1e9
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _status(lease: Lease | None, error: BaseException) -> CallStatus:
    if lease is None or not lease.rejection:
        return classify_error(error, 0.0, 0.0)[1]
    return CallStatus.OVERLOADED if lease.rejection >= Rejection.CONCURRENCY else CallStatus(lease.rejection)


def _session(label: object) -> dict[str, Any]:
    """Read the label of a session: the instance's index, the session's generation and its revision."""
    if not isinstance(label, tuple):
        return {}
    index, generation, revision = label
    era = None if revision is None else "stateless" if revision in STATELESS_REVISIONS else "handshake"
    return {"instance": index, "session_generation": generation, "revision": revision, "era": era}
