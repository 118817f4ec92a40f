"""A stream of what a manager tells: read with ``for`` on any thread, or with ``async for`` on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Collection
from typing import Any, Final, Generic, Self, TypeVar

from mcp_manager.errors import NotRunningError
from mcp_manager.events.records import Event, EventsMissed, ServerEvent
from mcp_manager.runtime.background import resolve
from mcp_manager.runtime.forks import tell_of_forks
from mcp_manager.runtime.phase import Phase, not_running, running_loop

__all__ = ["EventStream", "Listeners", "Stream"]

T = TypeVar("T")

# A signal that arrives just before a wait for a lock begins does not end that wait, so waits are cut into short ones.
_CHECK_S: Final = 0.5
# After so many items in a row, a consumer lets the rest of its loop run.
_AT_ONCE: Final = 32
_NOTHING: Final = object()


class Stream(Generic[T]):
    """What is told from now on, in order; it ends when the manager stops.

    At most ``buffer`` items wait to be taken. Then the oldest are dropped, and counted. A stream that is no longer used
    needs no :meth:`close`, though a ``with`` or ``async with`` block ends it at a definite moment.

    Parameters
    ----------
    buffer
        The most items that wait.
    home
        The manager's loop, which a blocking ``for`` must not block; ``None`` before the manager's start.
    """

    def __init__(self, buffer: int, home: asyncio.AbstractEventLoop | None) -> None:
        self._buffer = buffer
        self._home = home
        self._lock = threading.Condition()
        self._items: deque[Any] = deque()
        self._missed = 0
        self._taken = 0
        self._is_over = False
        self._is_inherited = False
        self._waiters: list[asyncio.Future[None]] = []
        # The streams of this manager whose consumers wait in a task: without it, nothing would keep such a task alive.
        self._awaited: set[Stream[Any]] = set()
        tell_of_forks(self)

    def _next_item(self) -> object:
        """Return the next item, :data:`_NOTHING` if there is none yet; called with the lock."""
        return self._items.popleft() if self._items else _NOTHING

    def put(self, item: object) -> None:
        """Add an item, in place of the oldest if too many wait."""
        with self._lock:
            if self._is_over:
                return
            if len(self._items) >= self._buffer:
                self._items.popleft()
                self._missed += 1
            self._items.append(item)
            self._wake()

    def end(self) -> None:
        """End the stream after the items that wait; called when the manager stops."""
        with self._lock:
            self._is_over = True
            self._wake()

    def close(self) -> None:
        """End the stream now and drop the items that wait; idempotent."""
        with self._lock:
            self._is_over = True
            self._items.clear()
            self._missed = 0
            self._wake()

    async def aclose(self) -> None:
        """End the stream now; see :meth:`close`."""
        self.close()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is added."""
        return self._is_over

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        running = running_loop()
        if running is not None and (self._home is None or running is self._home):
            raise NotRunningError(
                "A sync iteration on the manager's own event loop would block it for ever", hint="use async for instead"
            )
        while True:
            with self._lock:
                found = self._found()
                if found is not _NOTHING:
                    return found  # type: ignore[return-value]
                if self._is_over or (self._home is not None and self._home.is_closed()):
                    raise StopIteration
                self._lock.wait(_CHECK_S)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        self._taken += 1
        if self._taken % _AT_ONCE == 0:
            await asyncio.sleep(0)
        while True:
            with self._lock:
                found = self._found()
                if found is not _NOTHING:
                    return found  # type: ignore[return-value]
                if self._is_over:
                    raise StopAsyncIteration
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append(waiter)
                self._awaited.add(self)
            try:
                await waiter
            finally:
                with self._lock:
                    self._gone(waiter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _found(self) -> object:
        if self._is_inherited:
            raise not_running(Phase.INHERITED)
        return self._next_item()

    def _wake(self) -> None:
        self._lock.notify_all()
        running = running_loop()
        for waiter in tuple(self._waiters):
            loop = waiter.get_loop()
            if loop is running:
                resolve(waiter)
                continue
            try:
                loop.call_soon_threadsafe(resolve, waiter)
            except RuntimeError:
                # That loop was closed, and its consumer with it.
                self._gone(waiter)

    def _gone(self, waiter: asyncio.Future[None]) -> None:
        self._waiters = [each for each in self._waiters if each is not waiter]
        if not self._waiters:
            self._awaited.discard(self)

    def _disown(self) -> None:
        """Leave the stream to the parent process after a fork, in which another thread may have held the lock."""
        self._lock = threading.Condition()
        self._is_inherited = True


class Listeners(Generic[T]):
    """The streams that somebody still holds. What is put is given to each of them."""

    __slots__ = ("_awaited", "_streams")

    def __init__(self) -> None:
        # Weak, because consumers need not close their streams. Appending and copying a list are each one step, so it
        # needs no lock.
        self._streams: list[weakref.ref[Stream[T]]] = []
        self._awaited: set[Stream[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._streams)

    def add(self, stream: Stream[T]) -> None:
        """Add a stream."""
        stream._awaited = self._awaited
        self._streams.append(weakref.ref(stream))

    def put(self, item: object) -> None:
        """Give an item to every stream, and forget the streams that are over or gone."""
        for each in tuple(self._streams):
            stream = each()
            if stream is None or stream.is_over:
                with contextlib.suppress(ValueError):
                    self._streams.remove(each)
            else:
                stream.put(item)

    def end(self) -> None:
        """End all streams."""
        for each in tuple(self._streams):
            if (stream := each()) is not None:
                stream.end()
        self._streams.clear()


class EventStream(Stream[Event]):
    """The events of a manager from now on, as :meth:`McpManager.events` returns them.

    Read it with ``async for`` on any event loop, or with ``for`` on any thread but that of the manager's loop. It ends
    when the manager stops. If events come faster than they are taken, the oldest are dropped, and one
    :class:`EventsMissed` says how many. It needs no closing, but ``with`` and ``async with`` end it at once.

    Parameters
    ----------
    server_id
        The server whose events are wanted; ``None`` for all events.
    kinds
        The classes of the events that are wanted; none for all.
    buffer
        The most events that wait to be taken.
    home
        The manager's loop.
    """

    def __init__(
        self,
        server_id: str | None,
        kinds: Collection[type[Event]],
        buffer: int,
        home: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(buffer, home)
        self._server_id = server_id
        self._kinds = tuple(kinds)

    def put(self, item: object) -> None:
        """Add an event if it is wanted."""
        if self._kinds and not isinstance(item, self._kinds):
            return
        if self._server_id is not None and not (isinstance(item, ServerEvent) and item.server_id == self._server_id):
            return
        super().put(item)

    def _next_item(self) -> object:
        if self._missed:
            missed, self._missed = self._missed, 0
            return EventsMissed(count=missed)
        return super()._next_item()
