"""The endpoints by the paths of URLs, as requests have them: found once, and kept as long as their servers are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.security.grants import Grant

__all__ = ["EndpointPaths"]

_LONGEST: Final = 2_048
_MOST_KEPT: Final = 20_000
# Each of them may have lists of its own.
_MOST_GRANTED: Final = 500


class EndpointPaths:
    """Keep the endpoints that were found.

    Parameters
    ----------
    find
        Finds the endpoint of a path as a grant allows it; ``None`` if there is none.
    """

    def __init__(self, find: Callable[[str, Grant | None], Endpoint | None]) -> None:
        self._find = find
        self.by_path: dict[str, Endpoint] = {}
        """The endpoints that were found for clients that may use everything."""
        self.by_path_and_grant: dict[tuple[str, Grant], Endpoint] = {}
        """Those that were found for other clients."""

    def find(self, path: str, grant: Grant | None = None) -> Endpoint | None:
        """Return the endpoint at a path as it is in the URL, ``None`` if there is none.

        Parameters
        ----------
        path
            The path.
        grant
            What the client may use; ``None``: everything.
        """
        found = self.by_path.get(path) if grant is None else self.by_path_and_grant.get((path, grant))
        return found if found is not None else self._found(path, grant)

    def is_endpoint(self, path: bytes) -> bool:
        """Tell whether a path has the form of that of an endpoint: who asks need not be allowed to know what there is."""
        if path == b"/mcp":
            return True
        parts = path.split(b"/", 4)
        if len(parts) == 3:
            return parts[1] == b"mcp" and bool(parts[2])
        return len(parts) == 4 and parts[1] == b"servers" and parts[3] == b"mcp" and bool(parts[2])

    def changed(self, server_id: str, method: str) -> None:
        """Take note that a server may have been deployed or removed."""
        name = f"server/{server_id}"
        for path in [path for path, endpoint in self.by_path.items() if endpoint.name == name]:
            del self.by_path[path]
        # A view may show something of a server that is new.
        self.by_path_and_grant.clear()

    def clear(self) -> None:
        """Find all of them again."""
        self.by_path.clear()
        self.by_path_and_grant.clear()

    def _found(self, path: str, grant: Grant | None) -> Endpoint | None:
        endpoint = self._find(path, grant) if len(path) <= _LONGEST else None
        if endpoint is None:
            return None
        if grant is not None:
            if len(self.by_path_and_grant) >= _MOST_GRANTED:
                self.by_path_and_grant.clear()
            self.by_path_and_grant[path, grant] = endpoint
            return endpoint
        if len(self.by_path) >= _MOST_KEPT:
            # The same id can be written in many ways.
            self.by_path.clear()
        self.by_path[path] = endpoint
        return endpoint
