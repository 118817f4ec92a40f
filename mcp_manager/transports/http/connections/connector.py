"""An aiohttp connector that opens unix sockets as well as TCP connections, in one pool."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler

from mcp_manager.runtime.background import bare_context, within
from mcp_manager.transports.http.connections.paced_responses import PacedResponses
from mcp_manager.transports.http.connections.route import socket_path_of

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

__all__ = ["RoutedConnector"]


class RoutedConnector(aiohttp.TCPConnector):
    """Connect to hosts, and to the unix sockets that ``request_options()`` in :mod:`.route` names.

    Parameters
    ----------
    socket_factory
        Makes the sockets of both kinds.
    variables
        The context variables of the caller that the factory sees. A connection keeps nothing else of the caller's
        context.
    options
        Those of aiohttp's connector.
    """

    def __init__(
        self,
        *,
        socket_factory: Callable[[AddrInfoType], socket.socket],
        variables: tuple[ContextVar[Any], ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(socket_factory=socket_factory, **options)
        self._make_socket = socket_factory
        self._variables = variables
        # aiohttp makes the protocol of every connection with this factory.
        paced = functools.partial(PacedResponses, loop=asyncio.get_running_loop())
        self._factory = cast("functools.partial[ResponseHandler]", paced)

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        return await within(bare_context(*self._variables), self._open(req, traces, timeout))

    def _release(self, *connection: Any, **options: Any) -> None:
        # This may start aiohttp's timer for idle connections, which would keep the caller's context.
        bare_context().run(super()._release, *connection, **options)

    async def _open(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        path = socket_path_of(req.server_hostname)
        if path is None:
            return await super()._create_connection(req, traces, timeout)
        loop = asyncio.get_running_loop()
        opened = self._make_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", (path,)))
        try:
            async with asyncio.timeout(timeout.sock_connect):
                await loop.sock_connect(opened, path)
                _, protocol = await loop.create_unix_connection(self._factory, sock=opened)
        except OSError as error:
            opened.close()
            if isinstance(error, TimeoutError) and error.errno is None:
                raise
            raise UnixClientConnectorError(path, req.connection_key, error) from error
        except BaseException:
            opened.close()
            raise
        return protocol
