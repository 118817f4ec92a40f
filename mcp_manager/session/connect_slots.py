"""How many sessions are made at a time, over all servers: attempts wait here for their turn, and lend it while they only wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manager.runtime.background import bare_context
from mcp_manager.session.slot_policy import SlotPolicy, Urgency

__all__ = ["ConnectSlots", "Turn"]

# Connecting to a URL takes work for a moment, then it is a matter of waiting.
_WORK_S: Final = 0.05
_FAILED_SHARE: Final = 8


class Turn:
    """The turn of one attempt: waited for, held, lent, and given back by :meth:`leave` whatever became of it."""

    __slots__ = ("_granted", "_slots", "granted_at", "is_idle")

    def __init__(self, slots: ConnectSlots) -> None:
        self._slots = slots
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Loop time; 0 while it waits.
        self.granted_at = 0.0
        self.is_idle: Callable[[], bool] = self._is_past_work
        """Tells whether the attempt only waits, so that its turn may be another's meanwhile; asked again and again."""

    async def granted(self) -> None:
        """Wait for the turn."""
        await self._granted

    def hasten(self) -> None:
        """Learn that a caller waits for the attempt."""
        self._slots.policy.hasten(self)

    def stay(self) -> bool:
        """Let others go on while the attempt waits for long; ``False`` if it must end, as too many do so already."""
        stays = self._slots.policy.stay(self)
        self._slots.go_on()
        return stays

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
        How many attempts have a turn at once; beside them an eighth of that, at least one, for places that failed last.
    most_waiting
        How many attempts may lend their turn at a time, and an eighth of that of places that failed last.
    look_s
        How often those who have a turn are asked whether they need it, while others wait for one.
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
        """Return the turn of an attempt, to be waited for."""
        turn = Turn(self)
        self.policy.ask(turn, urgency, has_failed=has_failed)
        self.go_on()
        return turn

    def go_on(self) -> None:
        """Give turns to whoever may have one, and look in a while whether more have come free."""
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
