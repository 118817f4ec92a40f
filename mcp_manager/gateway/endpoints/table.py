"""The endpoints of a gateway, by the paths of their URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from weakref import WeakValueDictionary

from mcp_manager.config.serve import ViewConfig
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.endpoints.listings import Listings
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.endpoints.selection import NoSelection, Selection, ViewSelection
from mcp_manager.gateway.endpoints.single import SingleServer
from mcp_manager.gateway.news import LIST_CHANGES, News
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.manager import McpManager

__all__ = ["EndpointTable"]

_MCP: Final = "mcp"
_SERVERS: Final = "servers"


class EndpointTable:
    """Find the endpoint of a path: ``/mcp``, ``/mcp/{view}`` or ``/servers/{id}/mcp``.

    Parameters
    ----------
    manager
        The fleet; it need not run yet.
    news
        What servers say without being asked; its handlers are those of the manager.
    sealer
        Seals the cursors of merged lists.
    views
        The views by name.
    page_size
        The most entries of a page of a merged list.
    patience_s
        Seconds that a merged list waits for a server; default: ``list_timeout_s`` of the manager.
    """

    def __init__(
        self,
        manager: McpManager,
        news: News,
        sealer: Sealer,
        views: Mapping[str, ViewConfig] | None = None,
        page_size: int = 1_000,
        patience_s: float | None = None,
    ) -> None:
        self._manager = manager
        self._news = news
        self._listings = Listings(manager, manager._config.list_timeout_s if patience_s is None else patience_s)
        self._introductions = Introductions(manager)
        self._sealer = sealer
        self._page_size = page_size
        self.fleet: MergedEndpoint = self._merged(Selection(), "fleet")
        self._view_configs: dict[str, ViewConfig] = {}
        self.views: dict[str, MergedEndpoint] = {}
        # Views that are no longer served, but that sessions still have.
        self._removed: WeakValueDictionary[str, MergedEndpoint] = WeakValueDictionary()
        self.replace_views(views or {})
        self._singles: dict[str, SingleServer] = {}
        news.watch(self._changed)
        news.watch_recovery(self._listings.recovered)
        self._listings.watch(self._found_different)

    def replace_views(self, views: Mapping[str, ViewConfig]) -> None:
        """Show these views from now on; who listens to one that differs is told that its lists have changed."""
        before, self.views = self.views, {}
        for name, config in views.items():
            endpoint = before.pop(name, None) or self._removed.pop(name, None)
            if endpoint is None:
                endpoint = self._merged(ViewSelection(config), f"view/{name}")
            elif self._view_configs.get(name) != config:
                self._show(endpoint, ViewSelection(config))
            self.views[name] = endpoint
        for name, endpoint in before.items():
            # Sessions that began there may still have it.
            self._show(endpoint, NoSelection())
            self._removed[name] = endpoint
        self._view_configs = dict(views)

    def _show(self, endpoint: MergedEndpoint, selection: Selection) -> None:
        endpoint.show(selection)
        for method in LIST_CHANGES:
            self._news.endpoint_changed(endpoint, method)

    def _merged(self, selection: Selection, name: str) -> MergedEndpoint:
        parts = self._manager, self._listings, self._introductions, self._sealer
        return MergedEndpoint(*parts, selection, name, self._page_size)

    def of_server(self, server_id: str) -> SingleServer | None:
        """Return the endpoint of a server; ``None`` if it is not deployed."""
        if server_id not in self._manager._servers:
            self._singles.pop(server_id, None)
            return None
        endpoint = self._singles.get(server_id)
        if endpoint is None:
            endpoint = SingleServer(self._manager, server_id, self._introductions, self._listings)
            self._singles[server_id] = endpoint
        return endpoint

    def find(self, path: str) -> Endpoint | None:
        """Return the endpoint of a path, which may be percent-encoded; ``None`` if there is none."""
        parts = path.removeprefix("/").split("/")
        if parts[0] == _MCP:
            if len(parts) == 1:
                return self.fleet
            return self.views.get(unquote(parts[1])) if len(parts) == 2 else None
        if len(parts) == 3 and parts[0] == _SERVERS and parts[2] == _MCP:
            return self.of_server(unquote(parts[1]))
        return None

    async def aclose(self) -> None:
        """Ask servers for nothing more. Idempotent."""
        await self._listings.aclose()
        await self._introductions.aclose()

    def _changed(self, server_id: str, method: str) -> None:
        self._listings.changed(server_id, method)
        if server_id not in self._manager._servers:
            self._singles.pop(server_id, None)

    def _found_different(self, server_id: str, kind: Kind) -> None:
        self._news.found_different(server_id, kind.change)
