"""The metadata of protected resources (RFC 9728; 2026-07-28, authorization server location)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from yarl import URL

from mcp_manager.auth.oauth.documents import texts
from mcp_manager.auth.oauth.http import OAuthHttp, same_origin
from mcp_manager.auth.oauth.issuers import is_among, same_issuer
from mcp_manager.errors import AuthError

__all__ = ["ProtectedResource", "discover_resource", "fits", "resource_urls"]

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_WHAT: Final = "the protected resource metadata"
_MAX_ISSUERS: Final = 5


class ProtectedResource(msgspec.Struct, frozen=True):
    """The metadata of a resource (RFC 9728, section 2), as far as it is used.

    Parameters
    ----------
    resource
        Its identifier.
    issuers
        The issuers of its authorization servers; may be empty.
    scopes
        The scopes that it lists, ``None`` if it lists none.
    """

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] | None

    def in_order(self, preferred: Iterable[str | None]) -> list[str]:
        """Return at most five authorization servers, the preferred ones first; the client chooses (section 7.6)."""
        first = [each for one in preferred if one for each in self.issuers if same_issuer(each, one)]
        return [*first, *(each for each in self.issuers if not is_among(each, first))][:_MAX_ISSUERS]


def resource_urls(server: URL) -> list[URL]:
    """Return the possible URLs of a resource's metadata: with its path, then at the root (RFC 9728, section 3.1)."""
    origin = server.origin()
    path = server.raw_path.rstrip("/")
    urls = [origin.with_path(_WELL_KNOWN + path, encoded=True)] if path else []
    if urls and server.raw_query_string:
        urls.append(urls[0].with_query(server.raw_query_string))
        urls.reverse()
    return [*urls, origin.with_path(_WELL_KNOWN)]


def fits(resource: str, server: URL) -> bool:
    """Tell whether a resource identifier names a server, or something above it in its path.

    Tokens are bound to the resource; one for a sibling or another host must not be used (RFC 9728, section 3.3).
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
    """Fetch a server's metadata as a resource; ``None`` if it has none (as before 2025-06-18).

    Parameters
    ----------
    hinted
        The URL that the server's challenge named, or "". The well-known URLs are tried as well, because a server behind
        a proxy may name a URL that does not exist.

    Raises
    ------
    AuthError
        The metadata describes another resource, or no URL can be reached.
    """
    problem: AuthError | None = None
    urls = resource_urls(server)
    if hinted:
        try:
            urls.insert(0, http.checked(_absolute(hinted, server), f"the URL of {_WHAT} that the server names"))
        except AuthError as unusable:
            problem = unusable
    for url in dict.fromkeys(urls):
        try:
            reply = await http.get(url, _WHAT)
        except AuthError as failure:
            problem = problem or failure
            continue
        if reply.status == 200 and (reply.body.get("resource") or reply.body.get("authorization_servers")):
            return _read(http, server, url, reply.body)
        if reply.is_transient:
            where = f"{_WHAT} at {http.shown(url)}"
            problem = problem or http.error(f"{where} is not available (HTTP {reply.status})", retryable=True)
    if problem is not None:
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem
    if hinted:
        raise http.error(
            f"{_WHAT} is not where the server says, at {http.shown(urls[0])}, nor at the well-known URLs",
            hint="check that the server knows its own public URL",
        )
    return None


def _absolute(hinted: str, server: URL) -> str:
    try:
        return str(server.join(URL(hinted)))
    except ValueError:
        return hinted


def _read(http: OAuthHttp, server: URL, url: URL, body: dict[str, Any]) -> ProtectedResource:
    resource = body.get("resource")
    if not isinstance(resource, str) or not fits(resource, server):
        named = http.shown(resource) if isinstance(resource, str) else "nothing usable"
        raise http.error(
            f"{_WHAT} at {http.shown(url)} describes another resource than this server: {named}",
            hint="check url, and that the server knows its own public URL",
        )
    return ProtectedResource(
        resource, texts(body.get("authorization_servers")) or (), texts(body.get("scopes_supported"))
    )
