"""The client's own side: its roots, from which level on it wants log messages, and what it keeps of answers."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
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
"""The severities of RFC 5424, section 6.2.1, from the least on."""

_LEVELS: Final = frozenset(get_args(LogLevel))


class ClientSide:
    """What every session of a server, or of all servers, is told; those made later learn it when they begin."""

    _roots: Roots | None

    @abstractmethod
    def _deployed_supervisors(self, server_id: str | None = None) -> list[Supervisor]:
        """Return a server's supervisor, or those of all servers; raises if it is not deployed, or nothing runs."""

    async def set_roots(self, roots: Iterable[RootLike]) -> None:
        """Replace the roots that the manager was made with, and tell the sessions that were told of the old ones.

        Servers of 2026-07-28 or later are not told: they ask whenever they need them. Waits until every session was
        told, or cannot be; that takes no longer than the ``request_timeout_s`` of its server.

        Raises
        ------
        ConfigError
            The manager was made without a list of roots, so that servers know of none; or one is no file URI.
        """
        supervisors = self._deployed_supervisors()
        if self._roots is None:
            raise ConfigError("the manager has no list of roots to replace", hint="pass handlers=Handlers(roots=[])")
        self._roots.replace(roots)
        await asyncio.gather(*(_tell_roots_changed(each, session) for each, session in _sessions(supervisors)))

    def drop_cached(self, server_id: str) -> None:
        """Forget what is kept of a server's answers: the next requests ask it, whatever it said of how long they hold."""
        for supervisor in self._deployed_supervisors(server_id):
            supervisor.template.knowledge.cache.drop_all()
            supervisor.template.knowledge.subscriptions.began(CHANGE_KINDS)

    async def set_log_level(self, server_id: str, level: LogLevel, *, timeout: float | None = None) -> None:
        """Ask a server for ``notifications/message`` from this level on, in all of its sessions and in those to come.

        A server that does not declare logging is not asked. One of 2026-07-28 or later is asked by every request.

        Raises
        ------
        InvalidRequestError
            There is no such level.
        RpcError, CallError
            A session did not take it. The level stays set for the sessions to come.
        """
        [supervisor] = self._deployed_supervisors(server_id)
        timeout_ns = supervisor.request_timeout_ns if timeout is None else timeout_in_ns(timeout)
        if not isinstance(level, str) or level not in _LEVELS:
            raise InvalidRequestError(
                f"Invalid request: there is no log level {shown(level)}", hint=f"one of {', '.join(_LEVELS)}"
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
        # Whoever is made in its place asks for the roots anew.
        _log.debug("server %r was not told that the roots changed: %s", supervisor.server_id, error)
