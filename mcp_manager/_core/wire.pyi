"""An HTTP/1.1 connection after aiohttp has opened it: a request in one write, its reply straight to who waits.

llhttp parses, through httptools. This module decides which message may follow which, how long they may be, and whether
the connection may carry another request.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, Self, final

from typing_extensions import disjoint_base

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.http_message import Exchange
from mcp_manager._core.recipients import AwaitedReader

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
    """What the wire pools of a manager share.

    ``on_return`` may be set to a callable that is offered every wire that becomes free, and takes it by returning true.
    """

    on_return: Callable[[Any], bool] | None

    @property
    def idle(self) -> int:
        """How many wires are idle in all pools."""

@final
class WirePool:
    """Hold the wires to one origin; idle ones are on a stack, so that as few as possible are in use.

    Parameters
    ----------
    wheel
        Holds the deadlines of exchanges, and of streams that have delivered their reply.
    clock
        Returns monotonic nanoseconds.
    storage
        The receive buffer that all wires of a loop share.
    group
        The group that it belongs to; a new one by default.
    turns
        The loop's read budget, which bounds the reading of floods; ``None`` sets no bound.
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
        """The group that it belongs to."""

    @property
    def single_use(self) -> bool:
        """Whether the server was seen to close right after a reply without announcing it: then wires are not reused.

        One wire is still kept, idle: if the server leaves it open, wires are reused again.
        """
    @property
    def idle(self) -> list[Any]:
        """The idle wires, the most recently used last."""

    @property
    def wires(self) -> set[Any]:
        """Every open wire."""

    def take(self, now_ns: int = 0) -> Any | None:
        """Take the idle wire that was used last, ``None`` if there is none.

        :meth:`Wire.has_news` is checked first if the wire was not used within the last 5 ms before ``now_ns``, or if
        its origin has lost requests on kept connections; without a time it is always checked.
        """

    def sweep(self) -> None:
        """Close every wire that was idle at the last sweep already."""

    def interrupt(self, listener: object | None = None) -> None:
        """Fail the exchanges of a listener, or all, with :data:`STOPPED`, and close their wires."""

    def deliver(self, listener: object, request_id: int, reply: object) -> bool:
        """Deliver a reply that arrived elsewhere and close its wire; return whether an exchange waited for it."""

@disjoint_base
class Wire(AwaitedReader):
    """Carry one exchange at a time over a connection; mix in :class:`asyncio.BufferedProtocol`.

    A connection is reused only after a complete response that permits it: never after bytes beyond the response,
    ``Connection: close``, a cancelled exchange, an event stream without the reply, a response that overtook its
    request, or an unsolicited response.

    Parameters
    ----------
    pool
        The pool that holds it when idle.
    create_future
        The loop's ``create_future``.
    """

    def __init__(self, pool: WirePool, create_future: Callable[[], asyncio.Future[Any]]) -> None: ...
    @property
    def idle(self) -> bool:
        """Whether :meth:`send` may be called."""

    @property
    def served(self) -> int:
        """How many complete exchanges it has carried."""

    @property
    def broken(self) -> bool:
        """Whether the server or the network ended it."""

    @property
    def closed(self) -> bool:
        """Whether it can carry no more exchanges."""

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over a connection that has carried nothing yet; its protocol must have been set to this wire.

        Raises
        ------
        RuntimeError
            The wire was attached before, or has no pool.
        """

    def send(self, head: bytes, exchange: Exchange, listener: _Listener, limit: int) -> asyncio.Future[Any]:
        """Send a request and return the future of its reply.

        Parameters
        ----------
        head
            The request's head, up to and including ``Content-Length: ``.
        exchange
            The body, and the deadline of the reply.
        listener
            Its ``take_event(exchange, data)`` gets every event of an event stream. What it returns, if not ``None``, is
            the reply; what it raises ends the exchange. For an exchange with the id :data:`STANDING`,
            ``stream_opened(exchange)`` is called when the stream begins, and ``take_named_event(name, data)`` gets
            events with a name of their own. ``take_cookies(values)`` gets the ``Set-Cookie`` fields of every response.
        limit
            The longest body, or event of one, in bytes.

        Returns
        -------
        A future whose result is a :class:`WireReply`, or what the listener returned; its exception is a
        :class:`WireError`, or what the listener raised. If the exchange's id is 0, the result is the head of the
        response when that is an event stream.

        Raises
        ------
        RuntimeError
            The wire is not idle.
        """

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Close the connection if it still carries the exchange of this future, which nobody waits for any more."""

    def retire(self) -> None:
        """Make the exchange under way the last one; without one, close the connection now.

        For a response that did not belong to its request: all later ones would be off by one as well.
        """

    def close(self) -> None:
        """Close the connection at once; idempotent. Its exchange must have been ended before."""

    def lost(self, error: BaseException | None) -> None:
        """Called once when the connection is gone; to be overridden."""

    def has_news(self) -> bool:
        """Return whether data has arrived that the loop has not read yet; to be overridden, as it does I/O."""

    def flooded(self) -> None:
        """Tell the listener that the server floods."""

    # Callbacks of asyncio and httptools
    def connection_lost(self, error: BaseException | None) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, size: int) -> None: ...
    def eof_received(self) -> None: ...
    def on_message_begin(self) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, chunk: bytes) -> None: ...
    def on_message_complete(self) -> None: ...
