"""``KnownPrincipals``: the principals that were seen lately, by their names."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mcp_manager.gateway.security.principal import EVERYBODY, Principal

__all__ = ["KnownPrincipals"]

_MOST_KNOWN: Final = 20_000


class KnownPrincipals:
    """Keep the newest credentials of each principal, of at most 20,000 of them.

    Sessions, callers and calls have the name of their principal; whoever needs more than the name finds it here.

    Parameters
    ----------
    clock
        Returns the seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Those noted last are in the first one; both have at most half of what may be known.
        self._newer: dict[str, Principal] = {EVERYBODY.name: EVERYBODY}
        self._older: dict[str, Principal] = {}

    def __len__(self) -> int:
        return len(self._newer.keys() | self._older.keys())

    def note(self, principal: Principal) -> None:
        """Take note of credentials that a client has just shown."""
        if self._newer.get(principal.name) is not principal:
            if len(self._newer) >= _MOST_KNOWN // 2:
                self._older, self._newer = self._newer, {}
            self._newer[principal.name] = principal

    def find(self, name: str) -> Principal | None:
        """Return the principal of a name with the credentials that it showed last.

        ``None`` if it is not known, or these credentials have expired: then they are forgotten.
        """
        known = self._newer.get(name) or self._older.get(name)
        if known is not None and known.expires_at <= self._clock():
            self._newer.pop(name, None)
            self._older.pop(name, None)
            return None
        return known

    def everybody(self) -> list[Principal]:
        """Return all that are known."""
        return list({**self._older, **self._newer}.values())

    def clear(self) -> None:
        """Forget all of them, as when other credentials or rules are in force."""
        self._newer = {EVERYBODY.name: EVERYBODY}
        self._older = {}
