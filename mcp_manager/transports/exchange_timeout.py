"""A timeout at the deadline of an exchange, which the listener of its call may put off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.deadline_timer import remaining_s
from mcp_manager.transports.base import Exchange, put_off

__all__ = ["exchange_timeout"]


class _Watch:
    """Let a timeout expire when the deadline has passed, with all that it was put off by."""

    __slots__ = ("_context", "_exchange", "_handle", "_loop", "_timeout")

    def __init__(self, exchange: Exchange, timeout: asyncio.Timeout) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._context = bare_context()
        # Not at once: the timeout must have been entered.
        self._handle: asyncio.Handle = self._loop.call_soon(self._look, context=self._context)

    def cancel(self) -> None:
        """Look no more."""
        # This also breaks the cycle between the handle and this object.
        self._handle.cancel()

    def _look(self) -> None:
        left_s = (put_off(self._exchange.listener, self._exchange.deadline_ns) - time.monotonic_ns()) / 1e9
        if left_s > 0:
            self._handle = self._loop.call_later(left_s, self._look, context=self._context)
        elif not self._timeout.expired():
            self._timeout.reschedule(0.0)


@contextlib.contextmanager
def exchange_timeout(exchange: Exchange) -> Iterator[asyncio.Timeout]:
    """Return a timeout that expires at the deadline of an exchange, for one ``async with`` in the block."""
    if exchange.listener is None or not exchange.deadline_ns:
        yield asyncio.timeout(remaining_s(exchange.deadline_ns))
        return
    timeout = asyncio.timeout(None)
    watch = _Watch(exchange, timeout)
    try:
        yield timeout
    finally:
        watch.cancel()
