"""The configuration of balancing, discovery, retries, hedges, fallbacks and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

import msgspec
from msgspec import Meta

from mcp_manager.config._struct import Count, PositiveSeconds, Rate, Seconds, Settings, as_section
from mcp_manager.config.rates import RateConfig, RetryBudgetConfig

if TYPE_CHECKING:
    from mcp_manager.config.fields.resilience import (
        BalancingFields,
        DiscoveryFields,
        FallbackFields,
        HedgeFields,
        LimitsFields,
        RetryFields,
    )

__all__ = [
    "BalancingConfig",
    "DiscoveryConfig",
    "FallbackConfig",
    "HedgeConfig",
    "LimitsConfig",
    "RetryConfig",
]

Weight = Annotated[float, Meta(gt=0.0, le=1e6)]
"""The relative share of the traffic that an instance takes."""
Tier = Annotated[int, Meta(ge=0, le=15)]
"""The priority group of an instance: 0 takes traffic before 1, and so on."""
Many = Annotated[int, Meta(ge=0, le=1_000_000)]
"""A number of things; the field says what 0 means."""


class BalancingConfig(Settings, frozen=True, kw_only=True):
    """Configure which instance takes a call.

    Parameters
    ----------
    policy
        ``p2c``: of two instances drawn at random, the one with the lower cost (peak-EWMA latency times the calls it
        would have in flight, divided by its weight). ``least_connections``: of two drawn at random, the one with fewer
        calls in flight, divided by weight. ``round_robin``: one after the other. ``weighted``: at random by weight.
        ``random``: at random, all equally likely. ``consistent``: calls with the same ``key`` go to the same instance
        as long as it exists (weighted rendezvous hashing); calls without a key use ``p2c``.
    weights, tiers
        Weight (above 0, at most 1e6) and tier (0 to 15) by instance index; instances beyond the end have weight 1 and
        tier 0. Tier 0 takes all traffic while enough of its instances are healthy; the rest spills over to the next
        tier.
    overprovision
        A tier takes its full share of traffic until its healthy fraction falls below ``1 / overprovision``, from 1 to
        100 (Envoy, priority levels).
    panic_threshold
        A fraction from 0 to 1. If all tiers together lack capacity and fewer than this fraction of a tier of at least
        four instances are healthy, its unhealthy instances receive calls too, so that the healthy ones are not
        overloaded.
    max_ejection
        The largest fraction of a server's instances, from 0 to 1, that may be ejected as outliers at a time.
    slow_start_s, slow_start_aggression
        For ``slow_start_s`` seconds, the weight of a new or recovered instance grows from a tenth of its value, as
        ``(age / slow_start_s) ** (1 / slow_start_aggression)``; 0 turns this off. Servers with fewer than three
        instances do not use it.
    affinity
        Where calls with the same ``key`` go if the server keeps state per session (servers of 2026-07-28 or later do
        not). ``soft``: to one instance's session, and to another one if that is lost. ``hard``: the same, but the loss
        raises :class:`SessionLostError`. ``none``: anywhere that ``policy`` chooses.
    affinity_ttl_s, affinity_keys
        Seconds that a key is remembered after its last call, and how many keys are remembered.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[BalancingFields]) -> None: ...

    policy: Literal["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"] = "p2c"
    weights: tuple[Weight, ...] = ()
    tiers: tuple[Tier, ...] = ()
    overprovision: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.4
    panic_threshold: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    max_ejection: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    slow_start_s: Seconds = 30.0
    slow_start_aggression: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    affinity: Literal["none", "soft", "hard"] = "none"
    affinity_ttl_s: PositiveSeconds = 3600.0
    affinity_keys: Count = 10_000


class DiscoveryConfig(Settings, frozen=True, kw_only=True):
    """Configure how the instances of an HTTP server are discovered.

    Parameters
    ----------
    kind
        ``none``: no discovery. ``dns``: one instance for every address (A, AAAA) of the URL's host. ``srv``: one
        instance for every host and port in the SRV records of the URL's host (RFC 2782); their priority becomes the
        tier, their weight the weight. ``instances`` bounds how many are used; managers choose different ones. Only name
        servers are asked, not the hosts file. Certificates must be valid for the URL's host. Needs the extra ``dns``.
    refresh_s, min_refresh_s
        The most and the fewest seconds between two lookups; between them, the TTL of the records decides. If a lookup
        finds nothing, the last result remains in use.
    timeout_s
        Seconds a lookup may take, above 0.
    nameservers
        Name servers to use instead of the system's: ``address``, ``address:port`` or ``[address]:port``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[DiscoveryFields]) -> None: ...

    kind: Literal["none", "dns", "srv"] = "none"
    refresh_s: PositiveSeconds = 30.0
    min_refresh_s: PositiveSeconds = 5.0
    timeout_s: PositiveSeconds = 5.0
    nameservers: tuple[str, ...] = ()


class RetryConfig(Settings, frozen=True, kw_only=True):
    """Configure which calls are retried, and when.

    A request that was certainly not executed is always retried. A request that may have been executed is retried only
    if it is safe to repeat.

    Parameters
    ----------
    attempts
        Attempts per call, from 1 to 10, the first included; 1 turns retries off.
    backoff_s, backoff_max_s
        The fewest and the most seconds between two attempts. Each wait is random between ``backoff_s`` and three times
        the previous wait (decorrelated jitter).
    retry_after_max_s
        The longest wait in seconds that a server may request. If it requests more, the call is not retried there.
    budget
        See :class:`RetryBudgetConfig`.
    trust_annotations
        Treat calls of tools with ``readOnlyHint`` or ``idempotentHint`` as safe to repeat. MCP tells clients not to
        rely on these hints unless the server is trusted (2025-06-18, server/tools). They are known after the tools were
        listed, by ``list_tools`` or ``list_all_tools``.
    tools
        Whether calls of a tool are ``safe`` or ``unsafe`` to repeat, by tool name; overrides the tool's hints.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[RetryFields]) -> None: ...

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    backoff_s: PositiveSeconds = 0.05
    backoff_max_s: PositiveSeconds = 2.0
    retry_after_max_s: Seconds = 60.0
    budget: RetryBudgetConfig = RetryBudgetConfig()
    trust_annotations: bool = False
    tools: dict[str, Literal["safe", "unsafe"]] = {}


