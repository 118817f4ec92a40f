"""Decoding of results that are large enough to block the event loop."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from mcp_manager._core.json_weight import weigh
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits
from mcp_manager.results.reading import FaultTaker, decode_result

__all__ = ["limits_for", "read_result"]

T = TypeVar("T")

# Decoding up to this many bytes takes at most a millisecond, whatever their content.
_SHORT: Final = 16 * 1024
# Beyond this, counting the values alone takes longer than a millisecond.
_LONG: Final = 256 * 1024
# Up to this many values take at most a millisecond, even if each is processed in Python.
_FEW: Final = 4_000
_BYTES_A_VALUE: Final = 48
_FEWEST: Final = 1_000


def limits_for(max_response_bytes: int, max_response_values: int | None) -> DecodingLimits:
    """Return the limits on decoding one result of a server.

    Parameters are fields of :class:`~mcp_manager.config.ServerConfig`. A value takes some 50 bytes of memory, so a
    decoded reply takes at most about four times ``max_response_bytes``.
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
    """Decode a result as :func:`decode_result` does, a large one in a thread.

    The decoder itself holds the GIL, for a time that the limits bound; the Python code around it does not.
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
