"""Which tests answer for which file: those that should notice a change there, the quick ones first."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Final

__all__ = ["FILES", "suite_of"]

FILES: Final = ("calls/*.py", "fleet/index.py", "_core/*.pyx")
"""What a sample is drawn from."""

_UNIT, _PROPERTY, _WHOLE = (
    "tests/unit/test_{}.py",
    "tests/property/test_{}_properties.py",
    "tests/integration/test_{}.py",
)
_CORE: Final = {
    "balancing": ("balancing", "balancing_recovery", "router"),
    "breaker": ("breaker", "router"),
    "limiter": ("limiter", "router"),
    "histogram": ("histogram",),
    "records": ("records", "router", "balancing"),
    "router": ("router", "limiter", "balancing", "breaker", "records", "balancing_recovery"),
    "jsonrpc": ("jsonrpc",),
    "json_blocks": ("json_blocks",),
    "sse": ("sse",),
    "mending": ("leniency",),
    "json_weight": ("json_weight", "large_results"),
    "deadlines": ("deadlines",),
    "paced": ("paced_line", "paced_responses"),
    "allowance": ("allowance",),
}
_CORE_PROPERTIES: Final = {
    "balancing": ("balancing", "router"),
    "breaker": ("breaker", "router"),
    "limiter": ("limit", "router"),
    "histogram": ("histogram",),
    "records": ("record", "router"),
    "router": ("router", "balancing", "affinity"),
    "jsonrpc": ("jsonrpc",),
    "json_blocks": ("json_blocks",),
    "sse": ("sse",),
    "stateless_frame": ("dressing",),
    "call_ring": ("flight_recorder",),
    "mending": ("leniency",),
}
_STREAMS: Final = ("tests/unit/wire/test_streams.py", "tests/unit/wire/test_standing.py")
_WIRES: Final = {
    "paced": ("tests/unit/wire/test_floods.py",),
    "jsonrpc": ("tests/unit/wire/test_bodies.py",),
    "event_stream": (
        "tests/unit/test_event_stream.py",
        *_STREAMS,
        "tests/unit/wire",
        "tests/integration/test_http_sse.py",
    ),
    "response_reader": (*_STREAMS, "tests/unit/wire", "tests/integration/test_faults.py"),
    "call_path": (
        "tests/integration/test_blocked_loop.py",
        "tests/integration/test_nothing_kept.py",
        "tests/unit/test_request_numbers.py",
        "tests/integration/test_retries.py",
        "tests/integration/test_stateless_calls.py",
        "tests/integration/test_faults.py",
    ),
}
_RETRIES: Final = (
    "tests/unit/test_retrying.py",
    "tests/integration/test_hedging.py",
    "tests/integration/test_retries.py",
)
_CALLS: Final = {
    "admission": (
        "tests/unit/test_admission.py",
        "tests/property/test_admission_properties.py",
        "tests/integration/test_call_limits.py",
    ),
    "affinity": ("tests/property/test_affinity_properties.py", "tests/integration/test_affinity.py"),
    "availability": _RETRIES,
    "call": _RETRIES,
    "retries": ("tests/unit/test_retry_after.py", *_RETRIES),
    "attempts": (
        "tests/unit/test_trials.py",
        "tests/unit/test_retry_after.py",
        *_RETRIES,
        "tests/integration/test_call_limits.py",
    ),
    "dispatcher": (
        *_RETRIES,
        "tests/integration/test_call_limits.py",
        "tests/integration/test_fallbacks.py",
        "tests/integration/test_cancellation.py",
        "tests/integration/test_nothing_kept.py",
    ),
    "routing": ("tests/integration/test_selectors.py", "tests/integration/test_affinity.py"),
    "hedging": ("tests/integration/test_hedging.py",),
    "latencies": ("tests/integration/test_hedging.py",),
    "recoveries": ("tests/unit/test_trials.py", *_RETRIES),
    "fallback": ("tests/integration/test_fallbacks.py",),
    "retrying": (
        "tests/unit/test_retrying.py",
        "tests/unit/test_retry_after.py",
        "tests/property/test_retry_properties.py",
    ),
    "index": ("tests/property/test_fleet_index_properties.py", "tests/integration/test_selectors.py"),
    "call_log": ("tests/unit/test_flight_log.py", "tests/integration/test_flight_records.py"),
}
_OF_WIRES: Final = ("tests/unit/wire", "tests/property/test_wire_properties.py")


def suite_of(path: str) -> tuple[str, ...]:
    """Return the tests for a file of the package."""
    stem = path.rsplit("/", 1)[-1].split(".")[0]
    if fnmatch(path, "_core/*"):
        found = [_UNIT.format(name) for name in _CORE.get(stem, ())]
        found += _WIRES.get(stem, ())
        found += [_PROPERTY.format(name) for name in _CORE_PROPERTIES.get(stem, ())]
        return tuple(found) if found else (*_OF_WIRES, "tests/integration/test_faults.py")
    return _CALLS.get(stem, _RETRIES)
