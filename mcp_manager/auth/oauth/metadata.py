"""What an authorization server offers (RFC 8414, OpenID Connect Discovery), from wherever it says so."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from yarl import URL

from mcp_manager.auth.oauth.documents import flag, shown_text, texts
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.issuers import is_template_of, same_issuer
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError

__all__ = [
    "AuthorizationServer",
    "configured_server",
    "discover_authorization_server",
    "guessed_server",
    "metadata_urls",
]

_OAUTH: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"
_WHAT: Final = "the authorization server's metadata"
# What tells metadata from an answer that is sent for every path.
_MEMBERS: Final = ("issuer", "token_endpoint", "authorization_endpoint")


class AuthorizationServer(msgspec.Struct, frozen=True, kw_only=True):
    """An authorization server's metadata (RFC 8414, section 2), checked; "" for an endpoint it does not have.

    ``has_metadata`` is false where there was none: then the endpoints are those of 2025-03-26, or configured.
    """

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    scopes: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] | None = None
    challenge_methods: tuple[str, ...] | None = None
    sends_iss: bool = False
    takes_metadata_documents: bool = False
    has_metadata: bool = True


def metadata_urls(issuer: URL) -> list[URL]:
    """Return where an authorization server's metadata may be, in the order that MCP prescribes."""
    origin = issuer.origin()
    path = issuer.raw_path.rstrip("/")
    if not path:
        return [origin.with_path(_OAUTH), origin.with_path(_OPENID)]
    return [origin.with_path(each, encoded=True) for each in (_OAUTH + path, _OPENID + path, path + _OPENID)]


async def discover_authorization_server(http: OAuthHttp, issuer: str) -> AuthorizationServer | None:
    """Return the metadata of an authorization server, ``None`` if it publishes none.

    Raises
    ------
    AuthError
        The metadata is of another issuer (RFC 8414, section 3.3), unusable, or cannot be had for now.
    """
    problem: AuthError | None = None
    for url in metadata_urls(http.checked(issuer, "the authorization server's issuer")):
        reply = await http.get(url, _WHAT)
        if reply.status == 200 and any(reply.body.get(name) for name in _MEMBERS):
            return _read(http, issuer, url, reply.body)
        if reply.is_transient:
            where = f"{_WHAT} at {http.shown(url)}"
            problem = problem or http.error(f"{where} is not available (HTTP {reply.status})", retryable=True)
    if problem is not None:
        try:
            raise problem
        finally:
            # Its traceback holds this frame.
            del problem
    return None


def _read(http: OAuthHttp, issuer: str, url: URL, body: dict[str, Any]) -> AuthorizationServer:
    where = f"{_WHAT} at {http.shown(url)}"
    named = body.get("issuer")
    if isinstance(named, str) and is_template_of(named, issuer):
        named = issuer
    if not isinstance(named, str) or not same_issuer(named, issuer):
        says = shown_text(named) if isinstance(named, str) else "nobody"
        raise http.error(
            f"{where} names another issuer than the one that was asked: {says} instead of {shown_text(issuer)}",
            hint="the server's protected resource metadata and its authorization server have to name the same issuer",
        )
    if not body.get("token_endpoint"):
        raise http.error(f"{where} names no token endpoint", hint="auth.token_endpoint can say where it is")
    # The others are checked by whoever needs them: what is never used may be nonsense.
    token_endpoint = str(http.checked(body["token_endpoint"], f"token_endpoint of {where}"))
    return AuthorizationServer(
        # Its own spelling: that is what iss is compared with (RFC 9207, section 2.4).
        issuer=named,
        token_endpoint=token_endpoint,
        authorization_endpoint=_text(body.get("authorization_endpoint")),
        registration_endpoint=_text(body.get("registration_endpoint")),
        scopes=texts(body.get("scopes_supported")) or (),
        auth_methods=texts(body.get("token_endpoint_auth_methods_supported")),
        challenge_methods=texts(body.get("code_challenge_methods_supported")),
        sends_iss=flag(body.get("authorization_response_iss_parameter_supported")),
        takes_metadata_documents=flag(body.get("client_id_metadata_document_supported")),
    )


def guessed_server(server: URL) -> AuthorizationServer:
    """Return the endpoints that a server of 2025-03-26 has where nothing says otherwise (its authorization, 2.3.3)."""
    origin = server.origin()
    return AuthorizationServer(
        issuer=str(origin),
        token_endpoint=str(origin.with_path("/token")),
        authorization_endpoint=str(origin.with_path("/authorize")),
        registration_endpoint=str(origin.with_path("/register")),
        auth_methods=("none",),
        has_metadata=False,
    )


def configured_server(config: AuthConfig, issuer: str | None) -> AuthorizationServer | None:
    """Return the authorization server whose endpoints are configured, ``None`` if its metadata has to say them.

    Parameters
    ----------
    issuer
        The one that the resource names, if any.
    """
    if config.token_endpoint is None:
        return None
    return AuthorizationServer(
        issuer=config.issuer or issuer or str(URL(config.token_endpoint).origin()),
        token_endpoint=config.token_endpoint,
        authorization_endpoint=config.authorization_endpoint or "",
        has_metadata=False,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
