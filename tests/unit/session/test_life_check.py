"""Life checks send one ping at a time, and a limited number of them; the clock is simulated."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

from mcp_manager.protocol.session_loss import UNANSWERED, UNASKED, Refusal
from mcp_manager.session.life_check import LifeCheck
from mcp_manager.testing.virtual_time import VirtualTimeLoop, run_in_virtual_time

GONE = Refusal(404, -32001, "Session not found")
BAD = Refusal(200, -32602, "no such tool")
S = 10**9


class Subject:
    """A life check whose pings take ``takes_s`` seconds and end with ``answer``."""

    def __init__(self, answer: Refusal | None = None, takes_s: float = 0.01) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.answer = answer
        self.takes_s = takes_s
        self.pings = 0
        self.asked: list[Refusal] = []
        self.lost: list[Refusal] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.is_over = False
        self.check = LifeCheck(self._ping, self._spawn, self.lost.append, loop.clock)

    async def ask(self, refusal: Refusal = BAD, deadline_ns: int = 0, *, is_of_request: bool = True) -> bool:
        return await self.check.ask(refusal, deadline_ns, is_of_request=is_of_request)

    async def _ping(self, refusal: Refusal) -> Refusal | None:
        self.asked.append(refusal)
        self.pings += 1
        await asyncio.sleep(self.takes_s)
        return self.answer

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self.is_over:
            work.close()
            return None
        task = self.loop.create_task(work)
        self.tasks.append(task)
        return task


def test_all_who_are_refused_meanwhile_wait_for_one_answer() -> None:
    async def work() -> None:
        subject = Subject(GONE)
        assert await asyncio.gather(*(subject.ask(GONE) for _ in range(50))) == [True] * 50
        assert (subject.asked, subject.lost) == ([GONE], [GONE])
        # It stays lost, without another ping.
        assert await subject.ask(BAD)
        assert (subject.pings, subject.lost) == (1, [GONE])

    run_in_virtual_time(work())


def test_an_answer_keeps_the_session() -> None:
    async def work() -> None:
        subject = Subject(None)
        assert not await subject.ask(GONE)
        assert (subject.pings, subject.lost, subject.check.is_lost) == (1, [], False)

    run_in_virtual_time(work())


def test_a_ping_that_is_refused_otherwise_keeps_it_too() -> None:
    async def work() -> None:
        subject = Subject(Refusal(200, -32603, "Internal error"))
        assert not await subject.ask(BAD)
        # A message that was refused in the same way as the ping proves the loss.
        other = asyncio.create_task(subject.ask(BAD))
        await asyncio.sleep(0)
        assert await subject.ask(Refusal(200, -32603, "Internal error"))
        await other
        assert (subject.pings, len(subject.lost)) == (2, 1)

    run_in_virtual_time(work())


def test_the_specified_form_holds_where_nobody_answers() -> None:
    async def work() -> None:
        assert not await Subject(UNANSWERED).ask(BAD)
        assert await Subject(UNANSWERED).ask(GONE)

    run_in_virtual_time(work())


def test_what_is_harmless_is_asked_about_less_and_less() -> None:
    async def work() -> None:
        subject = Subject(None, takes_s=0.0)
        asked_at: list[float] = []
        started = subject.loop.time()
        for _ in range(1200):
            before = subject.pings
            await subject.ask(BAD)
            if subject.pings > before:
                asked_at.append(round(subject.loop.time() - started, 2))
            await asyncio.sleep(0.1)
        assert asked_at[:2] == [0.0, 0.1]
        gaps = [round(later - sooner) for sooner, later in itertools.pairwise(asked_at[1:])]
        assert gaps[:6] == [1, 2, 4, 8, 15, 15]
        assert set(gaps[6:]) == {15}

    run_in_virtual_time(work())


def test_another_refusal_is_asked_about_at_once() -> None:
    async def work() -> None:
        subject = Subject(None)
        for _ in range(10):
            await subject.ask(BAD)
        assert subject.pings == 2
        subject.answer = GONE
        assert not await subject.ask(BAD)
        assert await subject.ask(GONE)

    run_in_virtual_time(work())


def test_refusals_that_all_differ_are_bounded() -> None:
    async def work() -> None:
        subject = Subject(None, takes_s=0.0)
        for number in range(1000):
            await subject.ask(Refusal(200, -32602, f"no tool {number}"))
        assert subject.pings == 6
        for number in range(1000):
            await subject.ask(Refusal(200, -32602, f"no resource {number}"))
            await asyncio.sleep(0.1)
        assert 49 <= subject.pings - 6 <= 51

    run_in_virtual_time(work())


def test_nobody_waits_beyond_his_deadline() -> None:
    async def work() -> None:
        subject = Subject(GONE, takes_s=10.0)
        soon = subject.loop.clock() + 2 * S
        patient = asyncio.create_task(subject.ask(GONE))
        started = subject.loop.time()
        assert not await subject.ask(GONE, soon)
        assert round(subject.loop.time() - started, 3) == 2.0
        assert await patient
        assert subject.pings == 1

    run_in_virtual_time(work())


def test_who_gives_up_leaves_the_question_to_the_others() -> None:
    async def work() -> None:
        subject = Subject(GONE)
        first = asyncio.create_task(subject.ask(GONE))
        await asyncio.sleep(0)
        second = asyncio.create_task(subject.ask(GONE))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert (subject.pings, first.cancelled()) == (1, True)

    run_in_virtual_time(work())


def test_who_waits_learns_that_the_session_was_given_up_meanwhile() -> None:
    async def work() -> None:
        subject = Subject(None, takes_s=3600.0)
        waiting = asyncio.create_task(subject.ask(GONE))
        await asyncio.sleep(1.0)
        subject.check.is_lost = True
        subject.tasks[0].cancel()
        assert await waiting
        assert subject.lost == []

    run_in_virtual_time(work())


def test_the_end_of_the_session_ends_the_waiting() -> None:
    async def work() -> None:
        for passes in range(3):
            subject = Subject(GONE, takes_s=3600.0)
            waiting = asyncio.create_task(subject.ask(GONE))
            for _ in range(passes):
                await asyncio.sleep(0)
            while not subject.tasks:
                await asyncio.sleep(0)
            # Even before the ping has begun.
            subject.tasks[0].cancel()
            async with asyncio.timeout(1.0):
                assert not await waiting
        subject.is_over = True
        assert not await subject.ask(Refusal(410))

    run_in_virtual_time(work())


def test_a_ping_that_this_side_could_not_send_gives_no_session_up_and_proves_nothing() -> None:
    async def work() -> None:
        subject = Subject(UNASKED)
        for _ in range(3):
            assert not await subject.ask(GONE)
        # No refusal was shown to be harmless, so each one triggers a ping as before.
        assert subject.pings == 3
        subject.answer = GONE
        assert await subject.ask(GONE)

    run_in_virtual_time(work())
