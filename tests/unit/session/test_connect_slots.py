"""Turns to make a session: waiting for them, lending them while idle, and losing none however an attempt ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from mcp_manager.session.connect_slots import ConnectSlots, Turn
from mcp_manager.session.slot_policy import Urgency
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.transports.stdio.process_activity import ProcessActivity, usable_cores


def ask(slots: ConnectSlots, *, busy: bool = True, has_failed: bool = False) -> Turn:
    turn = slots.ask(Urgency.FIRST, has_failed=has_failed)
    if busy:
        turn.is_idle = lambda: False
    return turn


async def took(turn: Turn) -> float:
    began = asyncio.get_running_loop().time()
    await turn.granted()
    return asyncio.get_running_loop().time() - began


def test_who_only_waits_lends_its_turn() -> None:
    async def work() -> None:
        slots = ConnectSlots(1, most_waiting=10)
        first = ask(slots, busy=False)
        await first.granted()
        others = [ask(slots, busy=False) for _ in range(5)]
        seconds = await asyncio.gather(*(took(each) for each in others))
        # One after another, each as soon as the attempt before it is assumed to be idle.
        assert [round(each, 2) for each in seconds] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25], abs=0.06)
        for each in (first, *others):
            each.leave()
        assert slots._timer is None

    run_in_virtual_time(work())


def test_who_works_keeps_its_turn_and_who_gives_up_loses_no_slot() -> None:
    async def work() -> None:
        slots = ConnectSlots(1, most_waiting=10)
        holder = ask(slots)
        waiting = [ask(slots) for _ in range(3)]
        tasks = [asyncio.create_task(each.granted()) for each in waiting]
        await asyncio.sleep(10)
        assert not any(task.done() for task in tasks)
        # The first gives up while it waits, the second at the moment its turn comes, and the third gets the turn.
        tasks[0].cancel()
        waiting[0].leave()
        holder.leave()
        assert waiting[1].granted_at > 0
        tasks[1].cancel()
        waiting[1].leave()
        await tasks[2]
        waiting[2].leave()
        assert ask(slots).granted_at > 0

    run_in_virtual_time(work())


@pytest.mark.parametrize("steps", range(12))
def test_a_cancellation_at_every_await_gives_the_turn_back(steps: int) -> None:
    async def use(slots: ConnectSlots) -> None:
        turn = slots.ask(Urgency.CALLER, has_failed=False)
        try:
            await turn.granted()
            await asyncio.sleep(0)
            turn.lend_for_long()
            await asyncio.sleep(0)
        finally:
            turn.leave()

    async def work() -> None:
        slots = ConnectSlots(1, most_waiting=1)
        tasks = [asyncio.create_task(use(slots)) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = slots.ask(Urgency.AGAIN, has_failed=False)
        assert last.granted_at > 0
        last.leave()
        assert slots._timer is None

    run_in_virtual_time(work())


def test_places_that_failed_have_an_eighth_beside_the_others() -> None:
    async def work() -> None:
        slots = ConnectSlots(16, most_waiting=0)
        failed = [ask(slots, has_failed=True) for _ in range(5)]
        assert [each.granted_at > 0 for each in failed] == [True, True, False, False, False]
        assert all(ask(slots).granted_at > 0 for _ in range(16))
        assert not slots.ask(Urgency.CALLER, has_failed=False).granted_at

    run_in_virtual_time(work())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot be seen")
@pytest.mark.parametrize(
    ("code", "is_idle"),
    [
        ("sleep 60; :", True),
        ("while :; do :; done", False),
        # The child processes of a launcher count as well.
        ("(while :; do :; done) & sleep 60; wait", False),
    ],
)
def test_a_program_that_waits_is_told_from_one_that_works(code: str, is_idle: bool) -> None:
    with subprocess.Popen(["sh", "-c", code], start_new_session=True) as process:
        try:
            activity = ProcessActivity()
            seen: list[bool] = []
            deadline = time.monotonic() + 10
            # A shell needs processor time before it waits.
            while len(seen) < 8 and not any(seen) and time.monotonic() < deadline:
                time.sleep(0.05)
                seen.append(activity.is_idle(process.pid))
            assert any(seen) is is_idle
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_program_that_is_gone_is_assumed_to_work_for_a_moment() -> None:
    assert ProcessActivity().is_idle(2**22 + 1) is False
    assert usable_cores() >= 1
