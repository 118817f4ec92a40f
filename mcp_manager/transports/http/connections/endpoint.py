"""A place that was found under a name: connected to where it is, and spoken to by the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["Endpoint", "dialled", "tls_name"]


class Endpoint(msgspec.Struct, frozen=True):
    """Where one instance is.

    Parameters
    ----------
    address, port
        An IP address without brackets, and where it listens.
    tier, weight
        What its instance has: see :class:`~mcp_manager.config.BalancingConfig`.
    """

    address: str
    port: int
    tier: int = 0
    weight: float = 1.0

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def dialled(url: URL, endpoint: Endpoint | None) -> URL:
    """Return the URL under which an endpoint is connected to; the name stays in the ``Host`` header."""
    return url if endpoint is None else url.with_host(endpoint.address).with_port(endpoint.port)


def tls_name(url: URL, endpoint: Endpoint | None) -> str | None:
    """Return the name that the endpoint's certificate must have, ``None`` where it is the one that is connected to."""
    return None if endpoint is None or url.scheme != "https" else (url.raw_host or "").removesuffix(".")
