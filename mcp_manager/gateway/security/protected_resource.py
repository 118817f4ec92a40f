"""The metadata of the gateway as a protected resource (RFC 9728; MCP 2025-11-25 and 2026-07-28, authorization)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.token_issuers import names_of_issuers

__all__ = ["WELL_KNOWN", "ResourceMetadata"]

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""Where the metadata of a resource is: before the path of the resource (RFC 9728, section 3.1)."""
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]{0,256}){0,8}")
_MOST_KEPT: Final = 256


class ResourceMetadata:
    """Say where clients of the gateway get tokens: a document for each endpoint, which needs no authentication.

    Parameters
    ----------
    config
        How clients authenticate. Without an issuer there is no document.
    is_tls
        Whether the gateway speaks TLS itself: the scheme of its URL unless ``resource`` gives the whole.
    """

    def __init__(self, config: ClientAuthConfig, *, is_tls: bool = False) -> None:
        self._issuers = names_of_issuers(config) if config.type in ("jwt", "introspection") else []
        self._scopes = config.scopes
        self._scheme = "https" if is_tls else "http"
        self._base = None if config.resource is None else config.resource.rstrip("/")
        self._kept: dict[str, bytes] = {}

    def url(self, path: str, host: bytes | None) -> str | None:
        """Return the URL of the document of an endpoint; ``None`` if there is none.

        Parameters
        ----------
        path
            The path of the endpoint in the gateway.
        host
            The ``Host`` header field of the request, which was checked.
        """
        base = self._base_for(host)
        if base is None or _PATH.fullmatch(path) is None:
            return None
        parts = urlsplit(base)
        return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path}{path}"

    def document(self, path: str, host: bytes | None) -> bytes | None:
        """Return a document as JSON; ``None`` if there is none at this path.

        Whether there is such an endpoint is not told: the client has not said who it is.

        Parameters
        ----------
        path
            The path of the request, which begins with :data:`WELL_KNOWN` if it is for such a document.
        host
            The ``Host`` header field of the request, which was checked.
        """
        base = self._base_for(host)
        of = path.removeprefix(WELL_KNOWN)
        if base is None or not path.startswith(WELL_KNOWN) or _PATH.fullmatch(of) is None:
            return None
        # A proxy in front may leave the path of the public URL in place, or may remove it.
        resource = base + of.removeprefix(urlsplit(base).path).rstrip("/")
        found = self._kept.get(resource)
        if found is None:
            found = self._rendered(resource)
            if len(self._kept) < _MOST_KEPT:
                self._kept[resource] = found
        return found

    def _base_for(self, host: bytes | None) -> str | None:
        if not self._issuers:
            return None
        if self._base is not None:
            return self._base
        name = "" if host is None else host.decode("latin-1")
        return f"{self._scheme}://{name}" if _HOST.fullmatch(name) is not None else None

    def _rendered(self, resource: str) -> bytes:
        document = {
            "resource": quote(resource, safe="/:%[]@!$&'()*+,;=~"),
            "authorization_servers": self._issuers,
            **({"scopes_supported": list(self._scopes)} if self._scopes else {}),
            "bearer_methods_supported": ["header"],
            "resource_name": "mcp-manager",
        }
        return msgspec.json.encode(document)
