"""Whether a session lives: asked by a ping when something on it was refused, by one at a time and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from mcp_manager.protocol.session_loss import UNASKED, Refusal, confirms_loss

__all__ = ["LifeCheck"]

# The most pings: so many at once, then one in so long.
_BURST: Final = 6
_REFILL_NS: Final = 2 * 10**9
# A refusal that was harmless so often is asked about again after a while, and ever longer.
_AT_ONCE: Final = 2
_FIRST_QUIET_NS: Final = 10**9
_LONGEST_QUIET_NS: Final = 15 * 10**9
_MAX_KNOWN: Final = 32


class LifeCheck:
    """Find out by a ping whether a session is lost.

    A live session is never given up for a refusal that was meant for one request: its state would be lost. Refusals that
    come while a ping is under way wait for its answer, and what has proven harmless is asked about less and less.

    Parameters
    ----------
    ping
        ``await ping(refusal)`` asks for a sign of life on the session after a refusal. It returns ``None`` if it was
        answered, else how it was refused, or that nobody knows; see :func:`confirms_loss`.
    spawn
        Runs work that ends with the session; returns ``None`` once it has ended.
    on_lost
        Called once, with the refusal of the ping, when the session is found to be lost.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = ("_allowance", "_asking", "_clock", "_filled_ns", "_harmless", "_on_lost", "_ping", "_spawn", "is_lost")

    def __init__(
        self,
        ping: Callable[[Refusal], Awaitable[Refusal | None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        on_lost: Callable[[Refusal], None],
        clock: Callable[[], int],
    ) -> None:
        self._ping = ping
        self._spawn = spawn
        self._on_lost = on_lost
        self._clock = clock
        self._allowance = _BURST
        self._filled_ns = clock()
        # By refusal: how often it proved harmless, and until when that holds. The latest is the last.
        self._harmless: dict[Refusal, tuple[int, int]] = {}
        self._asking: asyncio.Future[Refusal | None] | None = None
        self.is_lost = False

    async def ask(self, refusal: Refusal, deadline_ns: int = 0, *, is_of_request: bool = True) -> bool:
        """Tell whether the session is lost, as a refusal on it suggests.

        Parameters
        ----------
        refusal
            One that :func:`may_mean_loss`.
        deadline_ns
            How long whoever was refused can wait, 0 for as long as it takes.
        is_of_request
            Whether it answered a request, which a server may refuse by a JSON-RPC error.
        """
        if self.is_lost:
            return True
        asking = self._asking or self._begin(refusal, is_of_request)
        if asking is None:
            return False
        left_s = max(0, deadline_ns - self._clock()) / 1e9 if deadline_ns else None
        await asyncio.wait({asking}, timeout=left_s)
        answer = asking.result() if asking.done() else None
        if answer is not None and confirms_loss(answer, refusal, is_of_request=is_of_request):
            self._lose(answer)
        return self.is_lost

    def _lose(self, answer: Refusal) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._on_lost(answer)

    def _begin(self, refusal: Refusal, is_of_request: bool) -> asyncio.Future[Refusal | None] | None:
        now_ns = self._clock()
        if not self._may_ask(refusal, now_ns):
            return None
        asking: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        task = self._spawn(self._find_out(refusal, is_of_request, asking))
        if task is None:
            return None
        # Also when the session ends meanwhile: whoever waits must not wait for ever.
        task.add_done_callback(lambda _: self._ended(asking, None))
        self._asking = asking
        self._allowance -= 1
        return asking

    def _may_ask(self, refusal: Refusal, now_ns: int) -> bool:
        refills = (now_ns - self._filled_ns) // _REFILL_NS
        if refills > 0:
            self._filled_ns += refills * _REFILL_NS
            self._allowance = min(_BURST, self._allowance + refills)
        _, quiet_until_ns = self._harmless.get(refusal, (0, 0))
        return self._allowance > 0 and now_ns >= quiet_until_ns

    async def _find_out(self, refusal: Refusal, is_of_request: bool, asking: asyncio.Future[Refusal | None]) -> None:
        answer = await self._ping(refusal)
        if answer is not None and confirms_loss(answer, refusal, is_of_request=is_of_request):
            self._lose(answer)
        elif answer != UNASKED:
            self._note_harmless(refusal)
        self._ended(asking, answer)

    def _ended(self, asking: asyncio.Future[Refusal | None], answer: Refusal | None) -> None:
        if not asking.done():
            asking.set_result(answer)
            self._asking = None

    def _note_harmless(self, refusal: Refusal) -> None:
        times = self._harmless.pop(refusal, (0, 0))[0] + 1
        while len(self._harmless) >= _MAX_KNOWN:
            del self._harmless[next(iter(self._harmless))]
        quiet_ns = 0
        if times >= _AT_ONCE:
            quiet_ns = min(_FIRST_QUIET_NS << min(times - _AT_ONCE, 8), _LONGEST_QUIET_NS)
        self._harmless[refusal] = (times, self._clock() + quiet_ns)
