"""How late a loop is, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mcp_manager.errors import DeadlineExceededError
from mcp_manager.runtime.loop_lag import LoopLag


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


BEGAN = 1000.0


@pytest.mark.parametrize(
    ("stalls", "ended", "is_used_up"),
    [
        # A deadline of 50 ms in a block of 150 ms, which is seen 20 ms after it began.
        ([(0.02, 0.15)], 0.15, True),
        # Most of it, and then the loop looked at the rest.
        ([(0.0, 0.6)], 1.0, True),
        ([(0.1, 0.4), (0.5, 0.8)], 1.0, True),
        # A slow server on a loop that is late now and then, or late to see the end.
        ([], 1.0, False),
        ([(0.1, 0.3)], 1.0, False),
        ([(60.0, 61.0)], 61.0, False),
        # What was before says nothing.
        ([(-5.0, -1.0)], 1.0, False),
        ([(-5.0, 0.3)], 1.0, False),
        ([(-5.0, 0.7)], 1.0, True),
        # Both timers of one block.
        ([(0.2, 0.4), (0.1, 0.4)], 1.0, False),
        ([(0.1, 0.4), (0.2, 0.45)], 1.0, False),
        # Hardly late, however often.
        ([(at / 100, at / 100 + 0.009) for at in range(100)], 1.0, False),
    ],
)
def test_a_time_is_used_up_if_the_loop_lost_half_of_it(
    stalls: list[tuple[float, float]], ended: float, is_used_up: bool
) -> None:
    loop = Loop()
    for due, now in stalls:
        loop.now = BEGAN + now
        loop.lag.stalled_since(BEGAN + due)
    loop.now = BEGAN + ended
    assert loop.lag.has_used_up(BEGAN) is is_used_up


async def test_a_block_that_is_not_over_uses_up_time() -> None:
    loop = Loop()
    loop.lag.start()
    loop.now += 0.8
    assert not loop.lag.has_used_up(BEGAN)
    loop.now += 0.3
    assert loop.lag.has_used_up(BEGAN)
    loop.lag.close()


@pytest.mark.parametrize(
    ("began", "deadline", "is_local"), [(0.0, 0.05, True), (0.0, 0.14, False), (-0.2, 0.05, False), (None, 0.05, False)]
)
def test_the_error_of_a_deadline_is_excused_by_how_late_it_was_seen(
    began: float | None, deadline: float, is_local: bool
) -> None:
    loop = Loop()
    loop.now += 0.15
    error = DeadlineExceededError("no reply")
    began_ns = 0 if began is None else round((BEGAN + began) * 1e9)
    loop.lag.excuse(error, began_ns, round((BEGAN + deadline) * 1e9))
    assert error.is_local is is_local
    assert ("loop was blocked" in str(error)) is is_local


def test_what_it_remembers_of_stalls_is_bounded() -> None:
    loop = Loop()
    for _ in range(5000):
        loop.now += 0.1
        loop.lag.stalled_since(loop.now - 0.02)
    assert len(loop.lag._stalls) == 512
    assert not loop.lag.has_used_up(BEGAN)


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
