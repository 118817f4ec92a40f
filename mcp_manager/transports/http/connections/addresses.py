"""Refuses connections to link-local, multicast and unspecified addresses."""

from __future__ import annotations

import ipaddress

__all__ = ["refuse_special_address"]


def refuse_special_address(host: str) -> None:
    """Raise :class:`OSError` for a link-local, multicast or unspecified address; accept every host name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise OSError(
            f"connecting to {address} is not allowed: link-local, multicast and unspecified addresses are blocked"
        )
