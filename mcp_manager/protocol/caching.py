"""The rules of result caching: what may be cached, and for how long (2026-07-28, server/utilities/caching)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["CACHEABLE", "LISTS", "READ_RESOURCE", "Freshness", "cache_key", "freshness", "list_methods_of"]

READ_RESOURCE: Final = "resources/read"

LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})
"""The cacheable lists; each page has its own cursor."""

CACHEABLE: Final = LISTS | {READ_RESOURCE, "server/discover"}
"""The requests whose results may declare a lifetime."""

# A longer lifetime is shortened to a day, so that a server's mistake does not stay cached.
_LONGEST_MS: Final = 86_400_000
_TTL_MEMBER: Final = b'"ttlMs"'
# Members of a request's _meta that cannot affect the answer.
_HARMLESS: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
_ROUND_MEMBERS: Final = frozenset({"inputResponses", "requestState"})

_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Hints(msgspec.Struct):
    ttlMs: Any = 0
    cacheScope: Any = "private"


_hints_decoder = JsonDecoder(_Hints)


class Freshness(msgspec.Struct, frozen=True):
    """How long a result may be cached.

    ``ttl_ns`` is in nanoseconds from its arrival; ``is_public`` tells whether requests with other credentials may get
    it.
    """

    ttl_ns: int
    is_public: bool


def cache_key(method: str, params: bytes | None) -> tuple[Any, ...] | None:
    """Return the cache key of a request, ``None`` if its result must not be cached.

    Parameters that differ in any byte have different keys. Not cached are answers to requests that carry input of an
    earlier round, or whose ``_meta`` holds anything but a progress token and a trace context, because that may affect the answer.
    """
    if method not in CACHEABLE:
        return None
    try:
        members = _params_decoder.decode(params or b"{}")
        meta = _params_decoder.decode(members.pop("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return None
    if meta.keys() - _HARMLESS or members.keys() & _ROUND_MEMBERS:
        return None
    return method, *((name, bytes(members[name])) for name in sorted(members))


def freshness(result: bytes) -> Freshness | None:
    """Return how long a complete result may be cached, ``None`` for not at all.

    A ``ttlMs`` that is absent, negative or not a number counts as 0; a scope other than ``public`` as ``private``.
    """
    if _TTL_MEMBER not in result:
        return None
    try:
        hints = _hints_decoder.decode(result, limits=None)
    except (msgspec.DecodeError, RecursionError):
        return None
    ttl_ms = hints.ttlMs
    if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int | float) or not ttl_ms > 0:
        return None
    return Freshness(int(min(ttl_ms, _LONGEST_MS) * 1_000_000), hints.cacheScope == "public")


def list_methods_of(notification: str) -> tuple[str, ...]:
    """Return the list methods whose results a notification invalidates."""
    return _CHANGED_LISTS.get(notification, ())


_CHANGED_LISTS: Final[dict[str, tuple[str, ...]]] = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    # Templates have no notification of their own.
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}
