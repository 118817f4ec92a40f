"""What a program leaves running when it ends: its orphans are adopted here instead of disappearing to init."""

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
    """Fail if a process started meanwhile, by whomever, does not end by itself within some seconds."""
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
            # One that was adopted while it was waited for has ended, and nobody has taken notice.
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
