"""Which notifications are wanted of one server, whichever session brings them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from mcp_manager.protocol.subscriptions import CHANGE_KINDS, Interest

__all__ = ["Claim", "Subscriptions"]


class Claim:
    """A resource that callers wait for: it stays wanted if the server agrees with one of them."""

    __slots__ = ("callers",)

    def __init__(self) -> None:
        self.callers = 1


class Subscriptions:
    """Keep what is wanted of one server, whatever becomes of its sessions.

    Parameters
    ----------
    handled
        The notifications that somebody always listens to.
    began
        ``began(kind)`` is called when a session has begun to be told of a kind of list change: what was fetched before
        may have changed unnoticed.
    """

    __slots__ = ("_began", "_kinds", "_uris", "_watchers", "heard")

    def __init__(self, handled: Collection[str] = (), began: Callable[[str], None] | None = None) -> None:
        self._kinds = {kind for kind in CHANGE_KINDS if kind in handled}
        self._uris: dict[str, Claim | None] = {}
        self._began = began
        self._watchers: list[Callable[[], None]] = []
        # What the sessions of each instance were told of last: what its next session must catch up with.
        self.heard: dict[int, Interest] = {}

    @property
    def wanted(self) -> Interest:
        """What is wanted now."""
        return Interest(frozenset(self._kinds), frozenset(self._uris))

    def want(self, kind: str) -> None:
        """Listen to a kind of list change from now on: something that was fetched is kept."""
        if kind in CHANGE_KINDS and kind not in self._kinds:
            self._kinds.add(kind)
            self._changed()

    def add(self, uri: str) -> bool:
        """Listen to a resource; tell whether that is new."""
        is_new = uri not in self._uris
        self._uris[uri] = None
        if is_new:
            self._changed()
        return is_new

    def wants(self, uri: str) -> bool:
        """Tell whether a resource is listened to."""
        return uri in self._uris

    def claim(self, uri: str) -> Claim | None:
        """Listen to a resource on trial, until :meth:`settle`; ``None``: it is listened to already."""
        claim = self._uris.get(uri)
        if claim is not None:
            claim.callers += 1
        elif uri not in self._uris:
            claim = self._uris[uri] = Claim()
            self._changed()
        return claim

    def settle(self, uri: str, claim: Claim | None, *, agreed: bool) -> None:
        """End what :meth:`claim` began: listen no more if the last of its callers has no agreement of the server."""
        if claim is None or self._uris.get(uri) is not claim:
            return
        claim.callers -= 1
        if agreed:
            self._uris[uri] = None
        elif not claim.callers:
            self.discard(uri)

    def discard(self, uri: str) -> bool:
        """Listen to a resource no more; tell whether anybody did."""
        if uri not in self._uris:
            return False
        del self._uris[uri]
        self._changed()
        return True

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher()`` whenever something else is wanted."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """End :meth:`watch`."""
        with contextlib.suppress(ValueError):
            self._watchers.remove(watcher)

    def began(self, kinds: Collection[str]) -> None:
        """Pass on that these kinds are told of from now on."""
        if self._began is not None:
            for kind in kinds:
                self._began(kind)

    def _changed(self) -> None:
        for watcher in list(self._watchers):
            watcher()
