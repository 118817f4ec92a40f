"""The endpoints that DNS found for a server, and the choice of those that are used."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable
from math import log
from typing import Final

from mcp_manager.errors import ConnectError
from mcp_manager.transports.http.connections.endpoint import Endpoint

__all__ = ["Endpoints"]

_UNITS: Final = 2.0**53


class Endpoints:
    """Number the endpoints of one server, and choose among them.

    An endpoint keeps its number for as long as it exists. If more exist than are wanted, weighted rendezvous hashing
    chooses (Schindelhauer and Schomaker, 2005): an endpoint that comes or goes changes one choice, and managers with
    different seeds spread over all endpoints.

    ``refresher`` is the task that refreshes them; ``problem`` is why the last look-up failed, ``None`` if it did not.

    Parameters
    ----------
    seed
        64 bits, different in every manager.
    """

    __slots__ = ("_by_index", "_found", "_next_index", "_seed", "problem", "refresher")

    def __init__(self, seed: int) -> None:
        self._seed = seed.to_bytes(8, "little")
        self._by_index: dict[int, Endpoint] = {}
        self._found: set[int] = set()
        self._next_index = 0
        self.refresher: asyncio.Task[None] | None = None
        self.problem: ConnectError | None = None

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> Endpoint:
        return self._by_index[index]

    def replace(self, found: Iterable[Endpoint], in_use: Collection[int]) -> None:
        """Replace the endpoints.

        Parameters
        ----------
        found
            The endpoints that exist now.
        in_use
            The numbers that instances use: an endpoint that is gone is kept while its number is among them.
        """
        known = {_key(endpoint): index for index, endpoint in self._by_index.items()}
        self._found = set()
        for endpoint in found:
            index = known.get(_key(endpoint))
            if index is None:
                index = known[_key(endpoint)] = self._next_index
                self._next_index += 1
            self._by_index[index] = endpoint
            self._found.add(index)
        for index in self._by_index.keys() - self._found - set(in_use):
            del self._by_index[index]

    def chosen(self, count: int) -> list[int]:
        """Return the numbers of at most ``count`` endpoints: the lowest tiers first, by rendezvous within a tier."""
        ranked = sorted(self._found, key=lambda index: (self._by_index[index].tier, -self._score(index)))
        return sorted(ranked[:count])

    def close(self) -> None:
        """Stop refreshing the endpoints; idempotent."""
        if self.refresher is not None:
            self.refresher.cancel()

    def _score(self, index: int) -> float:
        endpoint = self._by_index[index]
        digest = hashlib.blake2b(str(endpoint).encode(), digest_size=8, key=self._seed).digest()
        unit = ((int.from_bytes(digest, "little") >> 11) + 0.5) / _UNITS
        return endpoint.weight / -log(unit)


def _key(endpoint: Endpoint) -> tuple[str, int, int]:
    return endpoint.address, endpoint.port, endpoint.tier
