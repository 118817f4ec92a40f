"""The compiled call path of a call without complications, in two crossings from Python.

The first leases a backend and sends the request over an idle wire; the second checks the reply and settles the lease.
Everything else is left to the Python call path.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Never, Protocol, Self, final

from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Backend, Lease, Server
from mcp_manager._core.router import Router
from mcp_manager._core.stateless_frame import StatelessFrame
from mcp_manager._core.wire import WirePool

LATE_AFTER_NS: int
"""A reply that arrives this many nanoseconds after its deadline is late: deadlines are checked no more precisely."""

@final
class RequestIds:
    """Issue request ids that are unique within a session (2025-11-25, basic, requests).

    Parameters
    ----------
    first
        The first id.
    """

    def __new__(cls, first: int) -> Self: ...
    def take(self) -> int:
        """Return the next id."""

class _Dialect(Protocol):
    @property
    def stateless_frame(self) -> StatelessFrame | None: ...
    def exchange(self, request: Any, request_id: int, deadline_ns: int) -> Exchange | None: ...
    def accepts(self, reply: Message) -> bool: ...

@final
class Channel:
    """The compiled send path of a live session over HTTP.

    Parameters
    ----------
    pool
        Holds the idle wires.
    ids
        Issues the session's request ids.
    listener, limit, head
        As for :meth:`Wire.send`; ``head`` may be replaced later.
    session
        The session, for the Python code that takes over a call with complications.
    dialect
        Frames requests that must not go out as they are, and decides whether a result completes its call. Its
        ``stateless_frame`` is tried first; its ``exchange()`` returns ``None`` for a request that must take the Python
        call path. ``None`` if requests go out as they are and every result completes its call.

    Attributes
    ----------
    label
        What the call ring stores for the session; ``None`` until it is set.
    """

    head: bytes
    label: Any

    def __new__(
        cls,
        pool: WirePool,
        ids: RequestIds,
        listener: Any,
        limit: int,
        head: bytes,
        session: Any,
        dialect: _Dialect | None = None,
    ) -> Self: ...
    @property
    def session(self) -> Any:
        """The session that it belongs to."""

@final
class DirectCall:
    """A call that has begun: its lease and, if it was sent at once, its exchange and the future of its reply."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def lease(self) -> Lease:
        """The lease, which may be a rejection."""

    @property
    def method(self) -> str | None:
        """The method; ``None`` if nothing was sent yet."""

    @property
    def exchange(self) -> Exchange | None:
        """What was sent; ``None`` if nothing was sent yet."""

    @property
    def future(self) -> asyncio.Future[Any] | None:
        """The reply as of :meth:`Wire.send`; ``None`` if nothing was sent yet, or the call was abandoned.

        It is also ``None`` while a forwarded call waits for its reply without a future.
        """

    @property
    def session(self) -> Any:
        """The session that it was sent on; ``None`` if nothing was sent yet."""

    def abandon(self) -> None:
        """Close the wire if it still carries this exchange, and drop the wire and the future."""

@final
class CallPath:
    """Send calls over idle wires, and settle the leases of those that end in a result.

    Parameters
    ----------
    router
        Picks backends and counts calls. A call to a backend whose ``channel`` is a :class:`Channel` is sent at once.
    clock
        Returns monotonic nanoseconds.
    seed
        64 random bits, the seed of the random numbers for the router.
    ring
        Records the calls that :meth:`land` settles; ``None`` records none.
    """

    def __new__(cls, router: Router, clock: Callable[[], int], seed: int, ring: CallRing | None = None) -> Self: ...
    def begin(
        self,
        server: Server,
        method: str,
        request: Message | Request | None,
        now_ns: int,
        deadline_ns: int,
        key: int = 0,
        channel: Channel | None = None,
        backend: Backend | None = None,
    ) -> DirectCall:
        """Lease a backend of a server and, if it has an idle wire, send the request.

        Parameters
        ----------
        server
            The server's record, as :meth:`Router.server` returns it.
        method
            The method under which the call is counted.
        request
            The request; ``None`` sends nothing.
        now_ns
            The current time of ``clock``.
        deadline_ns
            When the reply must have arrived, by the same clock; 0 for no deadline.
        key
            As for :meth:`Router.pick`.
        channel, backend
            The session that the request is sent on, in place of that of the backend, and the backend that has it: if
            another one is leased, or ``channel`` is ``None``, nothing is sent. Without ``backend``, that of the lease.

        Raises
        ------
        ValueError
            The server belongs to another router.
        """

    def land(self, direct: DirectCall, reply: Any) -> Message | None:
        """Settle the call if its reply is a result that completes it and arrived in time.

        Returns
        -------
        The result, or ``None``, with nothing done, for any other reply.

        Raises
        ------
        ValueError
            :meth:`begin` sent nothing.
        """

    def watch(self, on_slow: Callable[[DirectCall, Message, int], object]) -> None:
        """Call ``on_slow`` for every slow call that :meth:`land` settles, and as long as it is not known what is slow.

        It gets the call, its result, and when it ended by the clock; it must not raise.
        """

    def slow_ns(self, server: Server) -> int | None:
        """Return from how many nanoseconds on a server's calls are slow; ``None`` if that is to be measured."""

    def set_slow(self, server: Server, slow_ns: int) -> None:
        """Set from how many nanoseconds on a server's calls are slow, until :meth:`measure_again`."""

    def measure_again(self) -> None:
        """Forget from when on calls are slow, for all servers."""

@final
class Sampler:
    """Pass calls on, and every now and then one to a function that decides whether it is traced.

    Parameters
    ----------
    make
        Makes a call: its arguments are those of :meth:`call`.
    decide
        Gets a call in the place of ``make``, if ``left_out`` has run out or its caller may be in a trace.
    variable
        A context variable that holds a mapping: while that is not empty, the caller may be in a trace. Its default
        counts as empty.
    asks
        Whether every caller may be in a trace.

    Attributes
    ----------
    left_out
        How many further calls of callers in no trace are passed on; ``decide`` must set it.
    """

    left_out: int

    def __new__(
        cls,
        make: Callable[..., Any],
        decide: Callable[..., Any],
        variable: ContextVar[Any] | None = None,
        *,
        asks: bool = False,
    ) -> Self: ...
    def call(self, supervisor: Any, method: str, request: Any, started_ns: int, deadline_ns: int) -> Any:
        """Pass a call on; return what the function returns that gets it."""
