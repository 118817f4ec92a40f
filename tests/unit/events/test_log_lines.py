"""What an event says in the log: one line, and fields that are documented and clash with nothing."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import msgspec
import pytest

import mcp_manager
from mcp_manager import (
    ChildExited,
    ChildStarted,
    CircuitChanged,
    ConfigApplied,
    Event,
    EventsMissed,
    ServerDeployed,
    ServerEvent,
    ServerRedeployed,
    ServerScaled,
    ServerState,
    ServerStateChanged,
    ServerUndeployed,
    SessionLost,
    SessionReplaced,
    ToolsChanged,
)
from mcp_manager.events.log_lines import FIELDS, fields_of, line_of
from mcp_manager.events.records import __all__ as EVENTS

MANUAL = (Path(mcp_manager.__file__).parent / "README.md").read_text(encoding="utf-8")
HEALTHY, DEGRADED, UNHEALTHY = ServerState.HEALTHY, ServerState.DEGRADED, ServerState.UNHEALTHY
TOLD: list[tuple[Event, str]] = [
    (
        ServerStateChanged(
            server_id="a", previous=HEALTHY, state=UNHEALTHY, reasons=("restarting", "ejected"), error="it died"
        ),
        "server 'a' is Unhealthy: restarting, ejected (it died)",
    ),
    (ServerStateChanged(server_id="a", previous=HEALTHY, state=ServerState.STOPPED), "server 'a' is Stopped"),
    (ServerStateChanged(server_id="a", previous=DEGRADED, state=HEALTHY), "server 'a' is Healthy"),
    (
        ServerStateChanged(server_id="a", previous=DEGRADED, state=HEALTHY, outage_s=3.21),
        "server 'a' is Healthy again after 3.2 s",
    ),
    (ChildStarted(server_id="a", instance=1, pid=7), "server 'a' has its program running (pid 7, instance 1)"),
    (
        ChildStarted(server_id="a", instance=1, pid=7, outage_s=1.25),
        "server 'a' has its program running again after 1.2 s (pid 7, instance 1)",
    ),
    (
        ChildExited(
            server_id="a", instance=0, pid=7, reason="it was killed", signal="SIGKILL", restart_in_s=1.0, stderr="oh"
        ),
        "server 'a' lost its program (pid 7, instance 0): it was killed; it is started again in 1.0 s; "
        "its stderr ends: oh",
    ),
    (
        ChildExited(server_id="a", instance=0, pid=0, reason="it exited", exit_status=3, was_ready=False),
        "server 'a' could not start its program (instance 0): it exited; it wrote nothing to stderr",
    ),
    (
        CircuitChanged(
            server_id="a", instance=0, previous="Closed", circuit="Open", reason="failures", retry_after_s=5.0
        ),
        "server 'a' opened the circuit of instance 0 (failures); the next trial is in 5.0 s",
    ),
    (
        CircuitChanged(
            server_id="a", instance=0, previous="HalfOpen", circuit="Open", reason="trial failed", retry_after_s=9.0
        ),
        "server 'a' failed a trial, so the circuit of instance 0 stays open; the next trial is in 9.0 s",
    ),
    (
        CircuitChanged(server_id="a", instance=0, previous="Open", circuit="HalfOpen", reason="trial due"),
        "server 'a' has a half-open circuit of instance 0: trials decide",
    ),
    (
        CircuitChanged(server_id="a", instance=0, previous="HalfOpen", circuit="Closed", reason="recovered"),
        "server 'a' closed the circuit of instance 0 (recovered)",
    ),
    (SessionLost(server_id="a", instance=2, reason="gone"), "server 'a' lost its session (instance 2): gone"),
    (
        SessionReplaced(server_id="a", instance=2, revision="2025-11-25", outage_s=0.5),
        "server 'a' has a new session after 0.5 s (instance 2, 2025-11-25)",
    ),
    (ServerDeployed(server_id="a", instances=2, transport="http"), "server 'a' deployed (http, instances: 2)"),
    (ServerUndeployed(server_id="a"), "server 'a' undeployed"),
    (ServerRedeployed(server_id="a", instances=1), "server 'a' redeployed (instances: 1)"),
    (ServerScaled(server_id="a", previous=1, instances=0), "server 'a' scaled from 1 to 0 instances"),
    (ToolsChanged(server_id="a"), "server 'a' changed its tools"),
    (
        ConfigApplied(
            deployed=("a", "b"), redeployed=("c",), updated=("d",), undeployed=("e",), failed=("f",), starting=("g",)
        ),
        "configuration applied: 2 deployed, 1 redeployed, 1 updated, 1 undeployed, 1 failed, 1 starting",
    ),
    (
        ConfigApplied(updated=("a",), invalid=tuple(f"s{each}" for each in range(12))),
        "configuration applied: 1 updated, 12 invalid (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, …)",
    ),
    (ConfigApplied(invalid=("a\n",)), "configuration applied: 1 invalid ('a\\n')"),
    (ConfigApplied(), "configuration applied: nothing changed"),
]


@pytest.mark.parametrize(("event", "line"), TOLD, ids=[type(event).__name__ for event, _ in TOLD])
def test_an_event_is_one_line_with_documented_fields(event: Event, line: str) -> None:
    assert line_of(event) == line
    fields = fields_of(event)
    assert set(fields) <= set(FIELDS)
    # Every one of them can be given to a record.
    logging.getLogger("test").makeRecord("test", logging.INFO, "", 0, "", (), None, extra=fields)
    assert all(isinstance(value, str | int | float | bool) for value in fields.values())
    assert fields.get("server_id") == (event.server_id if isinstance(event, ServerEvent) else None)


def test_every_event_has_a_line() -> None:
    told = {type(event) for event, _ in TOLD}
    kinds = {getattr(mcp_manager, name) for name in EVENTS}
    assert kinds - told == {Event, ServerEvent, EventsMissed}


def test_the_fields_of_an_event_are_its_own_under_unmistakable_names() -> None:
    exited = ChildExited(server_id="a", instance=0, pid=7, reason="it exited", exit_status=0, restart_in_s=0.12345)
    assert fields_of(exited) == {
        "event": "child_exited",
        "server_id": "a",
        "instance": 0,
        "pid": 7,
        "reason": "it exited",
        "was_ready": True,
        "exit_status": 0,
        "restart_in_s": 0.123,
    }
    changed = ServerStateChanged(server_id="a", previous=HEALTHY, state=DEGRADED, reasons=("slow", "ejected"))
    assert fields_of(changed) == {
        "event": "server_state",
        "server_id": "a",
        "previous_state": "Healthy",
        "state": "Degraded",
        "reason": "slow, ejected",
        "duration_s": 0.0,
    }
    assert fields_of(ServerScaled(server_id="a", previous=0, instances=3))["previous_instances"] == 0
    circuit = CircuitChanged(server_id="a", instance=0, previous="Open", circuit="Closed", reason="recovered")
    assert fields_of(circuit)["previous_circuit"] == "Open"
    assert fields_of(ConfigApplied(deployed=("a", "b")))["deployed"] == 2


def test_the_manual_explains_every_field_and_event() -> None:
    section = MANUAL.partition("\n## Logs and events\n")[2].partition("\n## ")[0]
    fields = re.findall(
        r"^\| `(\w+)` \| (.*) \|$", section.partition("| Field |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert dict(fields) == FIELDS
    table = section.partition("| Event |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(EVENTS) - {"Event", "ServerEvent"}


def test_what_events_hold_can_be_encoded_as_json() -> None:
    for event, _ in TOLD:
        assert type(msgspec.json.decode(msgspec.json.encode(event), type=type(event))) is type(event)


def test_the_package_is_silent_in_a_program_that_has_not_configured_logging() -> None:
    assert any(isinstance(each, logging.NullHandler) for each in logging.getLogger("mcp_manager").handlers)
