"""The endpoints by the paths of URLs, as requests have them: found once, and kept as long as their servers are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager.gateway.endpoints.base import Endpoint

__all__ = ["EndpointPaths"]

_LONGEST: Final = 2_048
_MOST_KEPT: Final = 20_000


class EndpointPaths:
    """Keep the endpoints that were found.

    Parameters
    ----------
    find
        Finds the endpoint of a path; ``None`` if there is none.
    """

    def __init__(self, find: Callable[[str], Endpoint | None]) -> None:
        self._find = find
        self._by_path: dict[str, Endpoint] = {}

    def find(self, path: str) -> Endpoint | None:
        """Return the endpoint at a path as it is in the URL, ``None`` if there is none."""
        found = self._by_path.get(path)
        return found if found is not None else self._found(path)

    def is_endpoint(self, path: bytes) -> bool:
        """Tell whether there is an endpoint at a path."""
        return self.find(path.decode("latin-1")) is not None

    def changed(self, server_id: str, method: str) -> None:
        """Take note that a server may have been deployed or removed."""
        name = f"server/{server_id}"
        gone = [path for path, endpoint in self._by_path.items() if endpoint.name == name]
        for path in gone:
            del self._by_path[path]

    def clear(self) -> None:
        """Find all of them again."""
        self._by_path.clear()

    def _found(self, path: str) -> Endpoint | None:
        endpoint = self._find(path) if len(path) <= _LONGEST else None
        if endpoint is not None:
            if len(self._by_path) >= _MOST_KEPT:
                # The same id can be written in many ways.
                self._by_path.clear()
            self._by_path[path] = endpoint
        return endpoint
