"""``Security``: the one object that knows who the clients of a gateway are, and what they may do."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from mcp_manager.config.access import AllowConfig, ClientAuthConfig
from mcp_manager.config.serve import ServeConfig
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.http.descriptors import for_clients
from mcp_manager.gateway.security.accounting import Accounting
from mcp_manager.gateway.security.audit import AuditLog
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.known_principals import KnownPrincipals
from mcp_manager.gateway.security.known_secrets import KnownSecrets
from mcp_manager.gateway.security.leases import Leases
from mcp_manager.gateway.security.limits import Limits
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.gateway.security.rules import Grant, Rules
from mcp_manager.gateway.security.server_credentials import PersonalServer, ServerCredentials
from mcp_manager.manager import McpManager

__all__ = ["Replacement", "Security"]

_MOST_ENTITLED: Final = 20_000
# One principal has at most this part of the connections, as requests under way and again as streams.
_SHARE_OF_ONE: Final = 4


class Replacement(msgspec.Struct, frozen=True, eq=False):
    """What takes the place of parts of a :class:`Security`; ``None`` for a part that stays.

    Parameters
    ----------
    serve
        The configuration.
    authentication, audit, servers
        The authentication; the audit log, which was started; and what servers get of clients. ``audit`` is ``None``
        without an audit log as well.
    """

    serve: ServeConfig
    authentication: Authentication | None = None
    audit: AuditLog | None = None
    servers: dict[str, PersonalServer] | None = None


class Security:
    """Find out who sends a request, and what that party may do.

    Parameters
    ----------
    serve
        The configuration of the gateway.
    workers
        How many processes serve its address.
    is_local
        Whether it serves standard input alone, where nobody authenticates.

    Attributes
    ----------
    authentication
        Finds out who clients are.
    rules
        Decide what principals may use.
    known
        The principals that were seen lately.
    epoch
        Another object whenever other authentication, or other rules, are in force.
    credentials
        What servers get of clients; ``None`` before it is known which fleet is served.
    leases
        The streams that end with the credentials of their principal.
    accounting
        Counts what principals use, and writes the audit log.

    Raises
    ------
    ConfigError
        Something that the configuration names cannot be used, such as the file of API keys.
    """

    def __init__(self, serve: ServeConfig, workers: int = 1, *, is_local: bool = False) -> None:
        self._is_local = is_local
        self.authentication: Authentication = self._authenticating(serve)
        self.rules: Rules = Rules(serve.allow)
        self.known: KnownPrincipals = KnownPrincipals()
        self.epoch: object = object()
        self.accounting: Accounting = Accounting(
            Limits(serve.limits, workers=workers, most=_most_of_one(self.authentication)), _audit_log(serve)
        )
        self.credentials: ServerCredentials | None = None
        self._secrets: KnownSecrets | None = None
        self._credentials = serve.credentials
        self.leases: Leases = Leases(self._is_current)
        self._serve = serve
        self._operators = serve.auth.operators
        self._has_started = False
        # By what the authentication returned; both have at most half of what may be kept.
        self._newer: dict[Principal, Principal] = {}
        self._older: dict[Principal, Principal] = {}

    def serve_fleet(self, manager: McpManager) -> ServerCredentials:
        """Return what the servers of a fleet get of clients."""
        self.credentials = ServerCredentials(manager, self._credentials, self.known)
        self._secrets = KnownSecrets(manager, self._serve)
        self.accounting.secrets = self._secrets.texts
        return self.credentials

    @property
    def is_required(self) -> bool:
        """Whether clients must authenticate."""
        return not self.authentication.is_open

    async def start(self) -> None:
        """Prepare for requests; no authorization server is waited for.

        Raises
        ------
        ConfigError
            The audit log cannot be written.
        """
        self.accounting.start()
        self._has_started = True
        await self.authentication.start()

    async def aclose(self) -> None:
        """Release what is held. Idempotent."""
        if self.credentials is not None:
            await self.credentials.aclose()
        self.leases.stop()
        await self.authentication.aclose()
        await self.accounting.aclose()

    def of(self, incoming: Incoming) -> Principal | Denial | Awaitable[Principal | Denial]:
        """Return who sends a request, with its grant, or the refusal of the request.

        Returns
        -------
        An awaitable of either if keys or an answer about a token must be fetched first.
        """
        found = self.authentication.of(incoming)
        if isinstance(found, Principal):
            return self.entitled(found)
        return found if isinstance(found, Denial) else self._fetched(found)

    async def identify(self, incoming: Incoming) -> Principal | Denial:
        """Return what :meth:`of` does, where waiting is possible."""
        found = self.of(incoming)
        return found if isinstance(found, Principal | Denial) else await found

    def everybody(self) -> Principal:
        """Return the principal of clients that need not authenticate, as over stdio, with its grant."""
        return self.entitled(EVERYBODY)

    def entitled(self, principal: Principal) -> Principal:
        """Return a principal with its grant, and take note of it."""
        known = self._newer.get(principal)
        if known is None:
            known = self._older.get(principal)
            if known is None:
                grant = self.rules.grant_of(principal)
                known = principal if grant is None else msgspec.structs.replace(principal, grant=grant)
            if len(self._newer) >= _MOST_ENTITLED // 2:
                self._older, self._newer = self._newer, {}
            self._newer[principal] = known
        self.known.note(known)
        return known

    def is_operator(self, principal: Principal) -> bool:
        """Tell whether a principal may see metrics, and why the gateway is not ready: both name all servers."""
        if not self.is_required:
            return True
        if self._operators:
            return self.is_named_operator(principal)
        return principal.grant is None

    def is_named_operator(self, principal: Principal) -> bool:
        """Tell whether clients authenticate, and ``operators`` names a principal: it may run any program then."""
        return self.is_required and any(fnmatchcase(principal.name, pattern) for pattern in self._operators)

    def prepare(self, serve: ServeConfig) -> Replacement:
        """Return what another configuration needs, for :meth:`replace`, which has to follow.

        Raises
        ------
        ConfigError
            Something that the configuration names cannot be used; nothing was changed.
        """
        before = self._serve
        authentication = None if serve.auth == before.auth else self._authenticating(serve)
        servers = None
        if self.credentials is not None and serve.credentials != before.credentials:
            servers = self.credentials.prepared(serve.credentials)
        audit = None if serve.audit == before.audit else _audit_log(serve)
        if audit is not None and self._has_started:
            # Last: it has a thread.
            audit.start()
        return Replacement(serve, authentication, audit, servers)

    def replace(self, made: Replacement) -> tuple[Awaitable[None], list[str]]:
        """Let another configuration be in force from now on.

        If the authentication has changed, all streams end. The same one looks at its keys again, and the same audit log
        opens its file anew.

        Parameters
        ----------
        made
            What :meth:`prepare` has returned.

        Returns
        -------
        What has to be awaited, which ends what was replaced; and the ids of the servers that get something else of
        clients than before.
        """
        serve, before = made.serve, self._serve
        self._serve = serve
        if self._secrets is not None:
            self._secrets.replace(serve)
        accounting, audit = self.accounting, None
        accounting.limits.apply(serve.limits, _most_of_one(made.authentication or self.authentication))
        accounting.limits_changed()
        if serve.audit != before.audit:
            audit = accounting.write_into(made.audit)
        elif accounting.audit is not None:
            accounting.audit.reopen()
        self.epoch = object()
        authentication = None
        if made.authentication is None:
            self.authentication.reread_keys()
            self.leases.look_at_all()
        else:
            authentication, self.authentication = self.authentication, made.authentication
            self._operators = serve.auth.operators
            self._newer, self._older = {}, {}
            self.known.clear()
            for lease in self.leases:
                lease.end()
        servers: list[PersonalServer] = []
        changed: list[str] = []
        if made.servers is not None and self.credentials is not None:
            servers, changed = self.credentials.replace(made.servers)
        if serve.allow != before.allow:
            self.replace_rules(serve.allow)
        return self._end(authentication, audit, servers), changed

    async def _end(
        self, authentication: Authentication | None, audit: AuditLog | None, servers: list[PersonalServer]
    ) -> None:
        """End what was replaced, and begin what has taken its place."""
        try:
            if authentication is not None:
                if self._has_started:
                    await self.authentication.start()
                await authentication.aclose()
            for each in servers:
                await each.aclose()
        finally:
            await self.accounting.end(audit)

    def replace_rules(self, allow: Sequence[AllowConfig]) -> None:
        """Let these rules decide from now on what each principal may do."""
        self.rules.replace(allow)
        self._newer, self._older = {}, {}
        self.epoch = object()
        for principal in self.known.everybody():
            self.known.note(msgspec.structs.replace(principal, grant=self.rules.grant_of(principal)))

    def grant_of(self, name: str) -> Grant | None:
        """Return what a principal may use, by its name: nothing if it was not seen lately; ``None``: everything."""
        principal = self.known.find(name)
        return self.rules.grant_of_strangers() if principal is None else self.rules.grant_of(principal)

    def _is_current(self, principal: Principal) -> bool:
        """Tell whether the credentials of a stream are valid, and allow what they did."""
        latest = self.authentication.latest(principal)
        if latest is None or latest is principal:
            return latest is not None
        if latest.name != principal.name:
            return False
        # The rules look at claims and scopes alone.
        is_same = latest.claims == principal.claims and latest.scopes == principal.scopes
        return is_same or self.rules.grant_of(latest) is self.rules.grant_of(principal)

    async def _fetched(self, fetching: Awaitable[Principal | Denial]) -> Principal | Denial:
        found = await fetching
        return self.entitled(found) if isinstance(found, Principal) else found

    def _authenticating(self, serve: ServeConfig) -> Authentication:
        auth = ClientAuthConfig() if self._is_local else serve.auth
        return Authentication(auth, is_tls=serve.cert_file is not None)


def _audit_log(serve: ServeConfig) -> AuditLog | None:
    return None if serve.audit.path is None else AuditLog(serve.audit)


def _most_of_one(authentication: Authentication) -> tuple[int, int]:
    """Return the most requests under way, and the most streams, of one principal: 0 if all clients are one."""
    most = 0 if authentication.is_open else for_clients() // _SHARE_OF_ONE
    return most, most
