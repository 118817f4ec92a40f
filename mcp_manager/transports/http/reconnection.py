"""When and where a stream of events that has ended goes on (2025-11-25, basic/transports, resumability and redelivery)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_EVENT_ID", "Reconnection", "is_passing", "usable_event_id"]

MAX_EVENT_ID: Final = 4096
"""Event ids of more bytes than this are not sent back: servers refuse such headers."""

_INITIAL_S: Final = 0.5
_SPREAD: Final = 0.2
_SHORTEST_S: Final = 0.01
# A server that ends every stream at once, with something on each, is asked no more often than this, a few times excepted.
_SHORT_STREAMS_S: Final = 0.25
_FREE: Final = 8
_LONGEST_WISH_S: Final = 86400.0
_MAX_DOUBLINGS: Final = 16
# RFC 9110, section 5.5: what no field value can have, and the blanks at its ends, which are none of it.
_NO_FIELD_VALUE: Final = re.compile(r"[\x00-\x1f\x7f]|^ | $")


def usable_event_id(event_id: str) -> str:
    """Return an event id that can be sent back in a header field, "" for one that cannot: it is none then."""
    if _NO_FIELD_VALUE.search(event_id) or len(event_id.encode()) > MAX_EVENT_ID:
        return ""
    return event_id


class Reconnection:
    """Know the last event of a stream, and how long to wait before it is asked for again.

    Parameters
    ----------
    longest_s
        Seconds that attempts without fruit are apart at the most, unless the server wishes for more.
    last_event_id, retry_ms
        What the stream has said so far.

    ``failures`` counts attempts in a row that gave no stream.
    """

    __slots__ = ("_fruitless", "_longest_s", "_retry_ms", "_short", "_wait_s", "failures", "last_event_id")

    def __init__(self, longest_s: float, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self._longest_s = longest_s
        self._retry_ms = retry_ms
        self._fruitless = 0
        self._short = 0
        self._wait_s = 0.0
        self.last_event_id = usable_event_id(last_event_id)
        self.failures = 0

    def ended(self, last_event_id: str, retry_ms: int | None, *, fruitful: bool, lasted: bool = False) -> None:
        """Learn that a stream was there and is over, whether it was worth asking for, and whether it was no short one."""
        if last_event_id:
            self.last_event_id = usable_event_id(last_event_id)
        if retry_ms is not None:
            self._retry_ms = retry_ms
        self.failures = 0
        self._wait_s = 0.0
        self._fruitless = 0 if fruitful else self._fruitless + 1
        self._short = 0 if lasted else self._short + 1

    def failed(self, retry_after_s: float | None = None) -> None:
        """Learn that there was no stream; ``retry_after_s`` is what the server asked for."""
        self.failures += 1
        self._fruitless += 1
        self._wait_s = retry_after_s or 0.0

    def skip(self) -> None:
        """Go on without the events in between: what comes next cannot be taken."""
        self.last_event_id = ""
        self.failed()

    def delay_s(self, random: float) -> float:
        """Return the seconds until the next attempt; ``random`` is in [0, 1).

        The server's ``retry`` is a MUST and the least there is; without one, and the more attempts were in vain, the
        delay grows. So it does, to a quarter of a second, the more streams in a row were short, whatever they brought.
        """
        wished = min((self._retry_ms or 0) / 1000, _LONGEST_WISH_S)
        # With a wish of the server's, the first attempts that follow it are not in vain yet.
        doublings = self._fruitless if self._retry_ms is None else self._fruitless - 2
        grown = 0.0
        if doublings >= 0:
            grown = min(self._longest_s, _INITIAL_S * 2.0 ** min(doublings, _MAX_DOUBLINGS))
            grown *= 1 - _SPREAD + 2 * _SPREAD * random
        shortest = _SHORTEST_S
        if self._short > _FREE:
            shortest = min(_SHORT_STREAMS_S, _SHORTEST_S * 2.0 ** min(self._short - _FREE, _MAX_DOUBLINGS))
        return max(wished, self._wait_s, grown, shortest)


def is_passing(status: int) -> bool:
    """Tell whether a status may be another one soon: 409 is what servers say that still hold the stream of before."""
    return status in (408, 409, 425, 429) or (status >= 500 and status != 501)
