"""Permits for connections, under any order of coming, leaving and giving up: bounds hold, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.wire import WireGroup, WirePool
from mcp_manager.transports.http.connections.permits import ConnectionPermits, ConnectionWait, DestinationQueue

CONTROL_PERMITS = 4


class Lane:
    """A connection of a queue that is busy, idle or closed."""

    def __init__(self, queue: _Queue) -> None:
        self.lanes = queue
        self.closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self.lanes.model.closing.append(self)


class _Queue(DestinationQueue):
    def __init__(self, model: Model) -> None:
        super().__init__(WirePool(DeadlineWheel(lambda: 0, lambda at_ns: None), lambda: 0, bytearray(16)))
        self.model = model


class Caller:
    """Who wants a connection of a queue, and the lane it has."""

    def __init__(self, model: Model, queue: _Queue, number: int, is_control: bool) -> None:
        self.number = number
        self.queue = queue
        self.is_control = is_control
        self.lane: Lane | None = None
        wait = ConnectionWait(is_control=is_control)
        self.task = asyncio.get_running_loop().create_task(self._take(model, wait))

    async def _take(self, model: Model, wait: ConnectionWait) -> None:
        self.lane = await model.permits.acquire(self.queue, wait, takes_lane=True) or Lane(self.queue)
        model.served.append(self)


class Model:
    """A few queues, their callers, and what must hold after each step."""

    def __init__(self, limit: int, limit_per_origin: int) -> None:
        self.limit, self.limit_per_origin = limit, limit_per_origin
        self.group = WireGroup()
        self.permits = ConnectionPermits(self.group, limit, limit_per_origin)
        self.queues = [_Queue(self) for _ in range(2)]
        self.callers: list[Caller] = []
        self.served: list[Caller] = []
        self.closing: list[Lane] = []
        self.numbers = itertools.count()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
            self.close_all()

    def close_all(self) -> None:
        while self.closing:
            self.permits.release(self.closing.pop(0).lanes)

    def come(self, queue: int, is_control: bool) -> None:
        self.callers.append(Caller(self, self.queues[queue], next(self.numbers), is_control))

    def finish(self, which: int, keeps_open: bool) -> None:
        """End a call: its connection comes free, or is gone."""
        busy = [each for each in self.callers if each.lane is not None]
        if not busy:
            return
        caller = busy[which % len(busy)]
        self.callers.remove(caller)
        lane = caller.lane
        assert lane is not None
        on_return: Any = self.group.on_return
        if not keeps_open or on_return is None or not on_return(lane):
            # Nobody waits: it would lie idle, which these queues do not do.
            lane.close()

    def give_up(self, which: int) -> None:
        waiting = [each for each in self.callers if each.lane is None]
        if waiting:
            caller = waiting[which % len(waiting)]
            self.callers.remove(caller)
            caller.task.cancel()

    def check(self) -> None:
        open_now = {queue: 0 for queue in self.queues}
        for caller in self.callers:
            if caller.lane is not None:
                assert not caller.lane.closed
                open_now[caller.queue] += 1
        assert {queue: queue.taken for queue in self.queues} == open_now
        total = sum(open_now.values())
        assert not self.limit or total <= self.limit
        for queue, count in open_now.items():
            most = self.limit_per_origin + CONTROL_PERMITS
            assert not self.limit_per_origin or count <= most
            waiting = [each for each in self.callers if each.queue is queue and each.lane is None]
            if waiting and (not self.limit or total < self.limit):
                # Only a full queue keeps anybody waiting while there is room in all.
                assert self.limit_per_origin and count >= self.limit_per_origin
        waiting_at_all = any(each.lane is None for each in self.callers)
        assert (self.group.on_return is not None) == waiting_at_all

    def check_order(self) -> None:
        """Within a queue, callers of a kind are served as they came."""
        for queue in self.queues:
            numbers = [each.number for each in self.served if each.queue is queue and not each.is_control]
            assert numbers == sorted(numbers)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 1), st.sampled_from([False, False, False, True])),
        st.tuples(st.just("come"), st.integers(0, 1), st.just(False)),
        st.tuples(st.just("finish"), st.integers(0, 20), st.booleans()),
        st.tuples(st.just("give_up"), st.integers(0, 20)),
    ),
    min_size=8,
    max_size=60,
)


@settings(max_examples=examples(200))
@given(
    limit=st.sampled_from([0, 1, 2, 4]), limit_per_origin=st.sampled_from([0, 1, 2]), steps=STEPS, hurried=st.booleans()
)
def test_permits(limit: int, limit_per_origin: int, steps: list[tuple[Any, ...]], hurried: bool) -> None:
    async def run() -> None:
        model = Model(limit, limit_per_origin)
        for name, *arguments in steps:
            getattr(model, name)(*arguments)
            if hurried:
                model.close_all()
            else:
                await model.settle()
                model.check()
        await model.settle()
        model.check()
        # Everybody has a turn in the end.
        while any(each.lane is not None for each in model.callers):
            model.finish(0, True)
            await model.settle()
            model.check()
        assert model.callers == []
        assert all(queue.taken == 0 for queue in model.queues)
        if not hurried:
            model.check_order()

    asyncio.run(run())


async def test_the_longest_wait_counts_whatever_the_queue() -> None:
    model = Model(1, 0)
    model.come(0, False)
    await model.settle()
    model.come(1, False)
    model.come(0, False)
    await model.settle()
    # The lane that comes free is of use to the second who waits, and given up for the first.
    model.finish(0, True)
    await model.settle()
    assert [each.number for each in model.served] == [0, 1]
    model.finish(0, True)
    await model.settle()
    assert [each.number for each in model.served] == [0, 1, 2]
    model.finish(0, True)
    await model.settle()


async def test_who_gives_up_leaves_the_turn_to_the_next() -> None:
    model = Model(1, 2)
    model.come(1, False)
    await model.settle()
    model.come(0, True)
    model.come(0, False)
    await model.settle()
    model.give_up(0)
    model.finish(0, False)
    await model.settle()
    assert [each.number for each in model.served] == [0, 2]
    model.finish(0, True)
    await model.settle()


async def test_a_few_permits_are_kept_for_control_traffic() -> None:
    model = Model(0, 1)
    model.come(0, False)
    model.come(0, False)
    for _ in range(CONTROL_PERMITS + 2):
        model.come(0, True)
    await model.settle()
    assert len(model.served) == 1 + CONTROL_PERMITS
    while model.callers:
        model.finish(0, True)
        await model.settle()
