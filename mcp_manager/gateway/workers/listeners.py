"""The listening sockets of all workers, made and held by the parent process."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from typing import Final, Self

from mcp_manager.gateway.workers.assignment import socket_path

__all__ = ["BACKLOG", "Listeners"]

BACKLOG: Final = 4096
"""The most connections that wait in the queue of a socket while a worker is restarted; systems may allow less."""

_DISTRIBUTES: Final = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


class Listeners:
    """One listening socket for each worker at one public address, and one unix socket for its siblings.

    The parent makes all sockets and keeps them open. So the port stays ours, port 0 included, and what connects while a
    worker is restarted waits for its successor in the socket's queue: no connection is refused or reset but those that
    the dead worker had accepted, and, with :meth:`leave_out`, those in the queues. The kernel distributes connections
    over the sockets (``SO_REUSEPORT``); where it does not, on other systems than Linux, all workers accept from one
    socket.

    Parameters
    ----------
    address
        The host and the port to listen at, port 0 for any free one; or a socket that listens already, such as one of
        systemd, from which all workers accept. A name that has several addresses stands for the first one, IPv4 before
        IPv6.
    count
        How many workers there are.

    Raises
    ------
    OSError
        The address is in use, by another instance of this program too, or is none of this machine.
    """

    def __init__(self, address: tuple[str, int] | socket.socket, count: int) -> None:
        self._opened: list[socket.socket] = []
        self._closed = False
        self._distributes = _DISTRIBUTES and not isinstance(address, socket.socket)
        self.directory: str = _private_directory()
        try:
            first = self._keep(self._first(address))
            self.public: list[socket.socket] = [first]
            for _ in range(count - 1):
                self.public.append(
                    self._keep(_listening(first.family, first.getsockname(), shared=True))
                    if self._distributes
                    else first
                )
            self.siblings: list[socket.socket] = [self._keep(self._unix(number)) for number in range(count)]
        except BaseException:
            self.close()
            raise
        self._family = first.family
        self._address = first.getsockname()
        self.port: int = self._address[1] if isinstance(self._address, tuple) else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def leave_out(self, number: int) -> None:
        """Close the sockets of a worker that cannot be started: its siblings get all connections, and wait for none."""
        if self._closed:
            return
        self.siblings[number].close()
        if self._distributes:
            self.public[number].close()

    def take_in(self, number: int) -> None:
        """Open the sockets of a worker again, if they are closed."""
        if self._closed:
            return
        if self.siblings[number].fileno() < 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket_path(self.directory, number))
            self.siblings[number] = self._keep(self._unix(number))
        if self._distributes and self.public[number].fileno() < 0:
            self.public[number] = self._keep(_listening(self._family, self._address, shared=True))

    def close_public(self) -> None:
        """Close the parent's public sockets: the address is free once the workers have closed theirs."""
        self._closed = True
        for each in self.public:
            each.close()

    def close(self) -> None:
        """Close all sockets, and remove the directory. Idempotent."""
        self._closed = True
        for each in self._opened:
            each.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _first(self, address: tuple[str, int] | socket.socket) -> socket.socket:
        if isinstance(address, socket.socket):
            return address
        family, resolved = _resolved(*address)
        if self._distributes and address[1]:
            # With SO_REUSEPORT alone, a second instance of this program would take half of the connections.
            _listening(family, resolved, shared=False).close()
        return _listening(family, resolved, shared=self._distributes)

    def _unix(self, number: int) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(socket_path(self.directory, number))
            made.listen(BACKLOG)
        except BaseException:
            made.close()
            raise
        return made

    def _keep(self, opened: socket.socket) -> socket.socket:
        # A worker may die very often in the life of its parent.
        self._opened = [each for each in self._opened if each.fileno() >= 0]
        self._opened.append(opened)
        return opened


def _private_directory() -> str:
    """Make a directory that only this user can enter; its path must leave room for names of sockets (108 bytes)."""
    # mkdtemp() makes it with mode 0700.
    return tempfile.mkdtemp(prefix="mcp-manager-", dir=_directory_of_sockets())


def _directory_of_sockets() -> str | None:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = (runtime, tempfile.gettempdir(), "/tmp")
    for each in candidates:
        if each and len(os.fsencode(each)) < 64 and os.access(each, os.W_OK | os.X_OK):
            return each
    return None


def _resolved(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(host).version
        return (socket.AF_INET6 if version == 6 else socket.AF_INET), (host, port)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # IPv4 first, as names of this machine mean 127.0.0.1 to most clients.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address


def _listening(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
