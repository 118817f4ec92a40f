"""What servers say without being asked: lists that have changed and resources that were updated, for who listens."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from mcp_manager.auth.caller import Caller, current_caller
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.errors import RpcError
from mcp_manager.events.records import (
    EventsMissed,
    ServerDeployed,
    ServerEvent,
    ServerRedeployed,
    ServerStateChanged,
    ServerUndeployed,
)
from mcp_manager.events.stream import EventStream
from mcp_manager.gateway.callers import is_told, principal_of
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.endpoints.base import Endpoint, LooksAgain
from mcp_manager.gateway.endpoints.not_found import no_resource
from mcp_manager.gateway.list_changes import LIST_CHANGES, Audience, ListChanges
from mcp_manager.gateway.sessions.known_tasks import KnownTasks
from mcp_manager.gateway.upstream_subscriptions import UpstreamSubscriptions
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.methods import (
    RESOURCE_UPDATED,
    SUBSCRIBE,
)
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.session.handlers import Handler
from mcp_manager.types import ServerState

__all__ = ["Deliver", "Listening", "News"]

_log = logging.getLogger(__name__)

_MOST_URIS: Final = 1_000
# All together have room for 100,000.
_MOST_URIS_OF_ONE: Final = 10_000
# Listeners that are told of a changed list in one iteration of the event loop; calls do not wait for ten thousand.
_MOST_IN_TURN: Final = 32
_BUFFER: Final = 10_000
_SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

_BETWEEN: Final = "\0"

PersonalCaller = Callable[[str, Client], Awaitable[Caller | None]]
Deliver = Callable[[str, bytes], None]
"""``deliver(method, params)`` takes a notification; ``params`` is JSON."""


class Listening:
    """One listener of an endpoint; made by :meth:`News.listen`.

    Parameters
    ----------
    news
        Where the notifications come from.
    endpoint
        What the listener sees.
    deliver
        Takes the notifications.
    methods
        The list changes that it wants.
    client
        The client, if notifications of its own sessions are to reach it alone.
    """

    __slots__ = ("_news", "_subscribed", "deliver", "endpoint", "is_closed", "methods", "party", "principal")

    def __init__(
        self, news: News, endpoint: Endpoint, deliver: Deliver, methods: frozenset[str], client: Client | None
    ) -> None:
        self._news = news
        self.endpoint: Endpoint = endpoint
        self.deliver: Deliver = deliver
        self.methods: frozenset[str] = methods
        self.party: str | None = None if client is None else principal_of(client)
        self.principal: str = ANONYMOUS if client is None else client.principal
        self._subscribed: dict[str, tuple[str, str]] = {}
        self.is_closed: bool = False

    @property
    def uris(self) -> list[str]:
        """The resources that it is subscribed to, as the client names them."""
        return list(self._subscribed)

    async def subscribe(self, uri: str, client: Client) -> None:
        """Deliver ``notifications/resources/updated`` for a resource, until :meth:`unsubscribe` or :meth:`close`.

        Parameters
        ----------
        uri
            The resource, as the client names it.
        client
            Who asks.

        Raises
        ------
        RpcError
            No server of the endpoint has it, its server refuses, or the listener has too many subscriptions.
        CallError
            Its server did not answer.
        """
        if uri in self._subscribed:
            return
        if len(self._subscribed) >= _MOST_URIS:
            raise RpcError(
                INVALID_PARAMS,
                f"More than {_MOST_URIS:,} resources are subscribed to; unsubscribe from others first",
                {"source": "gateway"},
            )
        endpoint = self.endpoint
        server_id, own_uri = await endpoint.route_uri(uri, client, SUBSCRIBE)
        place = await self._news.place_of(server_id, client)
        if self.is_closed or uri in self._subscribed:
            return
        if endpoint is not self.endpoint and not self.endpoint.shows_resource(SUBSCRIBE, server_id, own_uri):
            raise no_resource(uri, client)
        self._news.count_uri(self.principal)
        self._subscribed[uri] = place, own_uri
        try:
            await self._news.subscriptions.add(self, uri, place, own_uri)
        except BaseException:
            self._forget_uri(uri)
            raise

    async def unsubscribe(self, uri: str) -> None:
        """End a subscription; nothing happens without one."""
        place = self._forget_uri(uri)
        if place is not None:
            await self._news.subscriptions.discard(self, uri, *place)

    def move(self, endpoint: Endpoint) -> None:
        """See another endpoint from now on; subscriptions to what it does not show end."""
        if self.is_closed:
            return
        self._news.forget(self)
        self.endpoint = endpoint
        self._news.remember(self)
        for uri, place in list(self._subscribed.items()):
            if not endpoint.shows_resource(SUBSCRIBE, place[0].partition(_BETWEEN)[0], place[1]):
                self._forget_uri(uri)
                self._news.subscriptions.drop(self, uri, *place)

    def _forget_uri(self, uri: str) -> tuple[str, str] | None:
        place = self._subscribed.pop(uri, None)
        if place is not None:
            self._news.forget_uri(self.principal)
        return place

    def close(self) -> None:
        """Deliver nothing more, and end the subscriptions. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self._news.forget(self)
        for uri, place in list(self._subscribed.items()):
            self._forget_uri(uri)
            self._news.subscriptions.drop(self, uri, *place)


