"""A session that was replaced, and what its late news may change: nothing."""

from __future__ import annotations

from support.scripted_fleet import ScriptedFleet

from mcp_manager.errors import CallError, ConnectionLostError
from mcp_manager.testing.virtual_time import run_in_virtual_time

LONG_NS = 10**18


def lost() -> CallError:
    return ConnectionLostError("lost", delivery="unknown")


def test_news_of_a_replaced_session_leave_the_one_in_its_place_alone() -> None:
    async def run() -> None:
        fleet = ScriptedFleet()
        try:
            await fleet.connect()
            (instance,) = fleet.supervisor.instances
            replaced = instance.session
            assert replaced is not None
            instance.lose(replaced, lost())
            successor = await instance.ready_session(LONG_NS)
            assert successor is not replaced
            generation = instance.generation
            instance.lose(replaced, lost())
            instance.give_up(replaced, lost())
            assert instance.session is successor
            assert instance.generation == generation
        finally:
            await fleet.aclose()

    run_in_virtual_time(run())
