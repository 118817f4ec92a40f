"""Decides when an ended event stream is resumed, and from which event (2025-11-25, basic/transports, resumability)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_EVENT_ID", "Reconnection", "is_passing", "usable_event_id"]

MAX_EVENT_ID: Final = 4096
"""The longest event id that is sent back, in bytes: servers refuse longer header fields."""

_INITIAL_S: Final = 0.5
_SPREAD: Final = 0.2
_SHORTEST_S: Final = 0.01
# The shortest delay after more than _FREE short streams in a row: some servers end every stream after one event.
_SHORT_STREAMS_S: Final = 0.25
_FREE: Final = 8
_LONGEST_WISH_S: Final = 86400.0
_MAX_DOUBLINGS: Final = 16
# RFC 9110, section 5.5: what a field value cannot contain, and the blanks at its ends, which do not belong to it.
_NO_FIELD_VALUE: Final = re.compile(r"[\x00-\x1f\x7f]|^ | $")


def usable_event_id(event_id: str) -> str:
    """Return an event id if it can be sent in a header field, else ""."""
    if _NO_FIELD_VALUE.search(event_id) or len(event_id.encode()) > MAX_EVENT_ID:
        return ""
    return event_id


class Reconnection:
    """Keep the last event id of a stream, and back off between the attempts to resume it.

    Parameters
    ----------
    longest_s
        The longest backoff in seconds; the server may ask for more.
    last_event_id
        The last event id of the stream so far.
    retry_ms
        The delay that the server has asked for, in milliseconds; ``None`` if none.

    ``failures`` counts attempts in a row that gave no stream.
    """

    __slots__ = ("_fruitless", "_longest_s", "_retry_ms", "_short", "_wait_s", "failures", "last_event_id")

    def __init__(self, longest_s: float, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self._longest_s = longest_s
        self._retry_ms = retry_ms
        self._fruitless = 0
        self._short = 0
        self._wait_s = 0.0
        self.last_event_id: str = usable_event_id(last_event_id)
        self.failures: int = 0

    def ended(self, last_event_id: str, retry_ms: int | None, *, fruitful: bool, lasted: bool = False) -> None:
        """Note that a stream was resumed and has ended.

        Parameters
        ----------
        last_event_id, retry_ms
            The last ones on the stream; "" and ``None`` if it had none.
        fruitful
            Whether it brought anything, or lasted: then the backoff starts over.
        lasted
            Whether it stayed open for a while.
        """
        if last_event_id:
            self.last_event_id = usable_event_id(last_event_id)
        if retry_ms is not None:
            self._retry_ms = retry_ms
        self.failures = 0
        self._wait_s = 0.0
        self._fruitless = 0 if fruitful else self._fruitless + 1
        self._short = 0 if lasted else self._short + 1

    def failed(self, retry_after_s: float | None = None) -> None:
        """Note that an attempt gave no stream; ``retry_after_s`` is the ``Retry-After`` of the response, if any."""
        self.failures += 1
        self._fruitless += 1
        self._wait_s = retry_after_s or 0.0

    def skip(self) -> None:
        """Note a stream that cannot be read on; the next attempt starts without a last event id."""
        self.last_event_id = ""
        self.failed()

    def delay_s(self, random: float) -> float:
        """Return the seconds until the next attempt.

        It is at least the server's ``retry`` (a MUST). Each fruitless attempt in a row doubles it, up to ``longest_s``.
        After eight short streams in a row, each further one doubles it as well, up to 0.25 s.

        Parameters
        ----------
        random
            A random number in [0, 1), for the jitter.
        """
        wished = min((self._retry_ms or 0) / 1000, _LONGEST_WISH_S)
        # If the server has set a delay, backoff begins after the second fruitless attempt.
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
    """Return whether a status may be temporary; 409 comes from servers that still hold the previous stream."""
    return status in (408, 409, 425, 429) or (status >= 500 and status != 501)
