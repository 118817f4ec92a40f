"""One request of a client, sent to one server of the fleet."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context
from typing import Any, Final, Literal, cast

import msgspec

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.begun_exchange import BegunExchange, Receiver
from mcp_manager.calls.exchange_listener import Answer, OnMessage, ServerMessage
from mcp_manager.calls.peer import Peer
from mcp_manager.errors import AuthError, ConnectError, McpManagerError, RpcError, ServerNotFoundError
from mcp_manager.gateway import failures
from mcp_manager.gateway.callers import CallersOfClients, principal_of
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.declared import check_declared
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.envelopes import for_handshake_server, for_stateless_server, stateless_declaration
from mcp_manager.gateway.security.accounting import CURRENT
from mcp_manager.gateway.security.credential_errors import NotConfiguredError
from mcp_manager.gateway.security.server_credentials import PersonalServer, ServerCredentials
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import PING
from mcp_manager.protocol.request import invalid_request
from mcp_manager.protocol.revisions import Era
from mcp_manager.servers.caller_sessions import Checkout
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import Session
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
    credentials
        What servers get to know of clients; ``None``: nothing. Such a server has sessions for each principal in any case.
    """

    def __init__(
        self,
        manager: McpManager,
        sessions: Literal["per_client", "shared"] = "per_client",
        stateful: Collection[str] = (),
        credentials: ServerCredentials | None = None,
    ) -> None:
        self._manager = manager
        self._is_per_client = sessions == "per_client"
        self._stateful = frozenset(stateful)
        self._callers = CallersOfClients()
        self._credentials = credentials

    def caller_for(self, server_id: str, client: Client, peer: Peer) -> Caller | None:
        """Return whom a request to a server is made for that gets nothing of clients.

        ``None`` for the session that all clients share.
        """
        return self._callers.of(client, server_id) if self._has_session(server_id, client, peer) else None

    def _has_session(self, server_id: str, client: Client, peer: Peer) -> bool:
        """Return whether the session of a client has a session of its own at a server."""
        if not self._is_per_client or peer.shares_session or peer.era is Era.STATELESS:
            return False
        if client.can_be_asked or server_id in self._stateful:
            return True
        return client.principal != ANONYMOUS and self._keeps_tasks(server_id)

    def minds_tasks(self, client: Client) -> bool:
        """Return whether a client has a session of its own at a server as soon as that keeps tasks."""
        return self._is_per_client and client.principal != ANONYMOUS

    def _keeps_tasks(self, server_id: str) -> bool:
        """Return whether a server keeps tasks, which it tells apart by session only (2025-11-25, tasks, security)."""
        identity = self._manager._identity_of(server_id)
        return identity is not None and "tasks" in identity.capabilities

    def _personal(self, server_id: str) -> PersonalServer | None:
        """Return a server that gets something of each client; ``None`` if it gets nothing of them."""
        return None if self._credentials is None else self._credentials.of(server_id)

    def is_personal(self, server_id: str) -> bool:
        """Return whether a server gets something of each client, so that nothing at it is shared among clients."""
        return self._personal(server_id) is not None

    async def personal_caller(self, server_id: str, client: Client) -> Caller | None:
        """Return whom something is done for at a server that gets something of each client; ``None`` for all others.

        Raises
        ------
        McpManagerError
            There are no credentials of the client for the server, or it does not answer.
        """
        personal = self._personal(server_id)
        if personal is None:
            return None
        return (await self._met_for(personal, client, await personal.token(client)))[0]

    async def party_for(self, server_id: str, client: Client) -> str:
        """Return what names a client at a server that gets something of each: the same for what is one party to it.

        Raises
        ------
        RpcError
            There are no credentials of the client for the server, or it does not answer.
        """
        try:
            caller = await self.personal_caller(server_id, client)
            if caller is None:
                raise ServerNotFoundError(server_id)
        except McpManagerError as failure:
            refusal = failures.as_refusal(failure, server_id)
        else:
            return caller.principal
        try:
            raise refusal
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del refusal

    async def ask(self, server_id: str, client: Client, request: Message) -> bytes:
        """Return the response of a server that gets something of each client to a request that is made for one.

        Raises
        ------
        RpcError
            There is none: there are no credentials of the client for the server, or it does not answer.
        """
        # What a client of the stateless era says of itself is not in the request.
        asking = msgspec.structs.replace(client, era=Era.HANDSHAKE)
        try:
            personal = self._personal(server_id)
            if personal is None:
                raise ServerNotFoundError(server_id)
            return await self._exchange_for(personal, request, asking, None, answers_input=False)
        except McpManagerError as failure:
            refusal = failures.as_refusal(failure, server_id)
        try:
            raise refusal
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del refusal

    async def identity_for(self, server_id: str, client: Client) -> ServerIdentity:
        """Return how a server that gets something of each client introduces itself to one.

        Raises
        ------
        McpManagerError
            There are no credentials of the client for the server, or it does not answer.
        """
        personal = self._personal(server_id)
        if personal is None:
            raise ServerNotFoundError(server_id)
        session: Session | None = None

        async def meet(caller: Caller, peer: Peer) -> bytes:
            nonlocal session
            session = self._manager._session_of(server_id, caller)
            if session is None or session.identity is None:
                await self._manager.for_caller(caller).call(server_id, PING)
                session = self._manager._session_of(server_id, caller)
            return b""

        await self._with_credentials(personal, client, meet)
        if session is None or session.identity is None:
            raise ConnectError("its session has ended", server_id=server_id)
        return session.identity

    async def _met_for(self, personal: PersonalServer, client: Client, token: str | None) -> tuple[Caller, Peer]:
        """Return whom a request is made for, and what kind the server is, which is asked if nobody knows."""
        server_id = personal.server_id
        peer = self._manager.peer(server_id)
        if peer is None:
            # Most likely, this session is the one that is needed.
            has_session = self._has_session(server_id, client, Peer(Era.HANDSHAKE, shares_session=False))
            caller = personal.caller(client, token, has_session=has_session)
            peer = self._manager._peer_of(server_id, caller)
            if peer is None:
                await self._manager.for_caller(caller).call(server_id, PING)
                peer = self._manager._peer_of(server_id, caller) or Peer(Era.HANDSHAKE, shares_session=False)
        if peer.shares_session:
            raise NotConfiguredError(
                "it is no HTTP server, and gets no header fields",
                server_id=server_id,
                hint=f"drop serve.credentials.{server_id}; give it credentials of its own in env",
            )
        has_session = self._has_session(server_id, client, peer)
        return personal.caller(client, token, has_session=has_session), peer

    def may_ask(self, server_id: str) -> bool:
        """Return whether a server may ask during a call: those of the handshake era do, and nobody knows of new ones."""
        peer = self._manager.peer(server_id)
        return peer is None or peer.era is Era.HANDSHAKE

    def end_session(self, principal: str, session: str) -> None:
        """End the sessions that servers keep for the session of a client, each with the last of its calls under way."""
        ended = self._callers.forget(principal, session)
        if ended is not None:
            self._manager.end_caller(ended.caller, ended.servers)
        if self._credentials is not None and session:
            for server_id, caller in self._credentials.callers.forget(principal, session):
                self._manager.end_caller(caller, [server_id])

    async def notify(self, server_id: str, client: Client, notification: Message) -> None:
        """Send a notification of a client to a server, if it has a session that takes it; failures are logged."""
        try:
            caller: Caller | None
            personal = self._personal(server_id)
            if personal is not None:
                caller, peer = await self._met_for(personal, client, await personal.token(client))
            else:
                known = self._manager.peer(server_id)
                if known is None:
                    return
                caller, peer = self.caller_for(server_id, client, known), known
            if peer.era is not Era.STATELESS:
                await self._manager.exchange(server_id, notification, caller=caller)
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
        servers = self._callers.servers_of(client)
        if self._credentials is not None and client.session:
            servers = sorted({*servers, *self._credentials.callers.servers_of(client)})
        return servers

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
        if on_message is not None:
            on_message = _OfClient(client, route, on_message)
        usage = CURRENT.get()
        if usage is not None:
            refusal = usage.routed(route)
            if refusal is not None:
                return failures.as_response(id_raw, refusal)
        personal = self._personal(server_id)
        if personal is not None:
            exchanging = self._exchange_for(personal, route.request, client, on_message, answers_input)
            return await self.finish(route, id_raw, exchanging)
        try:
            peer = self._manager.peer(server_id)
            if peer is None:
                peer = await self._met(server_id)
            request = _for_era(route.request, client, peer)
            caller = self.caller_for(server_id, client, peer)
        except McpManagerError as failure:
            return failures.as_response(id_raw, failure, server_id)
        exchanging = self._manager.exchange(
            server_id, request, caller=caller, on_message=on_message, answers_input=answers_input
        )
        return await self.finish(route, id_raw, exchanging)

    async def _exchange_for(
        self,
        personal: PersonalServer,
        request: Message | bytes,
        client: Client,
        on_message: OnMessage | None,
        answers_input: bool,
    ) -> bytes:
        """Send a request with what the server gets of the client."""

        def send(caller: Caller, peer: Peer) -> Awaitable[bytes]:
            return self._manager.exchange(
                personal.server_id,
                _for_era(request, client, peer),
                caller=caller,
                on_message=on_message,
                answers_input=answers_input,
            )

        return await self._with_credentials(personal, client, send)

    async def _with_credentials(
        self, personal: PersonalServer, client: Client, send: Callable[[Caller, Peer], Awaitable[bytes]]
    ) -> bytes:
        """Do something for a client with what a server gets of it; once more if new credentials may help."""
        is_renewed = False
        while True:
            token = await personal.token(client)
            try:
                return await send(*await self._met_for(personal, client, token))
            except AuthError as refusal:
                if refusal.http_status not in (401, 403):
                    raise
                if is_renewed or not personal.can_renew(client, token, refusal):
                    raise personal.refused(refusal) from None
            is_renewed = True

    def begin(
        self, route: Route, client: Client, on_message: OnMessage, context: Context, *, answers_input: bool = False
    ) -> BegunExchange | None:
        """Send a request to its server at once, without a task.

        Returns
        -------
        The exchange, for :meth:`adapted` or :meth:`finish`; ``None`` if nothing was done: :meth:`forward` has to.
        """
        server_id = route.server_id
        if self._personal(server_id) is not None:
            return None
        try:
            peer = self._manager.peer(server_id)
            if peer is None:
                return None
            caller = self.caller_for(server_id, client, peer)
            request = _for_era(route.request, client, peer)
            if not isinstance(request, Message):
                request = scan(request)
            receiver = Receiver(_OfClient(client, route, on_message), context, answers_input)
            return self._manager._begin_exchange(server_id, request, receiver, caller)
        except (McpManagerError, FrameError):
            return None

    def check_out(self, server_id: str, client: Client, supervisor: Supervisor) -> Checkout | None:
        """Begin a call on the session that a client has for itself at a server; ``None`` if it is not open."""
        return self._manager._dispatcher.check_out(supervisor, self._callers.of(client, server_id))

    def resume(
        self,
        call: ForwardedCall,
        client: Client,
        on_message: OnMessage,
        context: Context,
        *,
        answers_input: bool = False,
    ) -> BegunExchange:
        """Return the exchange of a call that compiled code has sent, as :meth:`begin` does."""
        route = Route(call.route.server_id, call.request, None, call.known.fields.endpoint.tasks)
        receiver = Receiver(_OfClient(client, route, on_message), context, answers_input)
        return self._manager._resume_exchange(call, receiver)

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


class _OfClient:
    """Pass a server's messages on to a client, except for what its session has not declared, and for tasks of others.

    A program shares one session among all clients, so that it is told of more than each of them can do. It does not say
    either which call a message belongs to: the calls of one session are those of one party.
    """

    __slots__ = ("_client", "_on_message", "_route", "party")

    def __init__(self, client: Client, route: Route, on_message: OnMessage) -> None:
        self._client = client
        self._route = route
        self._on_message = on_message
        self.party: str | None = principal_of(client) if client.session else None

    def __call__(self, sent: ServerMessage) -> Awaitable[Answer] | Answer:
        tasks = self._route.tasks
        if tasks is None:
            return self._passed(sent)
        told = tasks.told(self._client, self._route.server_id, sent)
        if told is not None:
            answer = self._passed(told)
            return answer if told is sent or not sent.wants_answer else tasks.answer(self._client, answer)
        if sent.wants_answer:
            raise RpcError(INVALID_REQUEST, "The task that this request belongs to is of another client")
        return None

    def _passed(self, sent: ServerMessage) -> Awaitable[Answer] | Answer:
        if sent.wants_answer and self._client.era is Era.HANDSHAKE:
            check_declared(sent.method, sent.params, self._client.capabilities)
        return self._on_message(sent)
