"""When an instance is probed next, and whether that is needed."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from mcp_manager._core.router import Router
from mcp_manager.backoff import backoff_delay, jittered
from mcp_manager.health.assessment import Watch
from mcp_manager.health.life_signs import called_until_ns
from mcp_manager.types import CircuitState

__all__ = ["is_silent", "next_delay"]

# How soon the next probe follows the first sign of life of a server that was down.
_CONFIRM_S: Final = 0.25
# How soon a connection that failed for a local reason is tried again.
_HINDERED_S: Final = 1.0


def is_silent(watch: Watch, router: Router, now_ns: int) -> bool:
    """Return whether a probe is needed: no call was answered in the last interval, or the probes are in doubt."""
    backend = watch.instance.backend
    if backend is None or not watch.proven or watch.is_doubted or watch.instance.session is None:
        return True
    if router.breaker_state(backend, now_ns) != CircuitState.CLOSED:
        # Calls that were answered before the circuit opened no longer count.
        return True
    silence_ns = now_ns - backend.last_success_ns
    return backend.last_success_ns == 0 or silence_ns >= watch.config.health.interval_s * 1e9


def next_delay(watch: Watch, router: Router, now_ns: int) -> float:
    """Return in how many seconds an instance is probed next."""
    health = watch.config.health
    backend = watch.instance.backend
    restart_s = watch.instance.restart_at - asyncio.get_running_loop().time()
    if watch.instance.session is None and restart_s > 0:
        return restart_s
    if backend is not None and watch.instance.session is not None:
        circuit = router.backend_reading(backend, now_ns)
        if circuit.circuit_state == CircuitState.OPEN and circuit.retry_after_ns > 0:
            # The breaker knows when it admits a probe: an earlier one is useless, a later one delays recovery.
            return circuit.retry_after_ns / 1e9
        if circuit.circuit_state == CircuitState.HALF_OPEN and not watch.failures:
            return min(_CONFIRM_S, health.interval_s)
    if watch.failures:
        delay_s = backoff_delay(
            watch.failures - 1,
            health.unhealthy_interval_s,
            health.unhealthy_interval_max_s,
            health.jitter,
            random.random(),
        )
        called_s = (called_until_ns(watch.instance) - now_ns) / 1e9
        # Beyond that time it is not busy but dead.
        return min(delay_s, max(called_s, _CONFIRM_S)) if called_s > 0 else delay_s
    if watch.is_hindered:
        return jittered(_HINDERED_S, health.jitter, random.random())
    if not watch.proven or watch.instance.session is None:
        return min(_CONFIRM_S, health.interval_s)
    if not watch.is_spread:
        # Instances that were deployed together should not be probed together for ever.
        watch.is_spread = True
        return health.interval_s * random.random()
    is_idle = backend is None or backend.last_success_ns <= watch.looked_ns
    return jittered(health.idle_s if is_idle else health.interval_s, health.jitter, random.random())
