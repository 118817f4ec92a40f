"""The notifications that are wanted from one server, across its sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from mcp_manager.protocol.subscriptions import CHANGE_KINDS, Interest

__all__ = ["Claim", "Subscriptions"]


class Claim:
    """A subscription that callers are trying to make; it stays if the server agrees for one of them."""

    __slots__ = ("callers",)

    def __init__(self) -> None:
        self.callers: int = 1


class Subscriptions:
    """Keep the notifications that are wanted from one server.

    Parameters
    ----------
    handled
        Methods of notifications that are always wanted, because they have a handler.
    began
        ``began(kind)`` is called when a session begins to receive a kind of list change: a list that was fetched before
        may have changed unnoticed.
    """

    __slots__ = ("_began", "_kinds", "_uris", "_watchers", "heard")

    def __init__(self, handled: Collection[str] = (), began: Callable[[str], None] | None = None) -> None:
        self._kinds = {kind for kind in CHANGE_KINDS if kind in handled}
        self._uris: dict[str, Claim | None] = {}
        self._began = began
        self._watchers: list[Callable[[], None]] = []
        # What the last session of each instance received, and the next one may have missed.
        self.heard: dict[int, Interest] = {}

    @property
    def wanted(self) -> Interest:
        """The notifications that are wanted now."""
        return Interest(frozenset(self._kinds), frozenset(self._uris))

    def want(self, kind: str) -> None:
        """Want a kind of list change from now on, because a list that was fetched is kept."""
        if kind in CHANGE_KINDS and kind not in self._kinds:
            self._kinds.add(kind)
            self._changed()

    def add(self, uri: str) -> bool:
        """Want a resource; tell whether it was not wanted before."""
        is_new = uri not in self._uris
        self._uris[uri] = None
        if is_new:
            self._changed()
        return is_new

    def wants(self, uri: str) -> bool:
        """Tell whether a resource is wanted."""
        return uri in self._uris

    def claim(self, uri: str) -> Claim | None:
        """Want a resource until :meth:`settle` decides; return ``None`` if it is wanted for good already."""
        claim = self._uris.get(uri)
        if claim is not None:
            claim.callers += 1
        elif uri not in self._uris:
            claim = self._uris[uri] = Claim()
            self._changed()
        return claim

    def settle(self, uri: str, claim: Claim | None, *, agreed: bool) -> None:
        """End one caller's claim.

        Parameters
        ----------
        uri, claim
            The resource, and what :meth:`claim` returned.
        agreed
            Whether the server agreed. If not, and no other caller waits, the resource is no longer wanted.
        """
        if claim is None or self._uris.get(uri) is not claim:
            return
        claim.callers -= 1
        if agreed:
            self._uris[uri] = None
        elif not claim.callers:
            self.discard(uri)

    def discard(self, uri: str) -> bool:
        """Stop wanting a resource; tell whether it was wanted."""
        if uri not in self._uris:
            return False
        del self._uris[uri]
        self._changed()
        return True

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher()`` whenever the wanted notifications change."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """End :meth:`watch`."""
        with contextlib.suppress(ValueError):
            self._watchers.remove(watcher)

    def began(self, kinds: Collection[str]) -> None:
        """Report that a session receives these kinds of list changes from now on."""
        if self._began is not None:
            for kind in kinds:
                self._began(kind)

    def _changed(self) -> None:
        for watcher in list(self._watchers):
            watcher()
