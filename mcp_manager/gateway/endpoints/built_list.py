"""A merged list that an endpoint has made, and how long it can be used."""

from __future__ import annotations

from mcp_manager.gateway.endpoints.catalogue import Catalogue, Pages
from mcp_manager.gateway.endpoints.listings import Lists

__all__ = ["BuiltList"]


class BuiltList:
    """A merged list, and what it was made of."""

    __slots__ = ("catalogue", "lists", "look_at", "pages", "servers", "version")

    def __init__(self, catalogue: Catalogue, pages: Pages, lists: Lists) -> None:
        self.catalogue: Catalogue = catalogue
        self.pages: Pages = pages
        self.lists: Lists = lists
        self.servers: list[str] = []
        self.version: int = -1
        self.look_at: float = 0.0

    def is_made_of(self, lists: Lists) -> bool:
        """Return whether these are the same lists."""
        return (
            self.lists.missing == lists.missing
            and list(self.lists.found) == list(lists.found)
            and all(listing is lists.found[server_id] for server_id, listing in self.lists.found.items())
        )
