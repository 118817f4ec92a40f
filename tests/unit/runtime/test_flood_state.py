"""A server that floods is shown as such for as long as it does, on a clock of its own."""

from __future__ import annotations

import asyncio

from support.scripted_fleet import ScriptedFleet

from mcp_manager.runtime.read_budget import FLOOD, FLOOD_DETAIL
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import ServerState

Shown = tuple[ServerState, tuple[str, ...]]
HEALTHY: Shown = (ServerState.HEALTHY, ())
FLOODING: Shown = (ServerState.DEGRADED, ("flooding",))
SETTLING: Shown = (ServerState.DEGRADED, ("settling",))


def shown(fleet: ScriptedFleet) -> Shown:
    """Return what is kept, without anything being judged for the question."""
    standing = fleet.monitor.tally.standing(fleet.supervisor)
    assert standing is not None
    return standing.shown


def test_a_flood_shows_and_passes_without_anybody_asking() -> None:
    async def work() -> None:
        fleet = ScriptedFleet(health={"enabled": False})
        fleet.monitor.start()
        await fleet.connect()
        assert shown(fleet) == HEALTHY
        for second in range(30):
            fleet.template.knowledge.faults.count(FLOOD, FLOOD_DETAIL)
            await asyncio.sleep(1)
            assert shown(fleet) == FLOODING, second
        await asyncio.sleep(8.5)
        assert shown(fleet) == FLOODING
        await asyncio.sleep(2)
        assert shown(fleet) == SETTLING
        await asyncio.sleep(fleet.config.health.settle_s + 2)
        assert shown(fleet) == HEALTHY
        # Other faults are none of that.
        fleet.template.knowledge.faults.count("a second endpoint")
        await asyncio.sleep(1)
        assert shown(fleet) == HEALTHY
        await fleet.aclose()

    run_in_virtual_time(work())
