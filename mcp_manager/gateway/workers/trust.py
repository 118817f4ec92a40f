"""How a worker knows that a request comes from a sibling, and for whom: by fields that nobody else can send."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import quote, unquote

from aiohttp import web

from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.client import ANONYMOUS

__all__ = ["OWN_FIELDS", "Trust"]

_SECRET: Final = b"mcp-manager-sibling"
_PRINCIPAL: Final = b"mcp-manager-principal"

OWN_FIELDS: Final = frozenset({_SECRET, _PRINCIPAL})
"""The header fields that workers add for each other, in lower case; they are never passed on."""


class Trust:
    """Recognize requests of siblings.

    A sibling shows the secret that all workers got from their parent. It never leaves this machine: it is sent over
    unix sockets in a directory that only this user can enter. Without the secret, these fields mean nothing.

    Parameters
    ----------
    secret
        The secret.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode("ascii")

    def __repr__(self) -> str:
        return "Trust()"

    def is_sibling(self, incoming: Incoming) -> bool:
        """Return whether a request comes from a sibling."""
        shown = incoming.header(_SECRET)
        return shown is not None and hmac.compare_digest(shown, self._secret)

    def shows_secret(self, request: web.Request) -> bool:
        """Return whether a request that ``aiohttp.web`` serves comes from a sibling."""
        shown = request.headers.get(_SECRET.decode("ascii"))
        return shown is not None and hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._secret)

    def principal_of(self, incoming: Incoming) -> str:
        """Return whom a request of a sibling is made for; ask :meth:`is_sibling` first."""
        named = incoming.header(_PRINCIPAL)
        return ANONYMOUS if named is None else unquote(named.decode("ascii"), errors="surrogatepass")

    def fields(self, principal: str = ANONYMOUS) -> list[tuple[str, str]]:
        """Return the header fields of a request to a sibling that is made for a principal."""
        return [
            (_SECRET.decode("ascii"), self._secret.decode("ascii")),
            (_PRINCIPAL.decode("ascii"), quote(principal, safe="", errors="surrogatepass")),
        ]
