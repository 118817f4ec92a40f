"""The way of one call as long as nothing unusual happens: lease, frame and wire in one crossing, reply and accounts in
another.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Never, Protocol, Self, final

from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Lease, Server
from mcp_manager._core.router import Router
from mcp_manager._core.stateless_frame import StatelessFrame
from mcp_manager._core.wire import WirePool

LATE_AFTER_NS: int
"""A reply that comes so many nanoseconds after its deadline is late: deadlines are not visited more exactly."""

@final
class RequestIds:
    """Number the requests of one session, each once (2025-11-25, basic, requests).

    Parameters
    ----------
    first
        The first number.
    """

    def __new__(cls, first: int) -> Self: ...
    def take(self) -> int:
        """Return the next number."""

class _Dialect(Protocol):
    @property
    def stateless_frame(self) -> StatelessFrame | None: ...
    def exchange(self, request: Any, request_id: int, deadline_ns: int) -> Exchange | None: ...
    def accepts(self, reply: Message) -> bool: ...

@final
class Channel:
    """Where the requests of a live session over HTTP go out.

    Parameters
    ----------
    pool
        Holds the idle wires.
    ids
        The session's.
    listener, limit, head
        As for :meth:`Wire.send`; the head may be replaced.
    session
        Whose channel it is, for whoever meets something unusual.
    dialect
        Makes the exchanges of requests that are not sent as they are, ``None`` for one that takes another way, and says
        of a result whether it is the end of its call; ``None`` where neither is needed. Its ``stateless_frame`` is tried first.

    ``label`` is what the ring keeps of the session, ``None`` until it is set.
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
        """Whose channel it is."""

@final
class DirectCall:
    """A call under way: its lease, and, if it went out already, its exchange and the future of what comes back."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def lease(self) -> Lease:
        """The permission to call, or its rejection."""

    @property
    def exchange(self) -> Exchange | None:
        """What was sent, ``None`` if nothing was yet."""

    @property
    def future(self) -> asyncio.Future[Any] | None:
        """What comes back, as of :meth:`Wire.send`; ``None`` if nothing was sent yet, or it was abandoned."""

    @property
    def session(self) -> Any:
        """The session it was sent on."""

    def abandon(self) -> None:
        """Close the wire if it still carries this exchange, and let go of it and of the future."""

@final
class CallPath:
    """Take calls to wires and back.

    Parameters
    ----------
    router
        Picks backends and keeps the accounts. A backend whose ``channel`` is a :class:`Channel` is called at once.
    clock
        Monotonic nanoseconds.
    seed
        64 random bits, of which those for the router are drawn.
    ring
        Remembers the calls that land, if there is one.
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
    ) -> DirectCall:
        """Lease a backend of a server, as :meth:`Router.server` gives it, and, if it has an idle wire, send the request.

        With ``None`` for the request nothing is sent. ``key`` as for :meth:`Router.pick`.
        """

    def land(self, direct: DirectCall, reply: Any) -> Message | None:
        """Return the reply, a result, and give the lease back; ``None``, with nothing done, for anything else."""
