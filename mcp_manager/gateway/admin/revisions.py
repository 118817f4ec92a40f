"""Revisions of servers: entity tags that change with the configuration and the number of instances (RFC 9110, 8.8.3)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from aiohttp import web

from mcp_manager.config import ServerConfig
from mcp_manager.gateway.admin.problems import refused
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView

__all__ = ["Revisions", "check_match"]

_MOST_KEPT: Final = 100_000


class Revisions:
    """Tell the revision of each server.

    Equal configurations have equal revisions, so that whoever has read one knows what it changes. They are hashes with
    a key, because a configuration has secrets that a plain hash would let others guess.

    Parameters
    ----------
    key
        The key, the same for all workers of a gateway.
    """

    def __init__(self, key: bytes) -> None:
        self._key = blake2b(key, digest_size=32).digest()
        # What was told last, by server: who watches a large fleet asks for all of them again and again.
        self._told: dict[str, tuple[ServerConfig, int, str]] = {}

    def of(self, manager: McpManager, server_id: str) -> str:
        """Return the revision of a server; raises :class:`ServerNotFoundError` if it is not deployed."""
        return self.of_view(manager, manager.server(server_id))

    def of_view(self, manager: McpManager, view: ServerView) -> str:
        """Return the revision of a server that was looked at just now."""
        config, desired = manager.server_config(view.id), view.desired
        told = self._told.get(view.id)
        if told is not None and told[0] is config and told[1] == desired:
            return told[2]
        hashed = blake2b(config.to_json(reveal_secrets=True), key=self._key, digest_size=12)
        hashed.update(f"/{desired}/{id(config.server) if config.server is not None else ''}".encode())
        revision = hashed.hexdigest()
        if len(self._told) >= _MOST_KEPT:
            self._told.clear()
        self._told[view.id] = config, desired, revision
        return revision

    def check(self, manager: McpManager, server_id: str, request: web.Request) -> None:
        """Raise unless the server has a revision that ``If-Match`` names, if that is given (RFC 9110, section 13.1.1)."""
        check_match(request, lambda: self.of(manager, server_id), "server")


def check_match(request: web.Request, revision: Callable[[], str], what: str) -> None:
    """Raise unless something has a revision that ``If-Match`` names, if that is given (RFC 9110, section 13.1.1).

    Parameters
    ----------
    request
        The request.
    revision
        Returns the present revision.
    what
        What has it, for errors.
    """
    wanted = request.if_match
    if "If-Match" in request.headers and not wanted:
        hint = f"send the ETag of the {what}, with its quotes"
        raise refused(400, "If-Match has no entity tag", hint=hint, field="If-Match")
    if wanted is None:
        return
    present = revision()
    if not any(each.value in (present, "*") and not each.is_weak for each in wanted):
        text = f"The {what} has changed since its revision was read"
        raise refused(412, text, hint="GET it again, and send its ETag", field="If-Match")
