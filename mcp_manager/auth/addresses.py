"""The reach of IP addresses, and the rule that a server may not direct its clients into networks other than its own."""

from __future__ import annotations

import enum
import ipaddress
import socket
from contextvars import ContextVar
from typing import Final

__all__ = ["AddressRule", "Reach", "address_rule", "literal_address", "reach_of"]

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Reach(enum.IntEnum):
    """From where an address can be reached."""

    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2


def reach_of(address: str) -> Reach:
    """Return the reach of an IP address; of an IPv6 address with an embedded IPv4 one, that of the latter."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            embedded = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        if embedded is not None:
            parsed = embedded
    if parsed.is_loopback or parsed.is_unspecified:
        return Reach.LOOPBACK
    return Reach.PUBLIC if parsed.is_global else Reach.PRIVATE


def literal_address(host: str) -> str | None:
    """Return the address that a URL's host stands for without DNS, ``None`` for a name that needs DNS.

    C libraries accept IPv4 in more forms than four decimals: ``0x7f000001``, ``127.1``, ``017700000001``.
    """
    name = host.removesuffix(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(name)) if name and not name.isspace() else None
    except (OSError, ValueError):
        return None


class AddressRule:
    """Refuse addresses with less reach than ``least``; ``refused`` is the last one refused, or ""."""

    def __init__(self, least: Reach) -> None:
        self._least = least
        self.refused: str = ""

    def check(self, address: str) -> None:
        """Raise :class:`OSError` unless a connection to an address may be opened."""
        if reach_of(address) < self._least:
            self.refused = address
            raise OSError(f"connecting to {address} is not allowed: it is on a network that the server is not on")


address_rule: ContextVar[AddressRule | None] = ContextVar("address_rule", default=None)
"""The rule for connections that the current task opens, checked with the resolved address just before connecting."""