class HedgeConfig(Settings, frozen=True, kw_only=True):
    """Configure hedging: a slow call is sent to a second instance too, and the first answer is used.

    Only calls that are safe to repeat are hedged, at most once each and within the retry budget (Dean and Barroso, The
    Tail at Scale, 2013).

    Parameters
    ----------
    enabled
        Whether to hedge. Default: off. Calls to such a server do not use the compiled call path, so they cost more.
    quantile
        A call is hedged once it has taken longer than this quantile of the server's latest latencies, above 0 and below
        1. The nearest of 0.5, 0.95 and 0.99 is used.
    min_delay_s
        The fewest seconds before a call is hedged.
    min_samples
        Calls that must have been measured before any is hedged.
    max_share
        The largest share of calls that may be hedged, above 0 and at most 1.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[HedgeFields]) -> None: ...

    enabled: bool = False
    quantile: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.95
    min_delay_s: Seconds = 0.005
    min_samples: Count = 50
    max_share: Rate = 0.1


class FallbackConfig(Settings, frozen=True, kw_only=True):
    """Configure what a caller receives when every attempt has failed.

    The fallbacks are tried in the order of the fields. The result's ``_meta`` names the one that was used:
    ``mcp-manager/fallback`` is ``server`` (with its id in ``mcp-manager/fallback-server``), ``stale`` (with
    ``mcp-manager/stale-age-s``) or ``static``.

    Parameters
    ----------
    tag
        Ask the other servers with this tag, highest priority first. Applies to tools, prompts, resources and
        completions, and only while the request was certainly not executed or is safe to repeat.
    stale_s
        Return the last result of the same request if it is at most this many seconds old and the request is safe to
        repeat; 0 turns this off. Calls to such a server do not use the compiled call path, so they cost more.
    static
        A fixed result by method, or by tool as ``tools/call:<name>``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[FallbackFields]) -> None: ...

    tag: str | None = None
    stale_s: Seconds = 0.0
    static: dict[str, Any] = {}


class LimitsConfig(Settings, frozen=True, kw_only=True):
    """Configure how many calls a server receives at a time and per second.

    Parameters
    ----------
    concurrency
        How the limit on concurrent calls to each instance adapts. ``aimd``: no limit until a sign of overload (a
        timeout, 429 or 503); each sign multiplies the limit by ``decrease``, at most once per round trip, and each
        successful call raises it by one while at least half of it is used. ``gradient``: the limit follows how latency
        grows with load (Netflix, concurrency-limits, Gradient2). ``off``: no limit.
    initial, min, max
        The first limit of ``gradient``, and the lowest first limit of ``aimd``; the lowest and the highest limit. An
        ``aimd`` limit that reaches ``max`` is lifted.
    decrease
        The factor by which a sign of overload reduces the limit, from 0.1 to below 1.
    max_concurrent
        The most calls to the server at a time; 0 sets no limit.
    max_waiting, max_wait_s
        How many calls above a limit may wait in order, and for how many seconds; -1 allows as many to wait as may be in
        flight.
    rate
        Calls per second to the server: see :class:`RateConfig`.
    tools
        Calls per second by tool name.
    shedding
        Refuse a random share of the calls before they are sent while the server itself refuses calls (Site Reliability
        Engineering, chapter 21, client-side throttling). Pings, handshakes and cancellations are never refused.
    shed_window_s
        Seconds over which refusals are measured.
    shed_ratio
        How many times what the server accepts is still sent to it, from 1 to 100.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[LimitsFields]) -> None: ...

    concurrency: Literal["aimd", "gradient", "off"] = "aimd"
    initial: Count = 20
    min: Count = 1
    max: Count = 1_000
    decrease: Annotated[float, Meta(ge=0.1, lt=1.0)] = 0.9
    max_concurrent: Many = 0
    max_waiting: Annotated[int, Meta(ge=-1, le=1_000_000)] = -1
    max_wait_s: Seconds = 1.0
    rate: RateConfig = RateConfig()
    tools: dict[str, RateConfig] = {}
    shedding: bool = False
    shed_window_s: PositiveSeconds = 120.0
    shed_ratio: Annotated[float, Meta(ge=1.0, le=100.0)] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        tools: dict[str, Any] = self.tools
        if isinstance(tools, dict) and not all(isinstance(each, RateConfig) for each in tools.values()):
            rates = {
                name: as_section(RateConfig, each, f"tools.{name}") if isinstance(each, Mapping) else each
                for name, each in tools.items()
            }
            msgspec.structs.force_setattr(self, "tools", rates)
