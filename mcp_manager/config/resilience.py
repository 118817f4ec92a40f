"""The settings of what keeps a fleet serving: where calls go, what is tried again, and how much is let in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from mcp_manager.config._struct import Count, PositiveSeconds, Rate, Seconds, Settings

__all__ = [
    "BalancingConfig",
    "DiscoveryConfig",
    "FallbackConfig",
    "HedgeConfig",
    "LimitsConfig",
    "RateConfig",
    "RetryBudgetConfig",
    "RetryConfig",
]

Weight = Annotated[float, Meta(gt=0.0, le=1e6)]
"""How much of the traffic an instance takes beside the others."""
Tier = Annotated[int, Meta(ge=0, le=15)]
"""Which group of instances takes traffic first: 0 before 1, and so on."""
PerSecond = Annotated[float, Meta(ge=0.0, le=1e9)]
"""Something per second; what 0 means, the field says."""
Many = Annotated[int, Meta(ge=0, le=1_000_000)]
"""A number of things; what 0 means, the field says."""


class BalancingConfig(Settings, frozen=True, kw_only=True):
    """Which instance takes a call.

    Parameters
    ----------
    policy
        ``p2c``: of two drawn at random, the one that is expected to answer sooner (peak-EWMA of the latency, times the
        calls it would have, by weight). ``least_connections``: of two drawn at random, the one with fewer calls by
        weight. ``round_robin``: one after the other. ``weighted``: at random by weight. ``random``: all alike.
        ``consistent``: calls with the same ``key`` go to the same instance as long as it is there (weighted rendezvous
        hashing); those without a key as by ``p2c``.
    weights, tiers
        By instance index; instances beyond the end have weight 1 and tier 0. Tier 0 takes all traffic as long as enough
        of it is healthy, and what it cannot take spills over to the next.
    overprovision
        A tier takes all of its traffic down to a healthy share of ``1 / overprovision`` (Envoy, priority levels).
    panic_threshold
        When all tiers together are short of capacity and less than this share of a tier of at least four instances is
        healthy, calls go to its unhealthy ones as well, rather than all to the few that are left.
    max_ejection
        The most of a server's instances that are taken out of traffic because they fail more than others.
    slow_start_s, slow_start_aggression
        For this long, the weight of a new or recovered instance grows from a tenth, as ``(age / slow_start_s) **
        (1 / aggression)``; with fewer than three instances it does not. 0 turns it off.
    affinity
        What becomes of the calls with the same ``key`` to a server that keeps state by session (none of 2026-07-28 or
        later does): ``soft`` keeps them on one instance's session and takes another when that is gone; ``hard`` raises
        :class:`SessionLostError` instead; ``none`` looks at no key.
    affinity_ttl_s, affinity_keys
        Seconds after its last call for which a key is remembered, and how many keys are.
    """

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
    """How the instances of an HTTP server are found.

    Parameters
    ----------
    kind
        ``none``: as ``url`` says. ``dns``: one instance for every address (A, AAAA) of the URL's host. ``srv``: one for
        every host and port that the SRV records of the URL's host name (RFC 2782), of which the priority becomes the
        tier and the weight the weight. ``instances`` is then the most that are used; which those are differs from manager
        to manager. Only name servers are asked, no file of hosts. Connections go to the addresses, whose certificates must
        be for the URL's host all the same. Needs the extra ``dns``.
    refresh_s
        The most seconds between two looks. Records that expire sooner are looked up again sooner, but not within
        ``min_refresh_s``. What was found last is kept when nothing is found any more.
    min_refresh_s
        See there.
    timeout_s
        Seconds a look may take.
    nameservers
        ``address``, ``address:port`` or ``[address]:port`` of the name servers to ask, in place of the system's.
    """

    kind: Literal["none", "dns", "srv"] = "none"
    refresh_s: PositiveSeconds = 30.0
    min_refresh_s: PositiveSeconds = 5.0
    timeout_s: PositiveSeconds = 5.0
    nameservers: tuple[str, ...] = ()


class RetryBudgetConfig(Settings, frozen=True, kw_only=True):
    """How many retries and hedges there may be beside the calls themselves (Finagle, RetryBudget).

    Parameters
    ----------
    ratio
        Their share of the calls of the last ``ttl_s`` seconds.
    min_per_s
        How many there may be per second beside that, so that a server with few calls has some.
    ttl_s
        Seconds that a call counts.
    """

    ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    min_per_s: PerSecond = 10.0
    ttl_s: PositiveSeconds = 10.0


class RetryConfig(Settings, frozen=True, kw_only=True):
    """Which calls are tried again, and when.

    A request that certainly was not executed is tried again whatever it is; one that may have been executed only if it
    does no harm twice.

    Parameters
    ----------
    attempts
        How often a call is tried in all; 1 turns retries off.
    backoff_s, backoff_max_s
        The least and the most seconds between two attempts, at random between ``backoff_s`` and three times the last
        (decorrelated jitter).
    retry_after_max_s
        The longest wait that a server may ask for and get.
    budget
        See :class:`RetryBudgetConfig`.
    trust_annotations
        Believe ``readOnlyHint`` and ``idempotentHint`` of the server's tools: calls of those are then safe to repeat.
        MCP tells clients not to rely on them unless the server is trusted (2025-06-18, server/tools). They are known once
        the server's tools were listed, by ``list_tools`` or the fleet's catalogue.
    tools
        What you know of tools by name: ``safe`` to call twice, or ``unsafe``, whatever is annotated.
    """

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    backoff_s: PositiveSeconds = 0.05
    backoff_max_s: PositiveSeconds = 2.0
    retry_after_max_s: Seconds = 60.0
    budget: RetryBudgetConfig = RetryBudgetConfig()
    trust_annotations: bool = False
    tools: dict[str, Literal["safe", "unsafe"]] = {}


class HedgeConfig(Settings, frozen=True, kw_only=True):
    """Whether a call that takes long is made a second time, on another instance, and the first answer taken.

    Only for calls that are safe to repeat, once a call, and within the retry budget (Dean and Barroso, The Tail at
    Scale, 2013).

    Parameters
    ----------
    enabled
        Off by default.
    quantile
        Of the server's latest latencies: when a call has taken longer than that, it is hedged.
    min_delay_s
        But not before this many seconds.
    min_samples
        Calls that must have been measured before any is hedged.
    max_share
        The share of calls in hedges above which hedging pauses.
    """

    enabled: bool = False
    quantile: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.95
    min_delay_s: Seconds = 0.005
    min_samples: Count = 50
    max_share: Rate = 0.1


class FallbackConfig(Settings, frozen=True, kw_only=True):
    """What a caller gets when every attempt has failed.

    Parameters
    ----------
    tag
        The other servers with this tag are asked, those of the highest priority first, as long as the request certainly
        was not executed or is safe to repeat: for tools, prompts, resources and completions, which another server can
        have as well.
    stale_s
        The last result of the same request is given if it is not older than this many seconds, and if the request is safe
        to repeat; 0 keeps none. Of a server with this, the replies go by the slower way past the compiled one.
    static
        A result by method, or by tool as ``tools/call:<name>``.

    They are tried in this order. What was given is marked in the result's ``_meta``: ``mcp-manager/fallback`` is
    ``server`` (with its id in ``mcp-manager/fallback-server``), ``stale`` (with ``mcp-manager/stale-age-s``) or
    ``static``.
    """

    tag: str | None = None
    stale_s: Seconds = 0.0
    static: dict[str, Any] = {}


class RateConfig(Settings, frozen=True, kw_only=True):
    """How many calls per second are let through (GCRA, ITU-T I.371).

    Parameters
    ----------
    rate
        Calls per second in the long run; 0 sets no limit.
    burst
        Calls that may come at once after a pause.
    """

    rate: PerSecond = 0.0
    burst: Count = 1


class LimitsConfig(Settings, frozen=True, kw_only=True):
    """How many calls are let through to a server at a time, and per second.

    Parameters
    ----------
    concurrency
        How the limit of each instance adapts. ``aimd``: there is none until the server shows that it is overloaded, with
        a timeout, 429 or 503; then the limit falls by ``decrease`` with each such sign, at most once in a round trip,
        and grows by one with every call that succeeds while at least half of it is used. ``gradient``: it follows how
        much latency grows with load (Netflix, concurrency-limits, Gradient2). ``off``: none.
    initial, min, max
        The limit is never set above ``max`` or below ``min``; at the first sign of overload not below ``initial``.
    decrease
        What a sign of overload multiplies the limit by.
    max_concurrent
        The most calls to the server at a time; 0 sets no limit.
    max_waiting
        How many calls above a limit may wait for their turn, in order; -1 for as many as may be under way.
    max_wait_s
        Seconds they wait at most.
    rate
        Calls per second to the server: see :class:`RateConfig`.
    tools
        The same by the name of a tool.
    shedding
        Refuse calls at random, before they are sent, in the measure in which the server refuses them (Site Reliability
        Engineering, chapter 21, client-side throttling); what only looks after the server is never refused.
    shed_window_s
        Seconds over which that is measured.
    shed_ratio
        The multiple of what a server accepts that is still sent to it.
    """

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
