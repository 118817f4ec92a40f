"""One HTTP/1.1 connection after aiohttp has opened it: a request in one write, its reply straight to a future.

llhttp, through httptools, parses; this module decides what may follow what, how much of it, and whether the connection
may carry another request.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, Self, final

from typing_extensions import disjoint_base

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.http_message import Exchange
from mcp_manager._core.paced import PacedReader

class _Listener(Protocol):
    def take_event(self, exchange: Exchange, data: bytes) -> object | None: ...

class _Turns(Protocol):
    @property
    def clock(self) -> Callable[[], int]: ...
    def spend(self, cost_ns: int) -> bool: ...
    def wait(self, reader: Any) -> None: ...
    def leave(self, reader: Any) -> None: ...

@final
class WireGroup:
    """What the pools of one manager have in common.

    ``on_return`` may be set to a callable that is offered every wire that comes free, and takes it by returning true.
    """

    on_return: Callable[[Any], bool] | None

    @property
    def idle(self) -> int:
        """How many wires lie idle in all pools."""

@final
class WirePool:
    """Keep the wires to one origin; those that are idle lie on a stack, so that as few as possible are in use.

    Parameters
    ----------
    wheel
        Takes the deadlines of exchanges and of streams that have delivered their reply.
    clock
        Monotonic nanoseconds.
    storage
        What all wires of a loop receive into, one after another.
    group
        What it belongs to, if to anything.
    turns
        Those of the loop, by which floods are read; ``None`` for no bound.
    """

    def __new__(
        cls,
        wheel: DeadlineWheel,
        clock: Callable[[], int],
        storage: bytearray,
        group: WireGroup | None = None,
        turns: _Turns | None = None,
    ) -> Self: ...
    @property
    def group(self) -> WireGroup:
        """What it belongs to."""

    @property
    def single_use(self) -> bool:
        """Whether the far end was seen to close right after a reply without saying so: wires are not used again then.

        One is kept all the same, unused. If that one stays open, they are used again.
        """
    @property
    def idle(self) -> list[Any]:
        """The idle wires, the most recently used last."""

    @property
    def wires(self) -> set[Any]:
        """Every open wire."""

    def take(self, now_ns: int = 0) -> Any | None:
        """Take the idle wire that was used last, ``None`` if there is none.

        One that was not used within the last 5 ms before ``now_ns``, or at an origin that has lost requests with kept
        connections, is asked for :meth:`Wire.has_news` first; without a time every one is.
        """

    def sweep(self) -> None:
        """Close every wire that was idle at the last sweep already."""

    def interrupt(self, listener: object | None = None) -> None:
        """Fail the exchanges of a listener, or all, with :data:`STOPPED`, and close their wires."""

    def deliver(self, listener: object, request_id: int, reply: object) -> bool:
        """Give a reply that came another way to the exchange that waits for it, if one does; its wire is closed."""

@disjoint_base
class Wire(PacedReader):
    """Carry one exchange at a time over a connection; an :class:`asyncio.BufferedProtocol` when mixed with that.

    A connection is used again only after a complete response that asks for nothing else: never after bytes beyond it,
    ``Connection: close``, a cancelled exchange, an event stream without the reply, a response that overtook its request,
    or one that nobody asked for.

    Parameters
    ----------
    pool
        Where it lies when idle.
    create_future
        The loop's own.
    """

    def __init__(self, pool: WirePool, create_future: Callable[[], asyncio.Future[Any]]) -> None: ...
    @property
    def idle(self) -> bool:
        """Whether :meth:`send` may be called."""

    @property
    def served(self) -> int:
        """How many whole exchanges it has carried."""

    @property
    def broken(self) -> bool:
        """Whether it was the far end, or the network, that ended it."""

    @property
    def closed(self) -> bool:
        """Whether it can carry nothing any more."""

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over a connection that has carried nothing yet; its protocol must have been set to this."""

    def send(self, head: bytes, exchange: Exchange, listener: _Listener, limit: int) -> asyncio.Future[Any]:
        """Send a request and return the future of what comes back.

        Parameters
        ----------
        head
            The request's head, up to and including ``Content-Length: ``.
        exchange
            The body, and until when its reply is awaited.
        listener
            Looks at every event of a reply that is an event stream; what it returns for one of them, if not ``None``,
            is the reply, and what it raises ends the exchange. For an exchange with the id :data:`STANDING`, its
            ``stream_opened(exchange)`` is told of the head of the stream, and its ``take_named_event(name, data)`` of
            events with a name of their own. Its ``take_cookies(values)`` gets those of the ``Set-Cookie`` fields of every
            response.
        limit
            The longest body, or event of one, in bytes.

        The future's result is a :class:`WireReply`, or what the listener returned; its exception is a
        :class:`WireError`, or what the listener raised. Where the exchange's id is 0, the head of an event stream is
        the result.

        Raises
        ------
        RuntimeError
            The wire is not idle.
        """

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Close the connection if it still carries the exchange of this future, which nobody waits for any more."""

    def retire(self) -> None:
        """Let the exchange under way be the last one, if there is any, and else close the connection now.

        For who finds that a response was not the one to its request: all that follow would be one behind as well.
        """

    def close(self) -> None:
        """Close the connection at once; idempotent. The exchange it carries must have been ended."""

    def lost(self, error: BaseException | None) -> None:
        """Called once when the connection is gone; to be overridden."""

    def has_news(self) -> bool:
        """Tell whether something has come that the loop has not read yet; to be overridden, as it does I/O."""

    def flooded(self) -> None:
        """Pass on to the listener that the server floods."""

    # asyncio's and httptools' side
    def connection_lost(self, error: BaseException | None) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, size: int) -> None: ...
    def eof_received(self) -> None: ...
    def on_message_begin(self) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, chunk: bytes) -> None: ...
    def on_message_complete(self) -> None: ...
