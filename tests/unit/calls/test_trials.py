"""Calls that are to show whether a circuit closes, and how they may end."""

from __future__ import annotations

import asyncio

import pytest
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import CallError, CircuitOpenError, ConnectionLostError, OverloadedError
from mcp_manager.testing.virtual_time import run_in_virtual_time


def lost() -> CallError:
    return ConnectionLostError("lost", delivery="unknown")


def overloaded() -> CallError:
    return OverloadedError("come back later", delivery="rejected")


def test_a_trial_that_meets_an_overload_opens_the_circuit_again() -> None:
    async def run() -> None:
        fleet = ScriptedFleet(
            retry={"attempts": 1},
            breaker={"consecutive_failures": 2, "open_s": 5.0, "jitter": 0.0, "active_first": False},
        )
        try:
            await fleet.connect()
            fleet.acts.extend([Act(error=lost)] * 2 + [Act(error=overloaded)])
            for _ in range(2):
                with pytest.raises(ConnectionLostError):
                    await fleet.tool()
            await asyncio.sleep(5.1)
            with pytest.raises(OverloadedError):
                await fleet.tool()
            with pytest.raises(CircuitOpenError):
                await fleet.tool()
        finally:
            await fleet.aclose()

    run_in_virtual_time(run())
