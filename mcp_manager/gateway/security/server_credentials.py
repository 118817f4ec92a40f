"""What servers get to know of clients: header fields, or a token that was exchanged for that of the client.

A server that gets nothing of them gets the credentials of its own configuration, for all clients. The token of a client
never goes to a server: it is meant for the gateway (2025-11-25, basic/security_best_practices, token passthrough),
unless the gateway checks none and is told to pass it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context
from typing import Final, NoReturn

from mcp_manager.auth.caller import Caller
from mcp_manager.auth.oauth.token_reply import Tokens
from mcp_manager.config import ServerCredentialsConfig
from mcp_manager.errors import AuthError, ServerNotFoundError
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.security.api_keys import looks_like_key
from mcp_manager.gateway.security.credential_errors import ClientRefusedError, LoginRequiredError
from mcp_manager.gateway.security.exchanged_tokens import ExchangedTokens
from mcp_manager.gateway.security.known_principals import KnownPrincipals
from mcp_manager.gateway.security.personal_callers import PersonalCallers
from mcp_manager.gateway.security.presented import Presented, present, presented
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.token_request import TokenRequest
from mcp_manager.manager import McpManager

__all__ = ["PersonalServer", "ServerCredentials"]

_AUTHORIZATION: Final = "authorization"


class PersonalServer:
    """One server that gets something of each client.

    Parameters
    ----------
    manager
        The fleet.
    server_id, config
        The server, and what it gets.
    known
        The principals, for requests that are made for a client later.
    callers
        Makes the callers.
    """

    def __init__(
        self,
        manager: McpManager,
        server_id: str,
        config: ServerCredentialsConfig,
        known: KnownPrincipals,
        callers: PersonalCallers,
    ) -> None:
        self.server_id: str = server_id
        self.config: ServerCredentialsConfig = config
        self._manager = manager
        self._known = known
        self._callers = callers
        self._request = None if config.type == "own" else TokenRequest(server_id, config)
        self.tokens: ExchangedTokens | None = None
        if self._request is not None:
            self.tokens = ExchangedTokens(server_id, self._exchanged)
        # By the name at the client in lower case: the name at the server.
        self.fields: dict[str, str] = {name.lower(): name for name in config.pass_headers}
        self._instead = config.authorization_header or ("Authorization" if config.pass_client_token else None)
        if self._instead is not None:
            self.fields[self._instead.lower()] = "Authorization"

    async def token(self, client: Client) -> str | None:
        """Return the token that the server gets for a client; ``None`` if it gets no token of its own for each.

        Raises
        ------
        LoginRequiredError, CredentialsUnavailableError, NotConfiguredError
            There is none.
        """
        if self.tokens is None:
            return None
        principal = self._presented(client).principal
        return await self.tokens.token(_key(principal), self._subject(principal))

    def caller(self, client: Client, token: str | None, *, has_session: bool) -> Caller:
        """Return whom a request is made for, with what the server gets of the client.

        Parameters
        ----------
        client, token
            The client, and what :meth:`token` has returned for it.
        has_session
            As for :meth:`PersonalCallers.of`.

        Raises
        ------
        LoginRequiredError
            The client has not sent its credentials for the server.
        InvalidRequestError
            A header field of the client cannot be sent.
        """
        request = self._presented(client)
        headers = {sent: request.fields[name] for name, sent in self.fields.items() if name in request.fields}
        if self._instead is not None and self._instead.lower() not in request.fields:
            # Without it, the server would get the credentials of the gateway.
            _refuse(
                self.server_id,
                f"the client has not sent {self._instead}",
                f"send your credentials for this server in the header field {self._instead}",
            )
        scopes = request.principal.scopes
        return self._callers.of(self.server_id, client, headers, token, scopes, has_session=has_session)

    def can_renew(self, client: Client, token: str | None, refusal: AuthError) -> bool:
        """Return whether a request that the server refused with a token can be made again, with another one."""
        if self.tokens is None or token is None or refusal.http_status != 401:
            return False
        # Nothing was executed.
        is_safe = refusal.delivery in ("rejected", "not_sent")
        return is_safe and self.tokens.refused(_key(self._presented(client).principal), token)

    def refused(self, refusal: AuthError) -> AuthError:
        """Return the error for a client whose credentials the server refused."""
        if self.tokens is None and self._instead is None:
            # They may be those of the gateway.
            return refusal
        made = ClientRefusedError(refusal.message, server_id=self.server_id, delivery=refusal.delivery)
        made.http_status = refusal.http_status
        return made

    async def aclose(self) -> None:
        """Obtain no more tokens. Idempotent."""
        if self.tokens is not None:
            await self.tokens.aclose()

    def _presented(self, client: Client) -> Presented:
        """Return what the request came with; outside of requests, what its principal has shown last."""
        request = presented()
        if request is not None and request.principal.name == client.principal:
            return request
        return Presented(self._known.find(client.principal) or Principal(client.principal))

    def _subject(self, principal: Principal) -> str:
        token = principal.credential
        if token is None or looks_like_key(token):
            _refuse(
                self.server_id,
                "the client has shown no token that can be exchanged",
                "use a token of the authorization server: an API key cannot be exchanged",
            )
        return token

    async def _exchanged(self, subject: str) -> Tokens:
        # Imported late, as all that needs aiohttp.
        from mcp_manager.transports.http.connections.routed_client import RoutedClient  # noqa: PLC0415

        supervisor = self._manager._servers.get(self.server_id)
        if supervisor is None or supervisor.config.url is None:
            raise ServerNotFoundError(self.server_id)
        assert self._request is not None
        client = RoutedClient(self._manager._assembly.http, supervisor.config)
        return await self._request.send(subject, supervisor.config.instance_url(0), lambda: client)


class ServerCredentials:
    """Know what each server gets of clients.

    Parameters
    ----------
    manager
        The fleet.
    configs
        ``serve.credentials``.
    known
        The principals that were seen lately.
    """

    def __init__(
        self, manager: McpManager, configs: Mapping[str, ServerCredentialsConfig], known: KnownPrincipals
    ) -> None:
        self.callers: PersonalCallers = PersonalCallers()
        self._manager = manager
        self._known = known
        self._servers: dict[str, PersonalServer] = {}
        self._servers = self.prepared(configs)
        self._names = _names_of(self._servers)

    @property
    def is_needed(self) -> bool:
        """Whether any server gets something of clients."""
        return bool(self._servers)

    def of(self, server_id: str) -> PersonalServer | None:
        """Return the server; ``None`` if it gets nothing of clients."""
        return self._servers.get(server_id)

    def take(self, incoming: Incoming | None, principal: Principal, context: Context) -> None:
        """Take what a request came with, for all that is done for it in a context.

        Parameters
        ----------
        incoming
            The request; its header fields are read at once.
        principal
            Whom the client acts for.
        context
            The context that the request is answered in.
        """
        if self._servers:
            found = {name: None if incoming is None else incoming.header(name.encode()) for name in self._names}
            fields = {name: value.decode("latin-1") for name, value in found.items() if value is not None}
            present(context, Presented(principal, fields))

    def prepared(self, configs: Mapping[str, ServerCredentialsConfig]) -> dict[str, PersonalServer]:
        """Return the servers of another configuration, for :meth:`replace`; those that stay keep their tokens.

        Raises
        ------
        ConfigError
            A package is missing; nothing was changed.
        """
        made: dict[str, PersonalServer] = {}
        for server_id, config in configs.items():
            kept = self._servers.get(server_id)
            if kept is not None and kept.config == config:
                made[server_id] = kept
            elif config.is_personal:
                made[server_id] = PersonalServer(self._manager, server_id, config, self._known, self.callers)
        return made

    def replace(self, servers: dict[str, PersonalServer]) -> tuple[list[PersonalServer], list[str]]:
        """Let servers get what :meth:`prepared` has returned; sessions with what they got before end.

        Returns
        -------
        Those that were replaced, to be closed; and the ids of the servers that get something else from now on.
        """
        before, self._servers = self._servers, servers
        self._names = _names_of(servers)
        changed = sorted(each for each in {*before, *servers} if before.get(each) is not servers.get(each))
        for server_id in changed:
            for caller in self.callers.forget_server(server_id):
                self._manager.end_caller(caller, [server_id])
        return [before[each] for each in changed if each in before], changed

    async def aclose(self) -> None:
        """Obtain no more tokens. Idempotent."""
        for each in self._servers.values():
            await each.aclose()


def _names_of(servers: Mapping[str, PersonalServer]) -> list[str]:
    return sorted({name for each in servers.values() for name in each.fields})


def _key(principal: Principal) -> tuple[str, frozenset[str]]:
    return principal.name, principal.scopes


def _refuse(server_id: str, text: str, way_out: str) -> NoReturn:
    error = LoginRequiredError(text, server_id=server_id, hint=way_out)
    error.way_out = way_out
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error
