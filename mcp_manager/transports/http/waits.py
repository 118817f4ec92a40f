"""What the exchanges of one transport wait for, within their deadlines and until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from yarl import URL

from mcp_manager._core.http_message import EXPIRED, STOPPED, Exchange, WireError
from mcp_manager.errors import DeadlineExceededError
from mcp_manager.protocol.methods import CONTROL
from mcp_manager.runtime.deadline_timer import remaining_s
from mcp_manager.transports.http.connections.permits import ConnectionWait
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.resending import method_of

__all__ = ["Waits"]

# Of connect_timeout_s, for descriptors: whoever connects a session must hear of it before that is over.
_PATIENCE: Final = 0.8


class Waits:
    """Bound what is awaited for exchanges.

    Parameters
    ----------
    pool
        Where connections come from.
    server_id
        Names the server in errors.
    connect_timeout_s
        What a connection may take where an exchange has no deadline of its own.
    """

    __slots__ = ("_connect_timeout_s", "_pool", "_server_id", "_waits", "is_stopped")

    def __init__(self, pool: HttpPool, server_id: str, connect_timeout_s: float) -> None:
        self._pool = pool
        self._server_id = server_id
        self._connect_timeout_s = connect_timeout_s
        # While anything is awaited: most sessions have nothing most of the time.
        self._waits: set[asyncio.Timeout] | None = None
        self.is_stopped = False

    def stop(self) -> None:
        """End everything that is awaited."""
        self.is_stopped = True
        for wait in self._waits or ():
            # They belong to their callers' tasks: their time is up, nothing else happens to them.
            if not wait.expired():
                wait.reschedule(0.0)

    @contextlib.asynccontextmanager
    async def bounded(self, exchange: Exchange) -> AsyncIterator[None]:
        """Bound what is awaited by the exchange's deadline and by :meth:`stop`; raises :class:`WireError`."""
        wait = asyncio.timeout(remaining_s(exchange.deadline_ns))
        if self._waits is None:
            self._waits = set()
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            raise WireError(STOPPED if self.is_stopped else EXPIRED) from None
        finally:
            self._waits.discard(wait)
            if not self._waits:
                self._waits = None

    @contextlib.asynccontextmanager
    async def in_turn(self, exchange: Exchange, endpoint: URL) -> AsyncIterator[ConnectionWait]:
        """Bound the making of a connection, and say so where it was this side that had none.

        Raises
        ------
        WireError
            As :meth:`bounded` does.
        DeadlineExceededError
            No connection came free, or could be made for want of descriptors.
        """
        is_control = exchange.request_id <= 0 or method_of(exchange.frame) in CONTROL
        patience_s = self._connect_timeout_s * _PATIENCE if exchange.deadline_ns <= 0 else None
        wait = ConnectionWait(is_control=is_control, patience_s=patience_s)
        try:
            async with self.bounded(exchange):
                yield wait
        except WireError as error:
            if error.kind != EXPIRED or exchange.sent or not wait.blocked_by:
                raise
            message, hint = self._pool.shortage(wait, str(endpoint.origin()))
            late = DeadlineExceededError(
                f"no connection came free within the deadline: {message}",
                server_id=self._server_id,
                delivery="not_sent",
                hint=hint,
            )
            late.is_local = True
            try:
                raise late from None
            finally:
                # Its traceback holds this frame.
                del late
