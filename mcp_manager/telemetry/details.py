"""What spans show of the records of their calls."""

from __future__ import annotations

from typing import Any

from mcp_manager._core.call_ring import PastCall
from mcp_manager.calls.call_log import FlightRecord
from mcp_manager.telemetry import conventions as names
from mcp_manager.types import CircuitState

__all__ = ["details_of"]


def details_of(record: PastCall | FlightRecord | None) -> dict[str, Any]:
    """Return the attributes that follow from what is kept of a call."""
    if record is None:
        return {}
    found: dict[str, Any] = {names.ATTEMPTS: 1, names.DELIVERY: "answered"}
    if isinstance(record, PastCall):
        index, _, revision = record.label if isinstance(record.label, tuple) else (None, None, None)
        found |= {names.INSTANCE: index, names.PROTOCOL_VERSION: revision}
        found[names.CIRCUIT] = CircuitState(record.circuit).label
    else:
        found = {
            names.ATTEMPTS: record.attempts,
            names.DELIVERY: record.delivery,
            names.INSTANCE: record.instance,
            names.PROTOCOL_VERSION: record.revision,
            names.CIRCUIT: record.circuit,
            names.QUEUE_WAIT: record.queue_wait_s or None,
            names.HEDGED: record.hedged or None,
        }
    return {name: value for name, value in found.items() if value is not None}
