"""Standard input and output of a process, read and written on a thread, so that neither can block the event loop.

A thread takes what event loops do not: terminals, files, and pipes that are shared with other programs, whose mode must
not be changed to non-blocking.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Pipes"]

_READ_AT_ONCE: Final = 1 << 16
# What a pipe that can be written to takes at once without blocking (POSIX, PIPE_BUF).
_WRITTEN_AT_ONCE: Final = 4096
# A terminal whose output is stopped may hold the thread for longer; then it is left behind.
_ENDS_S: Final = 1.0
_BAD: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Pipes:
    """Read from one descriptor and write to another, on a thread of its own.

    The callbacks run on the loop. After each piece of input, none is read until :meth:`read_on`: that is the back-pressure.

    Parameters
    ----------
    source, target
        The descriptors; they are not closed.
    take
        Called with each piece of input.
    ended
        Called once when there is no more input.
    broken
        Called once when nobody reads the output any more.
    """

    def __init__(
        self,
        source: int,
        target: int,
        *,
        take: Callable[[bytes], None],
        ended: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self._source = source
        self._target = target
        self._take = take
        self._ended = ended
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._may_read = True
        self._has_ended = False
        self._is_broken = False
        self._closing = False
        self._written = asyncio.Event()
        self._written.set()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name="mcp-manager stdio", daemon=True)

    @property
    def unsent_bytes(self) -> int:
        """How much output waits for its reader."""
        return self._unsent_bytes

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Write data after all that was written before; nothing happens once the output is broken."""
        if self._is_broken or self._closing:
            return
        with self._lock:
            self._unsent.append(memoryview(data))
            self._unsent_bytes += len(data)
            self._written.clear()
            is_first = len(self._unsent) == 1
        if is_first:
            self._wake()

    def read_on(self) -> None:
        """Read the next piece of input."""
        if not self._may_read:
            self._may_read = True
            self._wake()

    async def drain(self) -> None:
        """Wait until all output is written, or broken."""
        await self._written.wait()

    async def aclose(self) -> None:
        """End the thread; output that is not written is lost. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._wake()
        # It waits for nothing but these descriptors, so it ends at once.
        self._thread.join(_ENDS_S)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        # Full: then the thread wakes anyway.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    # On the thread

    def _run(self) -> None:
        while not self._closing:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            if self._may_read and not self._has_ended:
                poll.register(self._source, select.POLLIN)
            if not self._is_broken:
                # Without POLLOUT, it still tells that the reader has gone.
                poll.register(self._target, select.POLLOUT if self._unsent else 0)
            for descriptor, events in poll.poll():
                if descriptor == self._wake_read:
                    os.read(self._wake_read, _READ_AT_ONCE)
                elif descriptor == self._target and events & select.POLLOUT:
                    self._write_some()
                elif descriptor == self._target and events & _BAD:
                    self._break()
                elif descriptor == self._source:
                    self._read_some()

    def _read_some(self) -> None:
        try:
            data = os.read(self._source, _READ_AT_ONCE)
        except OSError:
            data = b""
        if data:
            self._may_read = False
            self._tell(self._take, data)
        else:
            self._has_ended = True
            self._tell(self._ended)

    def _write_some(self) -> None:
        if not self._unsent:
            return
        # Only this thread takes from it.
        first = self._unsent[0]
        try:
            size = os.write(self._target, first[:_WRITTEN_AT_ONCE])
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        with self._lock:
            self._unsent_bytes -= size
            if size < len(first):
                self._unsent[0] = first[size:]
            else:
                self._unsent.popleft()
            is_done = not self._unsent
        if is_done:
            self._tell(self._note_written)

    def _break(self) -> None:
        self._is_broken = True
        with self._lock:
            self._unsent.clear()
            self._unsent_bytes = 0
        self._tell(self._note_written)
        self._tell(self._broken)

    def _note_written(self) -> None:
        if not self._unsent:
            self._written.set()

    def _tell(self, function: Callable[..., None], *news: bytes) -> None:
        # The loop may be closed already.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *news)
