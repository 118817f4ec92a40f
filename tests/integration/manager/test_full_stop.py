"""Nothing outlives stop() or undeploy(), whatever the fleet was in the middle of: no task, timer, thread, socket or child."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.full_fleet import FullFleet, held_of
from support.leaks import Snapshot

from mcp_manager import McpManager

TOOLS_CHANGED = "notifications/tools/list_changed"
# Passes of the loop in which the transports that were closed are told so.
_CLOSING_PASSES = 20
# The pool of connections is the manager's: it keeps idle ones for a while, and looks at deadlines, until stop().
OF_THE_MANAGER = ("HttpPool._sweep", "DeadlineTimer._look")

pytestmark = pytest.mark.both_loops


@pytest.fixture
def fleet() -> Iterator[FullFleet]:
    with FullFleet() as running:
        yield running


def timers() -> Counter[str]:
    """Describe the timers of the running loop that are due some time; uvloop does not show its own."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return Counter(repr(each._callback) for each in scheduled if not each.cancelled())


def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks()


def names_of(some: set[asyncio.Task[Any]]) -> set[str]:
    return {each.get_name() for each in some}


def watching_manager() -> McpManager:
    """Return a manager that hears of changes, and whose user never agrees to anything."""

    async def heard(server_id: str, params: Any) -> None: ...

    async def asked(url: str) -> str:
        await asyncio.Event().wait()
        return url

    return McpManager(handlers={TOOLS_CHANGED: heard}, redirect_handler=asked)


async def closed() -> None:
    for _ in range(_CLOSING_PASSES):
        await asyncio.sleep(0)


def left_since(before: Snapshot) -> list[str]:
    """Describe what is left outside the interpreter; what is left in it, every test is asked for at its end."""
    return [*before.new_threads(), *before.new_children(), *before.new_descriptors()]


async def test_nothing_outlives_stop(fleet: FullFleet) -> None:
    before, tasks_before, timers_before = Snapshot(), tasks(), timers()
    ends: dict[str, list[str]] = {}

    async def run() -> None:
        manager = watching_manager()
        await manager.start()
        await fleet.occupy(manager)
        await manager.stop()
        # All that is left are the callers, who learn of it now.
        assert names_of(tasks() - tasks_before - fleet.callers) == set()
        for name in fleet.names:
            ends[name] = await fleet.over(name)

    await run()
    assert tasks() == tasks_before
    assert timers() - timers_before == Counter()
    await closed()
    assert left_since(before) == []
    # A list of all tools says of each server by itself what became of it.
    assert ends.pop("listed") == ["answered"]
    assert all(found and "answered" not in found for found in ends.values()), ends


@pytest.mark.slow
async def test_nothing_of_a_server_outlives_its_removal(fleet: FullFleet) -> None:
    async with watching_manager() as manager:
        before, tasks_before, timers_before = Snapshot(), tasks(), timers()
        await fleet.occupy(manager)
        left = list(fleet.names)
        while left:
            name = left.pop()
            await manager.undeploy(name)
            assert await fleet.over(name), name
            await fleet.goes_on(each for each in left if each in fleet.answering)
        await closed()
        assert held_of(fleet.settings()) == []
        assert names_of(tasks() - tasks_before) == set()
        late = timers() - timers_before
        assert [each for each in late if not any(own in each for own in OF_THE_MANAGER)] == []
        assert before.new_children() == []
