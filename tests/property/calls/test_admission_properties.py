"""Whatever callers do, and whenever: limits hold, turns come in order, and no slot and no wakeup is lost."""

from __future__ import annotations

import asyncio
from functools import partial

import hypothesis.strategies as st
from hypothesis import given, settings
from support.examples import examples
from support.waiting import Floor

from mcp_manager._core.records import Lease
from mcp_manager.errors import DeadlineExceededError, OverloadedError
from mcp_manager.testing.virtual_time import run_in_virtual_time

SERVERS = ("a", "b", "c")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("enter", "enter", "enter", "end", "end", "cancel", "cancel as it is its turn", "pass")),
        st.integers(0, 2**16),
        # How often the loop turns before the next step; from three on, until nothing is left to run.
        st.integers(0, 3),
    ),
    max_size=80,
)


class Crowd:
    """Callers, by the number in which they came, and what the router gave them."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.callers: dict[int, tuple[str, asyncio.Task[Lease]]] = {}
        self.granted: dict[str, list[int]] = {server_id: [] for server_id in SERVERS}
        self.out: list[Lease] = []
        self.came = 0

    def enter(self, choice: int) -> None:
        server_id = SERVERS[choice % 3]
        number = self.came
        self.came += 1
        granted = partial(self._granted, server_id, number)
        work = self.floor.enter(server_id, timeout_s=0.1 + choice % 7 * 0.3, granted=granted)
        self.callers[number] = server_id, asyncio.ensure_future(work)

    def _granted(self, server_id: str, number: int, _: Lease) -> None:
        # Nobody has overtaken: whoever came before is not waiting any more, or has given up this very moment.
        for earlier, (other_id, task) in self.callers.items():
            if earlier < number and other_id == server_id and earlier not in self.granted[server_id]:
                assert task.done() or task.cancelling() or self.is_late(task), (earlier, number)
        self.granted[server_id].append(number)
        self.check_limits()

    async def cancel_whose_turn_it_is(self, lease: Lease) -> None:
        """End a call, and cancel whoever gets its slot before their task has run."""
        before = list(self.granted[lease.server_id])
        self.floor.end(lease)
        await asyncio.sleep(0)
        for number in self.granted[lease.server_id][len(before) :]:
            self.callers[number][1].cancel()

    def is_late(self, task: asyncio.Task[Lease]) -> bool:
        """Tell whether its time is over, and it has only not run since."""
        waits_for = getattr(task, "_fut_waiter", None)
        return waits_for is not None and waits_for.done()

    def collect(self) -> None:
        for number, (_, task) in list(self.callers.items()):
            if not task.done():
                continue
            del self.callers[number]
            if not task.cancelled() and task.exception() is None:
                self.out.append(task.result())
            elif not task.cancelled():
                assert isinstance(task.exception(), OverloadedError | DeadlineExceededError)

    def check_limits(self) -> None:
        total = 0
        for server_id in SERVERS:
            record = self.floor.servers[server_id].record
            assert record.max_concurrent == 0 or record.inflight <= record.max_concurrent
            total += record.inflight
        assert total == self.floor.router.inflight
        assert self.floor.config.max_concurrent == 0 or total <= self.floor.config.max_concurrent

    def check_that_nobody_waits_in_vain(self) -> None:
        """Every line stands still because its server, or all of them, are full."""
        all_full = 0 < self.floor.config.max_concurrent <= self.floor.router.inflight
        for server_id in SERVERS:
            record = self.floor.servers[server_id].record
            is_full = 0 < record.max_concurrent <= record.inflight
            assert record.waiting == 0 or is_full or all_full


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def crowd(steps: list[tuple[str, int, int]], own: tuple[int, ...], together: int) -> None:
    limits = {
        server_id: {"max_concurrent": most, "max_waiting": 4, "max_wait_s": 1.0, "concurrency": "off"}
        for server_id, most in zip(SERVERS, own, strict=True)
    }
    floor = Floor(limits, max_concurrent=together, max_waiting=6, max_wait_s=1.5)
    them = Crowd(floor)
    for step, choice, turns in steps:
        if step == "enter":
            them.enter(choice)
        elif step == "end" and them.out:
            floor.end(them.out.pop(choice % len(them.out)))
        elif step == "cancel" and them.callers:
            list(them.callers.values())[choice % len(them.callers)][1].cancel()
        elif step == "cancel as it is its turn" and them.out:
            await them.cancel_whose_turn_it_is(them.out.pop(choice % len(them.out)))
        elif step == "pass":
            await asyncio.sleep(choice % 5 * 0.25)
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 3:
            await settled()
            them.check_that_nobody_waits_in_vain()
        them.collect()
        them.check_limits()
    while them.callers or them.out:
        while them.out:
            floor.end(them.out.pop())
        await settled()
        them.check_that_nobody_waits_in_vain()
        them.collect()
        assert them.out or not them.callers, "nothing is under way, and somebody waits"
    floor.assert_empty()
    assert floor.router.inflight == 0


@given(steps=STEPS, own=st.tuples(*[st.integers(0, 2)] * 3), together=st.integers(0, 4))
@settings(max_examples=examples(150), deadline=None)
def test_limits_hold_turns_come_in_order_and_nothing_is_lost(
    steps: list[tuple[str, int, int]], own: tuple[int, ...], together: int
) -> None:
    run_in_virtual_time(crowd(steps, own, together))
