"""The worker's end of the socket to its parent: orders come through it, and its end means that the parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import msgspec

__all__ = ["Lifeline"]

_RECEIVED: Final = 4096


class Lifeline:
    """Listen to the parent in a thread of its own, so that a loop which is blocked is no obstacle.

    Once the parent is gone, this process gets SIGTERM, as from the parent; after the grace it gets SIGKILL. A worker
    without a parent never stays: nobody would restart it, reload it, or end it.

    Parameters
    ----------
    parent
        The socket.
    directory
        The directory of the workers' sockets, which is removed once the parent is gone: nothing new can be passed on.
    on_order
        Called on the loop with each order, such as ``reload``.
    grace_s
        Seconds between SIGTERM and SIGKILL once the parent is gone.
    """

    def __init__(self, parent: socket.socket, directory: str, on_order: Callable[[str], None], grace_s: float) -> None:
        self._parent = parent
        self._directory = directory
        self._on_order = on_order
        self.grace_s: float = grace_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="lifeline to the parent process", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            # Wakes the thread.
            self._parent.shutdown(socket.SHUT_RD)
        self._thread.join()
        # The parent takes the end of the socket for the end of this process: it stays open until then.
        self._parent.detach()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message to the parent, if there still is one."""
        with contextlib.suppress(OSError):
            self._parent.sendall(msgspec.json.encode(message) + b"\n")

    def _listen(self) -> None:
        buffer = b""
        while True:
            try:
                chunk = self._parent.recv(_RECEIVED)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                self._take(msgspec.json.decode(line)["do"])
        if self._closing.is_set():
            return
        shutil.rmtree(self._directory, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._closing.wait(self.grace_s):
            os.kill(os.getpid(), signal.SIGKILL)

    def _take(self, order: str) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            # The loop is closed: this process ends anyway.
            self._loop.call_soon_threadsafe(self._on_order, order)
