"""Tables and texts on terminals of several widths and in pipes."""

from __future__ import annotations

import io
import sys

import pytest
from rich.cells import cell_len

from mcp_manager.cli import screen
from mcp_manager.cli.screen import complain, has_colours, one_line, safe_text, width, wrapped
from mcp_manager.cli.table import cut, paragraph, render, shortened


class FakeTerminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


HEADERS = ("server", "state", "why")
ROWS = [["one", "Healthy", ""], ["a-longer-name", "Unhealthy", "the quick brown fox jumps over the lazy dog " * 3]]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output a terminal. (Not in a fixture: pytest replaces standard output before the test runs.)"""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", FakeTerminal())


def test_in_a_pipe_every_cell_is_whole_and_every_row_is_a_line() -> None:
    rows = [["a\x1b]0;x\x07", 7, "x" * 300, "y" * 60], ["b", 12345, None, ""]]
    header, first, second = render(("id", "count", "text", "also"), rows).splitlines()
    assert header.split() == ["ID", "COUNT", "TEXT", "ALSO"]
    assert first == f"a ]0;x      7  {'x' * 300}  {'y' * 60}"
    assert second == f"b       12345  -{' ' * 299}".rstrip()


def test_in_a_pipe_wide_characters_keep_the_columns() -> None:
    _, first, second = render(("id", "text"), [["日本語", "a"], ["é", "b"]]).splitlines()
    assert (first, second) == ("日本語  a", "é       b")


def test_a_table_without_rows_is_its_headers() -> None:
    assert render(("id", "state"), []) == "ID  STATE"


@pytest.mark.parametrize("columns", [48, 60, 80, 140])
def test_a_table_fits_the_terminal_and_breaks_no_word(columns: int) -> None:
    lines = render(HEADERS, ROWS, prose=("why",), columns=columns).splitlines()
    assert lines[0].split() == ["SERVER", "STATE", "WHY"]
    assert max(map(cell_len, lines)) <= columns
    assert lines[2].startswith("a-longer-name  Unhealthy  the quick")
    assert set(" ".join(lines[3:]).split()) <= set(str(ROWS[1][2]).split())


@pytest.mark.parametrize("columns", [20, 30, 40])
def test_a_table_that_does_not_fit_is_a_block_for_each_row(columns: int) -> None:
    lines = render(HEADERS, ROWS, prose=("why",), columns=columns).splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert lines[:3] == ["one", "  state: Healthy", "a-longer-name"]
    assert lines[4].startswith("  why: the quick")


def test_a_word_that_is_too_long_is_folded_and_not_cut() -> None:
    lines = render(("id", "text"), [["q" * 70, "y" * 70]], prose=("text",), columns=50).splitlines()
    assert max(map(len, lines)) <= 50
    assert ("".join(lines).count("q"), "".join(lines).count("y")) == (70, 70)


def test_a_name_that_is_too_long_is_folded_and_not_cut() -> None:
    lines = render(("id", "text"), [["q" * 70, "yes"]], prose=("text",), columns=50).splitlines()
    assert lines == ["q" * 50, "q" * 20, "  text: yes"]


def test_wide_characters_are_folded_by_their_width() -> None:
    lines = wrapped("日本語の説明 " * 20, 31, "  ", "    ").splitlines()
    assert max(map(cell_len, lines)) <= 31
    assert "".join(lines).replace(" ", "") == "日本語の説明" * 20


def test_what_is_free_goes_to_the_columns_of_prose() -> None:
    rows = [["a", "b" * 30, "c d " * 60]]
    _, first, *_ = render(("id", "name", "text"), rows, prose=("name", "text"), columns=100).splitlines()
    assert first.startswith(f"a   {'b' * 30}  c d")
    assert len(first) > 95


def test_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    assert "[bold]x[/] :smile:" in render(("id", "text"), [["a", "[bold]x[/] :smile:"]], prose=("text",), columns=60)


def test_a_word_is_coloured_by_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    assert "\x1b[32mHealthy" in render(HEADERS, ROWS, prose=("why",), columns=80)
    assert "\x1b[31mUnhealthy" in render(HEADERS, ROWS, prose=("why",), columns=30)


@pytest.mark.parametrize(
    ("environment", "is_coloured", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_when_there_are_colours(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    is_coloured: bool,
    in_pipe: bool,
) -> None:
    on_terminal(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_colours() is is_coloured
    assert has_colours(io.StringIO()) is in_pipe
    assert ("\x1b" in render(HEADERS, ROWS, prose=("why",), columns=80)) is is_coloured


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "57")
    assert width() == 57
    monkeypatch.setenv("COLUMNS", "3")
    assert width() == 20
    monkeypatch.setenv("COLUMNS", "many")
    assert width() == 80
    assert width(io.StringIO()) > 100_000


def test_an_error_is_one_line_in_a_pipe_and_wrapped_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complain("word\n" * 60)
    assert capsys.readouterr().err == f"mcp-manager: {' '.join(['word'] * 60)}\n"
    shown = FakeTerminal()
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys, "stderr", shown)
    complain("word\n" * 60)
    assert max(map(len, shown.getvalue().splitlines())) <= 50
    assert shown.getvalue().split() == ["mcp-manager:", *["word"] * 60]


def test_a_text_that_is_cut_has_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    assert cut("日本語 text", 6) == "日本…"
    assert cut("text", 4) == "text"
    assert shortened("word " * 60).endswith("word…")
    assert shortened(None) == ""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert shortened("word " * 60) == ("word " * 60).strip()


def test_an_encoding_without_the_characters_gets_others(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setattr(FakeTerminal, "encoding", "ascii")
    assert (screen.ellipsis(), screen.arrow()) == ("...", "->")
    assert cut("longer text", 8) == "longe..."


def test_a_paragraph_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "30")
    assert paragraph("one", "word " * 8) == "  one: word word word word\n    word word word word"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert paragraph("one", "word " * 8) == f"  one: {' '.join(['word'] * 8)}"


def test_texts_from_outside_are_harmless() -> None:
    hostile = "\x1b[31mred\x9b2J\x07\u202eevil\u200b\ud800\ttab\r\nline\x00"
    assert one_line(hostile) == "[31mred 2J evil tab line"
    assert safe_text(hostile).split("\n") == [" [31mred 2J  evil       tab", "line "]
