"""``Principal``: whom a client acts for, as its credentials say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.security.grants import Grant

__all__ = ["EVERYBODY", "SIBLING", "Principal"]


class Principal(msgspec.Struct, frozen=True, eq=False):
    """A party that has shown who it is.

    Sessions, states, callers and streams are kept apart by ``name``: no two parties share one.

    Parameters
    ----------
    name
        Names the party: the issuer and its name there, or the name of an API key.
    claims
        What the credentials say of it.
    scopes
        What it was granted.
    expires_at
        When its credentials expire, in seconds since the epoch.
    credential
        The token or key that it has shown, a secret; ``None`` if it has shown none.
    grant
        What the rules allow it; ``None`` if there are no rules.
    """

    name: str
    claims: Mapping[str, Any] = {}
    scopes: frozenset[str] = frozenset()
    expires_at: float = math.inf
    credential: str | None = None
    grant: Grant | None = None

    def __repr__(self) -> str:
        return f"Principal(name={self.name!r}, scopes={sorted(self.scopes)}, expires_at={self.expires_at})"


EVERYBODY: Final = Principal(ANONYMOUS)
"""The principal of clients that need not authenticate."""

SIBLING: Final = Principal(ANONYMOUS)
"""The principal of another worker, which has authenticated and restricted the client that a request is due to."""
