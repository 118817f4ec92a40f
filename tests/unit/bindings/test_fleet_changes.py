"""The first step of a change on the running loop, and whoever awaits the rest, or does not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from typing import Any

import pytest

from mcp_manager import NotRunningError
from mcp_manager.bindings.fleet_change import FleetChange, begin

pytestmark = pytest.mark.both_loops
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Change:
    """A change that waits for a future after its first step."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: list[asyncio.Task[Any] | None] = []

    async def run(self) -> None:
        self.steps.append(f"first {variable.get()}")
        self.tasks.append(asyncio.current_task())
        variable.set("changed")
        try:
            await self.gate
        except asyncio.CancelledError:
            self.steps.append("cancelled")
            raise
        self.tasks.append(asyncio.current_task())
        self.steps.append(f"last {variable.get()}")


async def test_the_first_step_is_taken_at_once_and_the_rest_in_the_same_task_and_context() -> None:
    variable.set("given")
    change = Change()
    begun = begin(change.run(), "a")
    assert change.steps == ["first given"]
    assert repr(begun) == "<FleetChange: under way>"
    assert variable.get() == "given"
    assert asyncio.current_task() not in change.tasks
    change.gate.set_result(None)
    await begun
    assert change.steps == ["first given", "last changed"]
    assert change.tasks[0] is change.tasks[1] is not None
    assert repr(begun) == repr(FleetChange()) == "<FleetChange: done>"
    # A second time, and what has ended, may be awaited as well.
    await begun
    await FleetChange()


async def test_a_time_limit_in_the_first_step_is_not_that_of_the_caller() -> None:
    async def limited() -> None:
        async with asyncio.timeout(0.0):
            await asyncio.get_running_loop().create_future()

    begun = begin(limited(), "a")
    with pytest.raises(TimeoutError):
        await begun
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_what_the_first_step_raises_is_raised_by_the_call() -> None:
    async def refused() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        begin(refused(), "a")


async def test_a_change_without_a_rest_and_one_that_only_pauses() -> None:
    steps: list[str] = []

    async def at_once() -> None:
        steps.append("done")

    async def pausing() -> None:
        await asyncio.sleep(0)
        steps.append("later")

    first, second = begin(at_once(), "a"), begin(pausing(), "b")
    assert steps == ["done"]
    await first
    await second
    assert steps == ["done", "later"]


async def test_a_change_begins_in_a_plain_callback_too() -> None:
    change = Change()
    begun: list[FleetChange] = []
    asyncio.get_running_loop().call_soon(lambda: begun.append(begin(change.run(), "a")))
    await asyncio.sleep(0)
    assert change.steps == ["first unset"]
    change.gate.set_result(None)
    await begun[0]


async def test_whoever_stops_waiting_does_not_stop_the_change() -> None:
    change = Change()
    begun = begin(change.run(), "a")

    async def wait() -> None:
        await begun

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    change.gate.set_result(None)
    await begun
    assert change.steps[-1].startswith("last")


async def test_another_loop_cannot_wait_for_a_change() -> None:
    change = Change()
    begun = begin(change.run(), "a")

    async def wait() -> None:
        await begun

    with pytest.raises(NotRunningError, match="made on another event loop"):
        await asyncio.to_thread(asyncio.run, wait())
    change.gate.set_result(None)
    await begun


@pytest.mark.parametrize("pauses", [0, 1, 2])
async def test_the_end_of_the_loop_cancels_the_rest(pauses: int) -> None:
    change = Change()
    begun = begin(change.run(), "a")
    for _ in range(pauses):
        await asyncio.sleep(0)
    assert change.tasks[0] is not None
    change.tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    assert change.steps[-1] == "cancelled"


async def failing() -> None:
    await asyncio.sleep(0)
    raise ValueError("not reachable")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_a_failure_that_is_awaited_is_raised_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    begun = begin(failing(), "a")
    with pytest.raises(ValueError, match="not reachable"):
        await begun
    del begun
    gc.collect()
    assert told(caplog) == []


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_failure_that_nobody_awaits_is_logged_once(is_kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    kept = [begin(failing(), "a")]
    if not is_kept:
        kept.clear()
    for _ in range(3):
        await asyncio.sleep(0)
    assert told(caplog) == ([] if is_kept else ["server 'a' could not be changed: not reachable"])
    kept.clear()
    gc.collect()
    assert told(caplog) == ["server 'a' could not be changed: not reachable"]
    assert problems == []
