"""When a stream of events is asked for again: the server's wish, the growing delay, and the event to go on from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.transports.http.reconnection import MAX_EVENT_ID, Reconnection, is_passing


def delays(reconnection: Reconnection, count: int, random: float = 0.5) -> list[float]:
    """What an endless row of streams without fruit costs."""
    found = []
    for _ in range(count):
        reconnection.ended("", None, fruitful=False)
        found.append(reconnection.delay_s(random))
    return found


def test_a_wish_is_met_to_the_millisecond() -> None:
    assert Reconnection(2.0, "7", 500).delay_s(0.99) == 0.5
    assert Reconnection(2.0, "7", 30_000).delay_s(0.0) == 30.0


def test_the_latest_wish_counts_and_stays() -> None:
    reconnection = Reconnection(60.0, "1", 100)
    reconnection.ended("2", 700, fruitful=True)
    assert reconnection.delay_s(0.5) == 0.7
    reconnection.ended("3", None, fruitful=True)
    assert reconnection.delay_s(0.5) == 0.7
    assert reconnection.last_event_id == "3"


def test_without_a_wish_the_delay_grows_up_to_the_longest() -> None:
    assert delays(Reconnection(10.0), 6) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_wish_for_no_delay_makes_no_busy_loop() -> None:
    reconnection = Reconnection(10.0, "1", 0)
    assert reconnection.delay_s(0.0) == 0.01
    assert delays(reconnection, 7) == [0.01, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    reconnection.ended("2", None, fruitful=True)
    assert reconnection.delay_s(0.5) == 0.01


def test_streams_that_all_end_at_once_are_asked_for_ever_less_often() -> None:
    reconnection = Reconnection(10.0, "1", 0)
    found = []
    for number in range(20):
        reconnection.ended(str(number), 0, fruitful=True)
        found.append(reconnection.delay_s(0.5))
    assert found[:8] == [0.01] * 8
    assert found[8:13] == [0.02, 0.04, 0.08, 0.16, 0.25]
    assert set(found[13:]) == {0.25}
    reconnection.ended("x", 0, fruitful=True, lasted=True)
    assert reconnection.delay_s(0.5) == 0.01


def test_the_delay_is_spread() -> None:
    assert Reconnection(10.0).delay_s(0.0) == pytest.approx(0.4)
    assert Reconnection(10.0).delay_s(0.999999) == pytest.approx(0.6, abs=1e-5)


def test_failures_are_counted_until_there_is_a_stream() -> None:
    reconnection = Reconnection(60.0, "1", 10)
    reconnection.failed()
    reconnection.failed(retry_after_s=7.0)
    assert (reconnection.failures, reconnection.delay_s(0.5)) == (2, 7.0)
    reconnection.ended("", None, fruitful=True)
    assert (reconnection.failures, reconnection.last_event_id, reconnection.delay_s(0.5)) == (0, "1", 0.01)


def test_what_cannot_be_taken_is_not_asked_for_again() -> None:
    reconnection = Reconnection(60.0, "1", None)
    reconnection.skip()
    assert (reconnection.last_event_id, reconnection.failures) == ("", 1)


def test_ids_too_long_for_a_header_are_not_sent_back() -> None:
    reconnection = Reconnection(60.0, "a" * MAX_EVENT_ID)
    assert reconnection.last_event_id
    reconnection.ended("a" * (MAX_EVENT_ID + 1), None, fruitful=True)
    assert reconnection.last_event_id == ""


@given(
    st.floats(0, 1, exclude_max=True),
    st.lists(st.tuples(st.sampled_from(["end", "fruit", "fail"]), st.none() | st.integers(0, 10**13 - 1))),
)
def test_no_history_makes_it_early_busy_or_endless(random: float, history: list[tuple[str, int | None]]) -> None:
    reconnection = Reconnection(60.0)
    wish = None
    for what, retry_ms in history:
        if what == "fail":
            reconnection.failed()
        else:
            reconnection.ended("", retry_ms, fruitful=what == "fruit")
            wish = wish if retry_ms is None else retry_ms
        delay_s = reconnection.delay_s(random)
        assert max(0.01, min((wish or 0) / 1000, 86400)) <= delay_s <= max(72.0, min((wish or 0) / 1000, 86400))


@pytest.mark.parametrize("status", [200, 301, 400, 404, 405, 501])
def test_refusals_for_good(status: int) -> None:
    assert not is_passing(status)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_refusals_of_the_moment(status: int) -> None:
    assert is_passing(status)


@pytest.mark.parametrize("event_id", ["a\x01", "\x1b[31m", "a\x7f", " a", "a ", "a\tb", "é" * MAX_EVENT_ID])
def test_an_event_id_that_is_no_field_value_is_none(event_id: str) -> None:
    reconnection = Reconnection(60.0, event_id)
    assert reconnection.last_event_id == ""
    reconnection.ended("good", None, fruitful=True)
    reconnection.ended(event_id, None, fruitful=True)
    assert reconnection.last_event_id == ""


@pytest.mark.parametrize("event_id", ["1", "a b", "é", "a" * MAX_EVENT_ID])
def test_an_event_id_that_is_a_field_value_is_kept(event_id: str) -> None:
    assert Reconnection(60.0, event_id).last_event_id == event_id
