"""What programs write to stderr: kept within bounds, shown without secrets, logged only where somebody wants it."""

from __future__ import annotations

import logging
import sys

import pytest

from mcp_manager import StderrLine
from mcp_manager.config import parse_server_config
from mcp_manager.config.redaction import Secrets
from mcp_manager.events.child_output import OutputWriter, ServerOutput, StderrLines, logger_name

SECRET = "sesame-open-1234"
CONFIG = parse_server_config({"command": sys.executable, "env": {"API_TOKEN": SECRET}}, server_id="a.b")


@pytest.fixture
def output() -> ServerOutput:
    return ServerOutput("a.b")


def writer(output: ServerOutput, instance: int = 0, pid: int = 7) -> OutputWriter:
    made = OutputWriter(output, instance, Secrets(CONFIG))
    made.begin(pid)
    return made


def kept(output: ServerOutput) -> list[StderrLine]:
    return list(output.read(follow=False, home=None))


def texts(output: ServerOutput) -> list[str]:
    return [each.text for each in kept(output)]


def test_lines_are_lines_however_they_arrive(output: ServerOutput) -> None:
    program = writer(output)
    for chunk in (b"on", b"e\ntwo\r\n\n  \nthr", b"", b"ee\n", b"four"):
        program.feed(chunk)
    # The last one has no end yet: it may be a question.
    assert texts(output) == ["one", "two", "three", "four"]
    program.feed(b"teen")
    program.finish()
    assert texts(output) == ["one", "two", "three", "fourteen"]
    [first, *_] = kept(output)
    assert (first.server_id, first.instance, first.pid, first.missed) == ("a.b", 0, 7, 0)


def test_programs_do_not_mix_their_lines(output: ServerOutput) -> None:
    one, two = writer(output, 0, 7), writer(output, 1, 8)
    one.feed(b"half a ")
    two.feed(b"other\n")
    one.feed(b"line\n")
    assert [(each.instance, each.pid, each.text) for each in kept(output)] == [(1, 8, "other"), (0, 7, "half a line")]


def test_what_is_kept_is_bounded_in_lines_and_bytes(output: ServerOutput) -> None:
    program = writer(output)
    program.feed(b"".join(b"%d\n" % number for number in range(1_000)))
    assert texts(output) == [str(number) for number in range(800, 1_000)]
    for number in range(100):
        program.feed(b"%d " % number + b"x" * 3_000 + b"\n")
    found = texts(output)
    assert len(found) * 3_000 <= 64 * 1024 < (len(found) + 1) * 3_010
    assert found[-1].startswith("99 x")


