"""The translation of configurations into settings of the compiled core, with durations in nanoseconds.

Servers with equal configurations share the translated objects, which saves memory and memory accesses of calls.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Literal, NamedTuple, TypeVar

from mcp_manager._core.allowance import RateLimiter
from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.limiter import LimiterSettings
from mcp_manager._core.records import Balancing, Limits
from mcp_manager._core.router import Router
from mcp_manager.config import BalancingConfig, BreakerConfig, ManagerConfig, RetryBudgetConfig, ServerConfig
from mcp_manager.protocol.methods import CLIENT_METHODS, CONTROL
from mcp_manager.transports.http.connections.endpoint import Endpoint

__all__ = [
    "Registration",
    "balancing_settings",
    "breaker_settings",
    "identity_of",
    "in_ns",
    "limits_of",
    "limits_together",
    "registration_of",
    "router_of",
]

T = TypeVar("T")


@functools.lru_cache(maxsize=1024)
def breaker_settings(config: BreakerConfig, is_probed: bool) -> BreakerSettings:
    """Return the circuit breaker's settings; ``is_probed`` tells whether health probes are enabled."""
    return BreakerSettings(
        window_ns=in_ns(config.window_s),
        min_calls=config.min_calls,
        failure_rate=config.failure_rate,
        consecutive_failures=config.consecutive_failures,
        slow_call_ns=in_ns(config.slow_call_s),
        slow_rate=config.slow_rate,
        open_ns=in_ns(config.open_s),
        open_max_ns=in_ns(config.open_max_s),
        jitter=config.jitter,
        trip_decay_ns=in_ns(config.trip_decay_s),
        half_open_permits=config.half_open_permits,
        half_open_successes=config.half_open_successes,
        probe_ttl_ns=in_ns(config.probe_ttl_s),
        # Without probes, callers make the trial requests themselves.
        active_first=config.active_first and is_probed,
        probe_grace_ns=in_ns(config.probe_grace_s),
    )


@functools.lru_cache(maxsize=1024)
def balancing_settings(config: BalancingConfig) -> Balancing:
    """Return the settings by which calls are shared among instances."""
    return Balancing(
        policy=config.policy,
        overprovision=config.overprovision,
        panic_threshold=config.panic_threshold,
        max_ejection=config.max_ejection,
        slow_start_ns=in_ns(config.slow_start_s),
        slow_start_aggression=config.slow_start_aggression,
    )


def limits_of(config: ServerConfig) -> Limits:
    """Return a server's limits and its retry budget."""
    limits, budget = config.limits, config.retry.budget
    return _limits(
        (limits.concurrency, limits.initial, limits.min, limits.max, limits.decrease),
        (limits.rate.rate, limits.rate.burst),
        limits.max_concurrent,
        (limits.shed_ratio if limits.shedding else 0.0, in_ns(limits.shed_window_s)),
        budget,
    )


def limits_together(config: ManagerConfig) -> Limits:
    """Return the manager's limit on all servers together, and their common retry budget."""
    budget = config.retry_budget
    return Limits(
        max_concurrent=config.max_concurrent,
        budget_ratio=budget.ratio,
        budget_min_per_s=budget.min_per_s,
        budget_ttl_ns=in_ns(budget.ttl_s),
    )


def router_of(config: ManagerConfig) -> Router:
    """Return a manager's router, without servers."""
    return Router(together=limits_together(config), own_methods=CLIENT_METHODS, max_tools=config.max_tool_series)


@functools.lru_cache(maxsize=1024)
def _limits(
    limiter: tuple[Literal["aimd", "gradient", "off"], int, int, int, float],
    rate: tuple[float, int],
    max_concurrent: int,
    shedding: tuple[float, int],
    budget: RetryBudgetConfig,
) -> Limits:
    mode, initial, least, most, decrease = limiter
    return Limits(
        LimiterSettings(mode=mode, initial=initial, least=least, most=most, decrease=decrease),
        RateLimiter(rate=rate[0], burst=rate[1]),
        max_concurrent=max_concurrent,
        shed_multiple=shedding[0],
        shed_window_ns=shedding[1],
        never_shed=CONTROL,
        budget_ratio=budget.ratio,
        budget_min_per_s=budget.min_per_s,
        budget_ttl_ns=in_ns(budget.ttl_s),
    )


def identity_of(config: ServerConfig, index: int, found: Endpoint | None = None) -> int:
    """Return the 64-bit identity of an instance for rendezvous hashing, 0 if the policy does not use it.

    It is a hash of the discovered endpoint, of the instance's own URL, or of its index, and the same in every process.

    Parameters
    ----------
    config
        The server's configuration.
    index
        The index of the instance.
    found
        The endpoint that discovery found, ``None`` without discovery.
    """
    if config.balancing.policy != "consistent":
        return 0
    own_url = config.url is not None and (config.has_url_template or config.url_limit is not None)
    text = str(found) if found is not None else config.instance_url(index) if own_url else str(index)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Registration(NamedTuple):
    """What the router must know of an instance: circuit, weight, tier, and identity in rendezvous hashing."""

    settings: BreakerSettings
    weight: float
    tier: int
    identity: int


def registration_of(config: ServerConfig, index: int, found: Endpoint | None = None) -> Registration:
    """Return how an instance is registered with the router; the parameters are those of :func:`identity_of`."""
    balancing = config.balancing
    return Registration(
        breaker_settings(config.breaker, config.health.enabled),
        _at(balancing.weights, index, 1.0) if found is None else found.weight,
        _at(balancing.tiers, index, 0) if found is None else found.tier,
        identity_of(config, index, found),
    )


def in_ns(seconds: float) -> int:
    """Convert seconds to nanoseconds."""
    return round(seconds * 1e9)


def _at(values: tuple[T, ...], index: int, default: T) -> T:
    return values[index] if index < len(values) else default
