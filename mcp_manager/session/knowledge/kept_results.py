"""The last good results of one server, as fallbacks for failed calls."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec
import orjson

from mcp_manager._core.json_weight import weigh
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["KeptResults"]

_MOST: Final = 1_000
_MOST_BYTES: Final = 8 * 1024 * 1024
# A kept result is decoded when it is used, to mark it as stale, so this limits the time that takes.
_MOST_VALUES: Final = 300_000

Key = tuple[str, bytes]


class _Judged(msgspec.Struct, rename="camel"):
    is_error: bool = False


_judged_decoder = JsonDecoder(_Judged)

# Members of a request's _meta that cannot affect the answer.
_HARMLESS: Final = ("progressToken", "traceparent", "tracestate", "baggage")


class KeptResults:
    """Keep the last result of each request: at most 1,000 results and 8 MiB."""

    __slots__ = ("_results", "_size")

    def __init__(self) -> None:
        self._results: OrderedDict[Key, tuple[int, bytes]] = OrderedDict()
        self._size = 0

    def keep(self, method: str, params: bytes | None, result: bytes, now_ns: int) -> None:
        """Keep a result in place of the previous one of the same request, unless it reports an error or is too large.

        Parameters
        ----------
        method, params
            The request.
        result
            Its result, as JSON.
        now_ns
            When the result arrived, in monotonic nanoseconds.
        """
        key = _key(method, params)
        if (
            key is None
            or len(result) > _MOST_BYTES
            or weigh(result, _MOST_VALUES)[0] > _MOST_VALUES
            or _is_failure(result)
        ):
            return
        before = self._results.pop(key, None)
        if before is not None:
            self._size -= len(before[1])
        self._results[key] = now_ns, result
        self._size += len(result)
        while self._size > _MOST_BYTES or len(self._results) > _MOST:
            _, (_, oldest) = self._results.popitem(last=False)
            self._size -= len(oldest)

    def find(self, method: str, params: bytes | None) -> tuple[int, bytes] | None:
        """Return the arrival time and the result that are kept for a request, ``None`` if there are none."""
        key = _key(method, params)
        return None if key is None else self._results.get(key)


def _key(method: str, params: bytes | None) -> Key | None:
    """Return a key that equal requests share, whatever their formatting, progress token and trace context; ``None`` if invalid."""
    try:
        decoded: Any = orjson.loads(params) if params else None
    except orjson.JSONDecodeError:
        return None
    if isinstance(decoded, dict) and isinstance(decoded.get("_meta"), dict):
        for name in _HARMLESS:
            decoded["_meta"].pop(name, None)
        if not decoded["_meta"]:
            del decoded["_meta"]
    return method, orjson.dumps(decoded, option=orjson.OPT_SORT_KEYS)


def _is_failure(result: bytes) -> bool:
    try:
        return _judged_decoder.decode(result, limits=None).is_error
    except (msgspec.DecodeError, RecursionError):
        return True
