"""How an event reads in the log: its line, and the fields that go with it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

from mcp_manager.events.records import (
    ChildExited,
    ChildStarted,
    CircuitChanged,
    ConfigApplied,
    Event,
    ServerDeployed,
    ServerEvent,
    ServerRedeployed,
    ServerScaled,
    ServerStateChanged,
    ServerUndeployed,
    SessionLost,
    SessionReplaced,
    ToolsChanged,
)
from mcp_manager.types import ServerState

__all__ = ["FIELDS", "KINDS", "fields_of", "kind_of", "line_of", "report_handler"]

FIELDS: Final[dict[str, str]] = {
    "event": "what happened; all other fields depend on it",
    "server_id": "the server",
    "state": "the server's state",
    "previous_state": "its state before",
    "reason": "why, in words",
    "error": "the error behind it",
    "duration_s": "how long the previous state lasted",
    "outage_s": "how long the server was not `Healthy`, or its instance had no session",
    "instance": "the index of the instance",
    "pid": "the id of its process",
    "exit_status": "the exit status of a program",
    "signal": "the signal that ended it",
    "stderr": "the end of its stderr",
    "restart_in_s": "seconds until it is started again",
    "uptime_s": "how long it ran",
    "was_ready": "whether it was ready for calls",
    "circuit": "the state of the circuit",
    "previous_circuit": "its state before",
    "retry_after_s": "seconds until the circuit admits a trial",
    "revision": "the protocol revision of the new session",
    "transport": "the configured transport",
    "instances": "the number of instances",
    "previous_instances": "the number before",
    "servers": "how many servers a summary is about",
    "deployed": "how many servers `apply` deployed",
    "redeployed": "how many it replaced",
    "updated": "how many it changed in place",
    "undeployed": "how many it removed",
    "failed": "how many it could not change",
    "starting": "how many are still starting",
    "invalid": "how many are wrong in the file, so that they were left out",
    "fault": "which rule a server broke",
    "count": "how often it did",
    "calls": "the latest calls of the server, each with the fields of `flight_records()`",
    "left_out": "how many earlier lines like this one were left out",
}
"""The fields of ``extra`` that records of this package may have, and what they mean."""

_KINDS: Final[dict[type[Event], str]] = {
    ServerStateChanged: "server_state",
    ChildStarted: "child_started",
    ChildExited: "child_exited",
    CircuitChanged: "circuit",
    SessionLost: "session_lost",
    SessionReplaced: "session_replaced",
    ServerDeployed: "server_deployed",
    ServerUndeployed: "server_undeployed",
    ServerRedeployed: "server_redeployed",
    ServerScaled: "server_scaled",
    ToolsChanged: "tools_changed",
    ConfigApplied: "config_applied",
}
_MOST_NAMED: Final = 10
_RENAMED: Final = {"previous": "previous_state", "reasons": "reason"}
_OF_CIRCUITS: Final = {"previous": "previous_circuit"}
_OF_SCALING: Final = {"previous": "previous_instances"}


KINDS: Final = tuple(_KINDS.values())
"""The values of the field ``event`` that events have."""


def kind_of(event: Event) -> str:
    """Return the value of the field ``event``."""
    return _KINDS[type(event)]


def report_handler() -> None:
    """Report that a log handler or filter of the application has raised, as the handlers of :mod:`logging` do.

    It must not break what is logged: the end of a program, for example, is logged where its restart is arranged.
    """
    if logging.raiseExceptions:
        traceback.print_exc()


def fields_of(event: Event) -> dict[str, Any]:
    """Return the ``extra`` of an event's log record: the fields that have a value."""
    renamed = {CircuitChanged: _OF_CIRCUITS, ServerScaled: _OF_SCALING}.get(type(event), _RENAMED)
    fields: dict[str, Any] = {"event": kind_of(event)}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in ("at", "monotonic_ns") or value is None or value in ("", ()):
            continue
        if isinstance(event, ConfigApplied):
            value = len(value)
        elif name == "reasons":
            value = ", ".join(value)
        elif isinstance(value, ServerState):
            value = value.value
        elif isinstance(value, float):
            value = round(value, 3)
        fields[renamed.get(name, name)] = value
    return fields


