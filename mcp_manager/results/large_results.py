"""Results that take longer to read than an event loop may stand still."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from mcp_manager._core.json_weight import weigh
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits
from mcp_manager.results.reading import FaultTaker, decode_result

__all__ = ["limits_for", "read_result"]

T = TypeVar("T")

# What takes a millisecond at most, whatever it is made of.
_SHORT: Final = 16 * 1024
# Counting alone takes longer than that beyond this.
_LONG: Final = 256 * 1024
# Even where every one of them is looked at in Python.
_FEW: Final = 4_000
_BYTES_A_VALUE: Final = 48
_FEWEST: Final = 1_000


def limits_for(max_response_bytes: int, max_response_values: int | None) -> DecodingLimits:
    """Return how much of a server's results may be decoded at a time.

    A value takes some 50 bytes of memory, so that neither bound lets a reply take more than four times its limit.
    """
    values = max_response_values
    if values is None:
        values = max(_FEWEST, min(DEFAULT_LIMITS.values, max_response_bytes // _BYTES_A_VALUE))
    return DecodingLimits(values, 3 * max_response_bytes)


async def read_result(
    server_id: str,
    result: bytes | memoryview,
    kind: type[T],
    on_fault: FaultTaker | None = None,
    limits: DecodingLimits = DEFAULT_LIMITS,
) -> T:
    """Decode a result as :func:`decode_result` does, a large one beside the event loop.

    The decoder itself lets nobody else run, which the limits bound; what is done in Python before and after it does.
    """
    if len(result) <= _SHORT or (len(result) <= _LONG and weigh(result, _FEW)[0] <= _FEW):
        return decode_result(server_id, result, kind, on_fault, limits)
    faults: list[tuple[str, str]] = []
    try:
        return await asyncio.to_thread(
            decode_result, server_id, result, kind, lambda *fault: faults.append(fault), limits
        )
    finally:
        if on_fault is not None:
            for fault in faults:
                on_fault(*fault)
