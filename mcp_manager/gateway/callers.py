"""The callers that stand for clients: one for each session of a client, made once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec

from mcp_manager.auth.caller import Caller
from mcp_manager.gateway.client import Client

__all__ = ["CallersOfClients", "KnownCaller", "is_told", "personal_principal", "principal_of", "session_of"]

# A caller that is forgotten is made anew with the next request, and keeps its sessions.
_MOST_KNOWN: Final = 10_000
_BETWEEN: Final = "\0"
# What a caller can carry beside a digest and a session.
_LONGEST_NAME: Final = 900


class KnownCaller(msgspec.Struct, eq=False):
    """A caller, and the servers that it has called."""

    caller: Caller
    servers: set[str]


class CallersOfClients:
    """Make the callers of clients, at most 10,000 at a time.

    No two principals share a caller, nor do two sessions. Clients of the stateless era have no session: those with the
    same principal and the same capabilities share a caller.
    """

    def __init__(self) -> None:
        # The one that was not used for longest comes first.
        self._known: OrderedDict[tuple[str, str, bytes], KnownCaller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, client: Client, server_id: str) -> Caller:
        """Return the caller for the requests of a client, and note that it calls a server."""
        # What a session can do never changes.
        capabilities = b"" if client.session else msgspec.json.encode(client.capabilities, order="sorted")
        key = client.principal, client.session, capabilities
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = KnownCaller(
                Caller(principal_of(client), capabilities=client.capabilities), set()
            )
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        known.servers.add(server_id)
        return known.caller

    def servers_of(self, client: Client) -> list[str]:
        """Return the servers that the session of a client has called for itself."""
        known = self._known.get((client.principal, client.session, b"")) if client.session else None
        return [] if known is None else sorted(known.servers)

    def forget(self, principal: str, session: str) -> KnownCaller | None:
        """Forget the caller of a session that has ended, and return it; ``None`` if there is none."""
        return self._known.pop((principal, session, b""), None) if session else None


def principal_of(client: Client) -> str:
    """Return the principal of the callers that stand for a client."""
    return f"{_plain(client.principal)}{_BETWEEN}{client.session}"


def personal_principal(principal: str, party: str, session: str) -> str:
    """Return the principal of a caller at a server that gets credentials of each client.

    Parameters
    ----------
    principal, session
        Those of the client; "" for all its sessions.
    party
        Tells apart what is not to be shared within a principal.
    """
    return f"{_plain(principal)}{_BETWEEN}{party}{_BETWEEN}{session}"


def is_told(caller: str, client: str) -> bool:
    """Return whether a client is told what a server says in a session of a caller.

    Parameters
    ----------
    caller
        The principal of the caller.
    client
        What :func:`principal_of` returns for the client.
    """
    if caller == client:
        return True
    name, between, rest = caller.partition(_BETWEEN)
    _, is_personal, session = rest.partition(_BETWEEN)
    if not is_personal:
        return False
    # Without a session of its own, it is one of all clients of the principal.
    return client == name + between + session if session else client.partition(_BETWEEN)[0] == name


def session_of(caller: Caller) -> str:
    """Return the session of the client that a caller stands for, "" if it has none."""
    return caller.principal.rpartition(_BETWEEN)[2]


def _plain(principal: str) -> str:
    """Return a name of which no other name, with what follows it, is the beginning."""
    if _BETWEEN not in principal and len(principal) <= _LONGEST_NAME:
        return principal
    digest = hashlib.blake2b(principal.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
    return f"{principal[:16].replace(_BETWEEN, '')}#{digest}"
