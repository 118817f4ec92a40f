"""What the events of a stream are said to cost, on a clock of the test's own."""

from __future__ import annotations

from mcp_manager._core.event_stream import EventStream
from mcp_manager._core.http_message import Exchange

FIRST_NS = 20_000


class Turns:
    """Note what was spent; the clock moves only while an event is taken."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.spent: list[int] = []

    def clock(self) -> int:
        return self.now_ns

    def spend(self, cost_ns: int) -> bool:
        self.spent.append(cost_ns)
        return True


class Taker:
    """Take each event for as many nanoseconds as it says."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def take_event(self, exchange: Exchange, data: bytes) -> None:
        self.turns.now_ns += int(data)

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take nothing."""


def events(*costs_ns: int) -> bytes:
    return b"".join(b"data: %d\n\n" % each for each in costs_ns)


def stream_of(turns: Turns) -> EventStream:
    return EventStream(Exchange(b"{}", 1, 0), Taker(turns), 1000, turns)


def test_each_event_costs_what_it_took_and_the_first_a_guess() -> None:
    turns = Turns()
    assert stream_of(turns).take(events(1_000, 7_000, 300)) is None
    assert turns.spent == [FIRST_NS, 7_000, 300]


def test_of_what_was_kept_from_an_earlier_turn_the_first_is_measured_too() -> None:
    turns = Turns()
    stream = stream_of(turns)
    stream.add(events(1_000, 7_000))
    assert stream.is_behind
    assert stream.work() is None
    assert turns.spent == [1_000, 7_000]
    assert not stream.is_behind
