"""Event streams: fields, priming events, limits."""

from __future__ import annotations

import pytest

from mcp_manager._core.sse import SseEvent, SseLimitError, SseParser


def parsed(stream: bytes) -> list[tuple[str, bytes, str]]:
    return [(event.event, event.data, event.id) for event in SseParser().feed(stream)]


def test_an_event_with_everything() -> None:
    stream = b": hello\nevent: note\nid: 42\nretry: 1500\ndata: one\ndata: two\n\n"
    parser = SseParser()
    (event,) = parser.feed(stream)
    assert (event.event, event.data, event.id) == ("note", b"one\ntwo", "42")
    assert (parser.last_event_id, parser.retry_ms, parser.comments) == ("42", 1500, 1)


def test_a_priming_event_sets_the_id() -> None:
    parser = SseParser()
    (event,) = parser.feed(b"id: p1\ndata:\n\n")
    assert (event.data, event.id) == (b"", "p1")
    assert parser.feed(b"id: p2\n\n") == []
    assert parser.last_event_id == "p2"


def test_an_id_counts_only_once_its_event_ends() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert parser.last_event_id == "1"


@pytest.mark.parametrize("retry", [b"", b"x", b"-1", b"1.5", b"1 ", b"9" * 40])
def test_a_malformed_retry_is_ignored(retry: bytes) -> None:
    parser = SseParser()
    parser.feed(b"retry:" + retry + b"\n\n")
    assert parser.retry_ms is None


def test_an_event_type_lasts_for_one_event() -> None:
    assert parsed(b"event: a\ndata: 1\n\ndata: 2\n\n") == [("a", b"1", ""), ("message", b"2", "")]
    assert parsed(b"event: a\n\ndata: 2\n\n") == [("message", b"2", "")]


def test_an_unfinished_event_is_not_dispatched() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n") == []
    parser.close()
    assert [event.data for event in parser.feed(b"data: b\n\n")] == [b"b"]


def test_other_buffers_are_taken_too() -> None:
    assert [event.data for event in SseParser().feed(memoryview(bytearray(b"data: a\n\n")))] == [b"a"]


def test_a_line_beyond_the_limit_is_refused_before_it_ends() -> None:
    parser = SseParser(max_line=10)
    parser.feed(b"data: 1234")
    with pytest.raises(SseLimitError) as caught:
        parser.feed(b"5")
    assert (caught.value.limit, caught.value.size) == ("max_line", 11)


def test_an_event_beyond_the_limit_is_refused() -> None:
    parser = SseParser(max_event=7)
    assert parser.feed(b"data:123\ndata:567\n\n")[0].data == b"123\n567"
    with pytest.raises(SseLimitError) as caught:
        parser.feed(b"data:123\ndata:5678\n\n")
    assert caught.value.limit == "max_event"


def test_a_large_event_in_small_chunks_costs_no_more_than_its_size() -> None:
    # Quadratic copying of eight million bytes in 4 KiB pieces would take minutes, and the suite's limit is two.
    parser = SseParser()
    piece = b"x" * 4096
    parser.feed(b"data: ")
    for _ in range(2000):
        assert parser.feed(piece) == []
    assert len(parser.feed(b"\n\n")[0].data) == 2000 * 4096


@pytest.mark.parametrize("limits", [{"max_line": 0}, {"max_event": 0}])
def test_limits_must_be_positive(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SseParser(**limits)


def test_events_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        SseEvent()
