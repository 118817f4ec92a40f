"""Standard output and error: what they can show, texts that are safe to print, and errors on one line or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from mcp_manager.errors import McpManagerError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "arrow",
    "complain",
    "console",
    "ellipsis",
    "error_object",
    "has_colours",
    "is_live",
    "is_terminal",
    "note",
    "one_line",
    "paint",
    "print_json",
    "safe_text",
    "style_of",
    "width",
    "wrapped",
]

_GREEN, _YELLOW, _RED = "32", "33", "31"
_NAMES: Final = {_GREEN: "green", _YELLOW: "yellow", _RED: "red"}
_COLOURS: Final = {
    "Healthy": _GREEN,
    "Closed": _GREEN,
    "yes": _GREEN,
    "ok": _GREEN,
    "Initializing": _YELLOW,
    "Degraded": _YELLOW,
    "HalfOpen": _YELLOW,
    "partly": _YELLOW,
    "warning": _YELLOW,
    "Unhealthy": _RED,
    "Open": _RED,
    "no": _RED,
    "error": _RED,
}
_NARROWEST: Final = 20
_USUAL: Final = 80
# In a pipe nothing is wrapped or cut.
_ENDLESS: Final = 1_000_000


def is_terminal(stream: TextIO | None = None) -> bool:
    """Tell whether a stream, standard output by default, is a terminal."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream.isatty()
    except ValueError:
        # It is closed.
        return False


def is_live(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal on which lines can be rewritten."""
    return is_terminal(stream) and os.environ.get("TERM") not in (None, "", "dumb")


def has_colours(stream: TextIO | None = None) -> bool:
    """Tell whether to colour what goes to a stream; ``NO_COLOR`` is stronger than ``FORCE_COLOR``."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced.lower() not in ("0", "false")
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def width(stream: TextIO | None = None) -> int:
    """Return how many columns a stream's terminal has; in a pipe, more than any text needs."""
    stream = sys.stdout if stream is None else stream
    if not is_terminal(stream):
        return _ENDLESS
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdigit()):
        try:
            columns = str(os.get_terminal_size(stream.fileno()).columns)
        except (OSError, ValueError):
            columns = str(shutil.get_terminal_size((_USUAL, 24)).columns)
    return max(_NARROWEST, int(columns) or _USUAL)


def console(stream: TextIO | None = None, columns: int | None = None) -> Console:
    """Return a console of the rich library for a stream, standard output by default, ``columns`` wide if given."""
    from rich.console import Console  # noqa: PLC0415 - --version and --help do without

    stream = sys.stdout if stream is None else stream
    colours = has_colours(stream)
    return Console(
        file=stream,
        force_terminal=is_live(stream) or colours,
        color_system="standard" if colours else None,
        no_color=not colours,
        width=columns or width(stream),
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def style_of(word: str) -> str:
    """Return the style in which a word such as ``Healthy`` is shown; "" for most."""
    return _NAMES.get(_COLOURS.get(word, ""), "")


def paint(word: str, text: str | None = None) -> str:
    """Colour a word, or ``text``, by the word's meaning, if standard output shows colours."""
    shown = word if text is None else text
    code = _COLOURS.get(word)
    return shown if code is None or not has_colours() else f"\x1b[{code}m{shown}\x1b[0m"


def arrow() -> str:
    """Return an arrow that standard output can show."""
    return _drawn("→", "->")


def ellipsis() -> str:
    """Return the mark of a text that was cut, as standard output can show it."""
    return _drawn("…", "...")


def one_line(text: str) -> str:
    """Put a text from outside on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def safe_text(text: str) -> str:
    """Return a text of several lines from outside without control characters other than newlines."""
    lines = text.replace("\r\n", "\n").expandtabs().split("\n")
    return "\n".join("".join(char if char.isprintable() else " " for char in line) for line in lines)


def complain(text: str) -> None:
    """Print an error on standard error, after everything printed so far: in one line, which a terminal wraps."""
    sys.stdout.flush()
    said = f"mcp-manager: {one_line(text)}"
    columns = width(sys.stderr)
    print(said if len(said) < columns // 2 else wrapped(said, columns, then="  "), file=sys.stderr)


def note(text: str, *, quiet: bool) -> None:
    """Print what is no result on standard error, unless it is to be quiet."""
    if not quiet:
        complain(text)


def wrapped(text: str, limit: int, first: str = "", then: str = "") -> str:
    """Wrap a text by the width of its characters in cells; a word that is too long is folded.

    Parameters
    ----------
    text
        The text, on one line.
    limit
        The columns of the terminal.
    first, then
        The indent of the first line, and that of the others, which is not shorter.
    """
    from rich.text import Text  # noqa: PLC0415 - --version and --help do without

    lines = Text(text, overflow="fold").wrap(console(columns=limit), limit - len(then))
    return "\n".join(f"{then if index else first}{line.plain.rstrip()}" for index, line in enumerate(lines))


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=indent, default=str), flush=indent is None)


def error_object(error: McpManagerError | str, kind: str = "") -> dict[str, Any]:
    """Return an error as the JSON that is printed in place of a result.

    Parameters
    ----------
    error
        The error, or a text.
    kind
        The class that is shown for a text.
    """
    if isinstance(error, str):
        return {"error": McpManagerError(error).to_dict() | {"type": kind or McpManagerError.__name__}}
    return {"error": error.to_dict()}


def _drawn(drawn: str, typed: str) -> str:
    try:
        drawn.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return typed
    return drawn
