"""Measures how late the event loop runs: a deadline missed because the loop was blocked is no server's fault."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from mcp_manager.errors import DeadlineExceededError
from mcp_manager.serialization import Serializable

__all__ = ["BLOCKED_S", "LATE_HINT", "LoopLag", "LoopLagView"]

_log = logging.getLogger(__name__)

BLOCKED_S: Final = 0.25
"""A loop that is later than this is blocked; a deadline missed meanwhile says nothing about a server."""

LATE_HINT: Final = "the event loop was blocked, or this machine is overloaded"

_INTERVAL_S: Final = 0.5
_WARNED_S: Final = 1.0
_WARN_EVERY_S: Final = 60.0
# How long blocks are remembered, and how many: longer than a connection attempt that one may have delayed.
_REMEMBERED_S: Final = 60.0
_MOST_BLOCKS: Final = 128
# Stalls are shorter delays, which can use up a short deadline. A busy loop has this many within seconds.
_STALL_S: Final = 0.01
_MOST_STALLS: Final = 512
_BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HINT: Final = "run blocking code in a thread; loop.set_debug(True) names it"


class LoopLagView(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """How late the event loop was, measured twice a second.

    Parameters
    ----------
    latest_s
        Seconds of delay at the last measurement, or until now if the next one is overdue.
    longest_s
        The longest delay of the last minute, in seconds.
    blocks
        How often it was late by more than 0.25 s since the start.
    """

    latest_s: float
    longest_s: float
    blocks: int


class LoopLag:
    """Measure how late the running loop calls its timers.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    __slots__ = (
        "_blocks",
        "_clock",
        "_counts",
        "_due",
        "_latest_s",
        "_stalls",
        "_sum_s",
        "_timer",
        "_warned_at",
        "blocks",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._latest_s = 0.0
        # The end and the length of each block.
        self._blocks: collections.deque[tuple[float, float]] = collections.deque(maxlen=_MOST_BLOCKS)
        # The begin and the end of each stall, in order; none overlaps the next.
        self._stalls: collections.deque[tuple[float, float]] = collections.deque(maxlen=_MOST_STALLS)
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._warned_at = -_WARN_EVERY_S
        self.blocks: int = 0

    def start(self) -> None:
        """Start measuring the running loop."""
        self._due = self._clock() + _INTERVAL_S
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._measure)

    def close(self) -> None:
        """Stop measuring; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lost_since(self, began: float) -> float:
        """Return the seconds that the loop was blocked since ``began``, a time of the clock, until now."""
        now = self._clock()
        overdue_s = self._overdue_s(now)
        lost_s = min(overdue_s, now - began) if overdue_s > BLOCKED_S else 0.0
        for ended, length_s in self._blocks:
            if ended > began:
                lost_s += min(length_s, ended - began)
        return lost_s

    def stalled_since(self, due: float) -> None:
        """Record that what was due at ``due``, a time of the clock, runs now; a delay below 10 ms is no stall."""
        now, began = self._clock(), due
        if now - due < _STALL_S:
            return
        while self._stalls and self._stalls[-1][1] >= began:
            began = min(began, self._stalls.pop()[0])
        self._stalls.append((began, now))

    def has_used_up(self, began: float) -> bool:
        """Return whether the loop was stalled for at least half of the time since ``began``, a time of the clock.

        Then a server had no more time to answer than the loop lost, so a missing answer proves nothing. A loop that
        stalls only now and then does not excuse a slow server.
        """
        if self._timer is not None:
            self.stalled_since(self._due)
        lost_s = 0.0
        for stall_began, ended in reversed(self._stalls):
            if ended <= began:
                break
            lost_s += ended - max(stall_began, began)
        return 0.0 < self._clock() - began <= 2 * lost_s

    def excuse(self, error: DeadlineExceededError, began_ns: int, deadline_ns: int) -> None:
        """Mark the error of a missed deadline as local if it was this process that used up the time.

        Parameters
        ----------
        error
            The error to mark.
        began_ns
            When the request was handed to its transport, by :func:`time.monotonic_ns`; 0 if it never was.
        deadline_ns
            The deadline, by the same clock.
        """
        self.stalled_since(deadline_ns / 1e9)
        if began_ns and self.has_used_up(began_ns / 1e9):
            error.is_local, error.hint = True, error.hint or LATE_HINT

    def view(self) -> LoopLagView:
        """Return the current figures."""
        now = self._clock()
        latest_s = max(self._latest_s, self._overdue_s(now))
        recent = [length_s for ended, length_s in self._blocks if now - ended <= _REMEMBERED_S]
        return LoopLagView(latest_s=latest_s, longest_s=max([latest_s, *recent]), blocks=self.blocks)

    def histogram(self) -> tuple[list[tuple[float, int]], int, float]:
        """Return a cumulative histogram of the delays: pairs of bound in seconds and count, total count, sum."""
        total, buckets = 0, []
        for bound, count in zip(_BOUNDS_S, self._counts, strict=False):
            total += count
            buckets.append((bound, total))
        return buckets, total + self._counts[-1], self._sum_s

    def _overdue_s(self, now: float) -> float:
        return max(now - self._due, 0.0) if self._timer is not None else 0.0

    def _measure(self) -> None:
        now = self._clock()
        late_s = self._latest_s = max(now - self._due, 0.0)
        self.stalled_since(self._due)
        self._sum_s += late_s
        self._counts[next((at for at, bound in enumerate(_BOUNDS_S) if late_s <= bound), len(_BOUNDS_S))] += 1
        if late_s > BLOCKED_S:
            self.blocks += 1
            self._blocks.append((now, late_s))
        if late_s > _WARNED_S and now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            extra = {"event": "loop_blocked", "duration_s": round(late_s, 3)}
            said = "the event loop was blocked for about %.1f s, and all calls with it; %s"
            _log.warning(said, late_s, _HINT, extra=extra)
        self.start()
