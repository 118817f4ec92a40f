# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Iterable

from mcp_manager.bindings.mirror import Mirror
from mcp_manager.session.handlers import RootLike
from mcp_manager.verbs.client_side import LogLevel

class ClientSideMirror(Mirror, metaclass=ABCMeta):
    """The public methods of :class:`ClientSide`, for callers on any thread and loop."""

    def set_roots(self, roots: Iterable[RootLike]) -> None:
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

    async def set_roots_async(self, roots: Iterable[RootLike]) -> None:
        """Replace the manager's list of roots, and notify all present sessions; see :meth:`set_roots`."""

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

    async def drop_cached_async(self, server_id: str) -> None:
        """Drop the cached results of a server, so that the next requests ask it again; see :meth:`drop_cached`."""

    def set_log_level(self, server_id: str, level: LogLevel, *, timeout: float | None = None) -> None:
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

    async def set_log_level_async(self, server_id: str, level: LogLevel, *, timeout: float | None = None) -> None:
        """Set the lowest level of log messages that a server sends, in its present and later sessions; see :meth:`set_log_level`."""
