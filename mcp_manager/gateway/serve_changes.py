"""``ServeChanges``: what of ``serve`` a gateway follows while it serves, and how each of its parts does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from mcp_manager.config.serve import ServeConfig
from mcp_manager.gateway.endpoints.selection import hot_tools
from mcp_manager.gateway.endpoints.table import EndpointTable
from mcp_manager.gateway.http.listener import Listener
from mcp_manager.gateway.http.reception import Reception
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.news import News
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.sessions.ids import SessionIds

__all__ = ["FOLLOWED", "ServeChanges"]

FOLLOWED: Final = frozenset(
    {
        "allow",
        "allowed_hosts",
        "allowed_origins",
        "audit",
        "auth",
        "credentials",
        "discovery",
        "drain_timeout_s",
        "hot",
        "keepalive_s",
        "limits",
        "list_changed_delay_s",
        "min_ready",
        "page_size",
        "pins",
        "session_ttl_s",
    }
)
"""The fields of ``serve`` that can change while a gateway serves; all others need a new start."""


class ServeChanges(msgspec.Struct, frozen=True, eq=False):
    """The parts of a gateway that follow its configuration.

    Parameters
    ----------
    listener, reception, endpoints, news, ids, pins
        The parts.
    """

    listener: Listener
    reception: Reception
    endpoints: EndpointTable
    news: News
    ids: SessionIds
    pins: Pins

    def follow(self, before: ServeConfig, serve: ServeConfig) -> Awaitable[None]:
        """Let the fields in :data:`FOLLOWED` be in force from now on: all of them, or none.

        Parameters
        ----------
        before
            What was in force.
        serve
            A configuration that was checked.

        Returns
        -------
        What has to be awaited, which ends what was replaced.

        Raises
        ------
        ConfigError
            Something that the configuration names cannot be used, or other machines could reach a gateway without
            ``auth``; nothing was changed.
        """
        security = self.reception.security
        self.listener.check(serve.auth)
        certificate = self.listener.certificate()
        pins = self.pins.read(serve.pins)
        # Last: what it has prepared must be used.
        made = security.prepare(serve)
        self.listener.follow(serve.auth, certificate)
        ending, servers = security.replace(made)
        self._follow_settings(before, serve)
        compares, has_other_pins = self.pins.is_on, self.pins.replace(serve.pins, pins)
        if serve.allow != before.allow or compares != self.pins.is_on or servers:
            # What pins or rules may hide is shown by other endpoints than what they cannot, and again by others if the
            # server gets something of each client.
            self.reception.endpoints.clear()
            self.endpoints.regrant(security.grant_of)
        if has_other_pins:
            self.endpoints.compare_with_pins()
        for server_id in servers:
            for method in LIST_CHANGES:
                self.news.changed(server_id, method)
        return ending

    def _follow_settings(self, before: ServeConfig, serve: ServeConfig) -> None:
        """Take over plain values."""
        reception = self.reception
        settings: tuple[tuple[tuple[str, ...], Callable[[], None]], ...] = (
            (
                ("allowed_hosts", "allowed_origins"),
                lambda: reception.hosts.replace(serve.allowed_hosts, serve.allowed_origins),
            ),
            (("discovery", "hot"), lambda: self.endpoints.replace_hot(hot_tools(serve))),
            (("auth",), self._share_levels),
            (("keepalive_s",), lambda: reception.keep_alives.replace(serve.keepalive_s)),
            (("list_changed_delay_s",), lambda: self.news.replace_delay(serve.list_changed_delay_s)),
            (("page_size",), lambda: self.endpoints.replace_page_size(serve.page_size)),
            (("session_ttl_s",), lambda: self.ids.replace_ttl(serve.session_ttl_s)),
        )
        for names, follow in settings:
            if any(getattr(serve, name) != getattr(before, name) for name in names):
                follow()

    def _share_levels(self) -> None:
        reception = self.reception
        reception.eras.handshake.sessions.levels.is_shared = reception.security.is_required
