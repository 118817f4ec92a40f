"""How late a loop is, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mcp_manager.transports.loop_lag import LoopLag


class Loop:
    """The clock of a loop, and what it does with the one timer of the subject."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lag = LoopLag(lambda: self.now)

    def turn(self, late_s: float = 0.0) -> None:
        """Call the subject's timer, so much too late."""
        self.now += 0.5 + late_s
        self.lag.close()
        self.lag._measure()


async def test_it_measures_what_is_late_and_remembers_what_was_blocked() -> None:
    loop = Loop()
    loop.lag.start()
    began = loop.now
    loop.turn()
    assert loop.lag.view().latest_s == 0.0
    assert loop.lag.lost_since(began) == 0.0
    loop.turn(0.1)
    assert loop.lag.view().latest_s == pytest.approx(0.1)
    # Late, not blocked.
    assert (loop.lag.view().blocks, loop.lag.lost_since(began)) == (0, 0.0)
    loop.turn(2.0)
    assert loop.lag.view().blocks == 1
    assert loop.lag.lost_since(began) == pytest.approx(2.0)
    # What began within the block has lost the rest of it.
    assert loop.lag.lost_since(loop.now - 0.5) == pytest.approx(0.5)
    assert loop.lag.lost_since(loop.now) == 0.0
    loop.turn()
    assert loop.lag.view().latest_s == 0.0
    assert loop.lag.view().longest_s == pytest.approx(2.0)
    for _ in range(120):
        loop.turn()
    assert loop.lag.view().longest_s == 0.0
    loop.lag.close()


async def test_a_block_that_is_not_over_counts_by_now() -> None:
    loop = Loop()
    loop.lag.start()
    began = loop.now
    loop.now += 3.5
    assert loop.lag.lost_since(began) == pytest.approx(3.0)
    assert loop.lag.view().latest_s == pytest.approx(3.0)
    loop.lag.close()
    # Nothing is measured any more.
    assert loop.lag.view().latest_s == 0.0


async def test_it_counts_for_a_histogram() -> None:
    loop = Loop()
    loop.lag.start()
    for late_s in (0.0, 0.002, 0.2, 20.0):
        loop.turn(late_s)
    loop.lag.close()
    buckets, count, sum_s = loop.lag.histogram()
    assert count == 4
    assert sum_s == pytest.approx(20.202)
    found = dict(buckets)
    assert (found[0.001], found[0.005], found[0.25], found[10.0]) == (1, 2, 3, 3)


async def test_it_warns_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    loop.lag.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            loop.turn(1.5)
        assert len(caplog.records) == 1
        for _ in range(30):
            loop.turn(1.5)
        assert len(caplog.records) == 2
    loop.lag.close()


async def test_it_costs_one_timer() -> None:
    loop = asyncio.get_running_loop()
    if not hasattr(loop, "_scheduled"):
        pytest.skip("this loop does not show its timers")
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    lag = LoopLag()
    lag.start()
    assert len(loop._scheduled) == before + 1  # type: ignore[attr-defined]
    lag.close()
