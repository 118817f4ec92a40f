"""One request of a client, sent to one server of the fleet."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Collection
from contextvars import Context
from typing import Any, Final, Literal, cast

from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.begun_exchange import BegunExchange
from mcp_manager.calls.exchange_listener import Answer, OnMessage, ServerMessage
from mcp_manager.calls.peer import Peer
from mcp_manager.errors import McpManagerError
from mcp_manager.gateway import failures
from mcp_manager.gateway.callers import CallersOfClients, principal_of
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.declared import check_declared
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.envelopes import for_handshake_server, for_stateless_server, stateless_declaration
from mcp_manager.manager import McpManager
from mcp_manager.protocol.methods import PING
from mcp_manager.protocol.request import invalid_request
from mcp_manager.protocol.revisions import Era
from mcp_manager.verbs.client_side import LogLevel

__all__ = ["SHARED_CAPABILITIES", "Forwarding"]

_log = logging.getLogger(__name__)

_LEVEL_S: Final = 5.0

SHARED_CAPABILITIES: Final[dict[str, Any]] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": True},
}
"""The ``shared_capabilities`` of the gateway's manager: a program must be able to ask, and a client that cannot do what
it is asked for refuses."""


class Forwarding:
    """Send requests of clients to servers, each for the right caller.

    Parameters
    ----------
    manager
        The fleet, made with :data:`SHARED_CAPABILITIES`. Its ``handler_timeout_s`` bounds how long a client may take to
        answer a question; the deadline of the call stands still meanwhile.
    sessions
        ``per_client``: a server of the handshake era has a session of its own for each client that it can ask, or if it
        is stateful. ``shared``: it has one for all. Programs and stateless servers have one for all in any case.
    stateful
        The ids of servers that keep something for each of their sessions.
    """

    def __init__(
        self,
        manager: McpManager,
        sessions: Literal["per_client", "shared"] = "per_client",
        stateful: Collection[str] = (),
    ) -> None:
        self._manager = manager
        self._is_per_client = sessions == "per_client"
        self._stateful = frozenset(stateful)
        self._callers = CallersOfClients()

    def caller_for(self, server_id: str, client: Client, peer: Peer) -> Caller | None:
        """Return whom a request to a server is made for: ``None`` for the session that all clients share."""
        if not self._is_per_client or peer.shares_session or peer.era is Era.STATELESS:
            return None
        if not client.can_be_asked and server_id not in self._stateful:
            return None
        return self._callers.of(client, server_id)

    def may_ask(self, server_id: str) -> bool:
        """Return whether a server may ask during a call: those of the handshake era do, and nobody knows of new ones."""
        peer = self._manager.peer(server_id)
        return peer is None or peer.era is Era.HANDSHAKE

    def end_session(self, principal: str, session: str) -> None:
        """End the sessions that servers keep for the session of a client, each with the last of its calls under way."""
        ended = self._callers.forget(principal, session)
        if ended is not None:
            self._manager.end_caller(ended.caller, ended.servers)

    async def notify(self, server_id: str, client: Client, notification: Message) -> None:
        """Send a notification of a client to a server, if it has a session that takes it; failures are logged."""
        peer = self._manager.peer(server_id)
        if peer is None or peer.era is Era.STATELESS:
            return
        try:
            await self._manager.exchange(server_id, notification, caller=self.caller_for(server_id, client, peer))
        except McpManagerError as failure:
            _log.debug("a notification of a client did not reach server %r: %s", server_id, failure)

    async def set_log_level(self, server_id: str, level: str) -> None:
        """Let a server send log messages of this level, in all its sessions; failures are logged."""
        try:
            await self._manager.set_log_level(server_id, cast(LogLevel, level), timeout=_LEVEL_S)
        except McpManagerError as failure:
            # It stays set for later sessions of the server.
            _log.debug("server %r was not told a log level: %s", server_id, failure)

    def servers_of(self, client: Client) -> list[str]:
        """Return the servers that keep sessions for this client alone."""
        return self._callers.servers_of(client)

    async def forward(
        self,
        route: Route,
        id_raw: bytes,
        client: Client,
        on_message: OnMessage | None = None,
        *,
        answers_input: bool = False,
    ) -> bytes:
        """Send a request to its server, and return the response with the id of the client.

        If it is cancelled, the request is cancelled at the server, too.

        Parameters
        ----------
        route
            Where it goes.
        id_raw
            The id of the client's request, as JSON.
        client
            Who asks.
        on_message, answers_input
            As for :meth:`McpManager.exchange`.

        Returns
        -------
        The response. If there is none, or the request is refused here, it is an error response that says so.
        """
        server_id = route.server_id
        try:
            peer = self._manager.peer(server_id)
            if peer is None:
                peer = await self._met(server_id)
            request = _for_era(route.request, client, peer)
            if on_message is not None and client.era is Era.HANDSHAKE:
                on_message = _OfSession(client, on_message)
            caller = self.caller_for(server_id, client, peer)
        except McpManagerError as failure:
            return failures.as_response(id_raw, failure, server_id)
        exchanging = self._manager.exchange(
            server_id, request, caller=caller, on_message=on_message, answers_input=answers_input
        )
        return await self.finish(route, id_raw, exchanging)

    def begin(
        self, route: Route, client: Client, on_message: OnMessage, context: Context, *, answers_input: bool = False
    ) -> BegunExchange | None:
        """Send a request to its server at once, without a task.

        Returns
        -------
        The exchange, for :meth:`adapted` or :meth:`finish`; ``None`` if nothing was done: :meth:`forward` has to.
        """
        server_id = route.server_id
        try:
            peer = self._manager.peer(server_id)
            if peer is None or self.caller_for(server_id, client, peer) is not None:
                return None
            request = _for_era(route.request, client, peer)
            if not isinstance(request, Message):
                request = scan(request)
            if client.era is Era.HANDSHAKE:
                on_message = _OfSession(client, on_message)
            return self._manager._begin_exchange(server_id, request, on_message, context, answers_input=answers_input)
        except (McpManagerError, FrameError):
            return None

    def adapted(self, route: Route, id_raw: bytes, response: bytes) -> bytes:
        """Return a response of a server in the terms of the client."""
        if route.adapt is None:
            return response
        try:
            return route.adapt(response)
        except Exception:
            _log.exception("a request to server %r failed", route.server_id, extra={"event": "forward_failed"})
            return failures.internal(id_raw, route.server_id)

    async def finish(self, route: Route, id_raw: bytes, exchanging: Awaitable[bytes]) -> bytes:
        """Return the response to a request that is under way, as :meth:`forward` does."""
        server_id = route.server_id
        try:
            return self.adapted(route, id_raw, await exchanging)
        except McpManagerError as failure:
            return failures.as_response(id_raw, failure, server_id)
        except Exception:
            # Whatever it is, the client gets an answer, and the gateway goes on.
            _log.exception("a request to server %r failed", server_id, extra={"event": "forward_failed"})
            return failures.internal(id_raw, server_id)

    async def _met(self, server_id: str) -> Peer:
        """Connect to a server that was never connected, and return what kind it is."""
        await self._manager.call(server_id, PING)
        peer = self._manager.peer(server_id)
        # Its session may have ended at once; the call that follows says why.
        return Peer(Era.HANDSHAKE, shares_session=False) if peer is None else peer


def _for_era(request: Message | bytes, client: Client, peer: Peer) -> Message | bytes:
    return request if client.era is peer.era else _translated(request, client, peer.era)


def _translated(request: Message | bytes, client: Client, era: Era) -> Message:
    """Return a client's request for a server of another era."""
    try:
        message = request if isinstance(request, Message) else scan(request)
    except FrameError as error:
        raise invalid_request(error) from None
    if era is Era.HANDSHAKE:
        return for_handshake_server(message)
    return for_stateless_server(message, stateless_declaration(client.capabilities))


class _OfSession:
    """Pass a server's messages on to a session, except for requests that its client has not declared.

    A program shares one session among all clients, so that it is told of more than each of them can do. It does not say
    either which call a message belongs to: the calls of one session are those of one party.
    """

    __slots__ = ("_client", "_on_message", "party")

    def __init__(self, client: Client, on_message: OnMessage) -> None:
        self._client = client
        self._on_message = on_message
        self.party: str | None = principal_of(client) if client.session else None

    def __call__(self, sent: ServerMessage) -> Awaitable[Answer] | Answer:
        if sent.wants_answer:
            check_declared(sent.method, sent.params, self._client.capabilities)
        return self._on_message(sent)
