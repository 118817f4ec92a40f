"""The events of one stream, taken by turns: what is too much for one turn of the loop is kept for the next."""

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
    """Take the events of one stream for as long as a turn of the loop has time for what is no reply.

    Parameters
    ----------
    exchange
        Whose stream it is.
    taker
        Takes the events one by one, and tells which of them has the reply.
    limit
        The longest line, and the longest event, in bytes.
    turns
        Told what was spent on what is no reply; ``None`` for no bound.
    """

    def __new__(cls, exchange: Exchange, taker: _Taker, limit: int, turns: _Turns | None = None) -> Self: ...
    @property
    def parser(self) -> SseParser:
        """What cuts the stream into events: it knows the last event's id, and the delay that the server wishes for."""

    @property
    def is_behind(self) -> bool:
        """Whether something was received that is not taken yet."""

    def add(self, chunk: bytes) -> None:
        """Keep the next bytes until :meth:`work`."""

    def take(self, chunk: bytes) -> Any:
        """Take the next bytes, and return as :meth:`work` does."""

    def work(self) -> Any:
        """Take events until the reply is found, which is returned (``None`` otherwise), nothing is left, or the turn is used up.

        Raises
        ------
        SseLimitError
            A line or an event is too long.
        """

    def stop(self) -> None:
        """Take nothing more; what was not taken is dropped."""
