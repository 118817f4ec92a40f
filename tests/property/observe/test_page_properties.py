"""Pages of metrics: numbers are written as ``prometheus_client`` does, and pieces add up to the whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.exposition import Chunks, Page
from mcp_manager._core.histogram import Histogram
from mcp_manager._core.metric_lines import SeriesLines, ValueLine
from mcp_manager._core.readings import Exemplar, note_exemplar
from mcp_manager._core.records import STATUS_COUNT
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, Outcome

Parts = tuple[bytes, bytes, bytes]
LABELS = st.text(min_size=1, max_size=12).map(lambda text: text.replace("\n", "").encode("utf-8", "replace"))
NUMBERS = st.one_of(
    st.integers(0, 10**16), st.floats(allow_nan=False).map(lambda number: number + 0.0), st.integers(0, 2 * 10**6)
)
VALUES = st.lists(st.none() | NUMBERS, min_size=3, max_size=3)
SERVERS = st.lists(st.tuples(LABELS, VALUES, st.lists(st.integers(0, 10**16), max_size=3)), max_size=8)


def line(text: str) -> Parts:
    return text.encode(), b" ", b" "


def lines_of(counter: int, histogram: int) -> SeriesLines:
    buckets = tuple(line(f"le{at}/") for at in range(4))
    by_status = tuple(line(f"status{at}/") for at in range(STATUS_COUNT))
    return SeriesLines(counter, by_status, None, histogram, (buckets, line("count/"), line("sum/"), None), (-12, 4))


def page_of(servers: list[tuple[bytes, list[float | None], list[int]]]) -> Page:
    """Return a page with three families: two values, then one with the text before its label only, then histograms."""
    values = (ValueLine(0, b"a/", b" ", None), ValueLine(0, b"b/", b" ", None), ValueLine(1, b"", b" ", b"made/"))
    series = (lines_of(-1, -1), lines_of(-1, -1), lines_of(-1, 2))
    page = Page((b"# first\n", b"# second\n", b""), b"# end\n", values, series, floatToGoString)
    for label, numbers, durations in servers:
        page.add_server(label, numbers, 1.5)
        histogram = Histogram()
        for duration in durations:
            histogram.record(duration)
        page.add_histogram(histogram)
    return page


def written(servers: list[tuple[bytes, list[float | None], list[int]]]) -> bytes:
    """Return what such a page says, the slow way."""
    first, second, third = [b"# first\n"], [b"# second\n"], []
    for label, (a, b, c), durations in servers:
        for name, number in ((b"a/", a), (b"b/", b)):
            if number is not None:
                first.append(name + label + b" " + floatToGoString(number).encode() + b"\n")
        if c is not None:
            second.append(label + b" " + floatToGoString(c).encode() + b"\n" + b"made/" + label + b" 1.5\n")
        below = [sum(each <= bound * 1e9 for each in durations) for bound in (2.0**-12, 2.0**-8, 2.0**-4)]
        for at, count in enumerate([*below, len(durations)]):
            third.append(b"le%d/%b  %d.0\n" % (at, label, count))
        third.append(b"count/%b  %d.0\n" % (label, len(durations)))
        third.append(b"sum/%b  %b\n" % (label, floatToGoString(sum(durations) / 1e9).encode()))
    return b"".join([*first, *second, *third, b"# end\n"])


@given(SERVERS)
def test_a_page_is_written_as_the_library_writes_numbers(
    servers: list[tuple[bytes, list[float | None], list[int]]],
) -> None:
    page = page_of(servers)
    assert page.as_bytes() == written(servers)
    assert page.as_text() == written(servers).decode()


@given(st.integers(0, 10**16 - 1))
def test_sums_of_time_are_written_as_the_library_does(sum_ns: int) -> None:
    page = page_of([(b"x", [None, None, None], [sum_ns])])
    assert f"sum/x  {floatToGoString(sum_ns / 1e9)}\n" in page.as_text()


@given(st.integers(0, 10**15 - 1))
def test_whole_numbers_are_written_as_the_library_does(number: int) -> None:
    assert f"a/x {floatToGoString(number)}\n" in page_of([(b"x", [number, None, None], [])]).as_text()


@given(SERVERS, st.integers(1, 400))
def test_pieces_add_up_to_the_whole(servers: list[tuple[bytes, list[float | None], list[int]]], size: int) -> None:
    pieces = list(Chunks(page_of(servers), size))
    assert all(pieces)
    assert b"".join(pieces) == written(servers)
    twice = Chunks(page_of(servers), size)
    others = Chunks(page_of(servers), 10**6)
    assert b"".join(itertools.chain(twice, twice)) == b"".join(others)


def test_nothing_is_added_to_a_page_that_was_written() -> None:
    page = page_of([(b"x", [1, 2, 3], [])])
    text = page.as_text()
    with pytest.raises(ValueError, match="the page is complete"):
        page.add_server(b"y", [1, 2, 3], 0.0)
    with pytest.raises(ValueError, match="the page is complete"):
        page.add_histogram(Histogram())
    with pytest.raises(ValueError, match="the page is complete"):
        page.add_line(0, b"z ", 1.0)
    assert page.as_text() == text


def test_what_does_not_fit_a_page_is_refused() -> None:
    page = Page((b"",), b"", (), (lines_of(-1, -1),) * 3, floatToGoString)
    with pytest.raises(ValueError, match="there is no server yet"):
        page.add_histogram(Histogram())
    with pytest.raises(ValueError, match="there is no family 1"):
        page.add_line(1, b"z ", 1.0)
    with pytest.raises(ValueError, match="there is no family 4"):
        Page((b"",), b"", (), (lines_of(4, -1),) * 3, floatToGoString)
    with pytest.raises(ValueError, match="there are 0 values, not 1"):
        page.add_server(b"x", [1], 0.0)
    with pytest.raises(ValueError, match="size must be 1 to"):
        Chunks(page, 0)
    assert list(Chunks(page, 1)) == []


def test_the_memory_of_a_page_is_freed_when_nobody_writes_it() -> None:
    page = page_of([(b"x", [1, 2.5, 3], [7])])
    text = page.as_bytes()
    held = page.size
    assert held > 0
    chunks = Chunks(page, 1)
    first = next(chunks)
    page.close()
    assert page.size == held
    assert first + b"".join(chunks) == text
    page.close()
    assert page.size == 0
    assert page.as_bytes() == b"# first\n# second\n# end\n"
    page.close()
    with pytest.raises(ValueError, match="the page is complete"):
        page.add_server(b"y", [1, 2, 3], 0.0)


def test_an_abandoned_writer_does_not_keep_the_memory() -> None:
    page = page_of([(b"x", [1, 2, 3], [])])
    chunks = Chunks(page, 1)
    next(chunks)
    del chunks
    page.close()
    assert page.size == 0


def test_a_series_that_could_not_be_added_is_left_out() -> None:
    """Its labels were never counted, so there would be no room for it."""
    router = Router()
    router.add_server("a")
    router.add_backend("a", None, BreakerSettings())
    router.done(router.pick("a", "tools/call", 0, 0), Outcome.SUCCESS, CallStatus.SUCCESS, 1)
    note_exemplar(router.server("a"), "tools/call", Exemplar(1, 1, 1, 1))
    page = Page((b"", b""), b"", (), (lines_of(0, 1), lines_of(-1, -1), lines_of(-1, -1)), floatToGoString)
    page.add_server(b"x", [], 0.0)

    def fail(exemplar: Exemplar) -> bytes:
        raise ArithmeticError

    for _ in range(100):
        with pytest.raises(ArithmeticError):
            page.add_methods(router.server("a"), str.encode, fail)
    assert page.as_bytes() == b""
    page = Page((b"", b""), b"", (), (lines_of(0, 1), lines_of(-1, -1), lines_of(-1, -1)), floatToGoString)
    page.add_server(b"x", [], 0.0)
    page.add_methods(router.server("a"), str.encode, lambda exemplar: b" # 1")
    assert page.as_bytes().count(b" # 1\n") == 1
