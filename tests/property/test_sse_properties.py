"""Event streams: any chunking of the same bytes gives the same events, and they are those of the standard."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.models_sse import parse_stream

from mcp_manager._core.sse import SseParser

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
FIELDS = st.sampled_from(
    [
        b"data",
        b"data:",
        b"data: x",
        b"data:  y",
        b"id: 7",
        b"id",
        b"id: \0",
        b"event: e",
        b"event:",
        b":note",
        b"retry: 5",
    ]
)
LINES = st.one_of(FIELDS, st.just(b""), st.binary(max_size=12))
STREAMS = st.one_of(
    st.lists(st.tuples(LINES, LINE_ENDS), max_size=30).map(lambda parts: b"".join(a + b for a, b in parts)),
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r", b"\n", b"data:1", b"\xef\xbb\xbf", b":", b" "]), max_size=40).map(b"".join),
)


def events_of(parser: SseParser, chunks: list[bytes]) -> list[tuple[str, bytes, str]]:
    return [(event.event, event.data, event.id) for chunk in chunks for event in parser.feed(chunk)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=400)
@given(stream=STREAMS, places=st.lists(st.integers(0, 10_000), max_size=20))
@example(stream=b"data: a\r\n\r\ndata: b\r\r\n", places=[8, 9, 10, 11])
@example(stream=b"\xef\xbb\xbfdata: a\n\n", places=[1, 2])
@example(stream=b"data: a\r\ndata: b\r\n\r\n", places=[8])
def test_any_chunking_equals_the_whole(stream: bytes, places: list[int]) -> None:
    whole, cut_up, bytewise = SseParser(), SseParser(), SseParser()
    expected = events_of(whole, [stream])
    assert events_of(cut_up, cut(stream, places)) == expected
    assert events_of(bytewise, [stream[i : i + 1] for i in range(len(stream))]) == expected
    for parser in (cut_up, bytewise):
        assert (parser.last_event_id, parser.retry_ms, parser.comments) == (
            whole.last_event_id,
            whole.retry_ms,
            whole.comments,
        )


@settings(max_examples=400)
@given(stream=STREAMS)
@example(stream=b"data:1\rdata:2\n\r\n")
@example(stream=b"id: 1\nid: \0\ndata: x\n\n")
def test_the_events_are_those_of_the_standard(stream: bytes) -> None:
    # A CR at the very end may be half a CRLF, which changes nothing of what has been dispatched.
    assert events_of(SseParser(), [stream]) == parse_stream(stream)
