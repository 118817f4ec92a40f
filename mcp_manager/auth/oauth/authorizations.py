"""The authorizations of one server: one per endpoint, because a token is bound to its resource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from yarl import URL

from mcp_manager.auth.oauth.flow import OAuthAuthorization
from mcp_manager.auth.oauth.http import HttpClient, OAuthHttp
from mcp_manager.auth.oauth.jose import require_jose
from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.token_store import TokenStore
from mcp_manager.config import AuthConfig

__all__ = ["OAuthAuthorizations"]


class OAuthAuthorizations:
    """Own the authorizations of one server, which its instances share.

    Parameters are those of :class:`~mcp_manager.auth.oauth.flow.OAuthAuthorization`; ``client`` returns what sends the
    HTTP requests.

    Raises
    ------
    ConfigError
        The configuration needs to sign tokens, and the library for it is not installed.
    """

    pending_hint: str = OAuthAuthorization.pending_hint

    def __init__(
        self,
        server_id: str,
        config: AuthConfig,
        client_name: str,
        client: Callable[[], HttpClient],
        store: TokenStore,
        redirect: RedirectHandler | None,
    ) -> None:
        if config.dpop or config.private_key is not None:
            require_jose("auth.dpop" if config.dpop else "auth.private_key")
        self._server_id = server_id
        self._config = config
        self._client_name = client_name
        self._client = client
        self._store = store
        self._redirect = redirect
        self._by_url: dict[str, OAuthAuthorization] = {}

    @property
    def is_pending(self) -> bool:
        """Whether an authorization is in progress."""
        return any(each.is_pending for each in self._by_url.values())

    def of(self, url: str) -> OAuthAuthorization:
        """Return the authorization for an endpoint."""
        known = self._by_url.get(url)
        if known is None:
            http = OAuthHttp(self._client, self._server_id, URL(url), self._config)
            known = self._by_url[url] = OAuthAuthorization(
                self._server_id, url, self._config, self._client_name, http, self._store, self._redirect
            )
        return known

    async def aclose(self) -> None:
        """Cancel every authorization in progress; idempotent."""
        await asyncio.gather(*(each.aclose() for each in self._by_url.values()))
