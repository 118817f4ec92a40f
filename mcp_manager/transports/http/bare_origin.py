"""Finds the endpoint of a URL without a path: most servers have it at ``/mcp``."""

from __future__ import annotations

import logging
import re
from typing import Final

__all__ = ["USUAL_PATH", "BareOrigin", "is_bare"]

logger: logging.Logger = logging.getLogger(__name__)

USUAL_PATH: Final = "/mcp"
_BARE: Final = re.compile(r"https?://[^/?#]+/?", re.IGNORECASE)


def is_bare(url: str) -> bool:
    """Tell whether a URL has neither a path nor a query."""
    return _BARE.fullmatch(url) is not None


class BareOrigin:
    """What is known of the endpoint behind one URL without a path; shared by all sessions of its server.

    Parameters
    ----------
    server_id
        Names the server in the log.
    configured
        The URL as it is configured.
    shown
        The same with secrets masked.
    """

    __slots__ = ("_server_id", "_shown", "configured", "found")

    def __init__(self, server_id: str, configured: str, shown: str) -> None:
        self._server_id = server_id
        self._shown = shown.rstrip("/")
        self.configured: str = configured
        # The URL that answered in its place, None as long as none did.
        self.found: str | None = None

    @property
    def url(self) -> str:
        """The URL to begin with."""
        return self.configured if self.found is None else self.found

    @property
    def usual(self) -> str:
        """The URL to try if the configured one is no endpoint."""
        return self.configured.rstrip("/") + USUAL_PATH

    @property
    def shown(self) -> str | None:
        """The URL that is used in place of the configured one, with secrets masked; ``None`` without one."""
        return None if self.found is None else self._shown + self.found[len(self.configured.rstrip("/")) :]

    def keep(self, path: str, status: int) -> None:
        """Use another path of the same origin from now on.

        Parameters
        ----------
        path
            The path that answered.
        status
            The HTTP status with which the configured URL refused the request.
        """
        found = self.configured.rstrip("/") + path
        if found == self.found:
            return
        self.found = found
        logger.warning(
            "server %r: %s is not an MCP endpoint (HTTP %d); %s is, and is used from now on (to avoid the search, set url to it)",
            self._server_id,
            self._shown,
            status,
            self.shown,
            extra={"event": "endpoint_found", "server_id": self._server_id},
        )

    def forget(self) -> None:
        """Begin with the configured URL again, because the other one is no endpoint any more."""
        self.found = None
