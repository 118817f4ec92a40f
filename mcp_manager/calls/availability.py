"""Queries of the router: whether another backend is free, and whether a circuit is on trial."""

from __future__ import annotations

from mcp_manager._core.records import READY, Backend
from mcp_manager._core.router import Router
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CircuitState

__all__ = ["has_other", "is_on_trial"]


def has_other(router: Router, supervisor: Supervisor, failed: Backend | None, now_ns: int) -> bool:
    """Tell whether any backend of a server except ``failed`` would admit a call at once."""
    for instance in supervisor.instances:
        backend = instance.backend
        if (
            backend is not None
            and backend is not failed
            and backend.availability == READY
            and backend.ejected_until_ns <= now_ns
            and backend.paused_until_ns <= now_ns
            and (backend.limit is None or backend.inflight < backend.limit)
            and router.breaker_state(backend, now_ns) == CircuitState.CLOSED
        ):
            return True
    return False


def is_on_trial(router: Router, supervisor: Supervisor, now_ns: int) -> bool:
    """Tell whether trial requests, due or in flight, are about to close or reopen the circuit of any backend."""
    return any(
        instance.backend is not None and router.is_on_trial(instance.backend, now_ns)
        for instance in supervisor.instances
    )
