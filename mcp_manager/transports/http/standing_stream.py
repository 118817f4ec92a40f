"""Keeps the GET stream for unsolicited messages of one session open (2025-11-25, basic/transports)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from typing import Final

import aiohttp

from mcp_manager._core.http_message import LOST, STANDING, STOPPED, UNANSWERED, Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import CallError
from mcp_manager.protocol.session_loss import Refusal, may_mean_loss
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.transports.base import MessageSink
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.http.reconnection import Reconnection, is_passing
from mcp_manager.transports.http.status import retry_after_of

__all__ = ["StandingStream"]

_LONGEST_S: Final = 60.0
# After this many failures a server that has never opened the stream is not asked again.
_MAX_FIRST_ATTEMPTS: Final = 5
_NOT_OFFERED: Final = 405
# A stream that lasted this long counts as fruitful, whatever was on it.
_WORTHWHILE_S: Final = 5.0
# How long a session waits for the stream to open: many servers send the response head only with the first event.
_OPENING_S: Final = 0.5


class StandingStream:
    """Keep the GET stream of one session open (2025-11-25, basic/transports, listening for messages from the server).

    Most servers offer none (405); they are not asked again. A stream that ends is resumed from the last event on, after
    the delay that the server asks for, with backoff.

    Parameters
    ----------
    get
        ``await get(exchange, last_event_id)`` sends the GET. It returns the response if that is not a stream, and
        raises what a wire raises when the stream ends.
    containment
        Logs unexpected exceptions.
    sink
        Counts malformed streams, and finds out whether the session is lost when a stream is refused.
    """

    __slots__ = ("_containment", "_get", "_opened", "_sink", "_task", "_was_open")

    def __init__(
        self,
        get: Callable[[Exchange, str], Awaitable[WireReply | Message]],
        containment: Containment,
        sink: MessageSink,
    ) -> None:
        self._containment = containment
        self._get = get
        self._sink = sink
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Event | None = asyncio.Event()
        self._was_open = False

    async def start(self, on_end: Callable[[], None]) -> None:
        """Start the stream, and wait for at most half a second until the server has opened or refused it.

        Parameters
        ----------
        on_end
            Called once, when the stream is not opened again.
        """
        opened = self._opened
        assert opened is not None
        self._task = background_task(self._keep_open(), "standing stream", context=bare_context())
        self._task.add_done_callback(lambda _: on_end())
        self._task.add_done_callback(self._containment.read_failure)
        try:
            async with asyncio.timeout(_OPENING_S):
                await opened.wait()
        except TimeoutError:
            pass

    def stop(self) -> asyncio.Task[None] | None:
        """Cancel the stream, and return its task, ``None`` if it was not started."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def stream_opened(self) -> None:
        """See :class:`StreamListener`."""
        self._was_open = True
        self._settle()

    def take_named_event(self, name: str, data: bytes) -> None:
        """Do nothing: this stream has only messages."""

    def _settle(self) -> None:
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    async def _keep_open(self) -> None:
        reconnection = Reconnection(_LONGEST_S)
        try:
            while await self._attempt(reconnection):
                self._settle()
                await asyncio.sleep(reconnection.delay_s(random()))
        finally:
            self._settle()

    async def _attempt(self, reconnection: Reconnection) -> bool:
        """Open the stream, stay until its end, and return whether to open it again."""
        exchange = Exchange(b"", STANDING, 0)
        started = asyncio.get_running_loop().time()
        try:
            answer = await self._get(exchange, reconnection.last_event_id)
        except WireError as error:
            if error.kind == STOPPED:
                return False
            if exchange.head is None:
                reconnection.failed()
            elif error.kind in (LOST, UNANSWERED):
                lasted = asyncio.get_running_loop().time() - started >= _WORTHWHILE_S
                reconnection.ended(
                    error.last_event_id, error.retry_ms, fruitful=exchange.answered or lasted, lasted=lasted
                )
            else:
                self._sink.on_fault("a malformed event stream", error.detail)
                reconnection.skip()
        except (aiohttp.ClientError, OSError, CallError):
            reconnection.failed()
        except Exception as error:
            # The session goes on in any case. The exception's text may quote secrets.
            self._sink.on_fault("an event stream that cannot be read", type(error).__name__)
            reconnection.skip()
        else:
            assert type(answer) is WireReply
            if is_passing(answer.status):
                reconnection.failed(retry_after_of(answer))
            elif not self._was_open or answer.status == _NOT_OFFERED or not 400 <= answer.status < 500:
                # Not every framework answers 405 if it offers no stream; 404 before the first stream means the same.
                return False
            elif await self._is_lost(answer):
                return False
            elif answer.status in (401, 403):
                # The server has allowed it before and may allow it again, with other credentials for example.
                reconnection.failed()
            else:
                # The server may no longer know the last event.
                reconnection.skip()
        return self._was_open or reconnection.failures < _MAX_FIRST_ATTEMPTS

    async def _is_lost(self, answer: WireReply) -> bool:
        refusal = Refusal(answer.status)
        challenged = answer.header("www-authenticate") is not None
        return may_mean_loss(refusal, challenged=challenged) and await self._sink.is_lost(refusal)
