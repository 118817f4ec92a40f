"""Flight records: details of the latest calls, which show what happened just before a failure."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from mcp_manager._core.call_ring import CallRing, PastCall
from mcp_manager._core.readings import past_call
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.call import Call
from mcp_manager.errors import CallError, Delivery
from mcp_manager.outcomes import classify_error
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.revisions import STATELESS_REVISIONS
from mcp_manager.protocol.safety import tool_of
from mcp_manager.runtime.current_trace import trace_ids
from mcp_manager.serialization import Serializable
from mcp_manager.servers.instance import Instance
from mcp_manager.types import CallStatus, CircuitState, Rejection

__all__ = ["CallEnd", "CallLog", "FlightRecord"]

_log = logging.getLogger(__name__)

_DUMPED: Final = 8
_DUMP_INTERVAL_NS: Final = 60 * 10**9
_DUMPS_AT_MOST: Final = 10


class FlightRecord(Serializable, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call, without its parameters and its result.

    Parameters
    ----------
    server_id, method
        The server and the method that were called.
    tool
        The tool that was called; ``None`` for other methods, and for tool calls that got a result at the first attempt.
    started_at
        When the call began, in UTC (ISO 8601, with milliseconds).
    total_s
        Seconds from the beginning of the call to its end.
    queue_wait_s
        Seconds of these that it waited for a limit; 0 if there were several attempts.
    instance
        The index of the instance that took the last attempt, ``None`` without one.
    era, revision, session_generation
        The era, the protocol revision and the generation of that instance's session, ``None`` without one. A higher
        generation is a later session.
    attempts
        How many attempts there were, those that were refused before sending included.
    hedged
        Whether this is the second of two parallel attempts.
    circuit
        The state of that instance's circuit at the end of the call, such as ``Closed``; ``None`` without an instance.
    inflight, limit
        The calls in flight on that instance at the end of the call, and its adaptive limit; ``None`` if not known.
    status
        How the call ended, a value of the metrics' ``status`` label.
    delivery
        Whether the request reached the server; see :data:`~mcp_manager.errors.Delivery`.
    error
        The class name of the error that the caller got, ``None`` without one.
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
    """How a call ended: the label of its last session, its status, and the error if it failed.

    ``label`` is :attr:`Instance.label <mcp_manager.servers.instance.Instance.label>`, or ``None`` without a session.
    """

    label: object
    status: CallStatus
    error: BaseException | None = None


class CallLog:
    """Keep records of the latest calls, separately for ordinary calls (a result at the first attempt) and all others.

    In one list, a fleet that makes 20,000 calls per second would lose the record of a failure within milliseconds.

    Parameters
    ----------
    capacity
        How many records of each kind are kept; 0 keeps none and logs none.
    router
        Knows the circuits and limits of instances.
    clock, wall_clock
        Return monotonic nanoseconds, and seconds since 1970.
    """

    def __init__(
        self, capacity: int, router: Router, clock: Callable[[], int], wall_clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._clock = clock
        self._wall_clock = wall_clock
        # The compiled call path writes to it.
        self.ring: CallRing | None = CallRing(capacity) if capacity else None
        # When they ended, the records, and when they began.
        self._unusual: deque[tuple[int, FlightRecord, int]] = deque(maxlen=capacity)
        # The dumps of the last minute: their time, and the server.
        self._dumps: deque[tuple[int, str]] = deque()
        self._left_out = 0
        # Anomalies by server id, to be dumped with the record of the call that caused them.
        self._expected: dict[str, str] = {}

    def ordinary(self, lease: Lease, method: str, label: object, status: CallStatus = CallStatus.SUCCESS) -> None:
        """Record a call that got a result at its first attempt but did not take the compiled path.

        Parameters
        ----------
        lease
            Its lease, already given back.
        method
            The method that was called.
        label
            :attr:`Instance.label <mcp_manager.servers.instance.Instance.label>` of its instance.
        status
            ``TOOL_ERROR`` if the tool reported a failure.
        """
        if self.ring is not None and lease.backend is not None:
            circuit = CircuitState.HALF_OPEN if lease.trial else CircuitState.CLOSED
            inflight = lease.backend.inflight
            self.ring.add(lease.server_id, method, label, lease.started_ns, self._clock(), inflight, circuit, status)

    def note(
        self,
        call: Call,
        lease: Lease | None,
        attempts: int,
        status: CallStatus = CallStatus.SUCCESS,
        error: BaseException | None = None,
    ) -> None:
        """Record the end of a call that was not ordinary.

        Parameters
        ----------
        call
            The call.
        lease
            The lease of its last attempt, given back or refused; ``None`` without one.
        attempts
            How many attempts there were.
        status, error
            How it ended; with an error, ``status`` is ignored and follows from the error.
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
        """Record the end of a call that failed, waited in a queue, was retried or was hedged.

        A call that may or may not have been executed is reported as an :meth:`anomaly`.

        Parameters
        ----------
        server_id, method
            The server and the method that were called.
        started_ns
            When it began, in nanoseconds of the clock.
        end
            How it ended.
        details
            Further fields of its :class:`FlightRecord`.
        """
        if self.ring is None:
            return
        label, status, error = end
        ended_ns = self._clock()
        delivery: Delivery = "answered"
        if error is not None:
            # The caller gave up, so nobody knows whether the request was executed.
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
        self._unusual.append((ended_ns, record, started_ns))
        expected = self._expected.pop(server_id, None)
        if expected is not None:
            self.anomaly(server_id, expected)
        elif delivery == "unknown" and isinstance(error, CallError):
            self.anomaly(server_id, "a call may or may not have been executed")

    def forget(self, server_id: str) -> None:
        """Drop the pending anomaly of a server that was removed."""
        self._expected.pop(server_id, None)

    def records(self) -> list[FlightRecord]:
        """Return the records, in the order in which the calls ended."""
        return [record for _, record in self._merged()]

    def found(self, server_id: str, started_ns: int) -> PastCall | FlightRecord | None:
        """Return what is kept of a server's latest call that began at ``started_ns``; ``None`` if it was not recorded."""
        if self.ring is None:
            return None
        ordinary = past_call(self.ring, server_id, started_ns)
        if ordinary is not None:
            return ordinary
        for _, record, began_ns in reversed(self._unusual):
            if began_ns == started_ns and record.server_id == server_id:
                return record
        return None

    def anomaly(self, server_id: str, what: str, *, after_next: bool = False) -> None:
        """Log the latest records of a server: at most once a minute for each server, and ten times a minute in all.

        Parameters
        ----------
        server_id
            The server.
        what
            What happened, for the log line.
        after_next
            Wait until the next call of the server is recorded: the one that caused the anomaly.
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
        calls = self._last_of(server_id)
        _log.warning(
            "server %r: %s; its last calls: %s%s",
            server_id,
            what,
            msgspec.json.encode(calls).decode(),
            f" ({left_out} earlier reports were omitted)" if left_out else "",
            extra={
                "event": "flight_records",
                "server_id": server_id,
                "reason": what,
                "calls": msgspec.to_builtins(calls),
                **({"left_out": left_out} if left_out else {}),
                **trace_ids(),
            },
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
        merged += [each[:2] for each in tuple(self._unusual) if server_id is None or each[1].server_id == server_id]
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
            status=CallStatus(call.status).label,
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
    """Return the fields of a record that the label of a session gives: index, generation, revision and era."""
    if not isinstance(label, tuple):
        return {}
    index, generation, revision = label
    era = None if revision is None else "stateless" if revision in STATELESS_REVISIONS else "handshake"
    return {"instance": index, "session_generation": generation, "revision": revision, "era": era}
