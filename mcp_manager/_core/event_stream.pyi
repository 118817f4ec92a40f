"""Handles the events of one stream in time slices: what is too much for one event-loop iteration waits for the next."""

from collections.abc import Callable
from typing import Any, Protocol, Self, final

from mcp_manager._core.http_message import Exchange
from mcp_manager._core.sse import SseParser

class _Taker(Protocol):
    def take_event(self, exchange: Exchange, data: bytes) -> object | None: ...
    def take_named_event(self, name: str, data: bytes) -> None: ...

class _Turns(Protocol):
    @property
    def clock(self) -> Callable[[], int]: ...
    def spend(self, cost_ns: int) -> bool: ...

@final
class EventStream:
    """Handle the events of one stream, as long as the time slice lasts for events that are not the reply.

    Parameters
    ----------
    exchange
        The exchange whose response the stream is.
    taker
        Its ``take_event`` gets the events one by one, and returns the reply if the event has it. On a standing stream,
        its ``take_named_event`` gets the events that have a name of their own.
    limit
        The longest line and the longest event, in bytes.
    turns
        The loop's read budget, charged for events that are not the reply; ``None`` sets no bound.
    """

    def __new__(cls, exchange: Exchange, taker: _Taker, limit: int, turns: _Turns | None = None) -> Self: ...
    @property
    def parser(self) -> SseParser:
        """The parser: it knows the last event's id, and the reconnection delay that the server asked for."""

    @property
    def is_behind(self) -> bool:
        """Whether anything received is still to be handled."""

    def add(self, chunk: bytes) -> None:
        """Keep the next bytes for :meth:`work`."""

    def take(self, chunk: bytes) -> Any:
        """Handle the next bytes; returns and raises like :meth:`work`."""

    def work(self) -> Any:
        """Handle events until the reply is found, none is left, or the time slice is spent.

        Returns
        -------
        The reply, ``None`` if it was not found.

        Raises
        ------
        SseLimitError
            A line or an event is longer than ``limit``.
        """

    def stop(self) -> None:
        """Drop what is not handled yet, and ignore what follows."""
