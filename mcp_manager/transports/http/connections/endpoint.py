"""The address of one instance behind a host name: connections go to the address, requests name the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["Endpoint", "dialled", "tls_name"]


class Endpoint(msgspec.Struct, frozen=True):
    """The address of one instance.

    Parameters
    ----------
    address, port
        An IP address without brackets, and the port it listens on.
    tier, weight
        The instance's own: see :class:`~mcp_manager.config.BalancingConfig`.
    """

    address: str
    port: int
    tier: int = 0
    weight: float = 1.0

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def dialled(url: URL, endpoint: Endpoint | None) -> URL:
    """Return the URL to connect to, with the endpoint's address; the host name stays in the ``Host`` field."""
    return url if endpoint is None else url.with_host(endpoint.address).with_port(endpoint.port)


def tls_name(url: URL, endpoint: Endpoint | None) -> str | None:
    """Return the name that the endpoint's certificate must have, ``None`` if the URL that is connected to has it."""
    return None if endpoint is None or url.scheme != "https" else (url.raw_host or "").removesuffix(".")
