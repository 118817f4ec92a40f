"""The two streams that a server object reads from and writes to, shaped as the SDK's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Final, Self

from mcp_manager.runtime.background import resolve

__all__ = ["Inbox", "Outbox"]

# Messages that the server has not read yet: more are held back, as by a pipe.
_MOST_UNREAD: Final = 256


class Inbox:
    """The messages to a server: it iterates over them until :meth:`end`.

    ``last_context`` is the context that the latest message was sent in: the SDK runs the server's handlers in it.
    """

    def __init__(self) -> None:
        self._unread: deque[tuple[Any, Context]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._senders: deque[asyncio.Future[None]] = deque()
        self._is_over = False
        self.last_context: Context | None = None

    @property
    def is_over(self) -> bool:
        """Whether the server takes no more messages."""
        return self._is_over

    @property
    def is_full(self) -> bool:
        """Whether so many messages are unread that senders must wait."""
        return len(self._unread) >= _MOST_UNREAD and not self._is_over

    def put(self, message: Any, context: Context) -> None:
        """Add a message; raises ``BrokenPipeError`` if the server takes none any more."""
        if self._is_over:
            raise BrokenPipeError
        self._unread.append((message, context))
        self._wake_reader()

    async def wait_room(self) -> None:
        """Wait until there is room for a message, or none is taken any more."""
        while self.is_full:
            turn = asyncio.get_running_loop().create_future()
            self._senders.append(turn)
            await turn

    def end(self) -> None:
        """Take no more messages; the server's iteration ends after those that are there; idempotent."""
        self._is_over = True
        self._wake_reader()
        while self._senders:
            resolve(self._senders.popleft())

    def _wake_reader(self) -> None:
        if self._reader is not None:
            resolve(self._reader)

    async def __anext__(self) -> Any:
        while not self._unread:
            if self._is_over:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message, self.last_context = self._unread.popleft()
        if self._senders:
            resolve(self._senders.popleft())
        return message

    async def receive(self) -> Any:
        """Return the next message; raises ``anyio.EndOfStream`` at the end, as the SDK's own streams do."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            import anyio  # noqa: PLC0415 - the SDK requires it, this package does not

            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        """Take no more messages: the server reads none any more."""
        self._unread.clear()
        self.end()

    def close(self) -> None:
        """Do as :meth:`aclose`."""
        self._unread.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Outbox:
    """The messages of a server: each goes to ``take``, which holds the server back if it sends too much."""

    def __init__(self, take: Callable[[Any], Awaitable[None] | None]) -> None:
        self._take = take

    async def send(self, message: Any) -> None:
        """Hand over a message."""
        waits = self._take(message)
        if waits is not None:
            await waits

    async def aclose(self) -> None:
        """Do nothing: the end of the server says more."""

    def close(self) -> None:
        """Do nothing: the end of the server says more."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
