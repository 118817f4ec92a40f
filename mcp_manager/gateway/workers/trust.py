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
_CLIENT: Final = b"mcp-manager-client"

OWN_FIELDS: Final = frozenset({_SECRET, _PRINCIPAL, _CLIENT})
"""The header fields that workers add for each other, in lower case; they are never passed on."""


class Trust:
    """Recognize requests of siblings.

    A sibling shows the secret that all workers got from their parent. It never leaves this machine: it is sent over
    unix sockets in a directory that only this user can enter. Without the secret, or over a network, these fields mean
    nothing: should the secret ever get out, it opens nothing to other machines.

    A sibling sends three kinds of requests. Those that it passes on name the principal and the address of the client.
    Those that it tells all siblings of name the principal alone, because it has counted them already. Those that it
    makes as a client of a program that this worker runs name nobody.

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
        return shown is not None and _is_local(incoming.peer) and hmac.compare_digest(shown, self._secret)

    def shows_secret(self, request: web.Request) -> bool:
        """Return whether a request that ``aiohttp.web`` serves comes from a sibling."""
        shown, transport = request.headers.get(_SECRET.decode("ascii")), request.transport
        if shown is None or transport is None or not _is_local(transport.get_extra_info("peername")):
            return False
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._secret)

    def is_own(self, incoming: Incoming) -> bool:
        """Return whether a sibling makes a request itself, as the client of a program that runs here.

        It has authenticated the client that the request is due to, and restricted, counted and recorded what that does.
        """
        return incoming.header(_PRINCIPAL) is None and self.is_counted(incoming)

    def is_counted(self, incoming: Incoming) -> bool:
        """Return whether a sibling has counted and recorded a request already."""
        return incoming.header(_CLIENT) is None and self.is_sibling(incoming)

    def principal_of(self, incoming: Incoming) -> str:
        """Return whom a request of a sibling is made for; ask :meth:`is_sibling` first."""
        return _unquoted(incoming.header(_PRINCIPAL), ANONYMOUS)

    def client_of(self, incoming: Incoming) -> str:
        """Return the address of the client whose request a sibling passes on; ask :meth:`is_sibling` first."""
        return _unquoted(incoming.header(_CLIENT), "")

    def fields(self, principal: str | None = None, client: str | None = None) -> list[tuple[str, str]]:
        """Return the header fields of a request to a sibling.

        Parameters
        ----------
        principal
            Whom it is made for; ``None`` for a request of this worker itself.
        client
            The address of the client whose request is passed on; ``None`` for one that is counted here.
        """
        fields = [(_SECRET.decode("ascii"), self._secret.decode("ascii"))]
        for name, value in ((_PRINCIPAL, principal), (_CLIENT, client)):
            if value is not None:
                fields.append((name.decode("ascii"), quote(value, safe="", errors="surrogatepass")))
        return fields


def _is_local(peer: object) -> bool:
    """Tell whether the other end of a connection is at a unix socket: others have an address with a port."""
    return not isinstance(peer, tuple)


def _unquoted(field: bytes | None, default: str) -> str:
    return default if field is None else unquote(field.decode("ascii", "replace"), errors="surrogatepass")
