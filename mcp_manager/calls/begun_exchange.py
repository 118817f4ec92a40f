"""An exchange whose request was sent without a task: a callback may take its reply, or a task may finish it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any

import msgspec

from mcp_manager._core.call_path import DirectCall
from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth.caller import Caller, calling
from mcp_manager.calls.call import Call
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.calls.exchange_listener import ExchangeListener, OnMessage
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.transports.base import Sendable

__all__ = ["BegunExchange", "Receiver", "finished", "for_caller"]


class Receiver(msgspec.Struct, frozen=True, eq=False):
    """What takes the messages that a server sends during an exchange.

    Parameters
    ----------
    on_message, answers_input
        As for :meth:`Exchanges.exchange`.
    context
        The context that ``on_message`` is called in.
    """

    on_message: OnMessage
    context: Context
    answers_input: bool = False


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
    listener
        What takes the messages of the server.
    """

    __slots__ = ("_call", "_direct", "_dispatcher", "_id_raw", "future", "listener")

    def __init__(
        self, dispatcher: Dispatcher, call: Call, direct: DirectCall, listener: ExchangeListener, id_raw: bytes
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._direct = direct
        self.future: asyncio.Future[Any] | None = direct.future
        self.listener: ExchangeListener = listener
        self._id_raw = id_raw

    @property
    def supervisor(self) -> Supervisor:
        """The server that the request went to."""
        return self._call.supervisor

    @property
    def request(self) -> Sendable:
        """The request as it was sent."""
        return self._call.request

    @property
    def has_own_session(self) -> bool:
        """Whether it was sent on a session that its caller has for itself."""
        return self._call.checkout is not None

    @property
    def is_stateless(self) -> bool | None:
        """Whether it was sent to a server of 2026-07-28; ``None`` if the compiled call path has not sent it."""
        session = self._direct.session
        return None if session is None else bool(session.is_stateless)

    def take(self) -> bytes | None:
        """Return the response, once the future is done; ``None`` if it takes :meth:`finish` to get it.

        That is so if there is no plain result, or if the server has sent something before it.
        """
        future, listener = self.future, self.listener
        if future is None or future.cancelled() or future.exception() is not None:
            return None
        if listener.is_delivering or listener.has_answered:
            return None
        reply = self._dispatcher.land(self._direct, future.result())
        if reply is None:
            return None
        listener.end()
        if self._call.checkout is not None:
            self._call.checkout.release()
        return reply.take_frame(self._id_raw)

    async def finish(self) -> bytes:
        """Wait for the response, and return it; raises as :meth:`Exchanges.exchange`."""
        call = self._call
        exchanging = self._dispatcher.exchange(call, self._direct)
        try:
            if call.caller is not None:
                exchanging = for_caller(call.caller, exchanging)
            return await finished(exchanging, call, self.listener, self._id_raw)
        finally:
            if call.checkout is not None:
                call.checkout.release()


async def for_caller(caller: Caller, exchanging: Coroutine[Any, Any, Message]) -> Message:
    """Await the reply to a call for a caller, which is the current one meanwhile."""
    with calling(caller):
        return await exchanging


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
