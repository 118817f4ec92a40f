"""Bounds every wait of one transport by the exchange's deadline and by the stop of the transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from yarl import URL

from mcp_manager._core.http_message import EXPIRED, STOPPED, Exchange, WireError
from mcp_manager.errors import DeadlineExceededError
from mcp_manager.protocol.methods import CONTROL
from mcp_manager.transports.exchange_timeout import exchange_timeout
from mcp_manager.transports.http.connections.permits import ConnectionWait
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.resending import method_of

__all__ = ["Waits"]

# The share of connect_timeout_s that may be spent waiting for descriptors, so that the error comes before the timeout.
_PATIENCE: Final = 0.8


class Waits:
    """Bound the waits of the exchanges of one transport.

    Parameters
    ----------
    pool
        The manager's connections.
    server_id
        Names the server in errors.
    connect_timeout_s
        Bounds the wait for descriptors of an exchange without a deadline.
    """

    __slots__ = ("_connect_timeout_s", "_pool", "_server_id", "_waits", "is_stopped")

    def __init__(self, pool: HttpPool, server_id: str, connect_timeout_s: float) -> None:
        self._pool = pool
        self._server_id = server_id
        self._connect_timeout_s = connect_timeout_s
        # ``None`` while nothing waits, which is the usual state of a session: an empty set costs memory.
        self._waits: set[asyncio.Timeout] | None = None
        self.is_stopped: bool = False

    def stop(self) -> None:
        """End every wait under way with :data:`STOPPED`."""
        self.is_stopped = True
        for wait in self._waits or ():
            # They run in the callers' tasks, which must not be cancelled: only their timeouts expire.
            if not wait.expired():
                wait.reschedule(0.0)

    @contextlib.asynccontextmanager
    async def bounded(self, exchange: Exchange) -> AsyncIterator[None]:
        """Bound the block by the exchange's deadline and by :meth:`stop`; either raises :class:`WireError`."""
        with exchange_timeout(exchange) as wait:
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
    async def connection_wait(self, exchange: Exchange, endpoint: URL) -> AsyncIterator[ConnectionWait]:
        """Bound the wait for a connection, and report a shortage of connections as such.

        Raises
        ------
        WireError
            As :meth:`bounded`.
        DeadlineExceededError
            No connection became free, or no descriptor was left for one.
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
                f"{message}, and no connection became free within the deadline",
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
