"""Discovery of the authorization server of an MCP server (2026-07-28, authorization server discovery)."""

from __future__ import annotations

from yarl import URL

from mcp_manager.auth.oauth.documents import shown_text
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.issuers import is_among, same_issuer
from mcp_manager.auth.oauth.metadata import (
    AuthorizationServer,
    configured_server,
    discover_authorization_server,
    guessed_server,
)
from mcp_manager.auth.oauth.resource_metadata import ProtectedResource, discover_resource
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError

__all__ = ["find_authorization_server", "find_issuer"]


async def find_authorization_server(
    http: OAuthHttp, server: URL, config: AuthConfig, hinted: str, held: str | None
) -> tuple[ProtectedResource, AuthorizationServer]:
    """Return the metadata of an MCP server as a protected resource, and its authorization server.

    Parameters
    ----------
    server
        The URL of the MCP server's endpoint.
    config
        Its ``auth``; ``issuer`` is preferred if the resource names several authorization servers.
    hinted
        The URL of the resource metadata in the server's challenge, or "".
    held
        The issuer of the current grant, preferred after ``config.issuer``.

    Raises
    ------
    AuthError
        No authorization server was found, none can be trusted, or none answers.
    """
    resource = await discover_resource(http, server, hinted)
    named = resource.in_order((config.issuer, held)) if resource is not None else []
    candidates = named or [config.issuer or str(server.origin())]
    if resource is None:
        resource, has_metadata = ProtectedResource(_canonical(server), (candidates[0],), None), False
    else:
        has_metadata = True
    configured = configured_server(config, named[0] if named else None)
    found = configured or await _first_with_metadata(http, candidates, (config.issuer, held))
    if found is not None:
        return resource, found
    if not has_metadata and same_issuer(candidates[0], str(server.origin())):
        # 2025-03-26, authorization: fallbacks for servers without metadata discovery.
        return resource, guessed_server(server)
    if not named and config.issuer is None:
        raise http.error(
            "the protected resource metadata names no authorization server, and the server itself is not one",
            hint="set auth.issuer and auth.client_id",
        )
    raise http.error(
        f"the authorization server {', '.join(map(shown_text, candidates))} publishes no metadata",
        hint="set auth.authorization_endpoint, auth.token_endpoint and auth.client_id",
    )


async def find_issuer(http: OAuthHttp, server: URL, config: AuthConfig, issuer: str) -> AuthorizationServer | None:
    """Return the authorization server that issued a grant, to renew it; ``None`` if it no longer exists."""
    found = configured_server(config, issuer) or await discover_authorization_server(http, issuer)
    found = found or guessed_server(server)
    return found if same_issuer(found.issuer, issuer) else None


async def _first_with_metadata(
    http: OAuthHttp, issuers: list[str], preferred: tuple[str | None, ...]
) -> AuthorizationServer | None:
    problem: AuthError | None = None
    for issuer in issuers:
        try:
            found = await discover_authorization_server(http, issuer)
        except AuthError as failure:
            # Do not ask the user again at another server while the preferred one is only temporarily down.
            if not failure.retryable or is_among(issuer, preferred):
                raise
            problem = problem or failure
            continue
        if found is not None:
            return found
    if problem is not None:
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem
    return None


def _canonical(url: URL) -> str:
    """Return a server's URL as a resource identifier (2026-07-28, canonical server URI)."""
    return str(url.with_fragment(None)).removesuffix("/") if url.raw_path == "/" else str(url.with_fragment(None))
