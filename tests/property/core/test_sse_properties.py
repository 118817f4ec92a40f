"""Event streams: any chunking of the same bytes gives the same events, and they are those of the standard."""

from __future__ import annotations

import itertools
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.models_sse import ParsedStream, parse_stream

from mcp_manager._core.sse import SseLimitError, SseParser

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
FIELDS = st.sampled_from(
    [
        b"data",
        b"data:",
        b"data: x",
        b"data:  y",
        b"data:a:b",
        b"Data: z",
        b"data : z",
        b" data: z",
        b"id: 7",
        b"id",
        b"id: \0",
        b"id: \xff\xe2\x82",
        b"event: e",
        b"event:",
        b"event: \xed\xa0\x80",
        b":note",
        b":",
        b"retry: 5",
        b"retry:",
        b"retry: -5",
        b"retry: 5x",
        b"retry: " + b"9" * 13,
        b"retry: " + b"9" * 14,
        b"\xef\xbb\xbfdata: bom",
    ]
)
LINES = st.one_of(FIELDS, st.just(b""), st.binary(max_size=12))
STREAMS = st.one_of(
    st.lists(st.tuples(LINES, LINE_ENDS), max_size=30).map(lambda parts: b"".join(a + b for a, b in parts)),
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r", b"\n", b"data:1", b"\xef\xbb\xbf", b":", b" "]), max_size=40).map(b"".join),
)
PLACES = st.lists(st.integers(0, 10_000), max_size=20)


def parsed(chunks: list[bytes]) -> ParsedStream:
    parser = SseParser()
    events = [(event.event, event.data, event.id) for chunk in chunks for event in parser.feed(chunk)]
    return ParsedStream(events, parser.last_event_id, parser.retry_ms, parser.comments)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def single_bytes(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


@settings(max_examples=examples(400))
@given(stream=STREAMS, places=PLACES)
@example(stream=b"data: a\r\n\r\ndata: b\r\r\n", places=[8, 9, 10, 11])
@example(stream=b"\xef\xbb\xbfdata: a\n\n", places=[1, 2])
@example(stream=b"data: a\r\ndata: b\r\n\r\n", places=[8])
def test_any_chunking_equals_the_whole(stream: bytes, places: list[int]) -> None:
    whole = parsed([stream])
    assert parsed(cut(stream, places)) == whole
    assert parsed(single_bytes(stream)) == whole
    # Nothing to read changes nothing, wherever it comes.
    assert parsed([piece for chunk in cut(stream, places) for piece in (chunk, b"")]) == whole


@settings(max_examples=examples(400))
@given(stream=STREAMS)
@example(stream=b"data:1\rdata:2\n\r\n")
@example(stream=b"id: 1\nid: \0\ndata: x\n\n")
@example(stream=b"event: e\ndata: 1\n\ndata: 2\n\n")
@example(stream=b"id: 1\nevent: e\n\ndata: 2\n\nid: 3\n")
def test_the_events_are_those_of_the_standard(stream: bytes) -> None:
    # A CR at the very end may be half a CRLF, which changes nothing of what has been dispatched.
    assert parsed([stream]) == parse_stream(stream)


def parsed_within(chunks: list[bytes], max_line: int, max_event: int) -> tuple[list[bytes], str | None]:
    parser = SseParser(max_line=max_line, max_event=max_event)
    data: list[bytes] = []
    try:
        for chunk in [*chunks, b""]:
            data += [event.data for event in parser.feed(chunk)]
    except SseLimitError as error:
        return data, error.limit
    return data, None


@settings(max_examples=examples(400))
@given(stream=STREAMS, places=PLACES, max_line=st.integers(1, 12), max_event=st.integers(1, 8))
@example(stream=b"data: a\n\ndata: bb\n\n", places=[9], max_line=7, max_event=8)
@example(stream=b"data: a\n\ndata:b\ndata:c\n\n", places=[9], max_line=12, max_event=2)
def test_limits_do_not_depend_on_the_chunking(stream: bytes, places: list[int], max_line: int, max_event: int) -> None:
    whole = parsed_within([stream], max_line, max_event)
    assert parsed_within(cut(stream, places), max_line, max_event) == whole
    assert parsed_within(single_bytes(stream), max_line, max_event) == whole
    data, exceeded = whole
    expected = [event[1] for event in parse_stream(stream).events]
    assert data == expected[: len(data)]
    assert all(len(item) <= max_event for item in data)
    assert exceeded is not None or data == expected
    too_long = any(len(line) > max_line for line in re.split(rb"[\r\n]", stream))
    assert too_long if exceeded == "max_line" else (exceeded == "max_event" or not too_long)
