"""The output of a program in lines: one at a time, blank ones passed over, none too long."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.transports.stdio.output_lines import LineTooLongError, OutputLines

LIMIT = 8


def lines_in(*chunks: bytes, limit: int = LIMIT) -> list[bytes]:
    lines, taken = OutputLines(limit), []
    for chunk in chunks:
        lines.feed(chunk)
        while (line := lines.take()) is not None:
            taken.append(line)
        assert not lines.is_behind
    return taken


@given(
    st.lists(st.sampled_from([b"", b" ", b"\r", b"a", b"b c", b"12345678", b" x\r"])),
    st.lists(st.integers(0, 60)),
)
def test_lines_are_the_same_wherever_chunks_end(lines: list[bytes], places: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    chunks = [text[first:last] for first, last in itertools.pairwise(edges)]
    taken = lines_in(*chunks)
    # White space at either end of JSON is insignificant.
    assert [line.strip() for line in taken] == [line.strip() for line in lines if line.strip()]


def test_what_is_not_taken_waits() -> None:
    lines = OutputLines(LIMIT)
    lines.feed(b"a\nb\nc")
    assert lines.take() == b"a"
    assert lines.is_behind
    lines.feed(b"d\n\n\n\n")
    assert [lines.take(), lines.take(), lines.take()] == [b"b", b"cd", None]
    assert not lines.is_behind


def test_a_line_without_end_is_kept_and_shown() -> None:
    lines = OutputLines(LIMIT)
    lines.feed(b"abc")
    assert lines.take() is None
    assert lines.partial == b"abc"


@pytest.mark.parametrize("chunks", [[b"a\n123456789\nb\n"], [b"a\n12345", b"6789"], [b"a\n", *([b"1"] * 9)]])
def test_a_line_that_is_too_long_comes_after_those_before_it(chunks: list[bytes]) -> None:
    lines, taken = OutputLines(LIMIT), []
    with pytest.raises(LineTooLongError) as caught:
        for chunk in chunks:
            lines.feed(chunk)
            while (line := lines.take()) is not None:
                taken.append(line)
    assert taken == [b"a"]
    assert caught.value.size == LIMIT + 1
    assert lines.partial == b""


def test_a_long_line_in_tiny_pieces_takes_the_memory_of_its_bytes() -> None:
    size = 16 << 20
    piece = b"x" * 256
    lines = OutputLines(size)
    tracemalloc.start()
    try:
        for _ in range(size // len(piece)):
            lines.feed(piece)
            assert lines.take() is None
        lines.feed(b"\n")
        line = lines.take()
        peak = tracemalloc.get_traced_memory()[1]
        assert line is not None and len(line) == size
        del line
        # One byte more is refused, and nothing of it is kept.
        for _ in range(size // len(piece)):
            lines.feed(piece)
            lines.take()
        lines.feed(b"x")
        with pytest.raises(LineTooLongError):
            lines.take()
        assert not lines.partial
    finally:
        tracemalloc.stop()
    # The buffer that grows, and the line that is handed out.
    assert peak < 3 * size
