"""``KnownSecrets``: the credentials that the configuration of the gateway and of its fleet names, for masking."""

from __future__ import annotations

from mcp_manager.config.redaction import credentials_in
from mcp_manager.config.serve import ServeConfig
from mcp_manager.manager import McpManager

__all__ = ["KnownSecrets"]


class KnownSecrets:
    """Know the credentials of the fleet, of all its servers, and of the gateway itself.

    Parameters
    ----------
    manager
        The fleet.
    serve
        The configuration of the gateway.
    """

    def __init__(self, manager: McpManager, serve: ServeConfig) -> None:
        self._manager = manager
        self._own = tuple(dict.fromkeys(credentials_in(serve)))
        # The texts of each server that the last result was made of.
        self._parts: list[tuple[str, ...]] = []
        self._texts: tuple[str, ...] = ()

    def replace(self, serve: ServeConfig) -> None:
        """Know those of another configuration of the gateway as well: servers may still hold the old ones."""
        self._own = tuple(dict.fromkeys((*credentials_in(serve), *self._own)))[:_MOST_OWN]
        self._parts = []

    def texts(self) -> tuple[str, ...]:
        """Return the texts to mask, the longest first; works on any thread."""
        parts = [self._own, *(each.template.secrets.texts for each in list(self._manager._servers.values()))]
        before = self._parts
        if len(parts) != len(before) or any(one is not other for one, other in zip(parts, before, strict=True)):
            self._texts = tuple(sorted({text for part in parts for text in part}, key=len, reverse=True))
            self._parts = parts
        return self._texts


_MOST_OWN = 1_000