class News:
    """Tell listeners what changes at the endpoints that they see.

    Make it first, give :meth:`handlers` to the manager, and then :meth:`start` it with that manager. Changes of merged
    lists are told together, ``delay_s`` after the first one. An endpoint of one server passes a change on at once, and
    those that follow within ``delay_s`` together.

    Parameters
    ----------
    delay_s
        Seconds between notifications about the same list.
    """

    def __init__(self, delay_s: float = 0.1) -> None:
        self._changes = ListChanges(delay_s, self._tell, self._look_at)
        self._listenings: dict[str, dict[Listening, None]] = {}
        self._watchers: list[Callable[[str, str], None]] = []
        self._recovery_watchers: list[Callable[[str], None]] = []
        self._find: Callable[[Listening], Endpoint] | None = None
        self._manager: McpManager | None = None
        self._events: EventStream | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.subscriptions: UpstreamSubscriptions[Listening] = UpstreamSubscriptions(self)
        self.tasks: KnownTasks = KnownTasks()
        """Whose the tasks are that servers have news of."""
        self.personal_caller: PersonalCaller | None = None
        """Returns whom a subscription is made for, ``None`` for those that all clients share."""
        self._callers: dict[str, Caller] = {}
        # How many subscriptions each principal has.
        self._uris_of: Counter[str] = Counter()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers that the manager needs, by method."""
        changed: dict[str, Handler] = {method: self._list_handler(method) for method in LIST_CHANGES}
        return {**changed, RESOURCE_UPDATED: self._resource_updated}

    def start(self, manager: McpManager) -> None:
        """Follow the servers of a manager that runs."""
        self._manager = manager
        kinds = (ServerDeployed, ServerRedeployed, ServerUndeployed, ServerStateChanged, EventsMissed)
        self._events = manager.events(kinds=kinds, buffer=_BUFFER)
        background_task(
            self._follow(self._events), "follow the fleet for the gateway", among=self._tasks, context=bare_context()
        )

    def replace_delay(self, delay_s: float) -> None:
        """Gather changes of lists for so many seconds from now on."""
        self._changes.delay_s = delay_s

    async def aclose(self) -> None:
        """End all listeners. Idempotent."""
        if self._events is not None:
            self._events.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._changes.aclose()
        self._listenings.clear()
        await self.subscriptions.aclose()

    def watch(self, watcher: Callable[[str, str], None]) -> None:
        """Call ``watcher(server_id, method)`` at once for every list that may have changed; it must not raise."""
        self._watchers.append(watcher)

    def watch_recovery(self, watcher: Callable[[str], None]) -> None:
        """Call ``watcher(server_id)`` whenever a server becomes healthy; it must not raise."""
        self._recovery_watchers.append(watcher)

    def listen(
        self, endpoint: Endpoint, deliver: Deliver, methods: frozenset[str], client: Client | None = None
    ) -> Listening:
        """Tell a listener of an endpoint from now on.

        Parameters
        ----------
        endpoint
            What the listener sees.
        deliver
            Called as ``deliver(method, params)`` on the loop; it must not block.
        methods
            The list changes that it wants, such as ``notifications/tools/list_changed``.
        client
            Who listens. What a server says on sessions of one client alone is told to that client only, and to nobody
            if it is not given.
        """
        listening = Listening(self, endpoint, deliver, methods, client)
        if self._find is not None:
            listening.endpoint = self._find(listening)
        self.remember(listening)
        return listening

    def remember(self, listening: Listening) -> None:
        """Tell a listener what changes; called when it begins, and by :meth:`Listening.move`."""
        self._listenings.setdefault(listening.endpoint.key, {})[listening] = None

    def forget(self, listening: Listening) -> None:
        """Tell a listener nothing more; called by :meth:`Listening.close` and :meth:`Listening.move`."""
        key = listening.endpoint.key
        of_endpoint = self._listenings.get(key, {})
        of_endpoint.pop(listening, None)
        if not of_endpoint:
            self._listenings.pop(key, None)

    def count_uri(self, principal: str) -> None:
        """Count a subscription of a principal; raises :class:`RpcError` if it has too many, so that others have room."""
        if principal != ANONYMOUS and self._uris_of[principal] >= _MOST_URIS_OF_ONE:
            raise RpcError(
                INVALID_PARAMS,
                f"More than {_MOST_URIS_OF_ONE:,} resources are subscribed to; unsubscribe from others first",
                {"source": "gateway"},
            )
        self._uris_of[principal] += 1

    def forget_uri(self, principal: str) -> None:
        """Count a subscription of a principal no longer."""
        self._uris_of[principal] -= 1
        if not self._uris_of[principal]:
            del self._uris_of[principal]

    def settle(self, find: Callable[[Listening], Endpoint]) -> None:
        """Let every listener see what is found for it from now on, and tell it that all lists may have changed.

        Parameters
        ----------
        find
            Returns the endpoint for a listener; it is asked for those that begin later, too, because their requests may
            have begun before.
        """
        self._find = find
        endpoints: dict[str, Endpoint] = {}
        for listening in [each for of_endpoint in self._listenings.values() for each in of_endpoint]:
            endpoint = find(listening)
            if endpoint is not listening.endpoint:
                listening.move(endpoint)
                endpoints[endpoint.key] = endpoint
        for endpoint in endpoints.values():
            for method in LIST_CHANGES:
                self.endpoint_changed(endpoint, method)

    def changed(self, server_id: str, method: str, caller: Caller | None = None) -> None:
        """Take the news that a list of a server may have changed.

        Parameters
        ----------
        server_id
            The server.
        method
            The notification.
        caller
            The caller whose session the server said it on; ``None``: the sessions that all clients share.
        """
        for watcher in self._watchers:
            watcher(server_id, method)
        self._spread(server_id, method, caller)

    def found_different(self, server_id: str, method: str) -> None:
        """Tell who sees merged lists that one of them has changed, although its server has not said so."""
        self._spread(server_id, method, None, only_merged=True)

    def endpoint_changed(self, endpoint: Endpoint, method: str) -> None:
        """Tell who listens to an endpoint that it shows something else from now on."""
        self._changes.add((endpoint.key, None), method, is_merged=endpoint.is_merged, is_certain=True)

    def _spread(self, server_id: str, method: str, caller: Caller | None, *, only_merged: bool = False) -> None:
        for key, listenings in list(self._listenings.items()):
            endpoint = next(iter(listenings)).endpoint
            if not endpoint.shows(server_id) or (only_merged and not endpoint.is_merged):
                continue
            # Merged lists are the same for all clients, whoever made the server change them.
            party = None if caller is None or endpoint.is_merged else caller.principal
            self._changes.add((key, party), method, is_merged=endpoint.is_merged)

    async def place_of(self, server_id: str, client: Client) -> str:
        """Return what names the subscriptions of a client at a server: its own ones, or those of all clients.

        Raises
        ------
        McpManagerError
            The server gets credentials of each client, and there are none of this one.
        """
        caller = None if self.personal_caller is None else await self.personal_caller(server_id, client)
        if caller is None:
            return server_id
        place = _place(server_id, caller)
        self._callers[place] = caller
        if len(self._callers) > 2 * len(self.subscriptions) + _MOST_URIS:
            held = self.subscriptions.places()
            self._callers = {each: known for each, known in self._callers.items() if each in held or each == place}
        return place

    async def subscribe(self, place: str, uri: str) -> None:
        """Subscribe to a resource at its server."""
        calls, server_id = self._calls_at(place)
        await calls.subscribe(server_id, uri)

    async def unsubscribe(self, place: str, uri: str) -> None:
        """End a subscription at its server."""
        calls, server_id = self._calls_at(place)
        await calls.unsubscribe(server_id, uri)

    def _calls_at(self, place: str) -> tuple[McpManager | ForCaller, str]:
        assert self._manager is not None
        server_id, is_personal, _ = place.partition(_BETWEEN)
        return self._manager.for_caller(self._callers[place]) if is_personal else self._manager, server_id

    def _list_handler(self, method: str) -> Handler:
        def handle(server_id: str, params: Any) -> None:
            self.changed(server_id, method, current_caller())

        return handle

    def _resource_updated(self, server_id: str, params: Any) -> None:
        uri = params.get("uri") if isinstance(params, dict) else None
        if not isinstance(uri, str):
            return
        caller = current_caller()
        is_personal = caller is not None and _place(server_id, caller) in self._callers
        place = _place(server_id, caller) if is_personal and caller is not None else server_id
        for listening, client_uri, subscribed in self.subscriptions.listeners(place, uri):
            if caller is not None and not (listening.party and is_told(caller.principal, listening.party)):
                continue
            if not listening.endpoint.shows_resource(SUBSCRIBE, server_id, uri):
                # A part of what was subscribed to that is not allowed.
                continue
            # A part of what was subscribed to has a URI that begins with that one.
            told = client_uri + uri[len(subscribed) :]
            _deliver(listening, RESOURCE_UPDATED, msgspec.json.encode({**_without_subscription(params), "uri": told}))

    def _look_at(self, key: str) -> LooksAgain | None:
        listening = next(iter(self._listenings.get(key, ())), None)
        return None if listening is None else listening.endpoint.lists_others

    def _tell(self, audience: Audience, method: str) -> None:
        key, party = audience
        told = [
            listening
            for listening in self._listenings.get(key, ())
            if method in listening.methods
            and (party is None or (listening.party is not None and is_told(party, listening.party)))
        ]
        told.reverse()
        self._take_turn(told, method)

    def _take_turn(self, left: list[Listening], method: str) -> None:
        """Tell the next listeners of those that are left, from the end."""
        turn = left[-_MOST_IN_TURN:]
        del left[-_MOST_IN_TURN:]
        for listening in reversed(turn):
            if not listening.is_closed:
                _deliver(listening, method, b"{}")
        if left:
            asyncio.get_running_loop().call_soon(self._take_turn, left, method, context=bare_context())

    async def _follow(self, events: EventStream) -> None:
        async for event in events:
            if isinstance(event, EventsMissed):
                for server_id in self._known_servers():
                    self._all_changed(server_id)
            elif isinstance(event, ServerStateChanged):
                if event.state is ServerState.HEALTHY:
                    self._recovered(event.server_id)
            elif isinstance(event, ServerDeployed | ServerRedeployed | ServerUndeployed):
                self._fleet_changed(event)

    def _known_servers(self) -> list[str]:
        return [] if self._manager is None else [each.id for each in self._manager.servers()]

    def _recovered(self, server_id: str) -> None:
        # What its new session may have missed, the manager tells by itself.
        self.subscriptions.renew(server_id, is_new=False)
        for watcher in self._recovery_watchers:
            watcher(server_id)

    def _fleet_changed(self, event: ServerEvent) -> None:
        if not isinstance(event, ServerUndeployed):
            self.subscriptions.renew(event.server_id, is_new=True)
        self._all_changed(event.server_id)

    def _all_changed(self, server_id: str) -> None:
        for method in LIST_CHANGES:
            self.changed(server_id, method)


def _place(server_id: str, caller: Caller) -> str:
    """Return what names the subscriptions of a caller at a server; ids of servers have no NUL."""
    return f"{server_id}{_BETWEEN}{caller.principal}"


def _deliver(listening: Listening, method: str, params: bytes) -> None:
    try:
        listening.deliver(method, params)
    except Exception:
        _log.exception("a listener of %s could not be told: %s", listening.endpoint.name, method)


def _without_subscription(params: dict[str, Any]) -> dict[str, Any]:
    """Return params without the subscription of ours that they name."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or _SUBSCRIPTION_KEY not in meta:
        return params
    kept = {name: value for name, value in meta.items() if name != _SUBSCRIPTION_KEY}
    others = {name: value for name, value in params.items() if name != "_meta"}
    return {**others, "_meta": kept} if kept else others
