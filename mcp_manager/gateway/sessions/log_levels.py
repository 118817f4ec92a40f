"""The levels of log messages, and the lowest one that each session wants."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["LEVELS", "RANKS", "LogLevels", "rank_of"]

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""The levels, the lowest first (RFC 5424; 2025-11-25, server/utilities/logging)."""
RANKS: Final = {level: rank for rank, level in enumerate(LEVELS)}
_DEFAULT: Final = RANKS["info"]
_MOST_SESSIONS: Final = 100_000


class _Logged(msgspec.Struct):
    level: str = ""


_decoder = msgspec.json.Decoder(_Logged)


def rank_of(params: bytes) -> int | None:
    """Return the rank of a log message, from the params of ``notifications/message``; ``None`` for no known level."""
    try:
        return RANKS.get(_decoder.decode(params).level)
    except (msgspec.DecodeError, RecursionError):
        return None


class LogLevels:
    """Keep the levels that sessions have set.

    If clients authenticate, what one of them gets does not depend on what others have set: a session without a level
    gets messages of its own calls from ``info`` on, and servers are never asked for less than that. Otherwise all
    clients are one: a session without a level gets whatever comes.

    Parameters
    ----------
    is_shared
        Whether sessions of several principals share the sessions of servers.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self.is_shared: bool = is_shared
        self._ranks: dict[str, int] = {}
        # How many sessions have set each of them.
        self._counts = [0] * len(LEVELS)

    def __len__(self) -> int:
        return len(self._ranks)

    def set(self, session: str, level: str) -> None:
        """Set the lowest level for a session; raises :class:`KeyError` for a level that does not exist."""
        rank = RANKS[level]
        self.forget(session)
        if len(self._ranks) >= _MOST_SESSIONS:
            self.forget(next(iter(self._ranks)))
        self._ranks[session] = rank
        self._counts[rank] += 1

    def forget(self, session: str) -> None:
        """Forget the level of a session that has ended."""
        rank = self._ranks.pop(session, None)
        if rank is not None:
            self._counts[rank] -= 1

    def wants(self, session: str, params: bytes) -> bool:
        """Whether a session wants a log message, from the params of ``notifications/message``."""
        own = self._ranks.get(session, _DEFAULT if self.is_shared else 0)
        if own == 0:
            return True
        rank = rank_of(params)
        return rank is None or rank >= own

    def lowest(self) -> str:
        """Return the lowest level that any session wants."""
        lowest = next((rank for rank, count in enumerate(self._counts) if count), 0)
        return LEVELS[min(lowest, _DEFAULT) if self.is_shared else lowest]
