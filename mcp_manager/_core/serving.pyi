"""The server half of HTTP/1.1 connections: requests of MCP clients; all else is handed over to another server.

Use::

    timer, runner = DeadlineTimer(), web.AppRunner(app)
    await runner.setup()
    pool = ServingPool(
        timer.wheel,
        time.monotonic_ns,
        on_request=take,  # called with a ServedRequest; returns at once
        is_endpoint=lambda path: path == b"/mcp",
        make_web_protocol=lambda: runner.server(),
        turns=read_budget(),
    )
    server = await loop.create_server(pool, host, port, ssl=…)  # or create_unix_server
    …
    server.close()
    pool.drain()  # idle connections close, busy ones after their response
    pool.abort()  # what is left
"""

import asyncio
from collections.abc import Callable
from typing import Any, Never, Protocol, Self, final

from typing_extensions import disjoint_base

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.paced import PacedReader
from mcp_manager._core.request_head import RequestHead
from mcp_manager._core.serving_limits import ServingLimits

class _Turns(Protocol):
    @property
    def clock(self) -> Callable[[], int]: ...
    def spend(self, cost_ns: int) -> bool: ...
    def wait(self, reader: Any) -> None: ...
    def leave(self, reader: Any) -> None: ...

@final
class ServingPool:
    """Own the connections of one loop; call it for the protocol of a new one, as ``loop.create_server`` does.

    Parameters
    ----------
    wheel
        Holds the deadlines of the connections.
    clock
        Returns monotonic nanoseconds.
    on_request
        Takes each POST to an endpoint, once its body is there. It returns at once; the response may come later. What it
        raises becomes a 500, and is logged.
    is_endpoint
        Whether a path, without its query, is one whose requests are taken here. Asked again for the next request of a
        connection only if the target is another.
    on_session_request
        Takes each GET for an event stream and each DELETE to an endpoint that has no body, as ``on_request`` does.
        ``None``: they are handed over like all else.
    make_web_protocol
        Makes the protocol that takes over a connection at its first request of any other kind, as ``AppRunner.server``
        does. It gets the bytes of that request, and keeps the connection.
    limits
        What clients may use.
    turns
        The loop's read budget, which bounds the work for one connection in one event-loop iteration.
    """

    def __new__(
        cls,
        wheel: DeadlineWheel,
        clock: Callable[[], int],
        *,
        on_request: Callable[[ServedRequest], object],
        is_endpoint: Callable[[bytes], bool],
        make_web_protocol: Callable[[], Any],
        on_session_request: Callable[[ServedRequest], object] | None = None,
        limits: ServingLimits | None = None,
        turns: _Turns | None = None,
    ) -> Self: ...
    def __call__(self, *args: Never, **kwargs: Never) -> Connection:
        """Make the protocol of a new connection."""

    @property
    def limits(self) -> ServingLimits:
        """What clients may use."""

    @property
    def connections(self) -> set[Connection]:
        """Every connection that was not handed over."""

    @property
    def open(self) -> int:
        """How many connections there are that were not handed over."""

    @property
    def busy(self) -> int:
        """How many of them receive a body or are being answered."""

    @property
    def requests(self) -> int:
        """How many requests were given to ``on_request``."""

    @property
    def handed_over(self) -> int:
        """How many connections were handed over."""

    @property
    def draining(self) -> bool:
        """Whether :meth:`drain` was called."""

    def drain(self) -> None:
        """Close idle connections now, and the others after their response, which says so; accept no new ones."""

    def abort(self) -> None:
        """Cut off every connection."""

@disjoint_base
class ServedConnection(PacedReader):
    """Serve one connection: one request at a time, so that responses go out in order.

    Parameters
    ----------
    pool
        Its pool.
    """

    def __init__(self, pool: ServingPool) -> None: ...
    @property
    def served(self) -> int:
        """How many requests it has carried."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.BaseProtocol`."""

    def connection_lost(self, error: Exception | None) -> None:
        """See :class:`asyncio.BaseProtocol`."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """See :class:`asyncio.BufferedProtocol`."""

    def buffer_updated(self, size: int) -> None:
        """See :class:`asyncio.BufferedProtocol`."""

    def eof_received(self) -> bool:
        """See :class:`asyncio.BufferedProtocol`."""

    def pause_writing(self) -> None:
        """See :class:`asyncio.BaseProtocol`."""

    def resume_writing(self) -> None:
        """See :class:`asyncio.BaseProtocol`."""

    def flooded(self) -> None:
        """See :class:`mcp_manager.runtime.read_budget.Reader`."""

class Connection(ServedConnection, asyncio.BufferedProtocol):
    """A :class:`ServedConnection` that event loops recognise as a buffered protocol."""

@final
class ServedRequest(RequestHead):
    """One request with its body: an ``Incoming`` of :mod:`mcp_manager.gateway.channels`, and its ``EventStream``."""

    on_gone: Callable[[], None] | None

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def path(self) -> str:
        """The path of the URL, without its query, as it was sent."""

    @property
    def body(self) -> bytes:
        """The body."""

    @property
    def peer(self) -> Any:
        """The address of the client, as sockets name it; ``None`` once it is gone."""

    @property
    def is_open(self) -> bool:
        """Whether the client waits for the response, or for the rest of it."""

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        """Send the whole response; nothing happens once the client is gone.

        Raises
        ------
        RuntimeError
            A response was begun already.
        """

    def open_events(self, fields: bytes = b"") -> Self:
        """Begin a response of server-sent events; the stream is the request itself, without its fields and its body.

        Raises
        ------
        RuntimeError
            A response was begun already.
        """

    def send(self, events: bytes) -> None:
        """Send complete events; a client that is too far behind is cut off. Nothing happens once it is gone.

        Raises
        ------
        RuntimeError
            :meth:`open_events` was not called.
        """

    def end(self) -> None:
        """End the response. Idempotent.

        Raises
        ------
        RuntimeError
            :meth:`open_events` was not called.
        """
