"""Which era of the protocol each endpoint of one server speaks, as far as that is known."""

from __future__ import annotations

import asyncio

from mcp_manager.protocol.discover import Stateless
from mcp_manager.protocol.revisions import Era

__all__ = ["EraMemory"]


class EraMemory:
    """What is known of a server's places (an origin, or "" for a program): the era, and whether it is HTTP+SSE."""

    __slots__ = ("_asking", "_certain_again", "_eras", "_silent", "_verdicts")

    def __init__(self) -> None:
        self._eras: dict[str, tuple[Era, bool]] = {}
        self._verdicts: dict[str, Stateless] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        # Of places that were doubted: whether they have proved themselves since.
        self._certain_again: dict[str, bool] = {}
        # Places that took up a handshake before they had said anything to the question: that is no answer.
        self._silent: frozenset[str] = frozenset()

    def recall(self, place: str) -> tuple[Era, bool] | None:
        """Return the era and whether the place speaks HTTP+SSE, ``None`` if it is not known."""
        return self._eras.get(place)

    def verdict(self, place: str) -> Stateless | None:
        """Return what a stateless place told of itself."""
        return self._verdicts.get(place)

    def asking(self, place: str) -> asyncio.Lock:
        """Return what lets one session of a place ask, while the others wait for what it learns."""
        return self._asking.setdefault(place, asyncio.Lock())

    def keep(self, place: str, era: Era, *, sse: bool = False, verdict: Stateless | None = None) -> None:
        """Remember what was settled."""
        if place in self._silent:
            self._silent -= {place}
        self._eras[place] = (era, sse)
        if verdict is not None:
            self._verdicts[place] = verdict
        if era is Era.STATELESS:
            self._certain_again.pop(place, None)
        elif place in self._certain_again:
            self._certain_again[place] = True

    def keep_silent(self, place: str) -> None:
        """Remember that a place did not answer the question of eras, and took up a handshake: it is asked again."""
        self._silent |= {place}

    def is_silent(self, place: str) -> bool:
        """Tell whether it is not worth waiting for the answer of a place before it is greeted."""
        return place in self._silent

    def forget(self, place: str) -> None:
        """Ask again next time."""
        self._eras.pop(place, None)
        self._verdicts.pop(place, None)

    def doubt(self, place: str) -> None:
        """Ask again next time, for an error that only a stateless server should send."""
        self._certain_again[place] = False
        self.forget(place)

    def is_certain(self, place: str) -> bool:
        """Tell whether a place speaks handshakes in spite of such an error: it has a meaning of its own for the code."""
        return self._certain_again.get(place, False)
