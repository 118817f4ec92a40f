"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from mcp_manager.config.fields.rates import RateFields, RetryBudgetFields
from mcp_manager.config.rates import RateConfig, RetryBudgetConfig
from mcp_manager.types import SequenceNotStr

__all__ = ["BalancingFields", "DiscoveryFields", "FallbackFields", "HedgeFields", "LimitsFields", "RetryFields"]


class BalancingFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.BalancingConfig`, as keyword arguments or as a mapping."""

    policy: Literal["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"]
    """``p2c``: of two instances drawn at random, the one with the lower cost (peak-EWMA latency times the calls it
    would have in flight, divided by its weight). ``least_connections``: of two drawn at random, the one with fewer
    calls in flight, divided by weight. ``round_robin``: one after the other. ``weighted``: at random by weight.
    ``random``: at random, all equally likely. ``consistent``: calls with the same ``key`` go to the same instance as
    long as it exists (weighted rendezvous hashing); calls without a key use ``p2c``. Default: ``p2c``.
    """
    weights: Sequence[float]
    """Weight (above 0, at most 1e6) and tier (0 to 15) by instance index; instances beyond the end have weight 1 and
    tier 0. Tier 0 takes all traffic while enough of its instances are healthy; the rest spills over to the next tier.
    """
    tiers: Sequence[int]
    """Weight (above 0, at most 1e6) and tier (0 to 15) by instance index; instances beyond the end have weight 1 and
    tier 0. Tier 0 takes all traffic while enough of its instances are healthy; the rest spills over to the next tier.
    """
    overprovision: float
    """A tier takes its full share of traffic until its healthy fraction falls below ``1 / overprovision``, from 1 to
    100 (Envoy, priority levels). Default: ``1.4``.
    """
    panic_threshold: float
    """A fraction from 0 to 1. If all tiers together lack capacity and fewer than this fraction of a tier of at least
    four instances are healthy, its unhealthy instances receive calls too, so that the healthy ones are not overloaded.
    Default: ``0.5``.
    """
    max_ejection: float
    """The largest fraction of a server's instances, from 0 to 1, that may be ejected as outliers at a time. Default:
    ``0.5``.
    """
    slow_start_s: float
    """For ``slow_start_s`` seconds, the weight of a new or recovered instance grows from a tenth of its value, as
    ``(age / slow_start_s) ** (1 / slow_start_aggression)``; 0 turns this off. Servers with fewer than three instances
    do not use it. Default: ``30.0``.
    """
    slow_start_aggression: float
    """For ``slow_start_s`` seconds, the weight of a new or recovered instance grows from a tenth of its value, as
    ``(age / slow_start_s) ** (1 / slow_start_aggression)``; 0 turns this off. Servers with fewer than three instances
    do not use it. Default: ``1.0``.
    """
    affinity: Literal["none", "soft", "hard"]
    """Where calls with the same ``key`` go if the server keeps state per session (servers of 2026-07-28 or later do
    not). ``soft``: to one instance's session, and to another one if that is lost. ``hard``: the same, but the loss
    raises :class:`SessionLostError`. ``none``: anywhere that ``policy`` chooses. Default: ``none``.
    """
    affinity_ttl_s: float
    """Seconds that a key is remembered after its last call, and how many keys are remembered. Default: ``3600.0``."""
    affinity_keys: int
    """Seconds that a key is remembered after its last call, and how many keys are remembered. Default: ``10000``."""


class DiscoveryFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.DiscoveryConfig`, as keyword arguments or as a mapping."""

    kind: Literal["none", "dns", "srv"]
    """``none``: no discovery. ``dns``: one instance for every address (A, AAAA) of the URL's host. ``srv``: one
    instance for every host and port in the SRV records of the URL's host (RFC 2782); their priority becomes the tier,
    their weight the weight. ``instances`` bounds how many are used; managers choose different ones. Only name servers
    are asked, not the hosts file. Certificates must be valid for the URL's host. Needs the extra ``dns``. Default:
    ``none``.
    """
    refresh_s: float
    """The most and the fewest seconds between two lookups; between them, the TTL of the records decides. If a lookup
    finds nothing, the last result remains in use. Default: ``30.0``.
    """
    min_refresh_s: float
    """The most and the fewest seconds between two lookups; between them, the TTL of the records decides. If a lookup
    finds nothing, the last result remains in use. Default: ``5.0``.
    """
    timeout_s: float
    """Seconds a lookup may take, above 0. Default: ``5.0``."""
    nameservers: SequenceNotStr[str]
    """Name servers to use instead of the system's: ``address``, ``address:port`` or ``[address]:port``."""


class FallbackFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.FallbackConfig`, as keyword arguments or as a mapping."""

    tag: str | None
    """Ask the other servers with this tag, highest priority first. Applies to tools, prompts, resources and
    completions, and only while the request was certainly not executed or is safe to repeat.
    """
    stale_s: float
    """Return the last result of the same request if it is at most this many seconds old and the request is safe to
    repeat; 0 turns this off. Calls to such a server do not use the compiled call path, so they cost more. Default:
    ``0.0``.
    """
    static: Mapping[str, Any]
    """A fixed result by method, or by tool as ``tools/call:<name>``."""


class HedgeFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.HedgeConfig`, as keyword arguments or as a mapping."""

    enabled: bool
    """Whether to hedge. Default: off. Calls to such a server do not use the compiled call path, so they cost more."""
    quantile: float
    """A call is hedged once it has taken longer than this quantile of the server's latest latencies, above 0 and below
    1. The nearest of 0.5, 0.95 and 0.99 is used. Default: ``0.95``.
    """
    min_delay_s: float
    """The fewest seconds before a call is hedged. Default: ``0.005``."""
    min_samples: int
    """Calls that must have been measured before any is hedged. Default: ``50``."""
    max_share: float
    """The largest share of calls that may be hedged, above 0 and at most 1. Default: ``0.1``."""


class LimitsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.LimitsConfig`, as keyword arguments or as a mapping."""

    concurrency: Literal["aimd", "gradient", "off"]
    """How the limit on concurrent calls to each instance adapts. ``aimd``: no limit until a sign of overload (a
    timeout, 429 or 503); each sign multiplies the limit by ``decrease``, at most once per round trip, and each
    successful call raises it by one while at least half of it is used. ``gradient``: the limit follows how latency
    grows with load (Netflix, concurrency-limits, Gradient2). ``off``: no limit. Default: ``aimd``.
    """
    initial: int
    """The first limit of ``gradient``, and the lowest first limit of ``aimd``; the lowest and the highest limit. An
    ``aimd`` limit that reaches ``max`` is lifted. Default: ``20``.
    """
    min: int
    """The first limit of ``gradient``, and the lowest first limit of ``aimd``; the lowest and the highest limit. An
    ``aimd`` limit that reaches ``max`` is lifted. Default: ``1``.
    """
    max: int
    """The first limit of ``gradient``, and the lowest first limit of ``aimd``; the lowest and the highest limit. An
    ``aimd`` limit that reaches ``max`` is lifted. Default: ``1000``.
    """
    decrease: float
    """The factor by which a sign of overload reduces the limit, from 0.1 to below 1. Default: ``0.9``."""
    max_concurrent: int
    """The most calls to the server at a time; 0 sets no limit. Default: ``0``."""
    max_waiting: int
    """How many calls above a limit may wait in order, and for how many seconds; -1 allows as many to wait as may be in
    flight. Default: ``-1``.
    """
    max_wait_s: float
    """How many calls above a limit may wait in order, and for how many seconds; -1 allows as many to wait as may be in
    flight. Default: ``1.0``.
    """
    rate: RateConfig | RateFields
    """Calls per second to the server: see :class:`RateConfig`."""
    tools: Mapping[str, RateConfig | RateFields]
    """Calls per second by tool name."""
    shedding: bool
    """Refuse a random share of the calls before they are sent while the server itself refuses calls (Site Reliability
    Engineering, chapter 21, client-side throttling). Pings, handshakes and cancellations are never refused. Default:
    ``False``.
    """
    shed_window_s: float
    """Seconds over which refusals are measured. Default: ``120.0``."""
    shed_ratio: float
    """How many times what the server accepts is still sent to it, from 1 to 100. Default: ``2.0``."""


class RetryFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.RetryConfig`, as keyword arguments or as a mapping."""

    attempts: int
    """Attempts per call, from 1 to 10, the first included; 1 turns retries off. Default: ``3``."""
    backoff_s: float
    """The fewest and the most seconds between two attempts. Each wait is random between ``backoff_s`` and three times
    the previous wait (decorrelated jitter). Default: ``0.05``.
    """
    backoff_max_s: float
    """The fewest and the most seconds between two attempts. Each wait is random between ``backoff_s`` and three times
    the previous wait (decorrelated jitter). Default: ``2.0``.
    """
    retry_after_max_s: float
    """The longest wait in seconds that a server may request. If it requests more, the call is not retried there.
    Default: ``60.0``.
    """
    budget: RetryBudgetConfig | RetryBudgetFields
    """See :class:`RetryBudgetConfig`."""
    trust_annotations: bool
    """Treat calls of tools with ``readOnlyHint`` or ``idempotentHint`` as safe to repeat. MCP tells clients not to rely
    on these hints unless the server is trusted (2025-06-18, server/tools). They are known after the tools were listed,
    by ``list_tools`` or ``list_all_tools``. Default: ``False``.
    """
    tools: Mapping[str, Literal["safe", "unsafe"]]
    """Whether calls of a tool are ``safe`` or ``unsafe`` to repeat, by tool name; overrides the tool's hints."""
