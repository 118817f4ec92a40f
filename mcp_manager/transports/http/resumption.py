"""Resumes event streams that ended before the reply, by GET from the last event on (2025-11-25, basic/transports)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import random
from typing import Final

import aiohttp

from mcp_manager._core.http_message import LOST, UNANSWERED, Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import CallError
from mcp_manager.runtime.background import background_task
from mcp_manager.transports.base import CallListener, MessageTaker
from mcp_manager.transports.http.connections.failures import reason_of
from mcp_manager.transports.http.reconnection import Reconnection, is_passing, usable_event_id
from mcp_manager.transports.http.status import retry_after_of

__all__ = ["Resumptions"]

# The longest backoff; a caller waits for the reply.
_LONGEST_S: Final = 2.0
_WORTHWHILE_S: Final = 5.0
# After this many failures in a row the server is taken to be gone, so that the caller need not wait for the deadline.
_MAX_FAILURES: Final = 4


class Resumptions:
    """Find the replies of one session whose streams ended early.

    Parameters
    ----------
    get
        ``await get(exchange, last_event_id)`` sends a GET and returns the reply to the exchange from the stream, or the
        response if it is not a stream. It raises what a wire raises.
    bounded
        ``async with bounded(exchange)`` bounds a wait by the exchange's deadline.
    sink
        Takes every other message.
    deliver
        ``deliver(reply)`` gives a reply to the exchange that still waits for its own response, and returns whether
        there is one.
    """

    def __init__(
        self,
        get: Callable[[Exchange, str], Awaitable[WireReply | Message]],
        bounded: Callable[[Exchange], contextlib.AbstractAsyncContextManager[None]],
        sink: MessageTaker,
        deliver: Callable[[Message], bool] = lambda reply: False,
    ) -> None:
        self._get = get
        self._bounded = bounded
        self._sink = sink
        self._deliver = deliver
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    @staticmethod
    def reconnection(error: BaseException, exchange: Exchange) -> Reconnection | None:
        """Return how to resume the stream of an exchange after an error, ``None`` if it cannot be resumed."""
        if type(error) is not WireError or error.kind not in (LOST, UNANSWERED) or exchange.request_id <= 0:
            return None
        if not usable_event_id(error.last_event_id):
            return None
        return Reconnection(_LONGEST_S, error.last_event_id, error.retry_ms)

    async def reply_to(self, exchange: Exchange, reconnection: Reconnection) -> Message:
        """Return the reply to an exchange, from the resumed stream or any other stream of the session.

        Raises
        ------
        WireError
            :data:`EXPIRED` or :data:`STOPPED`; :data:`UNANSWERED` if the server refuses to resume or is gone.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Message] = loop.create_future()
        self._waiting[exchange.request_id] = waiting
        task = background_task(self._ask(exchange, reconnection, waiting), "resume a stream")
        try:
            return await waiting
        finally:
            self._waiting.pop(exchange.request_id, None)
            # It has the exception, whose traceback holds this frame.
            del waiting
            task.cancel()
            await asyncio.wait({task})

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        """Take a message of any stream; see :class:`MessageTaker`."""
        if message.method is None and isinstance(message.id, int):
            waiting = self._waiting.get(message.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
                return
            if self._deliver(message):
                return
        self._sink.on_message(message, listener)

    def on_fault(self, kind: str, detail: str) -> None:
        """Pass on a fault; see :class:`MessageTaker`."""
        self._sink.on_fault(kind, detail)

    async def _ask(self, exchange: Exchange, reconnection: Reconnection, waiting: asyncio.Future[Message]) -> None:
        try:
            reply = await self._find(exchange, reconnection)
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        except Exception as error:
            # The waiting exchange gets every exception and explains it.
            if not waiting.done():
                waiting.set_exception(error)
        else:
            if waiting.done():
                # The reply has already arrived on another stream.
                self._sink.on_message(reply)
            else:
                waiting.set_result(reply)

    async def _find(self, exchange: Exchange, reconnection: Reconnection) -> Message:
        while True:
            async with self._bounded(exchange):
                await asyncio.sleep(reconnection.delay_s(random()))
            again = Exchange(b"", exchange.request_id, exchange.deadline_ns)
            again.listener = exchange.listener
            started = asyncio.get_running_loop().time()
            before = reconnection.last_event_id
            reason = ""
            try:
                answer = await self._get(again, before)
            except WireError as error:
                if error.kind not in (LOST, UNANSWERED):
                    raise
                if again.head is None:
                    reconnection.failed()
                    reason = "the server closed the connection"
                else:
                    lasted = asyncio.get_running_loop().time() - started >= _WORTHWHILE_S
                    fruitful = lasted or error.last_event_id not in ("", before)
                    reconnection.ended(error.last_event_id, error.retry_ms, fruitful=fruitful, lasted=lasted)
            except (aiohttp.ClientError, OSError) as error:
                if isinstance(error, CallError):
                    raise
                reconnection.failed()
                reason = reason_of(error)
            else:
                if type(answer) is Message:
                    return answer
                assert type(answer) is WireReply
                if not is_passing(answer.status):
                    raise WireError(UNANSWERED, f", and the server does not resume it (HTTP {answer.status})")
                reconnection.failed(retry_after_of(answer))
                reason = f"HTTP {answer.status}"
            if reconnection.failures >= _MAX_FAILURES:
                raise WireError(UNANSWERED, f", and could not be resumed: {reason}")
