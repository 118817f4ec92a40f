"""The records of the admin API that the library has none of."""

from __future__ import annotations

import msgspec

from mcp_manager.observe.snapshot import FleetSnapshot

__all__ = ["GatewaySnapshot", "GatewayStatus"]


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway at one instant.

    Attributes
    ----------
    version
        The version of this package.
    url
        Where clients find it.
    uptime_s
        Seconds since its start.
    workers
        How many processes serve its address.
    draining
        Whether it is about to end.
    ready, reasons
        Whether it is ready to serve, and why it is not.
    sessions
        Sessions of clients that something is kept for.
    streams
        Event streams of clients that are open.
    requests
        Requests of clients under way.
    config_path
        The file of its configuration; ``None`` without one.
    config_problem
        Why that file was not applied the last time that it was read; ``None`` if it was.
    """

    version: str
    url: str
    uptime_s: float
    workers: int
    draining: bool
    ready: bool
    reasons: tuple[str, ...]
    sessions: int
    streams: int
    requests: int
    config_path: str | None
    config_problem: str | None


class GatewaySnapshot(FleetSnapshot, frozen=True, kw_only=True):
    """The whole fleet at one instant, and the gateway.

    Attributes
    ----------
    gateway
        The gateway.
    """

    gateway: GatewayStatus
