"""An exchange whose request was sent without a task: a callback may take its reply, or a task may finish it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from mcp_manager._core.call_path import DirectCall
from mcp_manager._core.jsonrpc import Message
from mcp_manager.calls.call import Call
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.calls.exchange_listener import ExchangeListener

__all__ = ["BegunExchange", "finished"]


class BegunExchange:
    """An exchange that :meth:`Exchanges._begin_exchange` has begun.

    Its owner must call :meth:`finish`, unless :meth:`take` has returned the response.

    Parameters
    ----------
    dispatcher
        What has begun the call.
    call, direct, listener
        The call, how far it is, and what takes the messages of its server.
    id_raw
        The id of the request, as JSON.

    Attributes
    ----------
    future
        Done when there is an answer; ``None`` if the request was not sent yet.
    """

    __slots__ = ("_call", "_direct", "_dispatcher", "_id_raw", "_listener", "future")

    def __init__(
        self, dispatcher: Dispatcher, call: Call, direct: DirectCall, listener: ExchangeListener, id_raw: bytes
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._direct = direct
        self.future: asyncio.Future[Any] | None = direct.future
        self._listener = listener
        self._id_raw = id_raw

    def take(self) -> bytes | None:
        """Return the response, once the future is done; ``None`` if it takes :meth:`finish` to get it.

        That is so if there is no plain result, or if the server has sent something before it.
        """
        future, listener = self.future, self._listener
        if future is None or future.cancelled() or future.exception() is not None:
            return None
        if listener.is_delivering or listener.has_answered:
            return None
        reply = self._dispatcher.land(self._direct, future.result())
        if reply is None:
            return None
        listener.end()
        return reply.take_frame(self._id_raw)

    async def finish(self) -> bytes:
        """Wait for the response, and return it; raises as :meth:`Exchanges.exchange`."""
        exchanging = self._dispatcher.exchange(self._call, self._direct)
        return await finished(exchanging, self._call, self._listener, self._id_raw)


async def finished(
    exchanging: Awaitable[Message], call: Call, listener: ExchangeListener, id_raw: bytes | None
) -> bytes:
    """Return the response of an exchange when everything that came before it is handed over."""
    try:
        reply = await exchanging
        if listener.is_delivering:
            await listener.finish(listener.put_off(call.deadline_ns))
    finally:
        if listener.end():
            await listener.aclose()
    return reply.take_frame(id_raw)
