"""What kind of server the other side of an exchange is."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager.protocol.revisions import Era

__all__ = ["Peer", "peer_of"]


class Peer(msgspec.Struct, frozen=True):
    """A kind of server.

    Parameters
    ----------
    era
        The era of the protocol that it speaks.
    shares_session
        Whether all callers share its session, as with programs and servers in memory.
    """

    era: Era
    shares_session: bool


_PEERS: Final = {
    (is_stateless, shares): Peer(Era.STATELESS if is_stateless else Era.HANDSHAKE, shares)
    for is_stateless in (False, True)
    for shares in (False, True)
}


def peer_of(*, is_stateless: bool, shares_session: bool) -> Peer:
    """Return the kind of a server; there is one object for each."""
    return _PEERS[is_stateless, shares_session]
