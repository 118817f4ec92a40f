"""The request that exchanges a client's token for one of a server: in one step, or over an identity assertion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from yarl import URL

from mcp_manager.auth.oauth import grants
from mcp_manager.auth.oauth.http import HttpClient, OAuthHttp
from mcp_manager.auth.oauth.jose import require_jose
from mcp_manager.auth.oauth.token_endpoint import TokenEndpoint
from mcp_manager.auth.oauth.token_reply import TokenRefused, Tokens
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig, ServerCredentialsConfig
from mcp_manager.errors import AuthError
from mcp_manager.gateway.security.credential_errors import (
    CredentialsUnavailableError,
    LoginRequiredError,
    NotConfiguredError,
)

__all__ = ["TokenRequest"]

# RFC 8693, section 2.2.2: invalid_request is the code for a subject token that is not valid. The others are used for it
# as well.
_OF_SUBJECT: Final = frozenset(
    {
        "access_denied",
        "consent_required",
        "interaction_required",
        "invalid_grant",
        "invalid_request",
        "invalid_token",
        "login_required",
    }
)


class TokenRequest:
    """Exchange tokens for one server.

    Parameters
    ----------
    server_id
        Names the server in errors.
    config
        Its ``serve.credentials``, of type ``exchange`` or ``enterprise``.

    Raises
    ------
    ConfigError
        The gateway has to sign its requests, and the library for that is not installed.
    """

    def __init__(self, server_id: str, config: ServerCredentialsConfig) -> None:
        if config.private_key is not None:
            require_jose(f"serve.credentials.{server_id}.private_key")
        self._server_id = server_id
        self._config = config
        # What the token endpoint code of the library reads.
        self._auth = AuthConfig(
            type="oauth",
            grant="enterprise",
            token_endpoint=config.token_endpoint,
            client_id=config.client_id,
            private_key=config.private_key,
            private_key_id=config.private_key_id,
            signing_algorithm=config.signing_algorithm,
            idp_token_endpoint=config.idp_token_endpoint,
            idp_client_id=config.idp_client_id,
            idp_client_secret=config.idp_client_secret,
        )

    async def send(self, subject: str, url: str, client: Callable[[], HttpClient]) -> Tokens:
        """Return the tokens for a client's token.

        Parameters
        ----------
        subject
            The token of the client.
        url
            The URL of the server.
        client
            Returns what sends HTTP requests.

        Raises
        ------
        LoginRequiredError
            The authorization server does not accept the token of the client.
        CredentialsUnavailableError
            It cannot be reached, or is not well.
        NotConfiguredError
            It refuses the gateway.
        """
        http = OAuthHttp(client, self._server_id, URL(url), self._auth)
        try:
            return await self._send(http, subject, url)
        except AuthError as failure:
            told = self._told(failure)
        try:
            raise told from None
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del told

    async def _send(self, http: OAuthHttp, subject: str, url: str) -> Tokens:
        config = self._config
        endpoint = http.checked(config.token_endpoint, "the token endpoint", trusted=True)
        method = config.client_auth or "client_secret_basic" if config.client_secret is not None else "none"
        registration = Registration(
            issuer=str(endpoint.origin()),
            client_id=config.client_id or "",
            secret=config.client_secret or "",
            auth_method="private_key_jwt" if config.private_key is not None else method,
        )
        audience = config.audience or ""
        resource = config.resource or ("" if config.type == "exchange" and audience else url)
        if config.type == "enterprise":
            kind = config.subject_token_type or "id_token"
            assertion = await grants.exchange_id_token(
                http, self._auth, subject, audience, resource, config.scopes, kind
            )
            form = grants.jwt_bearer(assertion, "", config.scopes)
        else:
            kind = config.subject_token_type or "access_token"
            form = grants.exchange_token(subject, kind, audience, resource, config.scopes)
        # The audience of client assertions is the issuer or the endpoint (RFC 7523, section 3).
        token_endpoint = TokenEndpoint(http, endpoint, str(endpoint), registration, self._auth, None)
        return await token_endpoint.request(form)

    def _told(self, failure: AuthError) -> AuthError:
        """Return the error that says who can help; the text is for the log of the gateway."""
        kind: type[AuthError] = NotConfiguredError
        if failure.retryable:
            kind = CredentialsUnavailableError
        elif isinstance(failure, TokenRefused) and failure.code in _OF_SUBJECT:
            kind = LoginRequiredError
        hint = failure.hint.replace("auth.", f"serve.credentials.{self._server_id}.")
        return kind(failure.message, server_id=self._server_id, hint=hint, retryable=failure.retryable)
