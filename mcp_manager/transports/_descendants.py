"""What a child started outside its process group: known by a mark in its environment, and killed when the child ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Collection
from typing import Final

__all__ = ["MARK", "kill_marked", "kill_marked_soon", "new_mark"]

MARK: Final = "MCP_MANAGER_CHILD"
"""The environment variable that every descendant of a child inherits; a program that is to outlive it drops it."""

_SEPARATOR: Final = ","
_ENTRY: Final = f"{MARK}=".encode()
_READ_BYTES: Final = 1024 * 1024
# A process may be started behind the back of one pass, but only by one that this pass did not find either.
_MAX_PASSES: Final = 10
# A look at every process of the machine takes a while: it must not take more than a fifth of the loop's time.
_PAUSES: Final = 4
# A process that is just becoming another program shows neither environment nor arguments; longer than this takes none.
_EXEC_S: Final = 0.01
_EXEC_POLL_S: Final = 0.0001


def new_mark() -> tuple[str, str]:
    """Return a new token, and the value of :data:`MARK` that holds it, and those this process itself was given."""
    token = os.urandom(8).hex()
    inherited = os.environ.get(MARK)
    return token, token if not inherited else f"{inherited}{_SEPARATOR}{token}"


def kill_marked(tokens: Collection[str]) -> None:
    """Kill every process whose environment holds one of these tokens, as it was when its program began.

    That finds who called ``setsid`` and who was orphaned, which neither process groups nor parents tell. Whoever
    cleared its environment is not found, and nothing is where there is no ``/proc`` or no ``pidfd_open``: without it, a
    number may be another process's by the time it is signalled.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return
    wanted = {token.encode() for token in tokens}
    killed: set[int] = set()
    for _ in range(_MAX_PASSES):
        found = {pid for pid in _process_ids() if pid not in killed and _is_marked(pid, wanted)}
        if not found:
            return
        for pid in found:
            _kill_if_marked(pid, wanted)
        killed |= found


def kill_marked_soon(token: str, then: Callable[[], None]) -> None:
    """Do what :func:`kill_marked` does together with everybody who asks meanwhile, and call ``then``."""
    loop = asyncio.get_running_loop()
    sweep = _sweeps.get(loop)
    if sweep is None:
        sweep = _sweeps[loop] = _Sweep()
    sweep.ask(loop, token, then)


class _Sweep:
    """Those who wait for a look at all processes, on one loop."""

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
            # Whatever the look came to, who asked for it waits for its end, and would do so for ever.
            self._not_before = loop.time() + _PAUSES * (time.monotonic() - started)
            for then in waiting.values():
                loop.call_soon(then)


_sweeps: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sweep]] = weakref.WeakKeyDictionary()


def _process_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def _kill_if_marked(pid: int, tokens: Collection[bytes]) -> None:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Looked at again now that it is held: whoever has the number since has another descriptor.
        if _is_marked(pid, tokens):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(process)


def _is_marked(pid: int, tokens: Collection[bytes]) -> bool:
    environment = _environment(pid)
    if _ENTRY not in environment:
        return False
    for entry in environment.split(b"\0"):
        if entry.startswith(_ENTRY):
            return any(each in tokens for each in entry[len(_ENTRY) :].split(_SEPARATOR.encode()))
    return False


def _environment(pid: int) -> bytes:
    deadline = time.monotonic() + _EXEC_S
    while not (environment := _read(f"/proc/{pid}/environ")):
        try:
            # The kernel's own have none, nor have zombies.
            os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return b""
        if _read(f"/proc/{pid}/cmdline"):
            # It runs, and so it did not have one, or has it now.
            return _read(f"/proc/{pid}/environ")
        if time.monotonic() > deadline:
            return b""
        time.sleep(_EXEC_POLL_S)
    return environment


def _read(path: str) -> bytes:
    """Return the content of a process's file, nothing if the process has ended or is another user's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    data = b""
    try:
        while len(data) < _READ_BYTES and (more := os.read(file, _READ_BYTES)):
            data += more
    except OSError:
        return b""
    finally:
        os.close(file)
    return data
