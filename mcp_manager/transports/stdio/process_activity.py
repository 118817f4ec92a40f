"""Tells a program that works from one that waits, by the processor time of its processes."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

__all__ = ["ProcessActivity", "usable_cores"]

# On systems without /proc, a program is assumed to work for this long.
_ASSUMED_S: Final = 1.0
# The share of processor time below which a program waits; a waiting program still runs timers.
_IDLE_SHARE: Final = 0.1
_LOOKS: Final = 2
_MOST_PROCESSES: Final = 64
_WORKING: Final = frozenset(b"RD")
_TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ProcessActivity:
    """Watch a program and its descendants; each look covers the time since the previous one."""

    __slots__ = ("_began", "_cpu_s", "_idle_looks", "_looked")

    def __init__(self) -> None:
        self._began = self._looked = time.monotonic()
        self._cpu_s = -1.0
        self._idle_looks = 0

    def is_idle(self, pid: int) -> bool:
        """Return whether the process and its descendants have only waited, for two looks in a row.

        A process that is ready to run but gets no core is not idle.
        """
        now = time.monotonic()
        seen = _tree(pid) if sys.platform == "linux" else None
        if seen is None:
            return now - self._began >= _ASSUMED_S
        cpu_s, is_working = seen
        spent_s, passed_s = cpu_s - self._cpu_s, now - self._looked
        is_first, self._cpu_s, self._looked = self._cpu_s < 0, cpu_s, now
        if is_first or is_working or spent_s > max(_IDLE_SHARE * passed_s, _TICK_S):
            self._idle_looks = 0
        else:
            self._idle_looks += 1
        return self._idle_looks >= _LOOKS


def _tree(pid: int) -> tuple[float, bool] | None:
    """Return the processor time of a process and its descendants, and whether one is runnable; ``None`` if unknown."""
    cpu_s, is_working = 0.0, False
    found = [pid]
    for number in found:
        stat = _read(f"/proc/{number}/stat")
        # The name in parentheses may contain anything.
        fields = stat.rpartition(b")")[2].split()
        if len(fields) < 15:
            if number == pid:
                return None
            continue
        # User and system time of the process and of its reaped children (proc(5)).
        cpu_s += sum(int(each) for each in fields[11:15]) * _TICK_S
        is_working = is_working or fields[0][0] in _WORKING
        children = _read(f"/proc/{number}/task/{number}/children").split()
        found += [int(each) for each in children[: _MOST_PROCESSES - len(found)]]
    return cpu_s, is_working


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
