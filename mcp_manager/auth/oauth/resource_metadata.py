"""Which authorization servers a resource trusts (RFC 9728; 2026-07-28, authorization server location)."""

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
    """A resource's metadata (RFC 9728, section 2), as far as it decides anything; ``issuers`` may be empty."""

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] | None

    def in_order(self, preferred: Iterable[str | None]) -> list[str]:
        """Return the authorization servers, at most five, those preferred first: the client chooses (section 7.6)."""
        first = [each for one in preferred if one for each in self.issuers if same_issuer(each, one)]
        return [*first, *(each for each in self.issuers if not is_among(each, first))][:_MAX_ISSUERS]


def resource_urls(server: URL) -> list[URL]:
    """Return where the metadata of a resource may be: below its path, then at the root (RFC 9728, section 3.1)."""
    origin = server.origin()
    path = server.raw_path.rstrip("/")
    urls = [origin.with_path(_WELL_KNOWN + path, encoded=True)] if path else []
    if urls and server.raw_query_string:
        urls.append(urls[0].with_query(server.raw_query_string))
        urls.reverse()
    return [*urls, origin.with_path(_WELL_KNOWN)]


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
        The URL that its challenge named, or "". Where nothing is there, as behind a proxy that the server does not know
        of, the well-known places are tried as well.

    Raises
    ------
    AuthError
        The metadata is of another resource, or none of the places can be reached.
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
            # Its traceback holds this frame.
            del problem
    if hinted:
        raise http.error(
            f"{_WHAT} is not where the server says, at {http.shown(urls[0])}, nor at the well-known places",
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
            f"{_WHAT} at {http.shown(url)} is that of another resource than this server: it names {named}",
            hint="check url, and that the server knows its own public URL",
        )
    return ProtectedResource(
        resource, texts(body.get("authorization_servers")) or (), texts(body.get("scopes_supported"))
    )
