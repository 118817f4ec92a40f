"""The log of flights: what of a call is told, how much is kept, and how often it is written down by itself."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from mcp_manager._core.router import Router
from mcp_manager.calls.call_log import CallEnd, CallLog, FlightRecord
from mcp_manager.errors import CircuitOpenError, ConnectError, DeadlineExceededError
from mcp_manager.types import CallStatus

SECOND = 10**9
LABEL = (3, 5, "2025-11-25")


class Clocks:
    """A monotonic clock and a wall clock that pass together."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND

    def monotonic(self) -> int:
        return self.now_ns

    def wall(self) -> float:
        return 1_000_000_000.0 + (self.now_ns - 1000 * SECOND) / 1e9


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def log(clocks: Clocks) -> CallLog:
    return CallLog(4, Router(), clocks.monotonic, clocks.wall)


def unknown(log: CallLog, server_id: str = "a", **details: Any) -> None:
    error = DeadlineExceededError("too late", server_id=server_id)
    log.unusual(server_id, "tools/call", 999 * SECOND, CallEnd(LABEL, CallStatus.TIMEOUT, error), **details)


def dumps(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_record_tells_all_of_its_call(log: CallLog, clocks: Clocks) -> None:
    clocks.now_ns += 2 * SECOND
    unknown(log, attempts=2, circuit="Closed", inflight=7, queue_wait_s=0.25, tool="echo")
    clocks.now_ns += 60 * SECOND
    assert log.records() == [
        FlightRecord(
            server_id="a",
            method="tools/call",
            tool="echo",
            started_at="2001-09-09T01:46:39.000+00:00",
            total_s=3.0,
            queue_wait_s=0.25,
            instance=3,
            era="handshake",
            revision="2025-11-25",
            session_generation=5,
            attempts=2,
            circuit="Closed",
            inflight=7,
            status="timeout",
            delivery="unknown",
            error="DeadlineExceededError",
        )
    ]


def test_a_call_that_no_instance_took_has_none(log: CallLog) -> None:
    end = CallEnd(None, CallStatus.CIRCUIT_OPEN, CircuitOpenError("open"))
    log.unusual("a", "ping", 999 * SECOND, end, attempts=0)
    (record,) = log.records()
    assert (record.instance, record.era, record.session_generation) == (None, None, None)
    assert (record.attempts, record.status, record.delivery) == (0, "circuit_open", "not_sent")


def test_both_kinds_are_merged_by_their_ends_and_neither_pushes_the_other_out(log: CallLog, clocks: Clocks) -> None:
    ring = log.ring
    assert ring is not None
    unknown(log)
    for number in range(20):
        clocks.now_ns += SECOND
        ring.add("a", f"m{number}", (0, 1, "2026-07-28"), clocks.now_ns, clocks.now_ns, 0, 0)
    clocks.now_ns += SECOND
    log.unusual("a", "last", clocks.now_ns, CallEnd(LABEL, CallStatus.SUCCESS))
    records = log.records()
    assert [record.method for record in records] == ["tools/call", "m16", "m17", "m18", "m19", "last"]
    assert {record.era for record in records[1:5]} == {"stateless"}
    assert [record.delivery for record in records] == ["unknown", *["answered"] * 5]
    for number in range(20):
        log.unusual("b", f"u{number}", clocks.now_ns, CallEnd(LABEL, CallStatus.SUCCESS))
    assert [record.method for record in log.records()][-4:] == ["u16", "u17", "u18", "u19"]
    assert len(log.records()) == 8


def test_without_capacity_nothing_is_kept_or_written(clocks: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    log = CallLog(0, Router(), clocks.monotonic, clocks.wall)
    unknown(log)
    log.anomaly("a", "a circuit opened")
    assert log.ring is None
    assert log.records() == []
    assert dumps(caplog) == []


def test_an_unknown_delivery_has_the_servers_last_calls_written_down(
    log: CallLog, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    ring = log.ring
    assert ring is not None
    ring.add("a", "evil\n\x1b[31m", LABEL, clocks.now_ns, clocks.now_ns, 0, 0)
    ring.add("b", "ping", LABEL, clocks.now_ns, clocks.now_ns, 0, 0)
    log.unusual("a", "ping", clocks.now_ns, CallEnd(None, CallStatus.CONNECT_ERROR, ConnectError("refused")))
    assert dumps(caplog) == []
    unknown(log)
    (text,) = dumps(caplog)
    assert "\n" not in text
    assert "\x1b" not in text
    assert text.startswith("server 'a': a call may or may not have been executed; its last calls: [")
    shown = json.loads(text[text.index("[") :])
    assert [each["method"] for each in shown] == ["evil\n\x1b[31m", "ping", "tools/call"]
    assert shown[-1]["error"] == "DeadlineExceededError"


def test_it_is_written_once_a_minute_for_a_server_and_ten_times_for_all(
    log: CallLog, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        unknown(log)
        clocks.now_ns += SECOND
    assert len(dumps(caplog)) == 1
    for number in range(20):
        log.anomaly(f"s{number}", "a circuit opened")
    assert len(dumps(caplog)) == 10
    clocks.now_ns += 56 * SECOND
    log.anomaly("a", "a circuit opened")
    assert len(dumps(caplog)) == 10
    clocks.now_ns += SECOND
    log.anomaly("a", "a circuit opened")
    assert len(dumps(caplog)) == 11
    assert dumps(caplog)[-1].endswith("(12 earlier reports were omitted)")
    clocks.now_ns += 60 * SECOND
    log.anomaly("a", "a circuit opened")
    assert dumps(caplog)[-1].endswith("]")
