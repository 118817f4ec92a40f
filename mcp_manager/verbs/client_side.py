"""The client's side of MCP: roots, the level of log messages, and cached results."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final, Literal, get_args

from mcp_manager._core.jsonrpc import ERROR
from mcp_manager.config.arguments import shown, timeout_in_ns
from mcp_manager.errors import CallError, ConfigError, InvalidRequestError
from mcp_manager.protocol.methods import ROOTS_CHANGED
from mcp_manager.protocol.request import encode_method
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.protocol.subscriptions import CHANGE_KINDS
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import Session
from mcp_manager.session.handlers import RootLike, Roots

__all__ = ["ClientSide", "LogLevel"]

_log = logging.getLogger(__name__)

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""The severities of RFC 5424, section 6.2.1, the least severe first."""

_LEVELS: Final = frozenset(get_args(LogLevel))


class ClientSide(ABC):
    """Set what the client tells its servers: present sessions are told at once, later ones when they begin."""

    _roots: Roots | None

    @abstractmethod
    def _deployed_supervisors(self, server_id: str | None = None) -> list[Supervisor]:
        """Return the supervisor of one server, or for ``None`` those of all servers.

        Raises
        ------
        ServerNotFoundError
            No server has this id.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """

    async def set_roots(self, roots: Iterable[RootLike]) -> None:
        """Replace the manager's list of roots, and notify all present sessions.

        It returns when every session was notified, or could not be within the ``request_timeout_s`` of its server.
        Servers of 2026-07-28 or later are not notified: they ask for the roots whenever they need them.

        Parameters
        ----------
        roots
            Absolute paths, file URIs, or :class:`Root` objects.

        Raises
        ------
        ConfigError
            The manager was created without a list of roots, or a root is not an absolute path or file URI. Nothing was
            changed.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """
        supervisors = self._deployed_supervisors()
        if self._roots is None:
            raise ConfigError(
                "the manager has no list of roots to replace", hint="create it with handlers=Handlers(roots=[])"
            )
        self._roots.replace(roots)
        await asyncio.gather(*(_tell_roots_changed(each, session) for each, session in _sessions(supervisors)))

    def drop_cached(self, server_id: str) -> None:
        """Drop the cached results of a server, so that the next requests ask it again.

        Parameters
        ----------
        server_id
            The id of the server.

        Raises
        ------
        ServerNotFoundError, NotRunningError
            As for :meth:`set_log_level`.
        """
        for supervisor in self._deployed_supervisors(server_id):
            supervisor.template.knowledge.cache.drop_all()
            supervisor.template.knowledge.subscriptions.began(CHANGE_KINDS)

    async def set_log_level(self, server_id: str, level: LogLevel, *, timeout: float | None = None) -> None:
        """Set the lowest level of log messages that a server sends, in its present and later sessions.

        Servers that do not declare logging are not asked. Servers of 2026-07-28 or later get the level with every
        request.

        Parameters
        ----------
        server_id
            The id of the server.
        level
            The lowest level to send; see :data:`LogLevel`.
        timeout
            Seconds for all present sessions; default: the server's ``request_timeout_s``.

        Raises
        ------
        InvalidRequestError
            There is no such level, or ``timeout`` is invalid; nothing was changed.
        RpcError, CallError
            A present session refused the level, or did not answer. It stays set for later sessions.
        ServerNotFoundError
            No server has this id.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """
        [supervisor] = self._deployed_supervisors(server_id)
        timeout_ns = supervisor.request_timeout_ns if timeout is None else timeout_in_ns(timeout)
        if not isinstance(level, str) or level not in _LEVELS:
            raise InvalidRequestError(
                f"Invalid request: there is no log level {shown(level)}", hint=f"use one of {', '.join(_LEVELS)}"
            )
        supervisor.template.knowledge.log_level = level
        deadline_ns = time.monotonic_ns() + timeout_ns
        sessions = [session for _, session in _sessions([supervisor])]
        for reply in await asyncio.gather(*(each.set_log_level(level, deadline_ns) for each in sessions)):
            if reply is not None and reply.kind == ERROR:
                raise rpc_error(server_id, reply.error or b"", supervisor.template.secrets)


def _sessions(supervisors: Iterable[Supervisor]) -> list[tuple[Supervisor, Session]]:
    return [
        (supervisor, instance.session)
        for supervisor in supervisors
        for instance in supervisor.instances
        if instance.session is not None
    ]


async def _tell_roots_changed(supervisor: Supervisor, session: Session) -> None:
    if session.is_stateless:
        return
    try:
        deadline_ns = time.monotonic_ns() + supervisor.request_timeout_ns
        await session.notify(encode_method(ROOTS_CHANGED), None, deadline_ns)
    except CallError as error:
        # The session that replaces this one asks for the roots itself.
        _log.debug("server %r could not be notified of the new roots: %s", supervisor.server_id, error)
