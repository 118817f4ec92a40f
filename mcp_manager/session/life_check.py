"""The check whether a session still exists, by a limited number of pings, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from mcp_manager.protocol.session_loss import UNASKED, Refusal, confirms_loss

__all__ = ["LifeCheck"]

# The limit on pings: a burst of this many, then one per interval.
_BURST: Final = 6
_REFILL_NS: Final = 2 * 10**9
# A refusal that was harmless this often triggers no ping for a while, and each time for longer.
_MAX_HARMLESS: Final = 2
_FIRST_QUIET_NS: Final = 10**9
_LONGEST_QUIET_NS: Final = 15 * 10**9
_MAX_KNOWN: Final = 32


class LifeCheck:
    """Find out by a ping whether a session is lost.

    A session that exists is never given up because one request was refused: its state would be lost. Refusals that
    arrive during a ping wait for its outcome. A kind of refusal that has turned out to be harmless triggers fewer and
    fewer pings.

    Parameters
    ----------
    ping
        ``await ping(refusal)`` pings the server after a refusal. It returns ``None`` if the ping was answered, or else
        how it was refused, :data:`UNANSWERED` or :data:`UNASKED`; see :func:`confirms_loss`.
    spawn
        Runs work in a task that ends with the session, and returns it; ``None`` once the session has ended.
    on_lost
        Called once, with the refusal of the ping, when the session turns out to be lost.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = (
        "_allowance",
        "_clock",
        "_filled_ns",
        "_harmless",
        "_on_lost",
        "_ping",
        "_pinging",
        "_spawn",
        "is_lost",
    )

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
        # By refusal: how often it was harmless, and until when it triggers no ping. The latest is the last.
        self._harmless: dict[Refusal, tuple[int, int]] = {}
        self._pinging: asyncio.Future[Refusal | None] | None = None
        self.is_lost: bool = False

    async def ask(self, refusal: Refusal, deadline_ns: int = 0, *, is_of_request: bool = True) -> bool:
        """Tell whether the session is lost, which a refusal on it suggests.

        Return ``False`` also without proof: if no further ping may be sent now, or the deadline passes first.

        Parameters
        ----------
        refusal
            One for which :func:`may_mean_loss` is true.
        deadline_ns
            The deadline of the refused message, a time of :func:`time.monotonic_ns`; 0 waits for the ping's outcome.
        is_of_request
            Whether the refused message was a request, which a JSON-RPC error can answer.
        """
        if self.is_lost:
            return True
        pinging = self._pinging or self._begin(refusal, is_of_request)
        if pinging is None:
            return False
        left_s = max(0, deadline_ns - self._clock()) / 1e9 if deadline_ns else None
        await asyncio.wait({pinging}, timeout=left_s)
        answer = pinging.result() if pinging.done() else None
        if answer is not None and confirms_loss(answer, refusal, is_of_request=is_of_request):
            self._lose(answer)
        return self.is_lost

    def _lose(self, answer: Refusal) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._on_lost(answer)

    def _begin(self, refusal: Refusal, is_of_request: bool) -> asyncio.Future[Refusal | None] | None:
        now_ns = self._clock()
        if not self._may_ping(refusal, now_ns):
            return None
        pinging: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        task = self._spawn(self._ping_and_judge(refusal, is_of_request, pinging))
        if task is None:
            return None
        # Ends the wait also if the session ends during the ping.
        task.add_done_callback(lambda _: self._ended(pinging, None))
        self._pinging = pinging
        self._allowance -= 1
        return pinging

    def _may_ping(self, refusal: Refusal, now_ns: int) -> bool:
        refills = (now_ns - self._filled_ns) // _REFILL_NS
        if refills > 0:
            self._filled_ns += refills * _REFILL_NS
            self._allowance = min(_BURST, self._allowance + refills)
        _, quiet_until_ns = self._harmless.get(refusal, (0, 0))
        return self._allowance > 0 and now_ns >= quiet_until_ns

    async def _ping_and_judge(
        self, refusal: Refusal, is_of_request: bool, pinging: asyncio.Future[Refusal | None]
    ) -> None:
        answer = await self._ping(refusal)
        if answer is not None and confirms_loss(answer, refusal, is_of_request=is_of_request):
            self._lose(answer)
        elif answer != UNASKED:
            self._note_harmless(refusal)
        self._ended(pinging, answer)

    def _ended(self, pinging: asyncio.Future[Refusal | None], answer: Refusal | None) -> None:
        if not pinging.done():
            pinging.set_result(answer)
            self._pinging = None

    def _note_harmless(self, refusal: Refusal) -> None:
        times = self._harmless.pop(refusal, (0, 0))[0] + 1
        while len(self._harmless) >= _MAX_KNOWN:
            del self._harmless[next(iter(self._harmless))]
        quiet_ns = 0
        if times >= _MAX_HARMLESS:
            quiet_ns = min(_FIRST_QUIET_NS << min(times - _MAX_HARMLESS, 8), _LONGEST_QUIET_NS)
        self._harmless[refusal] = (times, self._clock() + quiet_ns)
