"""The stream on which a server speaks without being asked: opened by GET, kept open, opened again where it ended."""

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
# A server that has never offered the stream, and only fails, is left alone.
_MAX_FIRST_ATTEMPTS: Final = 5
_NOT_OFFERED: Final = 405
# A stream that lasted this long was worth asking for, whatever was on it.
_WORTHWHILE_S: Final = 5.0
# Many servers hold back the head until there is an event: a session must not wait for that.
_OPENING_S: Final = 0.5


class StandingStream:
    """Keep the GET stream of one session open (2025-11-25, basic/transports, listening for messages from the server).

    Most servers offer none (405): then nothing more happens. One that breaks is opened again, from the last event on,
    after what the server wishes or ever longer.

    Parameters
    ----------
    get
        ``await get(exchange, last_event_id)`` sends the GET; it returns what was answered in place of a stream, and
        raises as a wire does when that ends.
    containment
        Logs what nobody foresaw.
    sink
        Told of streams that break the rules, and asked whether the session is lost where one is refused.
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
        """Open the stream and wait, for a moment, until the server has said whether there is one.

        ``on_end`` is called, once, when the stream is not asked for any more.
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
        """End the stream; returns its task, which is ending."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def stream_opened(self) -> None:
        """See :class:`StreamListener`."""
        self._was_open = True
        self._settle()

    def take_named_event(self, name: str, data: bytes) -> None:
        """Do nothing: all there is are messages."""

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
        """Open the stream and stay until its end; tell whether to do so again."""
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
                self._sink.on_fault("an event stream that breaks the rules", error.detail)
                reconnection.skip()
        except (aiohttp.ClientError, OSError, CallError):
            reconnection.failed()
        except Exception as error:
            # Whatever it was, the session goes on; its own text may quote anything.
            self._sink.on_fault("an event stream that cannot be read", type(error).__name__)
            reconnection.skip()
        else:
            assert type(answer) is WireReply
            if is_passing(answer.status):
                reconnection.failed(retry_after_of(answer))
            elif not self._was_open or answer.status == _NOT_OFFERED or not 400 <= answer.status < 500:
                # One that never offered the stream may answer 404 for that alone: not every framework says 405.
                return False
            elif await self._is_lost(answer):
                return False
            elif answer.status in (401, 403):
                # What was granted once may be granted again, with other credentials for instance.
                reconnection.failed()
            else:
                # The server may not know the last event any more.
                reconnection.skip()
        return self._was_open or reconnection.failures < _MAX_FIRST_ATTEMPTS

    async def _is_lost(self, answer: WireReply) -> bool:
        refusal = Refusal(answer.status)
        challenged = answer.header("www-authenticate") is not None
        return may_mean_loss(refusal, challenged=challenged) and await self._sink.is_lost(refusal)
