"""Notifications of a server for one request, on the response stream of a client of 2026-07-28."""

from __future__ import annotations

from mcp_manager.calls.exchange_listener import ServerMessage
from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.security.accounting import Usage
from mcp_manager.gateway.sessions.log_levels import RANKS, rank_of
from mcp_manager.protocol.methods import LOG_MESSAGE

__all__ = ["Telling"]


class Telling:
    """Pass the notifications of one request on; log messages only if the client asked for them.

    Parameters
    ----------
    channel
        The way to the client.
    log_level
        The least severe log messages that it wants; ``None`` for none at all (2026-07-28, server/utilities/logging).
    """

    __slots__ = ("_channel", "_log_level")

    def __init__(self, channel: Channel, log_level: str | None) -> None:
        self._channel = channel
        self._log_level = log_level

    @property
    def usage(self) -> Usage | None:
        """What the request uses of its limits; ``None`` if nothing is counted."""
        return self._channel.usage

    def __call__(self, sent: ServerMessage) -> None:
        """Pass a notification on."""
        if not self._channel.can_send or (sent.method == LOG_MESSAGE and not self._wants(sent.raw_params)):
            return
        self._channel.send(messages.notification(sent.method, sent.raw_params))

    def _wants(self, params: bytes) -> bool:
        if self._log_level is None:
            return False
        rank = rank_of(params)
        # What has no known level is not held back.
        return rank is None or rank >= RANKS.get(self._log_level, 0)
