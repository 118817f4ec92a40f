"""Which ``Host`` and ``Origin`` headers are accepted: the protection against DNS rebinding (2025-11-25, transports)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from mcp_manager.config.listen_address import ListenAddress

__all__ = ["Hosts"]

_LONGEST: Final = 300
_MOST_KNOWN: Final = 256


class Hosts:
    """Tell whether requests may come for a host, and from a web page.

    Names and addresses of this machine's loopback are always accepted, at any port; so is the host of the address that
    is listened on. A page needs an origin of the loopback, or one that is allowed.

    Parameters
    ----------
    address
        The address that is listened on.
    hosts
        Further hosts, with or without a port.
    origins
        The origins of further web pages.
    """

    def __init__(self, address: ListenAddress, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._own = (address.host.lower(),) if address.host else ()
        self.replace(hosts, origins)

    def replace(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """Accept these further hosts and origins from now on, and no others."""
        self._names = frozenset({*(each.lower() for each in hosts), *self._own})
        self._origins = frozenset(each.lower() for each in origins)
        # What was accepted before: the same few values come with every request.
        self._known_hosts: set[bytes] = set()
        self._known_origins: set[bytes] = set()

    def accepts_host(self, field: bytes | None) -> bool:
        """Tell whether a ``Host`` header is accepted; a request without one is not."""
        if field in self._known_hosts:
            return True
        if field is None or len(field) > _LONGEST:
            return False
        is_accepted = self._is_host(field.decode("latin-1").strip().lower())
        if is_accepted and len(self._known_hosts) < _MOST_KNOWN:
            self._known_hosts.add(field)
        return is_accepted

    def accepts_origin(self, field: bytes | None) -> bool:
        """Tell whether an ``Origin`` header is accepted; programs send none, which is fine."""
        if field is None or field in self._known_origins:
            return True
        if len(field) > _LONGEST:
            return False
        is_accepted = self._is_origin(field.decode("latin-1").strip().lower())
        if is_accepted and len(self._known_origins) < _MOST_KNOWN:
            self._known_origins.add(field)
        return is_accepted

    def _is_host(self, host: str) -> bool:
        name, port = _split(host)
        if port is None:
            return False
        return _is_loopback(name) or name in self._names or f"[{name}]" in self._names or host in self._names

    def _is_origin(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            is_plain = parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == origin
        except ValueError:
            return False
        return is_plain and "@" not in origin and _is_loopback(_split(parts.netloc)[0])


def _split(host: str) -> tuple[str, str | None]:
    """Return the name without brackets and the port, "" without one; the port is ``None`` if it is malformed."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return "", None
        port = port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    return (name, port) if not port or (port.isascii() and port.isdigit()) else ("", None)


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
