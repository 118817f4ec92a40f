"""Which tests answer for which file: those that should notice a change there, the quick ones first."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Final

__all__ = ["FILES", "suite_of"]

FILES: Final = ("calls/*.py", "fleet/index.py", "_core/*.pyx")
"""What a sample is drawn from."""

_UNIT: Final = "tests/unit/core/test_{}.py"
_PROPERTY: Final = "tests/property/core/test_{}_properties.py"
_CORE: Final = {
    "balancing": ("balancing", "balancing_recovery", "router"),
    "breaker": ("breaker", "router"),
    "limiter": ("limiter", "router"),
    "histogram": ("histogram",),
    "records": ("router", "balancing"),
    "router": ("router", "limiter", "balancing", "breaker", "balancing_recovery"),
    "jsonrpc": ("jsonrpc",),
    "json_blocks": ("json_blocks",),
    "sse": ("sse",),
    "mending": ("mending",),
    "json_weight": ("json_weight",),
    "deadlines": ("deadlines",),
    "allowance": ("allowance",),
}
_CORE_PROPERTIES: Final = {
    "balancing": ("balancing", "router"),
    "breaker": ("breaker", "router"),
    "limiter": ("limit", "router"),
    "histogram": ("histogram",),
    "records": ("router",),
    "router": ("router", "balancing"),
    "jsonrpc": ("jsonrpc",),
    "json_blocks": ("json_blocks",),
    "sse": ("sse",),
    "stateless_frame": ("stateless_frame",),
    "call_ring": ("call_ring",),
    "mending": ("leniency",),
}
_STREAMS: Final = ("tests/unit/core/wire/test_streams.py", "tests/unit/core/wire/test_standing.py")
_ELSEWHERE: Final = {
    "json_weight": ("tests/unit/results/test_large_results.py",),
    "paced": (
        "tests/unit/session/test_paced_line.py",
        "tests/unit/transports/http/test_paced_responses.py",
        "tests/unit/core/wire/test_wire_floods.py",
    ),
    "router": ("tests/property/calls/test_affinity_properties.py",),
    "jsonrpc": ("tests/unit/core/wire/test_bodies.py",),
    "event_stream": (
        "tests/unit/core/test_event_stream.py",
        *_STREAMS,
        "tests/unit/core/wire",
        "tests/integration/transports/http/test_http_sse.py",
    ),
    "recipients": (
        "tests/integration/gateway/test_forward_path.py",
        "tests/integration/gateway/test_sent_requests.py",
    ),
    "response_reader": (*_STREAMS, "tests/unit/core/wire", "tests/integration/transports/http/test_faults.py"),
    "call_path": (
        "tests/integration/runtime/test_blocked_loop.py",
        "tests/integration/manager/test_nothing_kept.py",
        "tests/unit/core/test_request_numbers.py",
        "tests/integration/calls/test_retries.py",
        "tests/integration/session/test_stateless_calls.py",
        "tests/integration/transports/http/test_faults.py",
    ),
}
_RETRIES: Final = (
    "tests/unit/calls/test_retrying.py",
    "tests/integration/calls/test_hedging.py",
    "tests/integration/calls/test_retries.py",
)
_CALLS: Final = {
    "admission": (
        "tests/unit/calls/test_admission.py",
        "tests/property/calls/test_admission_properties.py",
        "tests/integration/calls/test_call_limits.py",
    ),
    "affinity": ("tests/property/calls/test_affinity_properties.py", "tests/integration/calls/test_affinity.py"),
    "availability": _RETRIES,
    "call": _RETRIES,
    "retry_loop": ("tests/unit/calls/test_retry_after.py", *_RETRIES),
    "attempts": (
        "tests/unit/calls/test_trials.py",
        "tests/unit/calls/test_retry_after.py",
        *_RETRIES,
        "tests/integration/calls/test_call_limits.py",
    ),
    "dispatcher": (
        *_RETRIES,
        "tests/integration/calls/test_call_limits.py",
        "tests/integration/calls/test_fallbacks.py",
        "tests/integration/calls/test_cancellation.py",
        "tests/integration/manager/test_nothing_kept.py",
    ),
    "routing": ("tests/integration/calls/test_selectors.py", "tests/integration/calls/test_affinity.py"),
    "hedging": ("tests/integration/calls/test_hedging.py",),
    "latencies": ("tests/integration/calls/test_hedging.py",),
    "fallback": ("tests/integration/calls/test_fallbacks.py",),
    "retry_rules": (
        "tests/unit/calls/test_retrying.py",
        "tests/unit/calls/test_retry_after.py",
        "tests/property/calls/test_retry_properties.py",
    ),
    "index": ("tests/property/fleet/test_fleet_index_properties.py", "tests/integration/calls/test_selectors.py"),
    "call_log": ("tests/unit/calls/test_call_log.py", "tests/integration/calls/test_flight_records.py"),
}
_OF_WIRES: Final = ("tests/unit/core/wire", "tests/property/core/test_wire_properties.py")


def suite_of(path: str) -> tuple[str, ...]:
    """Return the tests for a file of the package."""
    stem = path.rsplit("/", 1)[-1].split(".")[0]
    if fnmatch(path, "_core/*"):
        found = [_UNIT.format(name) for name in _CORE.get(stem, ())]
        found += _ELSEWHERE.get(stem, ())
        found += [_PROPERTY.format(name) for name in _CORE_PROPERTIES.get(stem, ())]
        return tuple(found) if found else (*_OF_WIRES, "tests/integration/transports/http/test_faults.py")
    return _CALLS.get(stem, _RETRIES)
