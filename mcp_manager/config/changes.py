"""What a change of a server's configuration requires: nothing, other settings, another number, or new sessions."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from mcp_manager.config.model import ServerConfig

__all__ = ["EFFECTS", "Difference", "Effect", "difference"]


class Effect(enum.IntEnum):
    """What a change requires; of several changes, the highest decides."""

    NOTHING = 0
    SCALE = 1
    """Another number of instances."""
    UPDATE = 2
    """Other settings; sessions and programs go on."""
    REPLACE = 3
    """New sessions and programs, since the present ones were made by what has changed."""


EFFECTS: Final = {
    # What a session or a program is made from.
    "url": Effect.REPLACE,
    "server": Effect.REPLACE,
    "command": Effect.REPLACE,
    "args": Effect.REPLACE,
    "env": Effect.REPLACE,
    "cwd": Effect.REPLACE,
    "inherit_env": Effect.REPLACE,
    "transport": Effect.REPLACE,
    "protocol_version": Effect.REPLACE,
    "auth": Effect.REPLACE,
    "headers": Effect.REPLACE,
    "headers_command": Effect.REPLACE,
    "tls": Effect.REPLACE,
    "proxy": Effect.REPLACE,
    "unix_socket": Effect.REPLACE,
    "discovery": Effect.REPLACE,
    # Connections and pipes read with this limit from their beginning.
    "max_response_bytes": Effect.REPLACE,
    "instances": Effect.SCALE,
    "name": Effect.UPDATE,
    "server_type": Effect.UPDATE,
    "priority": Effect.UPDATE,
    "tags": Effect.UPDATE,
    "max_instances": Effect.UPDATE,
    "connect": Effect.UPDATE,
    "connect_timeout_s": Effect.UPDATE,
    "start_timeout_s": Effect.UPDATE,
    "request_timeout_s": Effect.UPDATE,
    "shutdown_grace_s": Effect.UPDATE,
    "drain_timeout_s": Effect.UPDATE,
    "max_response_values": Effect.UPDATE,
    "max_caller_sessions": Effect.UPDATE,
    "caller_idle_s": Effect.UPDATE,
    "cache": Effect.UPDATE,
    "validate_output": Effect.UPDATE,
    "breaker": Effect.UPDATE,
    "health": Effect.UPDATE,
    "restart": Effect.UPDATE,
    "balancing": Effect.UPDATE,
    "retry": Effect.UPDATE,
    "hedge": Effect.UPDATE,
    "fallback": Effect.UPDATE,
    "limits": Effect.UPDATE,
    "tools": Effect.UPDATE,
    "hidden_texts": Effect.UPDATE,
    "extras": Effect.UPDATE,
}
"""What a change of each field of :class:`ServerConfig` requires."""


class Difference(NamedTuple):
    """The fields that differ between two configurations, and what that requires."""

    effect: Effect
    fields: tuple[str, ...]


_NONE: Final = Difference(Effect.NOTHING, ())


def difference(before: ServerConfig, after: ServerConfig) -> Difference:
    """Compare two configurations of a server.

    Parameters
    ----------
    before, after
        Both were checked.
    """
    # Server objects may define an equality of their own, but another object is another server.
    if before == after and before.server is after.server:
        return _NONE
    fields = tuple(
        each
        for each in after.__struct_fields__
        if getattr(before, each) is not getattr(after, each)
        and (each == "server" or getattr(before, each) != getattr(after, each))
    )
    return Difference(max((EFFECTS.get(each, Effect.REPLACE) for each in fields), default=Effect.NOTHING), fields)
