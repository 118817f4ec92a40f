"""The metadata of authorization servers: published (RFC 8414, OpenID Connect Discovery), configured or assumed."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from yarl import URL

from mcp_manager.auth.oauth.documents import flag, shown_text, texts
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.issuers import is_template_of, same_issuer
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError

__all__ = [
    "AuthorizationServer",
    "Metadata",
    "configured_server",
    "discover_authorization_server",
    "discover_metadata",
    "guessed_server",
    "metadata_urls",
]

_OAUTH: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"
_WHAT: Final = "the authorization server's metadata"
# Metadata has one of these members; a server that answers every path with 200 may send something else.
_MEMBERS: Final = ("issuer", "token_endpoint", "authorization_endpoint")


class Metadata(NamedTuple):
    """A metadata document with the issuer that was expected.

    Parameters
    ----------
    issuer
        The issuer in its own spelling.
    where
        What the document is and where, for errors.
    body
        Its members.
    """

    issuer: str
    where: str
    body: dict[str, Any]


class AuthorizationServer(msgspec.Struct, frozen=True, kw_only=True):
    """The checked metadata of an authorization server (RFC 8414, section 2).

    Parameters
    ----------
    issuer
        Its identifier, in its own spelling.
    token_endpoint, authorization_endpoint, registration_endpoint
        Its endpoints, "" for one it does not have.
    scopes
        The scopes that it lists.
    auth_methods, challenge_methods
        The client authentication and PKCE methods that it supports; ``None`` if it does not say.
    sends_iss
        Whether authorization responses carry ``iss`` (RFC 9207).
    takes_metadata_documents
        Whether the client id may be the URL of a client metadata document.
    has_metadata
        ``False`` if it publishes no metadata; then the endpoints are configured or those of 2025-03-26.
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
    """Return the possible URLs of an authorization server's metadata, in the order that MCP prescribes."""
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
        The metadata names another issuer (RFC 8414, section 3.3), is unusable, or is not available at present.
    """
    found = await discover_metadata(http, issuer)
    return None if found is None else _read(http, found)


async def discover_metadata(http: OAuthHttp, issuer: str) -> Metadata | None:
    """Return the metadata document of an authorization server, ``None`` if it publishes none.

    Raises
    ------
    AuthError
        It names another issuer (RFC 8414, section 3.3), or is not available at present.
    """
    problem: AuthError | None = None
    for url in metadata_urls(http.checked(issuer, "the authorization server's issuer")):
        reply = await http.get(url, _WHAT)
        if reply.status == 200 and any(reply.body.get(name) for name in _MEMBERS):
            return _checked(http, issuer, url, reply.body)
        if reply.is_transient:
            where = f"{_WHAT} at {http.shown(url)}"
            problem = problem or http.error(f"{where} is not available (HTTP {reply.status})", retryable=True)
    if problem is not None:
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem
    return None


def _checked(http: OAuthHttp, issuer: str, url: URL, body: dict[str, Any]) -> Metadata:
    where = f"{_WHAT} at {http.shown(url)}"
    named = body.get("issuer")
    if isinstance(named, str) and is_template_of(named, issuer):
        named = issuer
    if not isinstance(named, str) or not same_issuer(named, issuer):
        says = shown_text(named) if isinstance(named, str) else "none"
        raise http.error(
            f"{where} names another issuer than expected: {says} instead of {shown_text(issuer)}",
            hint="the server's protected resource metadata and its authorization server must name the same issuer",
        )
    return Metadata(named, where, body)


def _read(http: OAuthHttp, found: Metadata) -> AuthorizationServer:
    named, where, body = found
    if not body.get("token_endpoint"):
        raise http.error(f"{where} names no token endpoint", hint="set auth.token_endpoint")
    # The other endpoints are checked on use, so that one that is never used may be invalid.
    token_endpoint = str(http.checked(body["token_endpoint"], f"token_endpoint of {where}"))
    return AuthorizationServer(
        # In its own spelling, because iss is compared with that (RFC 9207, section 2.4).
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
    """Return the default endpoints of a server without metadata (2025-03-26, authorization, section 2.3.3)."""
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
    """Return the authorization server with configured endpoints, ``None`` if none are configured.

    Parameters
    ----------
    config
        The server's ``auth``.
    issuer
        The issuer that the resource names, if any; used if ``config`` has none.
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
