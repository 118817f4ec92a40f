"""The authorization of one resource: its current token, and the one flow at a time that obtains the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from yarl import URL

from mcp_manager.auth.challenge import Challenge
from mcp_manager.auth.oauth import grants
from mcp_manager.auth.oauth.authorization_code import CodeRequest, ask, require_pkce
from mcp_manager.auth.oauth.discovery import find_authorization_server, find_issuer
from mcp_manager.auth.oauth.documents import kind_of
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.issuers import same_issuer
from mcp_manager.auth.oauth.jose import DpopKey
from mcp_manager.auth.oauth.kept_grants import KeptGrant
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.auth.oauth.registration import register
from mcp_manager.auth.oauth.resource_metadata import ProtectedResource
from mcp_manager.auth.oauth.scopes import MAX_SCOPES, scopes_to_request
from mcp_manager.auth.oauth.token_endpoint import TokenEndpoint
from mcp_manager.auth.oauth.token_reply import TokenRefused, Tokens
from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.token_store import Grant, Registration, TokenStore
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError, CallError, McpManagerError
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["OAuthAuthorization"]

# A token is renewed this long before it expires, or after four fifths of its lifetime if that is later.
_RENEW_BEFORE_S: Final = 60.0
_RENEW_SHARE: Final = 0.2
# Even for short-lived tokens, so that the authorization server is not flooded.
_SHORTEST_RENEWAL_S: Final = 0.25
_FIRST_HOLD_OFF_S: Final = 5.0
_LONGEST_HOLD_OFF_S: Final = 600.0
# How long not to ask again whether more scopes would help.
_NO_STEP_UP_S: Final = 60.0
# RFC 6749, section 3.3.
_NOBODY: Final = Registration(issuer="", client_id="")


class OAuthAuthorization:
    """Obtain and renew the token for one MCP server; see :class:`~mcp_manager.auth.base.Authorization`.

    Parameters
    ----------
    server_id, url
        The server, and the URL of its endpoint, which is the resource.
    config
        Its ``auth``, of type ``oauth``.
    client_name
        The name with which the client registers.
    http
        Sends the requests to authorization servers.
    store
        Stores grants across runs.
    redirect
        Sends the user to the authorization server; ``None`` if there is no user.
    """

    pending_hint = "it goes on: call again once the user has agreed"

    def __init__(
        self,
        server_id: str,
        url: str,
        config: AuthConfig,
        client_name: str,
        http: OAuthHttp,
        store: TokenStore,
        redirect: RedirectHandler | None,
    ) -> None:
        self._url = URL(url)
        self._config = config
        self._client_name = client_name
        self._http = http
        self._kept = KeptGrant(store, server_id, url, config)
        self._redirect = redirect
        self._grant: Grant | None = None
        self._server: AuthorizationServer | None = None
        self._dpop: DpopKey | None = None
        self._nonce = ""
        self._is_loaded = False
        self._flow: asyncio.Task[bool] | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._listeners: list[Callable[[], None]] = []
        self._failure: AuthError | None = None
        self._failed_flows = 0
        self._refused_tokens = 0
        self._not_before = 0.0
        self._no_step_up_before = 0.0
        self._closed = False
        self.generation: int = 0

    @property
    def per_request(self) -> bool:
        """Whether tokens are bound to a key (DPoP), so that every request needs its own proof."""
        return self._config.dpop

    @property
    def is_pending(self) -> bool:
        """Whether a flow is in progress."""
        return self._flow is not None

    def headers(self) -> dict[str, str]:
        """Return the header that all requests share; none without a token, and with ``per_request``."""
        if self._grant is None or self.per_request:
            return {}
        return {"Authorization": f"Bearer {self._grant.access_token}"}

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields of one request (RFC 9449, section 7.1)."""
        if self._grant is None:
            return {}
        if self._dpop is None:
            return self.headers()
        token = self._grant.access_token
        proof = self._dpop.proof(verb, url, token=token, nonce=self._nonce)
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    def take_nonce(self, nonce: str) -> None:
        """Use a nonce from the server from now on; "" changes nothing."""
        if nonce:
            self._nonce = nonce

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` with every new token, until the returned function is called."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed) if changed in self._listeners else None

    async def make_ready(self) -> None:
        """Load a stored token, and renew an expired one; after an :class:`AuthError`, does nothing for a while."""
        if self._is_loaded and not self._is_expired():
            return
        if self._failure is not None and asyncio.get_running_loop().time() < self._not_before:
            return
        await self._joined(None)

    async def challenged(self, challenge: Challenge, generation: int) -> bool:
        """Obtain what a refused request lacked; see :meth:`Authorization.challenged`."""
        if generation != self.generation:
            return True
        if challenge.error == "use_dpop_nonce":
            return bool(self._nonce)
        if challenge.status == 403 and not self._lacks(challenge):
            return False
        if self._failure is not None:
            wait_s = self._not_before - asyncio.get_running_loop().time()
            if wait_s > 0:
                failure = self._failure.for_caller("rejected")
                failure.retry_after_s = wait_s
                try:
                    raise failure
                finally:
                    # Break the reference cycle: the traceback refers to this frame.
                    del failure
        if await self._joined(challenge):
            return True
        if challenge.status == 403 and not self._lacks(challenge):
            return False
        # The flow in progress was only a renewal, which asks no user: start one that does.
        return await self._joined(challenge)

    def refused_again(self) -> None:
        """Record that the server refused a new token, so that the next one is not requested at once."""
        if self._flow is None:
            # Each flow succeeded, so failed flows do not count these refusals.
            now_s = asyncio.get_running_loop().time()
            if now_s > self._not_before + _LONGEST_HOLD_OFF_S:
                self._refused_tokens = 0
            self._failed_flows = self._refused_tokens
            self._refused_tokens += 1
            self._hold_off(self._http.error("the server refuses a token that was just issued for it"))

    async def aclose(self) -> None:
        """Cancel the flow in progress; idempotent."""
        self._closed = True
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._flow is not None:
            self._flow.cancel()
            await asyncio.gather(self._flow, return_exceptions=True)

    def _lacks(self, challenge: Challenge) -> bool:
        """Tell whether a 403 requires scopes that were not requested yet; otherwise a new token would not help.

        Servers of the official SDK do not say which scopes they require. Then the resource's metadata may; it is read
        at most once a minute.
        """
        if challenge.error != "insufficient_scope" or self._grant is None:
            return False
        if not challenge.scopes:
            return asyncio.get_running_loop().time() >= self._no_step_up_before
        return not set(challenge.scopes) <= set(self._grant.scopes)

    def _is_expired(self) -> bool:
        grant = self._grant
        return grant is not None and 0 < grant.expires_at <= time.time() and self._can_renew(grant)

    def _can_renew(self, grant: Grant) -> bool:
        return bool(grant.refresh_token) or self._config.grant != "authorization_code"

    # One flow at a time

    async def _joined(self, challenge: Challenge | None) -> bool:
        """Wait for the flow in progress, or start one; a caller that stops waiting leaves it running."""
        if self._closed:
            raise self._http.error("the server is being stopped")
        if self._flow is None:
            self._flow = background_task(self._run(challenge), "obtain a token")
            self._flow.add_done_callback(self._flow_done)
        flow = self._flow
        await asyncio.wait({flow})
        if flow.cancelled():
            raise self._http.error("the server is being stopped")
        error = flow.exception()
        if error is None:
            return flow.result()
        raise error.for_caller("rejected") if isinstance(error, CallError) else error

    def _flow_done(self, task: asyncio.Task[bool]) -> None:
        if self._flow is task:
            self._flow = None
        if not task.cancelled():
            # All callers may have stopped waiting: retrieve the exception, so that asyncio logs none.
            task.exception()

    async def _run(self, challenge: Challenge | None) -> bool:
        try:
            if not self._is_loaded:
                await self._load()
                if challenge is None and not self._is_expired():
                    return self._grant is not None
            if challenge is None:
                if not await self._renew():
                    return False
            else:
                if not await self._authorize(challenge):
                    return False
        except McpManagerError as error:
            failure = error if isinstance(error, AuthError) else self._http.error(error.message, hint=error.hint)
            self._hold_off(failure)
            self._renew_later()
            try:
                raise failure from None
            finally:
                # Break the reference cycle: the traceback refers to this frame.
                del failure
        except Exception as error:
            # Its text may quote anything that was received, so it is not passed on.
            failure = self._http.error(f"an unexpected failure ({kind_of(error)})")
            self._hold_off(failure)
            try:
                raise failure from None
            finally:
                # Break the reference cycle: the traceback refers to this frame.
                del failure
        self._failure = None
        self._failed_flows = 0
        return True

    def _hold_off(self, failure: AuthError) -> None:
        """Delay the next flow: health probes continue, and must not each ask the user again."""
        hold_off_s = min(_LONGEST_HOLD_OFF_S, _FIRST_HOLD_OFF_S * 2.0**self._failed_flows)
        self._failed_flows = min(self._failed_flows + 1, 16)
        # A copy without a traceback, whose frames hold what was received.
        self._failure = failure.for_caller(failure.delivery)
        self._not_before = asyncio.get_running_loop().time() + hold_off_s

    async def _renew(self) -> bool:
        """Renew the token if that needs no user consent; after a refusal, the next challenge starts over."""
        grant, server = self._grant, self._server
        if grant is None:
            return False
        if server is None or not same_issuer(server.issuer, grant.issuer):
            server = self._server = await find_issuer(self._http, self._url, self._config, grant.issuer)
            if server is None:
                return False
        if not grant.refresh_token:
            resource = ProtectedResource(grant.resource, (grant.issuer,), None)
            await self._take(await self._granted(server, grant.registration, resource, grant.scopes), grant)
            return True
        return await self._refresh(server, grant)

    async def _refresh(self, server: AuthorizationServer, grant: Grant) -> bool:
        if await self._took_anothers(grant):
            return True
        endpoint = self._endpoint(server, grant.registration)
        try:
            tokens = await endpoint.request(grants.refresh(grant.refresh_token, self._indicated(grant.resource)))
        except AuthError as refusal:
            if refusal.retryable:
                raise
            if await self._took_anothers(grant):
                return True
            # It would refuse again, so only a user can help. A client that is no longer known has to register again,
            # too (RFC 6749, section 5.2).
            is_unknown = isinstance(refusal, TokenRefused) and refusal.code == "invalid_client"
            await self._forget(grant, _NOBODY if is_unknown else grant.registration)
            return False
        # OAuth 2.1, section 4.3.1: a refresh token that is not replaced remains valid.
        kept = msgspec.structs.replace(tokens, refresh=tokens.refresh or grant.refresh_token)
        await self._take(kept, grant)
        return True

    async def _authorize(self, challenge: Challenge) -> bool:
        """Find the authorization server, register, and obtain a token; ``False`` if a new one would not help."""
        held = self._grant.issuer if self._grant is not None else None
        resource, server = await find_authorization_server(
            self._http, self._url, self._config, challenge.resource_metadata, held
        )
        self._server = server
        # Registrations and tokens of another issuer must not be used with this one.
        before = self._grant if held is not None and same_issuer(held, server.issuer) else None
        is_step_up = challenge.error == "insufficient_scope"
        if before is not None and before.refresh_token and not is_step_up:
            if await self._refresh(server, before):
                return True
            before = self._grant
        scopes = scopes_to_request(self._config, challenge, resource, server, before)
        if len(scopes) > MAX_SCOPES:
            raise self._http.error(f"the server requires more than {MAX_SCOPES} scopes")
        if is_step_up and before is not None and set(scopes) <= set(before.scopes):
            self._no_step_up_before = asyncio.get_running_loop().time() + _NO_STEP_UP_S
            return False
        known = before.registration if before is not None else None
        client = await register(self._http, server, self._config, self._client_name, known, scopes)
        base = Grant(
            resource=resource.resource, issuer=server.issuer, registration=client, access_token="", scopes=scopes
        )
        if self._config.dpop and self._dpop is None:
            self._dpop = DpopKey()
        try:
            tokens = await self._granted(server, client, resource, scopes)
        except Exception:
            if before is not None and client is known and not before.refresh_token:
                # The authorization server may have forgotten the client, and tells only the user so.
                await self._forget(before, _NOBODY)
            raise
        await self._take(tokens, base)
        return True

    async def _granted(
        self,
        server: AuthorizationServer,
        client: Registration,
        resource: ProtectedResource,
        scopes: tuple[str, ...],
    ) -> Tokens:
        """Obtain tokens by the configured grant."""
        endpoint = self._endpoint(server, client)
        config, indicated = self._config, self._indicated(resource.resource)
        if config.grant == "authorization_code":
            return await endpoint.request(await self._code_form(server, client, indicated, scopes))
        if config.grant == "client_credentials":
            form = grants.client_credentials(indicated, scopes)
        else:
            assertion = await grants.assertion_of(self._http, config)
            if config.grant == "enterprise":
                assertion = await grants.exchange_id_token(
                    self._http, config, assertion, server.issuer, resource.resource, scopes
                )
            form = grants.jwt_bearer(assertion, indicated, scopes)
        return await endpoint.request({**config.parameters, **form})

    def _indicated(self, resource: str) -> str:
        """Return the value of the ``resource`` parameter, "" to omit it."""
        return resource if self._config.send_resource else ""

    async def _code_form(
        self,
        server: AuthorizationServer,
        client: Registration,
        resource: str,
        scopes: tuple[str, ...],
    ) -> dict[str, str]:
        if not server.authorization_endpoint:
            raise self._http.error(
                f"the authorization server {server.issuer} has no authorization endpoint",
                hint="set auth.authorization_endpoint, or use another auth.grant",
            )
        self._checked(server.authorization_endpoint, "the authorization endpoint")
        require_pkce(self._http, server, self._config)
        if self._redirect is None:
            raise self._http.error(
                "a user has to grant access, and there is no redirect handler",
                hint="run mcp-manager login, give McpManager a redirect_handler, or use another auth.grant",
            )
        request = CodeRequest(
            server=server,
            client_id=client.client_id,
            redirect_uri=self._config.redirect_uri,
            resource=resource,
            scopes=scopes,
            parameters=self._config.parameters,
        )
        response = await ask(self._http, self._redirect, request, self._config.authorization_timeout_s)
        return request.form(request.code(self._http, response))

    def _endpoint(self, server: AuthorizationServer, client: Registration) -> TokenEndpoint:
        url = self._checked(server.token_endpoint, "the token endpoint")
        return TokenEndpoint(self._http, url, server.issuer, client, self._config, self._dpop)

    def _checked(self, url: str, what: str) -> URL:
        return self._http.checked(url, what, trusted=self._config.token_endpoint is not None)

    # The current grant

    async def _take(self, tokens: Tokens, base: Grant) -> None:
        grant = msgspec.structs.replace(
            base,
            access_token=tokens.access,
            refresh_token=tokens.refresh,
            expires_at=tokens.expires_at,
            dpop_key=self._dpop.private() if self._dpop is not None else None,
        )
        self._set(grant)
        await self._kept.save(grant)

    async def _forget(self, grant: Grant, registration: Registration) -> None:
        """Drop the refresh token of a grant, and keep only this registration, in the store too."""
        self._grant = msgspec.structs.replace(grant, refresh_token="", registration=registration)
        await self._kept.save(self._grant)

    async def _load(self) -> None:
        try:
            grant = await self._kept.load()
        except Exception as error:
            raise self._http.error(
                f"the token store failed ({kind_of(error)})", hint="check the token_store of the manager"
            ) from None
        self._is_loaded = True
        if grant is not None:
            self._use(grant)

    async def _took_anothers(self, used: Grant) -> bool:
        """Use the grant that another process has stored since, if there is one."""
        grant = await self._kept.newer_than(used)
        if grant is None:
            return False
        self._use(grant)
        return True

    def _use(self, grant: Grant) -> None:
        self._dpop = DpopKey(grant.dpop_key) if grant.dpop_key is not None else None
        self._set(grant)

    def _set(self, grant: Grant) -> None:
        self._grant = grant
        self.generation += 1
        for changed in tuple(self._listeners):
            changed()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        remaining_s = grant.expires_at - time.time()
        if remaining_s > 0 and self._can_renew(grant) and not self._closed:
            delay_s = remaining_s - min(_RENEW_BEFORE_S, remaining_s * _RENEW_SHARE)
            self._renewal = asyncio.get_running_loop().call_later(
                max(delay_s, _SHORTEST_RENEWAL_S), self._renew_soon, context=bare_context()
            )

    def _renew_later(self) -> None:
        """Schedule another renewal after a failure, if the token is valid until then."""
        grant = self._grant
        if grant is None or self._renewal is not None or self._closed or not self._can_renew(grant):
            return
        delay_s = self._not_before - asyncio.get_running_loop().time()
        if grant.expires_at - time.time() > delay_s:
            self._renewal = asyncio.get_running_loop().call_later(delay_s, self._renew_soon, context=bare_context())

    def _renew_soon(self) -> None:
        self._renewal = None
        if self._flow is None and not self._closed:
            self._flow = background_task(self._run(None), "renew a token")
            self._flow.add_done_callback(self._flow_done)
