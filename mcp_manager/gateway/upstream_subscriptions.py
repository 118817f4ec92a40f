"""Subscriptions to resources of servers, each made once for all clients that want it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["Subscriber", "UpstreamSubscriptions"]

_MOST_URIS: Final = 100_000

ListenerT = TypeVar("ListenerT")


class Subscriber(Protocol):
    """Subscribes to resources of servers; the manager does."""

    async def subscribe(self, server_id: str, uri: str) -> None:
        """Subscribe to a resource."""

    async def unsubscribe(self, server_id: str, uri: str) -> None:
        """End a subscription."""


class _Subscription(Generic[ListenerT]):
    """One resource of one server.

    ``wanted`` has a pair for each listener and each URI under which it knows the resource. ``is_held`` says whether the
    server was asked for it. Those in ``waiting`` are told how the next request ended.
    """

    __slots__ = ("is_held", "task", "waiting", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[tuple[ListenerT, str], None] = {}
        self.is_held = False
        self.task: asyncio.Task[None] | None = None
        self.waiting: list[tuple[tuple[ListenerT, str] | None, asyncio.Future[McpManagerError | None]]] = []


class UpstreamSubscriptions(Generic[ListenerT]):
    """Keep one subscription for each server and URI as long as some listener wants it.

    Parameters
    ----------
    subscriber
        Asks the servers.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._by_server: dict[str, dict[str, _Subscription[ListenerT]]] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return self._count

    async def add(self, listener: ListenerT, client_uri: str, server_id: str, uri: str) -> None:
        """Want a resource for a listener, and wait until its server has agreed.

        Parameters
        ----------
        listener
            Who wants it.
        client_uri
            The URI under which the listener knows it.
        server_id, uri
            The resource.

        Raises
        ------
        McpManagerError
            The server refused, or did not answer.
        """
        subscription = self._by_server.get(server_id, {}).get(uri)
        if subscription is None:
            if self._count >= _MOST_URIS:
                raise RpcError(INVALID_PARAMS, "too many resources are subscribed to", {"source": "gateway"})
            subscription = _Subscription()
            self._by_server.setdefault(server_id, {})[uri] = subscription
            self._count += 1
        pair = listener, client_uri
        subscription.wanted[pair] = None
        if subscription.is_held and subscription.task is None:
            return
        try:
            failure = await self._adjusted(subscription, server_id, uri, pair)
        except asyncio.CancelledError:
            self._remove(pair, server_id, uri)
            raise
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback holds this frame.
                del failure

    async def discard(self, listener: ListenerT, client_uri: str, server_id: str, uri: str) -> None:
        """No longer want a resource for a listener; for the last one, wait until the server was told."""
        subscription = self._by_server.get(server_id, {}).get(uri)
        if subscription is None or subscription.wanted.pop((listener, client_uri), subscription) is subscription:
            return
        if not subscription.wanted:
            # Whether the server agrees makes no difference.
            await self._adjusted(subscription, server_id, uri, None)

    def drop(self, listener: ListenerT, client_uri: str, server_id: str, uri: str) -> None:
        """No longer want a resource for a listener that has gone; waits for nothing."""
        self._remove((listener, client_uri), server_id, uri)

    def listeners(self, server_id: str, uri: str) -> Iterator[tuple[ListenerT, str, str]]:
        """Return who wants the news of a resource, each once: the listener, its URI, and the URI of the server for that.

        A server may name a part of what was subscribed to (2025-11-25, schema, ``ResourceUpdatedNotification``).
        """
        of_server = self._by_server.get(server_id)
        if not of_server:
            return
        exact = of_server.get(uri)
        found = [] if exact is None else [(uri, exact)]
        found += [each for each in of_server.items() if each[0] != uri and _is_part(uri, each[0])]
        told: set[ListenerT] = set()
        for subscribed, subscription in found:
            wanted = [each for each in subscription.wanted if each[0] not in told]
            told.update(listener for listener, _ in wanted)
            for listener, client_uri in wanted:
                yield listener, client_uri, subscribed

    def places(self) -> set[str]:
        """Return the servers at which something is subscribed to."""
        return set(self._by_server)

    def renew(self, server_id: str, *, is_new: bool) -> None:
        """Subscribe again where a server has no subscription any more.

        Parameters
        ----------
        server_id
            The server.
        is_new
            Whether it has forgotten all of them.
        """
        # Those of one client at the server have names that begin with its id.
        own = f"{server_id}\0"
        for place in [each for each in self._by_server if each == server_id or each.startswith(own)]:
            for uri, subscription in list(self._by_server[place].items()):
                if is_new:
                    subscription.is_held = False
                self._start(subscription, place, uri)

    async def aclose(self) -> None:
        """Ask for nothing more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._by_server.clear()
        self._count = 0

    def _remove(self, pair: tuple[ListenerT, str], server_id: str, uri: str) -> None:
        subscription = self._by_server.get(server_id, {}).get(uri)
        if subscription is not None and subscription.wanted.pop(pair, subscription) is None:
            self._start(subscription, server_id, uri)

    async def _adjusted(
        self,
        subscription: _Subscription[ListenerT],
        server_id: str,
        uri: str,
        pair: tuple[ListenerT, str] | None,
    ) -> McpManagerError | None:
        done: asyncio.Future[McpManagerError | None] = asyncio.get_running_loop().create_future()
        subscription.waiting.append((pair, done))
        self._start(subscription, server_id, uri)
        return await done

    def _start(self, subscription: _Subscription[ListenerT], server_id: str, uri: str) -> None:
        if subscription.task is None:
            keeping = self._adjust(subscription, server_id, uri)
            subscription.task = background_task(
                keeping, "keep a subscription", among=self._tasks, context=bare_context()
            )

    async def _adjust(self, subscription: _Subscription[ListenerT], server_id: str, uri: str) -> None:
        """Subscribe or unsubscribe until the server has what is wanted."""
        failure: McpManagerError | None = None
        try:
            while failure is None and subscription.is_held != bool(subscription.wanted):
                wants = bool(subscription.wanted)
                ask = self._subscriber.subscribe if wants else self._subscriber.unsubscribe
                try:
                    await ask(server_id, uri)
                except McpManagerError as error:
                    failure = error if wants else None
                subscription.is_held = wants and failure is None
            for pair, done in subscription.waiting:
                if failure is not None and pair is not None:
                    subscription.wanted.pop(pair, None)
                if not done.done():
                    done.set_result(failure if pair is not None else None)
            subscription.waiting.clear()
        finally:
            # Its traceback holds this frame.
            del failure
            subscription.task = None
            for _, done in subscription.waiting:
                done.cancel()
            if not subscription.wanted and not subscription.is_held:
                self._forget(server_id, uri, subscription)

    def _forget(self, server_id: str, uri: str, subscription: _Subscription[ListenerT]) -> None:
        of_server = self._by_server.get(server_id, {})
        if of_server.get(uri) is subscription:
            del of_server[uri]
            self._count -= 1
            if not of_server:
                del self._by_server[server_id]


def _is_part(uri: str, whole: str) -> bool:
    return uri.startswith(whole) and (whole.endswith("/") or uri[len(whole)] in "/?#")
