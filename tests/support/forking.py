"""Forks of the test process: they run an action, report its outcome, and are reaped."""

from __future__ import annotations

import os
import select
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

__all__ = ["ForkedChild", "in_child", "living_child"]

_ENDS_WITHIN_S: Final = 30.0


class ForkedChild:
    """A fork that runs an action, then with ``holds`` waits for :meth:`end`, and exits without interpreter shutdown."""

    def __init__(self, action: Callable[[], object], *, holds: bool = False) -> None:
        self._read, written = os.pipe()
        self._hold, held = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of forks in a process with threads, which is what these tests are about.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            os.close(held)
            self._act(action, written, holds)
        os.close(written)
        os.close(self._hold)
        self._hold = held

    def _act(self, action: Callable[[], object], written: int, holds: bool) -> NoReturn:
        try:
            told = str(action())
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(written, told.encode())
            os.close(written)
            if holds:
                os.read(self._hold, 1)
            os._exit(0)

    def told(self) -> str:
        """Return as text what the action returned or raised; a child that hangs is killed and fails the test."""
        if not select.select([self._read], [], [], _ENDS_WITHIN_S)[0]:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
            raise AssertionError("the forked child hangs")
        parts = []
        while part := os.read(self._read, 65536):
            parts.append(part)
        return b"".join(parts).decode()

    def end(self) -> None:
        """Let the child exit, and reap it."""
        os.close(self._hold)
        os.close(self._read)
        os.waitpid(self.pid, 0)


def in_child(action: Callable[[], object]) -> str:
    """Run an action in a forked child; return as text what it returned or raised."""
    child = ForkedChild(action)
    told = child.told()
    child.end()
    return told


@contextmanager
def living_child() -> Iterator[None]:
    """Keep a forked child alive that does nothing."""
    child = ForkedChild(lambda: "", holds=True)
    try:
        child.told()
        yield
    finally:
        child.end()
