"""Kills the descendants that left a child's process group, found by a mark in their environment."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable
from typing import Final

from mcp_manager.transports.stdio.marked import HOST_TOKEN_CHARS, MARK, kill_marked

__all__ = ["host_token", "kill_marked_soon", "new_mark"]

_SEPARATOR: Final = ","
# A scan of all processes takes a while. Pauses of four times as long limit it to a fifth of the loop's time.
_PAUSES: Final = 4


def new_mark() -> tuple[str, str]:
    """Return a new token and a value of :data:`MARK` with it, and with the tokens that this process has inherited."""
    token = host_token() + os.urandom(6).hex()
    inherited = os.environ.get(MARK)
    return token, token if not inherited else f"{inherited}{_SEPARATOR}{token}"


def host_token() -> str:
    """Return the prefix of all tokens of this process's children; a forked copy has a prefix of its own."""
    global _host
    if _host is None or _host[0] != os.getpid():
        _host = os.getpid(), os.urandom(HOST_TOKEN_CHARS // 2).hex()
    return _host[1]


def kill_marked_soon(token: str, then: Callable[[], None]) -> None:
    """Call :func:`kill_marked`, once for all requests that arrive meanwhile, and then ``then()``."""
    loop = asyncio.get_running_loop()
    sweep = _sweeps.get(loop)
    if sweep is None:
        sweep = _sweeps[loop] = _Sweep()
    sweep.ask(loop, token, then)


class _Sweep:
    """The requests that wait for the next scan, on one loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._not_before = 0.0

    def ask(self, loop: asyncio.AbstractEventLoop, token: str, then: Callable[[], None]) -> None:
        if not self._waiting:
            loop.call_at(max(loop.time(), self._not_before), self._run, loop)
        self._waiting[token] = then

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, {}
        started = time.monotonic()
        try:
            kill_marked(waiting.keys())
        finally:
            # The callers wait for the end of the scan even if it fails.
            self._not_before = loop.time() + _PAUSES * (time.monotonic() - started)
            for then in waiting.values():
                loop.call_soon(then)


_sweeps: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sweep]] = weakref.WeakKeyDictionary()
_host: tuple[int, str] | None = None
