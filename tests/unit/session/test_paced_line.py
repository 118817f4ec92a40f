"""Work that a server causes runs in order, limited in number, and the oldest that waits is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.calls import eventually

from mcp_manager.session.paced_line import MAX_WAITING, PacedLine

TURN_NS = 100_000


class Subject:
    """A line whose work runs until it is released, with a record of what ran."""

    def __init__(self, at_once: int = 4, cost_ns: int = 0) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.began: list[int] = []
        self.dropped = 0
        self.release = asyncio.Event()
        self.line = PacedLine(self.spawn, self.drop, at_once=at_once, cost_ns=cost_ns)

    def drop(self) -> None:
        self.dropped += 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def work(self, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            self.began.append(number)
            await self.release.wait()

        return run

    async def end(self) -> None:
        self.line.close()
        self.release.set()
        await asyncio.gather(*self.tasks)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_so_much_runs_at_once_and_the_rest_in_its_order() -> None:
    subject = Subject()
    for number in range(20):
        subject.line.add(subject.work(number))
    await turns(5)
    assert subject.began == [0, 1, 2, 3]
    assert len(subject.line) == 20
    subject.release.set()
    await eventually(lambda: not len(subject.line), "the end")
    assert subject.began == list(range(20))
    assert subject.dropped == 0


async def test_the_oldest_of_those_that_wait_are_dropped_and_counted() -> None:
    subject = Subject()
    for number in range(4 + MAX_WAITING + 10):
        subject.line.add(subject.work(number))
    assert subject.dropped == 10
    subject.release.set()
    await eventually(lambda: not len(subject.line), "the end")
    assert subject.began == [0, 1, 2, 3, *range(14, 4 + MAX_WAITING + 10)]


async def test_news_that_waits_is_told_once_and_not_beside_its_like() -> None:
    subject = Subject()
    for number in range(10):
        subject.line.add(subject.work(number), key="tools")
        subject.line.add(subject.work(100 + number), key="prompts")
    await turns(5)
    assert subject.began == [0, 100]
    subject.release.set()
    await eventually(lambda: not len(subject.line), "the end")
    assert subject.began == [0, 100, 9, 109]


async def test_a_turn_of_the_loop_begins_no_more_than_it_has_time_for() -> None:
    subject = Subject(at_once=100, cost_ns=TURN_NS)
    for number in range(20):
        subject.line.add(subject.work(number))
    before = len(subject.began)
    most = 0
    while len(subject.began) < 20:
        await asyncio.sleep(0)
        most, before = max(most, len(subject.began) - before), len(subject.began)
    assert most == 1
    await subject.end()


@pytest.mark.parametrize("cost_ns", [0, TURN_NS])
async def test_nothing_begins_after_the_end(cost_ns: int) -> None:
    subject = Subject(at_once=2, cost_ns=cost_ns)
    for number in range(20):
        subject.line.add(subject.work(number))
    await subject.end()
    began = len(subject.began)
    subject.line.add(subject.work(99))
    await turns(10)
    assert len(subject.began) == began <= 2
