"""The client's registration with an authorization server: configured, by metadata document, or dynamic."""

from __future__ import annotations

import re
import time
from typing import Any, Final, NoReturn

from yarl import URL

from mcp_manager.auth.oauth.documents import reason_of, seconds, shown_text
from mcp_manager.auth.oauth.http import JsonReply, OAuthHttp, is_loopback
from mcp_manager.auth.oauth.issuers import same_issuer
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig

__all__ = ["chosen_method", "register"]

_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
_SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")
_TEXT: Final = re.compile(r"[ -~]{1,8192}")
_WHAT: Final = "the registration endpoint"


async def register(
    http: OAuthHttp,
    server: AuthorizationServer,
    config: AuthConfig,
    client_name: str,
    known: Registration | None,
    scopes: tuple[str, ...],
) -> Registration:
    """Return the client's registration, trying its kinds in the order of 2026-07-28, client registration.

    Parameters
    ----------
    client_name
        The name for a dynamic registration.
    known
        An earlier registration, reused if it is with this issuer, has not expired and covers ``scopes``.
    scopes
        The scopes that the client is about to request. The official SDK's authorization server allows a client only the
        scopes that it registered with.

    Raises
    ------
    AuthError
        The configured credentials belong to another authorization server, or this one registers no clients.
    """
    if config.client_id is not None:
        if config.issuer is not None and not same_issuer(config.issuer, server.issuer):
            raise http.error(
                "the server names another authorization server than the one the client_id is registered with: "
                f"{shown_text(server.issuer)} instead of {config.issuer}",
                hint="check auth.issuer and auth.client_id",
            )
        return _configured(server, config)
    if config.client_metadata_url is not None and server.takes_metadata_documents:
        return Registration(issuer=server.issuer, client_id=config.client_metadata_url)
    if known is not None and _is_of_use(known, server, scopes):
        return known
    if server.registration_endpoint:
        # Keep the scopes of the earlier registration.
        before = known.scopes if known is not None and same_issuer(known.issuer, server.issuer) else ()
        return await _register_dynamically(http, server, config, client_name, tuple(dict.fromkeys((*before, *scopes))))
    raise http.error(
        f"the authorization server {shown_text(server.issuer)} accepts only clients registered in advance",
        hint="register a client with it, and give auth.client_id and auth.issuer",
    )


def chosen_method(server: AuthorizationServer, config: AuthConfig) -> str:
    """Return how a configured client authenticates at the token endpoint."""
    if config.private_key is not None:
        return "private_key_jwt"
    if config.client_secret is None:
        return "none"
    return config.client_auth or _secret_method(server)


def _secret_method(server: AuthorizationServer) -> str:
    # RFC 8414, section 2: client_secret_basic is the default.
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


def _is_of_use(known: Registration, server: AuthorizationServer, scopes: tuple[str, ...]) -> bool:
    is_valid = not known.secret_expires_at or known.secret_expires_at > time.time()
    is_ours = bool(known.client_id) and same_issuer(known.issuer, server.issuer) and not known.configured
    return is_ours and is_valid and set(scopes) <= set(known.scopes)


async def _register_dynamically(
    http: OAuthHttp, server: AuthorizationServer, config: AuthConfig, client_name: str, scopes: tuple[str, ...]
) -> Registration:
    """Register dynamically (RFC 7591); the authorization server may register something else than requested."""
    offered = ("client_secret_basic",) if server.auth_methods is None else server.auth_methods
    method: str = config.client_auth or next(filter(offered.__contains__, _METHODS), "none")
    wanted: dict[str, Any] = {
        "client_name": client_name,
        "redirect_uris": [config.redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        # OpenID Connect registration: only native applications have loopback redirects.
        "application_type": "native" if is_loopback(URL(config.redirect_uri)) else "web",
    }
    if config.dpop:
        wanted["dpop_bound_access_tokens"] = True
    url = http.checked(server.registration_endpoint, _WHAT)
    reply = await http.post_json(url, {**wanted, "scope": " ".join(scopes)} if scopes else wanted, _WHAT)
    if scopes and reply.status in (400, 403, 422) and not _client_id(reply):
        # Some refuse to register scopes that they grant anyway (Keycloak's policy of allowed client scopes).
        without = await http.post_json(url, wanted, _WHAT)
        reply = without if _client_id(without) else reply
    if not _client_id(reply):
        _refuse(http, url, reply)
    secret = _usable(reply.body.get("client_secret"))
    expires_at = seconds(reply.body.get("client_secret_expires_at"))
    return Registration(
        issuer=server.issuer,
        client_id=_client_id(reply),
        secret=secret,
        auth_method=_granted_method(http, server, reply, method, has_secret=bool(secret)),
        # A new secret cannot have expired: a time in the past means something else.
        secret_expires_at=expires_at if expires_at > time.time() else 0.0,
        scopes=scopes,
    )


def _client_id(reply: JsonReply) -> str:
    """Return the client id in a reply, "" if it registers no client."""
    client_id = reply.body.get("client_id")
    if isinstance(client_id, int) and not isinstance(client_id, bool):
        client_id = str(client_id)
    return _usable(client_id) if 200 <= reply.status < 300 else ""


def _usable(value: object) -> str:
    """Return a client id or secret, "" if it cannot be sent (RFC 6749, appendix A.1, A.2)."""
    return value if isinstance(value, str) and _TEXT.fullmatch(value) else ""


def _refuse(http: OAuthHttp, url: URL, reply: JsonReply) -> NoReturn:
    code, words = reason_of(reply.body)
    said = ", ".join(filter(None, (f"HTTP {reply.status}", code, words)))
    if reply.is_transient:
        raise http.error(f"{_WHAT} at {http.shown(url)} is not available ({said})", retryable=True)
    raise http.error(
        f"{_WHAT} at {http.shown(url)} refused to register the client ({said})",
        hint="check auth.redirect_uri and auth.scopes, or register a client with it and give auth.client_id",
    )


def _granted_method(
    http: OAuthHttp, server: AuthorizationServer, reply: JsonReply, asked: str, *, has_secret: bool
) -> str:
    """Return how a newly registered client authenticates; the server decides, or does not say (RFC 7591, 3.2.1)."""
    granted = reply.body.get("token_endpoint_auth_method")
    if not granted or not isinstance(granted, str):
        # The default is client_secret_basic (section 2), but the requested method takes precedence if it uses a secret.
        granted = asked if asked in _SECRET_METHODS else _secret_method(server)
    elif granted not in _METHODS:
        if server.auth_methods is None or granted in server.auth_methods:
            raise http.error(
                f"the authorization server registered the client with the authentication {shown_text(granted)}, "
                f"which was not asked for; a registered client can use only {', '.join(_METHODS)}",
                hint="register a client by hand, and give auth.client_id",
            )
        # The reply contradicts the server's metadata, which does not list that method.
        granted = asked
    return granted if has_secret or granted not in _SECRET_METHODS else "none"
