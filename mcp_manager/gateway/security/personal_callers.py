"""The callers that stand for clients at servers that get credentials of each client."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec

from mcp_manager.auth.caller import Caller
from mcp_manager.gateway.callers import personal_principal
from mcp_manager.gateway.client import Client

__all__ = ["PersonalCallers"]

_MOST_KNOWN: Final = 10_000

Place = tuple[str, str, str]
"""The server, the name of the principal, and the session of the client."""


class PersonalCallers:
    """Make the callers of clients at servers, at most 10,000 at a time; one that is forgotten is made anew.

    Callers with different header fields or scopes are different parties to the server, so that no session, list or
    result of one is given to the other, also if they are of the same principal.
    """

    def __init__(self) -> None:
        # The one that was not used for longest comes first.
        self._known: OrderedDict[tuple[Place, str, bytes], Caller] = OrderedDict()
        self._of_sessions: dict[tuple[str, str], set[tuple[Place, str, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(
        self,
        server_id: str,
        client: Client,
        headers: Mapping[str, str],
        token: str | None,
        scopes: frozenset[str],
        *,
        has_session: bool,
    ) -> Caller:
        """Return the caller for a request.

        Parameters
        ----------
        server_id
            The server.
        client
            Who asks.
        headers, token
            What the server gets.
        scopes
            What the credentials of the client are good for.
        has_session
            Whether the session of the client has a session of its own at the server, with its capabilities. Otherwise
            all clients of the principal share one.

        Raises
        ------
        InvalidRequestError
            A header field cannot be sent.
        """
        session = client.session if has_session else ""
        capabilities = client.capabilities if has_session else None
        declared = b"" if capabilities is None or session else msgspec.json.encode(capabilities, order="sorted")
        party = _party(headers, scopes)
        key = (server_id, client.principal, session), party, declared
        known = self._known.get(key)
        if known is not None and known.auth == token:
            self._known.move_to_end(key)
            return known
        made = self._known[key] = Caller(
            personal_principal(client.principal, party, session), headers, token, capabilities
        )
        self._known.move_to_end(key)
        if session:
            self._of_sessions.setdefault((client.principal, session), set()).add(key)
        while len(self._known) > _MOST_KNOWN:
            self._drop(next(iter(self._known)))
        return made

    def servers_of(self, client: Client) -> set[str]:
        """Return the servers that keep sessions for the session of a client."""
        return {place[0] for place, _, _ in self._of_sessions.get((client.principal, client.session), ())}

    def forget(self, principal: str, session: str) -> list[tuple[str, Caller]]:
        """Forget the callers of a session that has ended, and return them, each with its server."""
        found = [(key[0][0], self._known[key]) for key in self._of_sessions.get((principal, session), ())]
        for key in list(self._of_sessions.get((principal, session), ())):
            self._drop(key)
        return found

    def forget_server(self, server_id: str) -> list[Caller]:
        """Forget the callers at a server, which gets other credentials from now on, and return them."""
        keys = [key for key in self._known if key[0][0] == server_id]
        found = [self._known[key] for key in keys]
        for key in keys:
            self._drop(key)
        return found

    def _drop(self, key: tuple[Place, str, bytes]) -> None:
        del self._known[key]
        _, principal, session = key[0]
        others = self._of_sessions.get((principal, session))
        if others is not None:
            others.discard(key)
            if not others:
                del self._of_sessions[principal, session]


def _party(headers: Mapping[str, str], scopes: frozenset[str]) -> str:
    """Return what stands for header fields and scopes: a digest, because the values are secrets."""
    parts = [sorted(headers.items()), sorted(scopes)]
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
