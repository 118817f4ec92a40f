"""The endpoints of a gateway, by the paths of their URLs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Final
from urllib.parse import unquote
from weakref import WeakValueDictionary

from mcp_manager.config.serve import ViewConfig
from mcp_manager.errors import ServerNotFoundError
from mcp_manager.gateway.endpoints.base import Endpoint, PersonalServers
from mcp_manager.gateway.endpoints.granted import GrantedEndpoint, GrantedServer, OwnNames
from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.endpoints.listings import Listings
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.endpoints.name_patterns import NamePatterns
from mcp_manager.gateway.endpoints.owned_tasks import TASKS, OwnedTasks
from mcp_manager.gateway.endpoints.parts import Parts
from mcp_manager.gateway.endpoints.restricted import RestrictedServer
from mcp_manager.gateway.endpoints.selection import NoSelection, Selection, ViewSelection
from mcp_manager.gateway.endpoints.single import SingleServer
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.news import News
from mcp_manager.gateway.security.grants import EVERYTHING, FLEET, SERVER_PREFIX, VIEW_PREFIX, Grant
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.manager import McpManager

__all__ = ["EndpointTable"]

_MCP: Final = "mcp"
_SERVERS: Final = "servers"
# Endpoints as rules allow them that are kept although nobody has them now.
_MOST_GRANTED: Final = 200


class EndpointTable:
    """Find the endpoint of a path: ``/mcp``, ``/mcp/{view}`` or ``/servers/{id}/mcp``.

    Parameters
    ----------
    manager
        The fleet; it need not run yet.
    news
        What servers say without being asked; its handlers are those of the manager.
    sealer
        Seals the cursors of merged lists, and the ids of tasks.
    views
        The views by name.
    page_size
        The most entries of a page of a merged list.
    patience_s
        Seconds that a merged list waits for a server; default: ``list_timeout_s`` of the manager.
    hot
        The tools that are listed at ``/mcp`` although the others are found by a search; ``None`` if all are listed.
    """

    def __init__(
        self,
        manager: McpManager,
        news: News,
        sealer: Sealer,
        views: Mapping[str, ViewConfig] | None = None,
        page_size: int = 1_000,
        patience_s: float | None = None,
        hot: NamePatterns | None = None,
    ) -> None:
        self._manager = manager
        self._news = news
        patience_s = manager._config.list_timeout_s if patience_s is None else patience_s
        self._listings = Listings(manager, patience_s)
        self._personal: PersonalServers | None = None
        self._introductions = Introductions(manager)
        self._tasks = OwnedTasks(sealer, news.tasks)
        self._tasks.may_keep = self._may_keep_tasks
        self._parts = Parts(manager, self._listings, self._introductions, sealer, self._tasks)
        self.page_size: int = page_size
        self.fleet: MergedEndpoint = self._merged(Selection(hot), "fleet")
        self._view_configs: dict[str, ViewConfig] = {}
        self.views: dict[str, MergedEndpoint] = {}
        # Views that are no longer served, but that sessions still have.
        self._removed: WeakValueDictionary[str, MergedEndpoint] = WeakValueDictionary()
        # As rules allow them, by the name and the rules: those found last, and all that anything still has.
        self._granted: OrderedDict[tuple[str, Hashable], GrantedEndpoint] = OrderedDict()
        self._all_granted: WeakValueDictionary[tuple[str, Hashable], GrantedEndpoint] = WeakValueDictionary()
        # Those of servers that get something of each client.
        self._restricted: WeakValueDictionary[tuple[str, Hashable], RestrictedServer] = WeakValueDictionary()
        self.replace_views(views or {})
        self._singles: dict[str, SingleServer] = {}
        news.watch(self._changed)
        news.watch_recovery(self._listings.recovered)
        self._listings.watch(self._found_different)

    def show_to_each(self, personal: PersonalServers) -> None:
        """Ask the servers that get something of each client for what they are to this client; call it first."""
        self._personal = personal
        self._listings.is_personal = self._tasks.is_personal = personal.is_personal
        self._news.personal_caller = personal.personal_caller

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

    def _may_keep_tasks(self, server_id: str) -> bool:
        try:
            said = self._manager._identity_of(server_id)
        except ServerNotFoundError:
            return True
        return said is None or TASKS in said.capabilities

    def replace_hot(self, hot: NamePatterns | None) -> None:
        """List these tools at ``/mcp`` from now on; see ``hot`` of the class."""
        self._show(self.fleet, Selection(hot))

    def replace_page_size(self, page_size: int) -> None:
        """Divide merged lists into pages of this size from now on; cursors of others stay valid."""
        self.page_size = page_size
        for endpoint in (self.fleet, *self.views.values(), *self._all_granted.values()):
            endpoint.page_size = page_size
            endpoint._built.clear()

    def _show(self, endpoint: MergedEndpoint, selection: Selection) -> None:
        granted = [each for each in self._all_granted.values() if each.name == endpoint.name]
        for each in (endpoint, *granted):
            each.show(selection)
            for method in LIST_CHANGES:
                self._news.endpoint_changed(each, method)

    def _merged(self, selection: Selection, name: str) -> MergedEndpoint:
        return MergedEndpoint(self._parts, selection, name, self.page_size)

    def of_server(self, server_id: str) -> SingleServer | None:
        """Return the endpoint of a server; ``None`` if it is not deployed."""
        if server_id not in self._manager._servers:
            self._singles.pop(server_id, None)
            return None
        endpoint = self._singles.get(server_id)
        if endpoint is None:
            endpoint = SingleServer(
                self._manager,
                server_id,
                self._introductions,
                self._listings,
                personal=self._personal,
                tasks=self._tasks,
            )
            self._singles[server_id] = endpoint
        return endpoint

    def find(self, path: str, grant: Grant | None = None) -> Endpoint | None:
        """Return the endpoint of a path, which may be percent-encoded; ``None`` if there is none.

        Parameters
        ----------
        path
            The path.
        grant
            What the client may use; ``None``: everything. An endpoint that shows nothing of it is not there.
        """
        parts = path.removeprefix("/").split("/")
        if parts[0] == _MCP and len(parts) <= 2:
            return self._named(FLEET if len(parts) == 1 else VIEW_PREFIX + unquote(parts[1]), grant)
        if len(parts) == 3 and parts[0] == _SERVERS and parts[2] == _MCP:
            return self._named(SERVER_PREFIX + unquote(parts[1]), grant)
        return None

    def pin(self, pins: Pins) -> None:
        """Compare what servers list with these pins; to be called before anything is listed."""
        self._listings.pins = pins

    def compare_with_pins(self) -> None:
        """Compare everything again, because the pins have changed; who listens is told what differs now."""
        self._listings.compare_again()

    def regrant(self, grant_of: Callable[[str], Grant | None]) -> None:
        """Show everybody what other rules allow from now on; who listens is told that lists have changed.

        Parameters
        ----------
        grant_of
            Returns what a principal may use, by its name; ``None``: everything.
        """
        self._granted.clear()
        self._all_granted.clear()
        self._restricted.clear()
        self._news.settle(lambda each: self.named(each.endpoint.name, grant_of(each.principal)))

    def named(self, name: str, grant: Grant | None) -> Endpoint:
        """Return the endpoint of a name, as a grant allows it; one that shows nothing if it is not there."""
        return self._named(name, grant) or GrantedEndpoint(self._parts, NoSelection(), Grant(), name, self.page_size)

    def _named(self, name: str, grant: Grant | None) -> Endpoint | None:
        if name.startswith(VIEW_PREFIX):
            return self._view(name.removeprefix(VIEW_PREFIX), grant)
        if name.startswith(SERVER_PREFIX):
            return self._single(name.removeprefix(SERVER_PREFIX), grant)
        return self.fleet if grant is None else self._as_granted(self.fleet, grant.at(FLEET))

    def _view(self, name: str, grant: Grant | None) -> Endpoint | None:
        endpoint = self.views.get(name)
        if endpoint is None or grant is None:
            return endpoint
        here = grant.at(VIEW_PREFIX + name)
        servers = (*self._view_configs[name].servers, *endpoint.servers())
        is_seen = here.names_view(name) or any(map(here.shows, servers))
        return self._as_granted(endpoint, here) if is_seen else None

    def _single(self, server_id: str, grant: Grant | None) -> Endpoint | None:
        endpoint = self.of_server(server_id)
        if endpoint is None:
            return None
        here = EVERYTHING if grant is None else grant.at(endpoint.name)
        if here.shows_whole(server_id) and not self._listings.pins.is_on:
            return endpoint
        if not here.shows(server_id):
            return None
        if self._personal is not None and self._personal.is_personal(server_id):
            return self._as_restricted(server_id, self._personal, here)
        return self._as_granted(endpoint, here)

    def _as_restricted(self, server_id: str, personal: PersonalServers, grant: Grant) -> RestrictedServer:
        key = server_id, grant.key
        found = self._restricted.get(key)
        if found is None:
            found = self._restricted[key] = RestrictedServer(self._parts, server_id, personal, grant)
        return found

    def _as_granted(self, endpoint: MergedEndpoint | SingleServer, grant: Grant) -> GrantedEndpoint | None:
        """Return an endpoint as the grant for it allows it; ``None`` if no rule is for it."""
        if not grant:
            return None
        key = endpoint.name, grant.key
        found = self._all_granted.get(key)
        if found is None:
            if isinstance(endpoint, MergedEndpoint):
                selection = endpoint.selection
                found = GrantedEndpoint(self._parts, selection, grant, endpoint.name, self.page_size)
            else:
                own = OwnNames(endpoint.servers()[0])
                found = GrantedServer(self._parts, own, grant, endpoint.name, self.page_size)
            self._all_granted[key] = found
        self._granted[key] = found
        self._granted.move_to_end(key)
        if len(self._granted) > _MOST_GRANTED:
            self._granted.popitem(last=False)
        return found

    async def aclose(self) -> None:
        """Ask servers for nothing more. Idempotent."""
        await self._listings.aclose()
        await self._introductions.aclose()

    def _changed(self, server_id: str, method: str) -> None:
        self._listings.changed(server_id, method)
        for (changed, _), endpoint in list(self._restricted.items()):
            if changed == server_id:
                endpoint.changed(method)
        if server_id not in self._manager._servers:
            self._singles.pop(server_id, None)

    def _found_different(self, server_id: str, kind: Kind) -> None:
        self._news.found_different(server_id, kind.change)
