"""The cache of one server's results (2026-07-28, server/utilities/caching)."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Any, Final

import msgspec

from mcp_manager.protocol import methods
from mcp_manager.protocol.caching import LISTS, READ_RESOURCE, cache_key, freshness, list_methods_of
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["ResponseCache", "Ticket"]

_MAX_ENTRIES: Final = 1024
_MAX_BYTES: Final = 8 * 1024 * 1024

_uri_decoder = msgspec.json.Decoder(str)


class _Updated(msgspec.Struct):
    uri: str


_updated_decoder = JsonDecoder(_Updated)


class Ticket(msgspec.Struct, frozen=True):
    """The state of the cache when a request was sent, to decide later whether its result may be kept.

    ``generation`` counts how often results of the method became invalid; ``context`` names the credentials.
    """

    key: tuple[Any, ...]
    generation: int
    context: Hashable


class _Entry(msgspec.Struct):
    result: bytes
    expires_ns: int
    context: Hashable
    is_public: bool


class ResponseCache:
    """Keep results by method and params, for the time to live that the server gives.

    Parameters
    ----------
    clock
        Monotonic nanoseconds.
    enabled
        ``False`` keeps nothing.
    max_entries, max_bytes
        The limits of the cache; above them, the least recently used results are dropped.

    Attributes
    ----------
    context
        Names the credentials of requests, if they can change while the server is deployed. A private result is found
        only under the context in which it was fetched.
    """

    __slots__ = ("_bytes", "_clock", "_entries", "_generations", "_max_bytes", "_max_entries", "context", "enabled")

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        enabled: bool = True,
        max_entries: int = _MAX_ENTRIES,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: collections.OrderedDict[tuple[Any, ...], _Entry] = collections.OrderedDict()
        self._generations: dict[str, int] = {}
        self._bytes = 0
        self.context: Hashable = None
        self.enabled: bool = enabled

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The size of all kept results, in bytes."""
        return self._bytes

    def ticket(self, method: str, params: bytes | None) -> Ticket | None:
        """Return the ticket with which to look up and keep the result of a request; ``None`` if it cannot be kept."""
        if not self.enabled:
            return None
        key = cache_key(method, params)
        return None if key is None else Ticket(key, self._generations.get(method, 0), self.context)

    def find(self, ticket: Ticket) -> bytes | None:
        """Return the result if it is kept and fresh, else ``None``."""
        entry = self._entries.get(ticket.key)
        if entry is None:
            return None
        if self._clock() >= entry.expires_ns:
            self._remove(ticket.key)
            return None
        if not entry.is_public and entry.context != ticket.context:
            return None
        self._entries.move_to_end(ticket.key)
        return entry.result

    def keep(self, ticket: Ticket, result: bytes) -> bool:
        """Keep a complete result that has just arrived, if it may be kept; tell whether it is.

        It may not if the server gives it no time to live, or if its content was reported as changed or the credentials
        changed since the request was sent.
        """
        method = ticket.key[0]
        hints = freshness(result)
        if ticket.generation != self._generations.get(method, 0) or ticket.context != self.context:
            return False
        self._remove(ticket.key)
        if hints is None or len(result) > self._max_bytes:
            return False
        expires_ns = self._clock() + hints.ttl_ns
        self._entries[ticket.key] = _Entry(result, expires_ns, ticket.context, hints.is_public)
        self._bytes += len(result)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
        return True

    def refused(self, ticket: Ticket) -> None:
        """Note that a request was refused; if it had a cursor, every kept page of its list is forgotten."""
        method = ticket.key[0]
        if method in LISTS and any(name == "cursor" for name, _ in ticket.key[1:]):
            self.drop(method)

    def changed(self, notification: str, params: bytes | None) -> None:
        """Forget the results that a notification reports as changed."""
        for method in list_methods_of(notification):
            self.drop(method)
        if notification == methods.RESOURCE_UPDATED:
            self._drop_resource(params)

    def drop(self, method: str) -> None:
        """Forget all results of a method; those under way will not be kept."""
        self._generations[method] = self._generations.get(method, 0) + 1
        for key in [key for key in self._entries if key[0] == method]:
            self._remove(key)

    def drop_all(self) -> None:
        """Forget all results; those under way will not be kept."""
        for method in (*LISTS, READ_RESOURCE, methods.DISCOVER):
            self.drop(method)

    def fresh_until(self, method: str) -> int:
        """Return when the first of a list's kept pages expires, by the clock; 0 if one has, or none is kept.

        The value changes whenever something that was read from the pages may have become outdated.
        """
        expiries = [entry.expires_ns for key, entry in self._entries.items() if key[0] == method]
        first_ns = min(expiries, default=0)
        return first_ns if self._clock() < first_ns else 0

    def _drop_resource(self, params: bytes | None) -> None:
        try:
            uri = _updated_decoder.decode(params or b"{}").uri
        except (msgspec.DecodeError, RecursionError):
            # It is unknown which resource changed.
            self.drop(READ_RESOURCE)
            return
        self._generations[READ_RESOURCE] = self._generations.get(READ_RESOURCE, 0) + 1
        for key in [key for key in self._entries if key[0] == READ_RESOURCE]:
            # 2026-07-28, server/resources: the uri may name a part of the resource that was read.
            if _is_of(uri, _uri_of(key)):
                self._remove(key)

    def _remove(self, key: tuple[Any, ...]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.result)


def _uri_of(key: tuple[Any, ...]) -> str:
    try:
        return _uri_decoder.decode(dict(key[1:]).get("uri", b'""'))
    except (msgspec.DecodeError, RecursionError):
        return ""


def _is_of(changed: str, kept: str) -> bool:
    return changed == kept or changed.startswith(kept.rstrip("/") + "/")