def test_a_line_without_end_is_bounded(output: ServerOutput) -> None:
    program = writer(output)
    for _ in range(100):
        program.feed(b"x" * 65_536)
    assert len(program.partial) == 4_096
    program.feed(b"\nnext\n")
    assert [len(each) for each in texts(output)] == [2_000, 4]
    assert texts(output)[0].endswith("…")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[31mred\x1b[0m and \x1b[1;38;5;9mbright\x1b[m", "red and bright"),
        (b"\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        (b"a\tb\x00c\x08d\x9b", "a    b c d�"),
        ("\u202eevil\u2028line".encode(), " evil line"),
        (b" 10%\r 50%\r100% done\r", "100% done"),
        (b"\xff\xfe", "��"),
        (b"trailing   ", "trailing"),
    ],
)
def test_a_line_can_be_shown_anywhere(written: bytes, shown: str, output: ServerOutput) -> None:
    writer(output).feed(written + b"\n")
    assert texts(output) == [shown]


@pytest.mark.parametrize(
    "written",
    [
        f"token {SECRET} is wrong",
        f"to\x1b[1mken \x1b[0m{SECRET[:6]}\x1b[31m{SECRET[6:]}\x1b[0m is wrong",
        "y" * (4_096 - 10) + SECRET,
        f"unfinished {SECRET[:12]}",
    ],
)
def test_no_secret_is_shown_wherever_it_stands(written: str, output: ServerOutput) -> None:
    program = writer(output)
    program.feed(written.encode())
    assert SECRET[:8] not in "".join(texts(output))
    program.feed(b"\n")
    assert SECRET[:8] not in "".join(texts(output))


def test_a_secret_in_two_chunks_is_masked(output: ServerOutput) -> None:
    program = writer(output)
    program.feed(SECRET[:7].encode())
    assert texts(output) == ["***"]
    program.feed(SECRET[7:].encode() + b" end\n")
    assert texts(output) == ["*** end"]


# Following


async def following(output: ServerOutput) -> StderrLines:
    return output.read(follow=True, home=None)


async def test_who_follows_gets_what_is_there_and_what_comes(output: ServerOutput) -> None:
    program = writer(output)
    program.feed(b"one\n")
    stream = await following(output)
    program.feed(b"two\nthr")
    assert [(await anext(stream)).text for _ in range(2)] == ["one", "two"]
    program.feed(b"ee\n")
    output.end()
    assert [each.text async for each in stream] == ["three"]


async def test_who_follows_too_slowly_is_told_how_many_lines_are_missing(output: ServerOutput) -> None:
    program = writer(output)
    stream = await following(output)
    # A line takes 4,000 bytes and 128 for itself: 2,032 of them are just below 8 MiB.
    for number in range(3_000):
        program.feed(b"%04d%s\n" % (number, b"x" * 3_996))
    first = await anext(stream)
    assert (first.text[:5], first.missed) == ("0968x", 968)
    assert (await anext(stream)).missed == 0
    # What was taken makes room.
    for _ in range(2):
        program.feed(b"more%s\n" % (b"x" * 3_996))
    assert (await anext(stream)).missed == 0


async def test_who_follows_misses_nothing_of_what_is_read_at_once(output: ServerOutput) -> None:
    program = writer(output)
    stream = await following(output)
    # The shortest lines that are kept, as many as are read from a program at a time.
    program.feed(b"x\n" * 32_768)
    output.end()
    found = [each async for each in stream]
    assert (len(found), {each.missed for each in found}) == (32_768, {0})


async def test_a_follower_that_is_gone_costs_nothing(output: ServerOutput) -> None:
    async with await following(output):
        assert output.is_followed
    writer(output).feed(b"one\n")
    assert not output.is_followed


# The log


@pytest.mark.parametrize(
    ("server_id", "name"),
    [
        ("files", "mcp_manager.child.files"),
        ("a.b", "mcp_manager.child.a%2Eb"),
        ("A-1_b", "mcp_manager.child.A-1_b"),
        ("é /~%", "mcp_manager.child.%C3%A9%20%2F%7E%25"),
        ("\ud800", "mcp_manager.child.%3F"),
    ],
)
def test_every_server_has_a_logger_of_its_own(server_id: str, name: str) -> None:
    assert logger_name(server_id) == name


def test_lines_are_logged_at_debug_with_where_they_come_from(
    output: ServerOutput, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mcp_manager")
    writer(output, 1, 8).feed(f"token {SECRET}\n100 %s\n".encode())
    one, two = caplog.records
    assert (one.name, one.levelname, one.getMessage()) == ("mcp_manager.child.a%2Eb", "DEBUG", "token ***")
    assert two.getMessage() == "100 %s"
    told = (one.event, one.server_id, one.instance, one.pid)  # type: ignore[attr-defined]
    assert told == ("child_output", "a.b", 1, 8)


def test_one_server_alone_can_be_turned_on_or_off(output: ServerOutput, caplog: pytest.LogCaptureFixture) -> None:
    own, general = logging.getLogger("mcp_manager.child.a%2Eb"), logging.getLogger("mcp_manager.child")
    program, other = writer(output), writer(ServerOutput("other"))
    try:
        own.setLevel(logging.DEBUG)
        program.feed(b"one\n")
        other.feed(b"two\n")
        own.setLevel(logging.INFO)
        general.setLevel(logging.DEBUG)
        program.feed(b"three\n")
        other.feed(b"four\n")
    finally:
        own.setLevel(logging.NOTSET)
        general.setLevel(logging.NOTSET)
    assert [each.getMessage() for each in caplog.records] == ["one", "four"]
    # Loggers are never freed, so none is made for a server.
    assert "mcp_manager.child.other" not in logging.Logger.manager.loggerDict


def test_a_flood_is_logged_in_part_and_what_is_missing_is_told(
    output: ServerOutput, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("mcp_manager.events.child_output.time.monotonic", lambda: now)
    caplog.set_level(logging.DEBUG, "mcp_manager")
    program = writer(output)
    for _ in range(50):
        assert program.feed(b"flood\n" * 1_000) > 0
    assert len(caplog.records) == 200
    now += 1.0
    program.feed(b"more\n" * 1_000)
    assert len(caplog.records) == 400
    assert caplog.records[200].getMessage() == "more (49800 lines before this one were left out)"
    assert caplog.records[200].left_out == 49_800  # type: ignore[attr-defined]


def test_where_nobody_wants_the_lines_a_flood_costs_hardly_anything(output: ServerOutput) -> None:
    program = writer(output)
    assert program.feed(b"flood\n" * 10_000) == 0
    assert len(output._kept) == 200
