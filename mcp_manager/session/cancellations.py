"""Tells a server which of its requests nobody awaits any longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson

from mcp_manager._core.jsonrpc import notification_frame

__all__ = ["Cancellations", "all_sent"]

_METHOD_RAW: Final = b'"notifications/cancelled"'


class Cancellations:
    """Send the cancellations of one session, each in a task of its own.

    Parameters
    ----------
    spawn
        Runs work in a task that ends with the session; returns ``None`` if the session has ended.
    send
        ``await send(frame)`` sends a notification, or drops it if that fails; it must be bounded in time.
    """

    __slots__ = ("_send", "_spawn", "_under_way")

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        send: Callable[[bytes], Coroutine[Any, Any, None]],
    ) -> None:
        self._spawn = spawn
        self._send = send
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, request_id: int, reason: str) -> None:
        """Begin to send the cancellation of a request (2025-11-25, basic/utilities/cancellation)."""
        params = orjson.dumps({"requestId": request_id, "reason": reason})
        task = self._spawn(self._send(notification_frame(_METHOD_RAW, params)))
        if task is not None:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def sent(self, timeout_s: float) -> None:
        """Wait until all are sent, at most ``timeout_s`` seconds."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)


async def all_sent(cancellations: Cancellations | None, grace_s: float) -> float:
    """Let a server learn of the calls that were given up before its session ends.

    In the handshake era, the end of a connection cancels nothing (2025-11-25, basic/transports): a server that is not
    told goes on with its work.

    Parameters
    ----------
    cancellations
        Those of the session, ``None`` if there was none.
    grace_s
        Seconds that the end of the session may take. This takes half of them at most, even if the server accepts
        nothing.

    Returns
    -------
    The seconds that are left.
    """
    if cancellations is None or grace_s <= 0:
        return grace_s
    began = time.monotonic()
    await cancellations.sent(grace_s / 2)
    return max(0.0, grace_s - (time.monotonic() - began))
