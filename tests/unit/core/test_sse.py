"""Event streams: fields, priming events, limits."""

from __future__ import annotations

import tracemalloc

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


def test_the_id_of_an_unfinished_event_is_discarded_with_it() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\ndata: a\n\nid: 2\n")
    parser.close()
    (event,) = parser.feed(b"data: b\n\n")
    assert (event.id, parser.last_event_id) == ("1", "1")


def test_other_buffers_are_taken_too() -> None:
    for chunk in (bytearray(b"data: a\n\n"), memoryview(b"d.a.t.a.:.a.\n.\n.")[::2]):
        assert [event.data for event in SseParser().feed(chunk)] == [b"a"]


@pytest.mark.parametrize("chunk", ["data: a\n\n", 5, [100], None])
def test_what_is_no_buffer_is_refused(chunk: object) -> None:
    with pytest.raises(TypeError):
        SseParser().feed(chunk)  # type: ignore[arg-type]


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
    assert (caught.value.limit, caught.value.size) == ("max_event", 8)


@pytest.mark.parametrize(
    "long", [b"data:123456789\n\n", b": a comment\n", b"data:1234\ndata:56789\n\n", b"data:12345678901"]
)
def test_a_parser_that_has_refused_something_stays_refusing(long: bytes) -> None:
    parser = SseParser(max_line=10, max_event=8)
    assert [event.data for event in parser.feed(b"id: 7\ndata:1\n\n" + long)] == [b"1"]
    for chunk in (b"", b"\n\n", b"data:2\n\n"):
        with pytest.raises(SseLimitError):
            parser.feed(chunk)
    assert parser.last_event_id == "7"


def test_a_large_event_in_small_chunks_costs_no_more_than_its_size() -> None:
    # Quadratic copying of eight million bytes in 4 KiB pieces would take minutes, and the suite's limit is two.
    parser = SseParser()
    piece = b"x" * 4096
    parser.feed(b"data: ")
    for _ in range(2000):
        assert parser.feed(piece) == []
    assert len(parser.feed(b"\n\n")[0].data) == 2000 * 4096


@pytest.mark.parametrize("line_end", [b"\r", b"\n"])
def test_many_short_lines_in_one_chunk_cost_no_more_than_their_size(line_end: bytes) -> None:
    # Looking for the other line end through the whole rest for every line would take minutes.
    parser = SseParser()
    assert parser.feed((b":" + line_end) * 4_000_000) == []
    assert parser.comments == 4_000_000


@pytest.mark.parametrize("pattern", [b"xy", b"data:xy\n"])
def test_small_pieces_take_no_more_memory_than_their_bytes(pattern: bytes) -> None:
    parser = SseParser()
    parser.feed(b"data: ")
    tracemalloc.start()
    try:
        for _ in range(50_000):
            parser.feed(bytearray(pattern))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 100_000 <= peak < 400_000


@pytest.mark.parametrize("limits", [{"max_line": 0}, {"max_event": 0}])
def test_limits_must_be_positive(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SseParser(**limits)


def test_events_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        SseEvent()


def test_an_event_shows_its_size_and_not_its_data() -> None:
    (event,) = SseParser().feed(b"id: %s\nevent: %s\ndata: secret\n\n" % (b"i" * 999, b"e" * 999))
    assert "secret" not in repr(event)
    assert "6 bytes" in repr(event)
    assert len(repr(event)) < 250
