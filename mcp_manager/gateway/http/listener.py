"""The sockets that the gateway listens on, and the server behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from mcp_manager.config import ServeConfig, TlsConfig
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.config.listen_address import ListenAddress, parse_listen_address
from mcp_manager.config.tls_files import load_identity
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.http.descriptors import AT_ONCE

__all__ = ["Listener", "inherited_sockets"]

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_FIRST_INHERITED: Final = 3
_TLS_HANDSHAKE_S: Final = 10.0
# A client that vanished without a word would keep its stream for a quarter of an hour, and refuse the next one.
_UNACKNOWLEDGED_MS: Final = 60_000
_WAY_OUT: Final = "set serve.auth, or listen on 127.0.0.1 or a unix socket"


class Listener:
    """Listen where the configuration says.

    Parameters
    ----------
    config
        The configuration of the gateway.
    is_admin
        Whether it is the address of the admin API, whose clients always authenticate.

    Attributes
    ----------
    port
        The TCP port; 0 before :meth:`bind`, and on a unix socket.

    Raises
    ------
    ConfigError
        The address is not of this machine, or a file for TLS cannot be used.
    """

    def __init__(self, config: ServeConfig, *, is_admin: bool = False) -> None:
        listen = config.listen if not is_admin or config.admin is None else config.admin.listen
        self.address: ListenAddress = parse_listen_address(listen or config.listen)
        self._is_admin = is_admin
        self._is_reached = not self.address.is_loopback and not self.address.is_inherited
        self.check(config.auth)
        self._is_open = config.auth.type == "none" and not is_admin
        self._config = config
        self._tls = _tls_context(config)
        # With the certificate that was read last; the sockets have the first one.
        self._renewed: ssl.SSLContext | None = None
        if self._tls is not None:
            self._tls.sni_callback = self._choose
        self._may_be_clear = config.behind_tls_proxy or self._tls is not None
        self._servers: list[asyncio.Server] = []
        self._socket_path = ""
        self._sockets: list[socket.socket] = []
        self._protocols: Callable[[], asyncio.BaseProtocol] | None = None
        self._place = ""
        self.port: int = 0

    def check(self, auth: ClientAuthConfig) -> None:
        """Raise :class:`ConfigError` if other machines can reach the gateway, and clients need not authenticate."""
        if auth.type == "none" and self._is_reached and not self._is_admin:
            raise ConfigError(
                f"Failed to listen on {self.address}: clients on other machines would not have to authenticate",
                hint=_WAY_OUT,
            )

    def certificate(self) -> ssl.SSLContext | None:
        """Read the certificate and its key again, for :meth:`follow`; ``None`` without TLS.

        Raises
        ------
        ConfigError
            A file cannot be used.
        """
        return _tls_context(self._config)

    def follow(self, auth: ClientAuthConfig, certificate: ssl.SSLContext | None) -> None:
        """Take note of how clients authenticate from now on, and show another certificate to new connections.

        Parameters
        ----------
        auth
            What :meth:`check` has accepted.
        certificate
            What :meth:`certificate` has returned.
        """
        self._is_open = auth.type == "none"
        self._renewed = certificate

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Let a handshake show the certificate that was read last; OpenSSL calls it for each, with a name or without."""
        if self._renewed is not None:
            connection.context = self._renewed

    def bind(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Take the address: from now on, connections wait until :meth:`accept`.

        Parameters
        ----------
        sockets
            Sockets that listen already, in place of the configured address.

        Raises
        ------
        ConfigError
            The address cannot be listened on, or other machines reach it and clients need not authenticate.
        """
        self._sockets = list(sockets) if sockets is not None else self._opened()
        self._check_reach(is_own=sockets is None)
        name = self._sockets[0].getsockname() if self._sockets else ""
        self._place = _place_of(self._sockets[0].family, name) if self._sockets else ""
        self.port = int(name[1]) if isinstance(name, tuple) else 0

    async def accept(self, protocols: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept connections; ``protocols`` makes the protocol of one."""
        loop = asyncio.get_running_loop()
        self._protocols = protocols
        for each in self._sockets:
            _notice_vanished_clients(each)
            tls = self._tls_for(each)
            options: dict[str, Any] = {} if tls is None else {"ssl_handshake_timeout": _TLS_HANDSHAKE_S}
            server = await loop.create_server(protocols, sock=each, ssl=tls, backlog=AT_ONCE, **options)
            # The event loop takes its backlog for the number of connections that it accepts at once as well.
            each.listen(_BACKLOG)
            self._servers.append(server)

    @property
    def url(self) -> str:
        """The URL of the root, without a slash at its end; that of a unix socket begins with ``unix:``."""
        if not self._place or self._place.startswith("unix:"):
            return self._place
        return f"{'http' if self._tls is None else 'https'}://{self._place}"

    async def finish(self) -> None:
        """Accept the connections that wait, and no more; then :meth:`close`.

        The kernel resets connections that nobody has accepted, with the requests that they carry already.
        """
        waiting = [(each, self._tls_for(each)) for each in self._sockets]
        accepted = [(one, tls) for each, tls in waiting for one in _accepted(each)]
        protocols = self._protocols
        await self.close()
        loop = asyncio.get_running_loop()
        for connection, tls in accepted:
            if protocols is None:
                connection.close()
                continue
            try:
                await loop.connect_accepted_socket(protocols, connection, ssl=tls)
            except OSError:
                connection.close()

    async def close(self) -> None:
        """Accept nothing more; connections stay. Idempotent."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.close()
        if self._socket_path:
            with contextlib.suppress(OSError):
                os.unlink(self._socket_path)
            self._socket_path = ""

    def _tls_for(self, listening: socket.socket) -> ssl.SSLContext | None:
        # What comes through a unix socket comes from this machine.
        return self._tls if listening.family != socket.AF_UNIX else None

    def _opened(self) -> list[socket.socket]:
        if self.address.is_inherited:
            return inherited_sockets()
        try:
            return [self._unix()] if self.address.socket_path else _tcp(self.address)
        except OSError as error:
            raise self.refused(error) from None

    def for_workers(self) -> tuple[str, int] | socket.socket:
        """Return what several processes listen on: host and port, or a socket that listens already."""
        if self.address.host:
            if not self.address.is_loopback:
                self._warn_of_clear_text()
            return self.address.host, self.address.port
        self.bind()
        return self._sockets[0]

    def _check_reach(self, *, is_own: bool) -> None:
        """Refuse sockets that other machines reach if clients need not authenticate."""
        if not any(_is_reached_from_elsewhere(each) for each in self._sockets):
            return
        self._is_reached = True
        if self._is_open:
            sockets, self._sockets = self._sockets, []
            for each in sockets:
                each.close()
            text = f"Failed to listen on {self.address}: clients on other machines would not have to authenticate"
            raise ConfigError(text, hint=_WAY_OUT)
        if is_own:
            self._warn_of_clear_text()

    def _warn_of_clear_text(self) -> None:
        if not self._may_be_clear:
            _log.warning(
                "%s: clients on other machines send tokens and keys in clear text, because there is no TLS: set "
                "serve.cert_file, or serve.behind_tls_proxy = true if a proxy terminates TLS",
                self.address,
            )

    def refused(self, error: OSError) -> ConfigError:
        """Return what says that the address cannot be listened on."""
        text = f"Failed to listen on {self.address}: {os.strerror(error.errno) if error.errno else error}"
        way_out = "in serve.admin.listen" if self._is_admin else "with --listen, or in serve.listen"
        return ConfigError(text, hint=f"choose another address {way_out}")

    def _unix(self) -> socket.socket:
        path = os.path.expanduser(self.address.socket_path)
        _remove_stale(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Only this user may connect: the socket is never there with other rights.
            mask = os.umask(0o177)
            try:
                made.bind(path)
            finally:
                os.umask(mask)
            made.listen(_BACKLOG)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        self._socket_path = path
        return made


def _is_reached_from_elsewhere(listening: socket.socket) -> bool:
    if listening.family == socket.AF_UNIX:
        return False
    return not ListenAddress(str(listening.getsockname()[0])).is_loopback


def _notice_vanished_clients(listening: socket.socket) -> None:
    """Let connections end if what was sent stays unacknowledged (RFC 5482); accepted sockets inherit it on Linux."""
    if listening.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


def _accepted(listening: socket.socket) -> list[socket.socket]:
    """Return the connections that wait on a socket."""
    accepted = []
    listening.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def _place_of(family: int, name: Any) -> str:
    if family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def inherited_sockets() -> list[socket.socket]:
    """Return the sockets that systemd passes (``sd_listen_fds(3)``).

    Raises
    ------
    ConfigError
        There are none for this process.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or not 0 < int(count) <= 64:
        raise ConfigError(
            "Failed to listen on systemd: it passes no socket to this process",
            hint="start the program by a unit with a socket, or give an address",
        )
    opened = []
    for number in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(number, False)
        each = socket.socket(fileno=number)
        each.setblocking(False)
        opened.append(each)
    return opened


def _tcp(address: ListenAddress) -> list[socket.socket]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    # IPv4 first; with port 0, a second address would get another port.
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    opened: list[socket.socket] = []
    for family, kind, protocol, _, where in dict.fromkeys(found[:1] if not address.port else found):
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
            made.listen(_BACKLOG)
            made.setblocking(False)
        except OSError:
            made.close()
            if opened and family == socket.AF_INET6:
                # A machine whose names have addresses that it does not.
                continue
            for each in opened:
                each.close()
            raise
        opened.append(made)
    return opened


def _remove_stale(path: str) -> None:
    """Remove the socket of a program that has ended; raises :class:`OSError` if there is one that listens."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _tls_context(config: ServeConfig) -> ssl.SSLContext | None:
    if config.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = TlsConfig(cert_file=config.cert_file, key_file=config.key_file, key_password=config.key_password)
    try:
        load_identity(context, files, "serve")
    except FieldProblem as problem:
        error = problem.error("Failed to listen")
    else:
        return context
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error
