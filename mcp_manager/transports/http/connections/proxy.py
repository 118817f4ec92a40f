"""Chooses the proxy for a URL: the configured one, or the one that the environment names."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
from yarl import URL

from mcp_manager.auth.addresses import Reach, literal_address, reach_of

__all__ = ["Proxy", "proxy_of"]

_SCHEMES: Final = ("http", "https")


class Proxy(msgspec.Struct, frozen=True):
    """A proxy.

    Parameters
    ----------
    url
        Its URL, without credentials.
    credentials
        The value of ``Proxy-Authorization``, ``None`` for none. A secret.
    problem
        Why it cannot be used, empty if it can. The environment is read after the configuration was accepted, so a bad
        value there fails the connection.
    """

    url: URL
    credentials: str | None = None
    problem: str = ""

    def __repr__(self) -> str:
        return f"Proxy({str(self.url)!r})"


def proxy_of(setting: str | None, url: URL, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a URL, ``None`` for none.

    Parameters
    ----------
    setting
        ``proxy`` of a server: a checked URL, ``"env"``, ``""`` for none, or ``None``, which means ``"env"`` except for
        loopback addresses.
    url
        Where requests go.
    environment
        The environment variables that ``"env"`` reads.
    """
    if setting == "" or (setting is None and _is_local(url)):
        return None
    if setting is not None and setting != "env":
        return _parsed(setting)
    name = _variable(f"{url.scheme}_proxy", environment) or _variable("all_proxy", environment)
    if name is None or _is_excepted(url, environment):
        return None
    text = environment[name].strip()
    try:
        proxy = _parsed(text if "://" in text else f"http://{text}")
    except ValueError:
        return Proxy(URL(), problem=f"{name} in the environment is not a URL")
    if proxy.url.scheme.startswith("socks"):
        return Proxy(URL(), problem=f"{name} in the environment names a SOCKS proxy, which is not supported")
    if proxy.url.scheme not in _SCHEMES or not proxy.url.host:
        return Proxy(URL(), problem=f"{name} in the environment is not an http:// or https:// URL")
    return proxy


def _parsed(text: str) -> Proxy:
    scheme, _, rest = text.partition("://")
    authority = rest.partition("/")[0]
    userinfo, at, place = authority.rpartition("@")
    # A proxy URL without a port has the default port of its scheme, as any URL.
    url = URL(f"{scheme.lower()}://{place}")
    if not at:
        return Proxy(url)
    user, _, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return Proxy(url, f"Basic {base64.b64encode(pair).decode()}")


def _is_local(url: URL) -> bool:
    address = literal_address(url.host or "")
    return address is not None and reach_of(address) is Reach.LOOPBACK


def _variable(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the spelling under which a variable is set, lower case first, as curl does; ``None`` if it is not set."""
    for spelling in (name, name.upper()):
        # Under CGI, HTTP_PROXY is the "Proxy" header of a request: a client must not choose the proxy.
        forged = spelling == "HTTP_PROXY" and "REQUEST_METHOD" in environment
        if environment.get(spelling, "").strip() and not forged:
            return spelling
    return None


def _is_excepted(url: URL, environment: Mapping[str, str]) -> bool:
    name = _variable("no_proxy", environment)
    entries = environment[name].split(",") if name is not None else []
    host = (url.raw_host or "").lower().removesuffix(".")
    return any(_matches(entry.strip().lower(), host, url.port) for entry in entries if entry.strip())


def _matches(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of ``NO_PROXY`` covers a host: ``*``, an address, a network, or a domain."""
    if entry == "*":
        return True
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if _address(entry) is None:
        bracketed = entry.startswith("[")
        name, colon, wanted = entry.rpartition("]:" if bracketed else ":")
        if colon and wanted.isdigit():
            if int(wanted) != port:
                return False
            entry = name
        entry = entry.strip("[]")
    if address is not None:
        return _address(entry) == address
    entry = entry.removeprefix("*").removeprefix(".").removesuffix(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
