"""Where a resource's authorization server is, and what that offers (2026-07-28, authorization server discovery)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from yarl import URL

from mcp_manager.auth.oauth.http import OAuthHttp, same_origin

__all__ = [
    "AuthorizationServer",
    "ProtectedResource",
    "discover_authorization_server",
    "discover_resource",
    "fits",
    "guessed_server",
    "metadata_urls",
    "resource_urls",
]

_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"


class ProtectedResource(msgspec.Struct, frozen=True):
    """A resource's metadata (RFC 9728, section 2), as far as it decides anything."""

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] | None

    def issuer(self, preferred: Iterable[str | None]) -> str:
        """Choose an authorization server: the first of those preferred that is named, else the first one (section 7.6)."""
        return next((each for each in preferred if each is not None and each in self.issuers), self.issuers[0])


class AuthorizationServer(msgspec.Struct, frozen=True, kw_only=True):
    """An authorization server's metadata (RFC 8414, section 2), checked; "" for an endpoint it does not have.

    ``is_guessed`` where there was none, and the endpoints are those of 2025-03-26.
    """

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    scopes: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] | None = None
    challenge_methods: tuple[str, ...] = ()
    sends_iss: bool = False
    takes_metadata_documents: bool = False
    is_guessed: bool = False


def resource_urls(server: URL) -> list[URL]:
    """Return where the metadata of a resource may be: below its path, then at the root (RFC 9728, section 3.1)."""
    origin = server.origin()
    path = server.raw_path.rstrip("/")
    urls = [origin.with_path(_RESOURCE + path, encoded=True)] if path else []
    if urls and server.raw_query_string:
        urls.append(urls[0].with_query(server.raw_query_string))
        urls.reverse()
    return [*urls, origin.with_path(_RESOURCE)]


def metadata_urls(issuer: URL) -> list[URL]:
    """Return where an authorization server's metadata may be, in the order that MCP prescribes."""
    origin = issuer.origin()
    path = issuer.raw_path.rstrip("/")
    if not path:
        return [origin.with_path(_OAUTH), origin.with_path(_OPENID)]
    return [origin.with_path(each, encoded=True) for each in (_OAUTH + path, _OPENID + path, path + _OPENID)]


def fits(resource: str, server: URL) -> bool:
    """Tell whether a resource identifier is that of a server, or of something that it is part of.

    Tokens are for the resource: one for a sibling, or another host, would be somebody else's (RFC 9728, section 3.3).
    """
    try:
        named = URL(resource)
        if not same_origin(named, server) or named.fragment:
            return False
    except ValueError:
        return False
    if named.raw_query_string and named.raw_query_string != server.raw_query_string:
        return False
    above = named.raw_path.rstrip("/") + "/"
    return (server.raw_path.rstrip("/") + "/").startswith(above)


async def discover_resource(http: OAuthHttp, server: URL, hinted: str) -> ProtectedResource | None:
    """Return a server's metadata as a resource, ``None`` where it has none (as before 2025-06-18).

    Parameters
    ----------
    hinted
        The URL that its challenge named, or "".

    Raises
    ------
    AuthError
        The metadata is of another resource, or names no authorization server.
    """
    what = "the protected resource metadata"
    urls = [http.checked(hinted, f"the URL of {what}")] if hinted else resource_urls(server)
    for url in urls:
        reply = await http.get(url, what)
        if reply.status == 200 and reply.body:
            return _read_resource(http, server, reply.body)
        if reply.status >= 500:
            raise http.error(f"{what} is not available (HTTP {reply.status})", retryable=True)
    if hinted:
        raise http.error(f"{what} is not where the server says")
    return None


def _read_resource(http: OAuthHttp, server: URL, body: dict[str, Any]) -> ProtectedResource:
    resource = body.get("resource")
    if not isinstance(resource, str) or not fits(resource, server):
        raise http.error(
            "the protected resource metadata is that of another resource than this server",
            hint="check url, and that the server knows its own public URL",
        )
    issuers = _texts(body.get("authorization_servers"))
    if not issuers:
        raise http.error("the protected resource metadata names no authorization server")
    return ProtectedResource(resource, issuers, _texts(body.get("scopes_supported")))


async def discover_authorization_server(http: OAuthHttp, issuer: str) -> AuthorizationServer | None:
    """Return the metadata of an authorization server, ``None`` if it publishes none.

    Raises
    ------
    AuthError
        The metadata is of another issuer (RFC 8414, section 3.3), or unusable.
    """
    what = "the authorization server's metadata"
    for url in metadata_urls(http.checked(issuer, "the authorization server's issuer")):
        reply = await http.get(url, what)
        if reply.status >= 500:
            raise http.error(f"{what} is not available (HTTP {reply.status})", retryable=True)
        if reply.status == 200 and reply.body:
            return _read_server(http, issuer, reply.body)
    return None


def _read_server(http: OAuthHttp, issuer: str, body: dict[str, Any]) -> AuthorizationServer:
    if body.get("issuer") != issuer:
        raise http.error("the authorization server's metadata names another issuer than the one that was asked")
    endpoints = {
        name: "" if body.get(name) is None else str(http.checked(body[name], f"the authorization server's {name}"))
        for name in ("token_endpoint", "authorization_endpoint", "registration_endpoint")
    }
    if not endpoints["token_endpoint"]:
        raise http.error("the authorization server's metadata names no token endpoint")
    return AuthorizationServer(
        issuer=issuer,
        token_endpoint=endpoints["token_endpoint"],
        authorization_endpoint=endpoints["authorization_endpoint"],
        registration_endpoint=endpoints["registration_endpoint"],
        scopes=_texts(body.get("scopes_supported")) or (),
        auth_methods=_texts(body.get("token_endpoint_auth_methods_supported")),
        challenge_methods=_texts(body.get("code_challenge_methods_supported")) or (),
        sends_iss=body.get("authorization_response_iss_parameter_supported") is True,
        takes_metadata_documents=body.get("client_id_metadata_document_supported") is True,
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
        is_guessed=True,
    )


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(each for each in value if isinstance(each, str) and each)
