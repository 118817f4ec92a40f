"""The address that the gateway listens on: a host and port, the path of a unix socket, or a socket of systemd."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from mcp_manager.config._problem import FieldProblem

__all__ = ["ListenAddress", "parse_listen_address"]

_UNIX: Final = "unix:"
_SYSTEMD: Final = "systemd"
_HOST: Final = re.compile(r"(?=.{1,253}$)(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.?)+")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_WAY_OUT: Final = 'write "127.0.0.1:8080", "[::1]:8080", "unix:/path/of/the/socket" or "systemd"'
# The kernel keeps 108 bytes with the zero at the end (Linux) or 104 (macOS).
_LONGEST_SOCKET_PATH: Final = 103


class ListenAddress(msgspec.Struct, frozen=True):
    """Where to listen.

    Parameters
    ----------
    host, port
        A name or an IP address without brackets, and a TCP port; 0 for any free one.
    socket_path
        The path of a unix socket, in place of both.
    is_inherited
        Whether systemd passes the socket (``LISTEN_FDS``), in place of both.
    """

    host: str = ""
    port: int = 0
    socket_path: str = ""
    is_inherited: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach it: a loopback address, or a unix socket."""
        if self.socket_path:
            return True
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.is_inherited:
            return _SYSTEMD
        if self.socket_path:
            return f"{_UNIX}{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str, path: str = "listen") -> ListenAddress:
    """Return the address that a text stands for; raises :class:`FieldProblem` at ``path``."""
    if text == _SYSTEMD:
        return ListenAddress(is_inherited=True)
    if text.startswith(_UNIX):
        socket_path = text.removeprefix(_UNIX)
        if not socket_path or "\0" in socket_path:
            raise FieldProblem(path, "has no path of a socket", _WAY_OUT)
        if len(socket_path.encode(errors="surrogatepass")) > _LONGEST_SOCKET_PATH:
            raise FieldProblem(path, f"the path of a socket has at most {_LONGEST_SOCKET_PATH} bytes", "shorten it")
        return ListenAddress(socket_path=socket_path)
    if "://" in text:
        raise FieldProblem(path, "is an address, not a URL", _WAY_OUT)
    host, colon, port = text.rpartition(":")
    if not colon or _PORT.fullmatch(port) is None or int(port) > 65_535:
        raise FieldProblem(path, "has no port from 0 to 65535", _WAY_OUT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise FieldProblem(path, "has no IPv6 address in its brackets", _WAY_OUT) from None
    elif _HOST.fullmatch(host) is None:
        raise FieldProblem(path, "has no host", _WAY_OUT)
    return ListenAddress(host, int(port))
