"""The limit on how many sessions are made at a time, over all servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manager.runtime.background import bare_context
from mcp_manager.session.slot_policy import SlotPolicy, Urgency

__all__ = ["ConnectSlots", "Turn"]

# Connecting to a URL takes processor time at first; after that, the attempt only waits.
_WORK_S: Final = 0.05
_FAILED_SHARE: Final = 8


class Turn:
    """The turn of one attempt: it is waited for, held, and perhaps lent; :meth:`leave` always gives it back.

    Parameters
    ----------
    slots
        What grants the turn.
    """

    __slots__ = ("_granted", "_slots", "granted_at", "is_idle")

    def __init__(self, slots: ConnectSlots) -> None:
        self._slots = slots
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Loop time; 0 while it waits.
        self.granted_at: float = 0.0
        self.is_idle: Callable[[], bool] = self._is_past_work
        """Returns whether the attempt only waits, so that it can lend its turn; called repeatedly."""

    async def granted(self) -> None:
        """Wait for the turn."""
        await self._granted

    def hasten(self) -> None:
        """Make the attempt as urgent as a call: a caller waits for it."""
        self._slots.policy.hasten(self)

    def lend_for_long(self) -> bool:
        """Lend the turn for a long wait; return ``False`` if too many attempts do so already and this one must end."""
        is_lent = self._slots.policy.lend_for_long(self)
        self._slots.go_on()
        return is_lent

    def leave(self) -> None:
        """Give the turn back, or stop waiting for it; idempotent."""
        self._slots.policy.leave(self)
        self._slots.go_on()

    def grant(self) -> None:
        """Let the attempt begin."""
        self.granted_at = asyncio.get_running_loop().time()
        if not self._granted.done():
            self._granted.set_result(None)

    def _is_past_work(self) -> bool:
        return asyncio.get_running_loop().time() - self.granted_at >= _WORK_S


class ConnectSlots:
    """Bound how many sessions are made at a time.

    Parameters
    ----------
    capacity
        How many attempts have a turn at a time. Instances whose last attempt failed have an eighth of that in addition,
        at least one.
    most_waiting
        How many attempts may lend their turn at a time, with again an eighth in addition for instances that failed.
    look_s
        The interval in seconds at which attempts that hold a turn are checked for being idle, while others wait.
    """

    def __init__(self, capacity: int, *, most_waiting: int, look_s: float = _WORK_S) -> None:
        self.policy: SlotPolicy[Turn] = SlotPolicy(
            capacity,
            max(1, capacity // _FAILED_SHARE),
            most_lent=most_waiting,
            most_lent_failed=max(1, most_waiting // _FAILED_SHARE),
        )
        self._look_s = look_s
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, urgency: Urgency, *, has_failed: bool) -> Turn:
        """Return a turn to wait for.

        Parameters
        ----------
        urgency
            How soon the session is needed.
        has_failed
            Whether the last attempt of the same instance failed.
        """
        turn = Turn(self)
        self.policy.ask(turn, urgency, has_failed=has_failed)
        self.go_on()
        return turn

    def go_on(self) -> None:
        """Grant the free turns, and while attempts still wait, check regularly for turns that can be lent."""
        for turn in self.policy.grant():
            turn.grant()
        if self._timer is None and self.policy.wanted():
            self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look, context=bare_context())
        elif self._timer is not None and not self.policy.wanted():
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for turn in self.policy.wanted():
            if turn.is_idle():
                self.policy.lend(turn)
        self.go_on()
