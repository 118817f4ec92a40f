"""What the program of an instance shows of being alive."""

from __future__ import annotations

from mcp_manager.servers.instance import Instance

__all__ = ["called_until_ns", "messages_written"]


def messages_written(instance: Instance) -> int:
    """Return how many messages the program of the live session has written, 0 without one."""
    signs = instance.session.life_signs if instance.session is not None else None
    return signs.messages if signs is not None else 0


def called_until_ns(instance: Instance) -> int:
    """Return when the calls that keep the program of the live session busy end at the latest; 0 without such calls.

    It is a time of :func:`time.monotonic_ns`.
    """
    signs = instance.session.life_signs if instance.session is not None else None
    return signs.called_until_ns() if signs is not None else 0
