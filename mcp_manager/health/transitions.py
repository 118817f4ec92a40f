"""Tells of every change of a server's state once, and of every change of an instance's circuit."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import Final

from mcp_manager._core.snapshots import BackendReading
from mcp_manager.config.redaction import printable
from mcp_manager.events.records import CircuitChanged, ServerStateChanged
from mcp_manager.health.assessment import RECOVERING, Watch
from mcp_manager.health.tally import HARMLESS, SETTLING, SICK, Standing
from mcp_manager.runtime.background import bare_context
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CircuitState, ServerState

__all__ = ["Transitions", "tell_circuit"]

_RANKS: Final = {ServerState.DEGRADED: 1, ServerState.UNHEALTHY: 2}
# How many changes are told in one turn of the loop.
_AT_ONCE: Final = 100
# A server with only these reasons is on its way up.
_ON_THE_WAY: Final = HARMLESS | {RECOVERING, SETTLING}


class Transitions:
    """Tell of the changes of servers' states.

    A change is told at the end of the turn of the loop in which it was found. What changes back within that turn is not
    told, and of several changes only the outcome. So what is told of a server is a chain: each change begins with the
    state that the one before ended with, and the last one ends with the present state. How long a worse state is shown
    is the matter of :class:`.Tally`.
    """

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed: dict[Supervisor, Standing] = {}

    def note(self, supervisor: Supervisor, standing: Standing) -> None:
        """Have the state of a server told, unless it was told already."""
        if standing.state is standing.told or supervisor in self._changed:
            return
        is_idle = not self._changed
        self._changed[supervisor] = standing
        if is_idle:
            asyncio.get_running_loop().call_soon(self._tell, context=bare_context())

    def clear(self) -> None:
        """Forget what is to be told."""
        self._changed.clear()

    def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        batch = [(each, self._changed.pop(each)) for each in tuple(islice(self._changed, _AT_ONCE))]
        if self._changed:
            loop.call_soon(self._tell, context=bare_context())
        for supervisor, standing in batch:
            if standing.state is not standing.told and not supervisor.is_over:
                _tell_state(supervisor, standing, now)


def _tell_state(supervisor: Supervisor, standing: Standing, now: float) -> None:
    state, reasons = standing.shown
    previous, lasted_s = standing.told, now - standing.told_at
    outage_s = None
    if state is ServerState.HEALTHY and standing.sick_since is not None:
        outage_s = now - standing.sick_since
    if state not in SICK:
        standing.sick_since = None
    elif standing.sick_since is None and not HARMLESS.issuperset(reasons):
        standing.sick_since = now
    standing.told, standing.told_at = state, now
    level = _level(previous, state, reasons, is_back=outage_s is not None)
    events = supervisor.template.host.events
    if events.is_heard(level):
        events.tell(
            ServerStateChanged(
                server_id=supervisor.server_id,
                previous=previous,
                state=state,
                reasons=reasons,
                error=_error_of(supervisor) if state in SICK else None,
                duration_s=lasted_s,
                outage_s=outage_s,
            ),
            level,
        )


def _level(previous: ServerState, state: ServerState, reasons: tuple[str, ...], *, is_back: bool) -> int:
    if state not in SICK:
        # After a rollout or a change of scale it has never been sick.
        return logging.DEBUG if previous in SICK and state is ServerState.HEALTHY and not is_back else logging.INFO
    if _RANKS[state] > _RANKS.get(previous, 0):
        return logging.DEBUG if HARMLESS.issuperset(reasons) else logging.WARNING
    # It is better than before. That it is well again is told with its own line.
    return logging.DEBUG if _ON_THE_WAY.issuperset(reasons) else logging.INFO


def _error_of(supervisor: Supervisor) -> str | None:
    errors = (error for each in supervisor.instances if (error := each.last_error) is not None)
    error = next(errors, None)
    return None if error is None else printable(supervisor.template.secrets.masked(error.message))


def tell_circuit(supervisor: Supervisor, watch: Watch, reading: BackendReading) -> None:
    """Tell that the circuit of an instance has changed since this was last called."""
    before = watch.circuit[0]
    state = CircuitState(reading.circuit_state)
    watch.circuit = state, reading.circuit.generation
    # A circuit that was open before and is open again has failed a trial meanwhile. A closed one that only was reset
    # has not changed.
    has_failed_trial = state is CircuitState.OPEN and before is not CircuitState.CLOSED
    if state is before and not has_failed_trial:
        return
    instance = watch.instance
    is_held = instance.session is None and instance.restart_at > 0 and watch.is_child
    if is_held and before is CircuitState.OPEN:
        return
    if has_failed_trial:
        before, reason, level = CircuitState.HALF_OPEN, "trial failed", logging.INFO
    elif state is CircuitState.OPEN:
        # The exit of its program has a line of its own.
        reason, level = ("restart", logging.DEBUG) if is_held else ("failures", logging.WARNING)
    elif state is CircuitState.HALF_OPEN:
        reason, level = "trial due", logging.DEBUG
    else:
        # A new process, or a first session, closes the circuit without a trial.
        is_reset = reading.circuit.trips == 0
        reason, level = ("restart", logging.DEBUG) if is_reset else ("recovered", logging.INFO)
    events = supervisor.template.host.events
    if events.is_heard(level):
        events.tell(
            CircuitChanged(
                server_id=supervisor.server_id,
                instance=instance.index,
                previous=before.label,
                circuit=state.label,
                reason=reason,
                retry_after_s=reading.retry_after_ns / 1e9,
            ),
            level,
        )
