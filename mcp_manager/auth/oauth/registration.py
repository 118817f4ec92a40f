"""Who the client is to an authorization server: told in advance, by a document it can fetch, or on the spot."""

from __future__ import annotations

import time
from typing import Any, Final

from yarl import URL

from mcp_manager.auth.oauth.http import OAuthHttp, is_loopback
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig

__all__ = ["chosen_method", "register"]

_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
_SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")


async def register(
    http: OAuthHttp, server: AuthorizationServer, config: AuthConfig, client_name: str, known: Registration | None
) -> Registration:
    """Return the client's registration, in the order of 2026-07-28, client registration.

    Parameters
    ----------
    known
        One from before: it is used again if it is with this issuer and has not expired.

    Raises
    ------
    AuthError
        The configured credentials are another server's, or this one takes no client that it does not know.
    """
    if config.client_id is not None:
        if config.issuer is not None and config.issuer != server.issuer:
            raise http.error(
                "the server names another authorization server than the one the client_id is registered with",
                hint="check auth.issuer and auth.client_id",
            )
        return _configured(server, config)
    if config.client_metadata_url is not None and server.takes_metadata_documents:
        return Registration(issuer=server.issuer, client_id=config.client_metadata_url)
    is_valid = known is not None and (not known.secret_expires_at or known.secret_expires_at > time.time())
    if known is not None and is_valid and known.issuer == server.issuer and not known.configured:
        return known
    if server.registration_endpoint:
        return await _register_dynamically(http, server, config, client_name)
    raise http.error(
        "the authorization server takes no client that it does not know",
        hint="register a client with it, and give auth.client_id and auth.issuer",
    )


def chosen_method(server: AuthorizationServer, config: AuthConfig) -> str:
    """Return how a configured client authenticates at the token endpoint."""
    if config.private_key is not None:
        return "private_key_jwt"
    if config.client_secret is None:
        return "none"
    if config.client_auth is not None:
        return config.client_auth
    # RFC 8414, section 2: basic where the metadata is silent.
    offered = _SECRET_METHODS if server.auth_methods is None else server.auth_methods
    return next((each for each in _SECRET_METHODS if each in offered), "client_secret_basic")


def _configured(server: AuthorizationServer, config: AuthConfig) -> Registration:
    return Registration(
        issuer=server.issuer,
        client_id=config.client_id or "",
        secret=config.client_secret or "",
        auth_method=chosen_method(server, config),
        configured="yes",
    )


async def _register_dynamically(
    http: OAuthHttp, server: AuthorizationServer, config: AuthConfig, client_name: str
) -> Registration:
    """Register by RFC 7591; the authorization server may change what is asked for."""
    offered = ("client_secret_basic",) if server.auth_methods is None else server.auth_methods
    method = next((each for each in _METHODS if each in offered), "none")
    # OpenID Connect registration: loopback redirects are those of native applications.
    kind = "native" if is_loopback(URL(config.redirect_uri)) else "web"
    wanted: dict[str, Any] = {
        "client_name": client_name,
        "redirect_uris": [config.redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "application_type": kind,
    }
    if config.scopes:
        wanted["scope"] = " ".join(config.scopes)
    if config.dpop:
        wanted["dpop_bound_access_tokens"] = True
    what = "the registration endpoint"
    reply = await http.post_json(http.checked(server.registration_endpoint, what), wanted, what)
    client_id = reply.body.get("client_id")
    if reply.status not in (200, 201) or not isinstance(client_id, str) or not client_id:
        code = reply.body.get("error")
        said = f": {code}" if isinstance(code, str) and code.isidentifier() else ""
        raise http.error(
            f"the authorization server refused to register the client (HTTP {reply.status}{said})",
            hint="check auth.redirect_uri, or register a client with it and give auth.client_id",
        )
    secret = reply.body.get("client_secret")
    granted = reply.body.get("token_endpoint_auth_method", method)
    if granted not in _METHODS:
        raise http.error("the authorization server registered the client with an authentication it did not ask for")
    expires = reply.body.get("client_secret_expires_at")
    return Registration(
        issuer=server.issuer,
        client_id=client_id,
        secret=secret if isinstance(secret, str) else "",
        auth_method=granted,
        secret_expires_at=float(expires) if isinstance(expires, int | float) else 0.0,
    )
