"""A check for processes that a program leaves running: this process adopts its orphans instead of init."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import psutil
import pytest

__all__ = ["no_orphans"]

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 5.0


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Fail if a descendant process that was started in the ``with`` block does not end within 5 s after it."""
    before = set(psutil.Process().children(recursive=True))
    _adopt(True)
    try:
        yield
        left = [each for each in psutil.Process().children(recursive=True) if each not in before]
        _, alive = psutil.wait_procs(left, _GRACE_S)
        described = [f"{each.pid}: {' '.join(each.cmdline())}" for each in alive]
        for each in alive:
            each.kill()
            each.wait()
        for each in left:
            # psutil does not reap a process that was adopted while it waited.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(each.pid, os.WNOHANG)
    finally:
        _adopt(False)
    if described:
        pytest.fail("left running:\n  " + "\n  ".join(described), pytrace=False)


def _adopt(on: bool) -> None:
    """Make this process the parent of orphaned descendants (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