def line_of(event: Event) -> str:
    """Return the event in words, with the server at the beginning."""
    tell = _LINES.get(type(event))
    said = tell(event) if tell is not None else type(event).__name__
    return f"server {event.server_id!r} {said}" if isinstance(event, ServerEvent) else said


def _state(event: ServerStateChanged) -> str:
    if event.state is ServerState.HEALTHY:
        return "is Healthy" if event.outage_s is None else f"is Healthy again after {event.outage_s:.1f} s"
    why = ", ".join(event.reasons)
    said = f"is {event.state.value}" + (f": {why}" if why else "")
    return f"{said} ({event.error})" if event.error else said


def _started(event: ChildStarted) -> str:
    since = "" if event.outage_s is None else f" again after {event.outage_s:.1f} s"
    return f"has its program running{since} (pid {event.pid}, instance {event.instance})"


def _exited(event: ChildExited) -> str:
    process = f"pid {event.pid}, instance {event.instance}" if event.pid else f"instance {event.instance}"
    said = f"lost its program ({process}): {event.reason}"
    if not event.was_ready:
        said = f"could not start its program ({process}): {event.reason}"
    if event.restart_in_s is not None:
        said += f"; it is started again in {event.restart_in_s:.1f} s"
    return f"{said}; its stderr ends: {event.stderr}" if event.stderr else f"{said}; it wrote nothing to stderr"


def _circuit(event: CircuitChanged) -> str:
    where = f"of instance {event.instance}"
    again = f"; the next trial is in {event.retry_after_s:.1f} s" if event.retry_after_s else ""
    if event.circuit == "Open":
        if event.previous == "HalfOpen":
            return f"failed a trial, so the circuit {where} stays open{again}"
        return f"opened the circuit {where} ({event.reason}){again}"
    if event.circuit == "HalfOpen":
        return f"has a half-open circuit {where}: trials decide"
    return f"closed the circuit {where} ({event.reason})"


def _replaced(event: SessionReplaced) -> str:
    since = "" if event.outage_s is None else f" after {event.outage_s:.1f} s"
    return f"has a new session{since} (instance {event.instance}, {event.revision})"


def _applied(event: ConfigApplied) -> str:
    counts = {
        name: len(getattr(event, name))
        for name in ("deployed", "redeployed", "updated", "undeployed", "failed", "starting")
    }
    changed = [f"{count} {name}" for name, count in counts.items() if count]
    if event.invalid:
        changed.append(f"{len(event.invalid)} invalid ({_some_of(event.invalid)})")
    return f"configuration applied: {', '.join(changed) or 'nothing changed'}"


def _some_of(server_ids: Sequence[str]) -> str:
    """Name the first of some servers."""
    names = [each if each.isprintable() else ascii(each) for each in server_ids[:_MOST_NAMED]]
    return ", ".join([*names, "…"] if len(server_ids) > len(names) else names)


_LINES: Final[dict[type[Event], Callable[[Any], str]]] = {
    ServerStateChanged: _state,
    ChildStarted: _started,
    ChildExited: _exited,
    CircuitChanged: _circuit,
    SessionLost: lambda event: f"lost its session (instance {event.instance}): {event.reason}",
    SessionReplaced: _replaced,
    ServerDeployed: lambda event: f"deployed ({event.transport}, instances: {event.instances})",
    ServerUndeployed: lambda event: "undeployed",
    ServerRedeployed: lambda event: f"redeployed (instances: {event.instances})",
    ServerScaled: lambda event: f"scaled from {event.previous} to {event.instances} instances",
    ToolsChanged: lambda event: "changed its tools",
    ConfigApplied: _applied,
}
