"""How much of a time slice floods may take, who reads next, and when a server floods: on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import cast

import pytest

from mcp_manager.runtime.read_budget import CoroutineReader, ReadBudget, read_budget

MS = 1_000_000
TURN_NS = 100_000
QUARTER = 4


class Handle:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """As much of a loop as a time slice needs: callbacks now and later, on a clock that only work moves on."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS
        self.turn = 0
        # What everybody else does in each turn.
        self.others_ns = 10_000
        self._soon: list[Handle] = []
        self._later: list[tuple[int, int, Handle]] = []
        self._numbers = itertools.count()

    def is_closed(self) -> bool:
        return False

    def clock(self) -> int:
        return self.now_ns

    def call_soon(self, callback: Callable[[], None], context: Context) -> Handle:
        self._soon.append(Handle(callback))
        return self._soon[-1]

    def call_later(self, delay_s: float, callback: Callable[[], None], context: Context) -> Handle:
        handle = Handle(callback)
        heapq.heappush(self._later, (self.now_ns + round(delay_s * 1e9), next(self._numbers), handle))
        return handle

    @property
    def pending(self) -> int:
        return sum(not each.is_cancelled for each in [*self._soon, *(handle for *_, handle in self._later)])

    def run_turn(self) -> None:
        self.turn += 1
        self.now_ns += self.others_ns
        while self._later and self._later[0][0] <= self.now_ns:
            self._soon.append(heapq.heappop(self._later)[2])
        soon, self._soon = self._soon, []
        for handle in soon:
            if not handle.is_cancelled:
                handle.callback()


class Flood:
    """A server without end: each message costs ``cost_ns``."""

    def __init__(self, loop: Loop, budget: ReadBudget, cost_ns: int = 10_000) -> None:
        self.loop = loop
        self.budget = budget
        self.cost_ns = cost_ns
        self.left = -1
        self.took: list[int] = []
        self.floods = 0

    def read_on(self) -> None:
        while self.left:
            self.left -= 1
            self.took.append(self.loop.turn)
            self.loop.now_ns += self.cost_ns
            if not self.budget.spend(self.cost_ns):
                if self.left:
                    self.budget.wait(self)
                return

    def flooded(self) -> None:
        self.floods += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def budget(loop: Loop) -> Iterator[ReadBudget]:
    budget = ReadBudget(cast(asyncio.AbstractEventLoop, loop), loop.clock)
    yield budget
    assert loop.turn > 0


def most_in_a_turn(*floods: Flood) -> int:
    taken = [turn for flood in floods for turn in flood.took]
    return max(taken.count(turn) for turn in set(taken))


@pytest.mark.parametrize("number", [1, 20])
def test_all_floods_together_take_no_more_of_a_turn_than_one(loop: Loop, budget: ReadBudget, number: int) -> None:
    floods = [Flood(loop, budget) for _ in range(number)]
    for flood in floods:
        flood.read_on()
    for _ in range(400):
        loop.run_turn()
    later = [[turn for turn in flood.took if turn > 20] for flood in floods]
    assert all(later), "everybody gets a share"
    for flood, took in zip(floods, later, strict=True):
        flood.took = took
    assert most_in_a_turn(*floods) == TURN_NS // 10_000
    shares = [len(took) for took in later]
    assert max(shares) <= 2 * min(shares), "they take turns"


def test_a_message_that_costs_more_than_a_turn_is_paid_by_the_next_ones(loop: Loop, budget: ReadBudget) -> None:
    flood = Flood(loop, budget, cost_ns=5 * TURN_NS)
    flood.read_on()
    for _ in range(50):
        loop.run_turn()
    gaps = {after - before for before, after in itertools.pairwise(flood.took)}
    assert gaps == {5}


def test_debt_is_bounded(loop: Loop, budget: ReadBudget) -> None:
    flood = Flood(loop, budget, cost_ns=10_000 * TURN_NS)
    flood.read_on()
    for _ in range(12):
        loop.run_turn()
    assert len(flood.took) == 2


def test_where_the_loop_has_other_work_floods_have_a_quarter_of_its_time(loop: Loop, budget: ReadBudget) -> None:
    loop.others_ns = 250_000
    flood = Flood(loop, budget)
    flood.read_on()
    begun = loop.now_ns
    for _ in range(400):
        loop.run_turn()
    assert len(flood.took) * flood.cost_ns <= (loop.now_ns - begun) / QUARTER + TURN_NS
    assert len(flood.took) * flood.cost_ns >= (loop.now_ns - begun) / QUARTER / 2


def test_a_server_that_keeps_the_loop_busy_for_a_second_floods(loop: Loop, budget: ReadBudget) -> None:
    flood, burst = Flood(loop, budget), Flood(loop, budget)
    burst.left = 1000
    flood.read_on()
    burst.read_on()
    while loop.now_ns < 4_500 * MS:
        loop.run_turn()
    assert flood.floods == 3
    assert (burst.left, burst.floods) == (0, 0)


def test_bursts_with_pauses_between_them_are_no_flood(loop: Loop, budget: ReadBudget) -> None:
    burst = Flood(loop, budget)
    for _ in range(5):
        burst.left = 1000
        burst.read_on()
        while burst.left:
            loop.run_turn()
        loop.now_ns += 1_100 * MS
    assert burst.floods == 0


def test_whoever_leaves_is_forgotten_and_nothing_is_left_to_do(loop: Loop, budget: ReadBudget) -> None:
    flood, other = Flood(loop, budget), Flood(loop, budget)
    flood.read_on()
    other.read_on()
    loop.run_turn()
    budget.leave(flood)
    before = len(flood.took)
    for _ in range(20):
        loop.run_turn()
    assert len(flood.took) == before
    budget.leave(other)
    budget.leave(other)
    for _ in range(20):
        loop.run_turn()
    assert loop.pending == 0


def test_a_reader_that_fails_takes_no_turn_from_the_others(
    loop: Loop, budget: ReadBudget, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Flood):
        def read_on(self) -> None:
            raise RuntimeError("bug")

    flood = Flood(loop, budget)
    budget.wait(Broken(loop, budget))
    budget.wait(flood)
    loop.run_turn()
    assert flood.took
    assert "reading on from a server failed" in caplog.text


@pytest.mark.both_loops
async def test_a_loop_has_one_budget_and_every_turn_a_new_one() -> None:
    budget = read_budget()
    assert budget is read_budget()
    assert not budget.spend(TURN_NS)
    # Others go first, so that the budget is none that renews itself within a turn.
    assert not budget.spend(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert budget.spend(0)


async def test_a_coroutine_waits_for_its_turn_and_may_give_up(caplog: pytest.LogCaptureFixture) -> None:
    budget = read_budget()
    reading = CoroutineReader(budget, lambda: None)
    budget.spend(TURN_NS)
    async with asyncio.timeout(10):
        await reading.next_slice()
    budget.spend(2 * TURN_NS)
    waiting = asyncio.create_task(reading.next_slice())
    await asyncio.sleep(0)
    waiting.cancel()
    # Its turn comes all the same, and finds nobody.
    for _ in range(10):
        await asyncio.sleep(0)
    reading.close()
    assert waiting.cancelled()
    assert caplog.records == []
