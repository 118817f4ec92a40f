"""Resolves host names, and resolves them again after a connection failed or broke."""

from __future__ import annotations

import collections
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

__all__ = ["Names"]

T = TypeVar("T")

_MOST_KNOWN: Final = 4096
# An answer this new stays in use after a connection was lost, or was cancelled while it was made.
_NEW_S: Final = 1.0


class _Answer(NamedTuple):
    addresses: frozenset[str]
    at: float


class Names(AbstractResolver):
    """Resolve host names for aiohttp's connectors, which cache the answers, and drop answers that may be stale."""

    def __init__(self) -> None:
        self._resolver = aiohttp.resolver.DefaultResolver()
        self._answers: collections.OrderedDict[tuple[str, int], _Answer] = collections.OrderedDict()
        self._connectors: list[aiohttp.TCPConnector] = []

    def serve(self, connector: aiohttp.TCPConnector) -> None:
        """Register a connector that caches answers."""
        self._connectors.append(connector)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name; raises :class:`OSError`."""
        found = await self._resolver.resolve(host, port, family)
        key = (host, port)
        self._answers[key] = _Answer(frozenset(each["host"] for each in found), time.monotonic())
        self._answers.move_to_end(key)
        if len(self._answers) > _MOST_KNOWN:
            self._answers.popitem(last=False)
        return found

    async def close(self) -> None:
        """Close the resolver."""
        self._connectors.clear()
        await self._resolver.close()

    async def connecting(self, url: URL, connect: Callable[[], Awaitable[T]]) -> T:
        """Connect to the host of a URL, and once more if that fails and the name now has other addresses.

        Raises what ``connect`` raises.
        """
        key = _key(url)
        before = self._answers.get(key)
        try:
            return await connect()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            if before is None:
                raise
            self._forget(key)
            # A name that was resolved during this attempt has no newer addresses to try.
            if self._answers.get(key) is not before or not await self._has_changed(key, before):
                raise
        except BaseException:
            self.doubt(url)
            raise
        return await connect()

    def doubt(self, url: URL) -> None:
        """Resolve the name of a URL's host again for the next connection, unless the answer is newer than a second."""
        key = _key(url)
        known = self._answers.get(key)
        if known is not None and time.monotonic() - known.at >= _NEW_S:
            self._forget(key)

    async def _has_changed(self, key: tuple[str, int], before: _Answer) -> bool:
        with contextlib.suppress(OSError):
            await self.resolve(*key)
        return self._answers[key].addresses != before.addresses

    def _forget(self, key: tuple[str, int]) -> None:
        for connector in self._connectors:
            connector.clear_dns_cache(*key)


def _key(url: URL) -> tuple[str, int]:
    return url.raw_host or "", url.port or 0
