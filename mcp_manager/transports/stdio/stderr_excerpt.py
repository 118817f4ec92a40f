"""Picks the lines of a program's stderr that explain a failure: the error, not its stack trace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["stderr_excerpt"]

# Lines that name an error, in the languages that servers are written in.
_NAMED: Final = re.compile(
    r"^(?:Uncaught |Unhandled exception\.? |Exception in thread .*? |Caused by: )?(?:[\w$]+[.:]+)*[\w$]*"
    r"(?:Error|Exception|Exit|Interrupt|Warning)(?: \[\w+\])?(?:[:(]|$)"
)
_PANIC: Final = re.compile(r"^(?:panic: |fatal error: |thread '.*' (?:\(\d+\) )?panicked at )")
_PHP_OR_RUBY: Final = re.compile(r"^(?:PHP )?Fatal error: |\(\w+(?:::\w+)*(?:Error|Exception)\)$")
_TRACEBACK: Final = re.compile(r"^[\s|+]*(?:Exception Group )?Traceback \(most recent call last\):")
# The margin that Python draws to the left of an exception group.
_GUTTER: Final = re.compile(r"^[ |]*\| (?=\S)")
# The first line of a thrown error's text, whatever its class is called.
_HEADING: Final = re.compile(r"^(?:Uncaught )?[A-Za-z_$][\w$.]*(?: \[\w+\])?: ")
_MOST_TEXT: Final = 20
# A program may write anything, so the number and the length of the examined lines are bounded.
_MOST_LINES: Final = 400
_LOOKED_AT: Final = 300
_FRAMES: Final = (
    # Node, Java, .NET
    re.compile(r"^\s+at \S"),
    re.compile(r"^\s+\.\.\. \d+ (?:more|common frames)"),
    re.compile(r"^\s+--- End of (?:inner exception )?stack trace"),
    # Ruby, PHP, Rust, gdb-like
    re.compile(r"^\s+from \S+:\d+"),
    re.compile(r"^#\d+ "),
    re.compile(r"^\s+\d+: \S"),
    # Go
    re.compile(r"^\t\S+\.\w+:\d+"),
)
_GOROUTINE: Final = re.compile(r"^goroutine \d+ ")
_SOURCE_PLACE: Final = re.compile(r"^(?:node:[\w/]+|(?:file://)?/?\S+\.[cm]?[jt]sx?):\d+$")
_POINTER: Final = re.compile(r"^[\s^~]+$")
# Lines around a stack trace that explain nothing either.
_NOISE: Final = (
    _SOURCE_PLACE,
    _POINTER,
    re.compile(r"^Node\.js v\d"),
    re.compile(r"^note: run with `RUST_BACKTRACE"),
    re.compile(r"^(?:stack backtrace|Stack trace):$"),
    re.compile(r"^\s+thrown in \S"),
    re.compile(r"^exit status \d+$"),
    re.compile(r"^(?:During handling of the above exception|The above exception was the direct cause)"),
    re.compile(r"^[\s\]})]+$"),
    re.compile(r"^\s+\+[-+]+(?: \d+ [-+]+)?$"),
)


def stderr_excerpt(text: str, most: int) -> list[str]:
    """Return the most informative lines at the end of an output, in their order.

    Stack traces are left out, unless there is nothing else. The last line that names an error is always included,
    however much was written after it.

    Parameters
    ----------
    text
        The output.
    most
        The most lines to return; blank lines do not count.
    """
    lines = [line for line in text.splitlines() if line.strip()][-max(_MOST_LINES, most) :]
    if most <= 0 or not lines:
        return []
    beginnings = [line[:_LOOKED_AT] for line in lines]
    is_frame = _frames(beginnings)
    kept = [index for index, hidden in enumerate(is_frame) if not hidden]
    if not kept:
        return lines[-most:]
    chosen = kept[-most:]
    named = _last_named(beginnings, is_frame)
    if named is not None and named not in chosen:
        chosen = [named, *chosen[1:]]
    return [lines[index] for index in chosen]


def _frames(lines: Sequence[str]) -> list[bool]:
    """Return for each line whether it belongs to a stack trace."""
    hidden = [False] * len(lines)
    in_traceback = in_properties = in_goroutine = False
    for index, line in enumerate(lines):
        if _TRACEBACK.match(line):
            hidden[index] = in_traceback = True
            continue
        if in_traceback and line[0] in " \t|+" and not _GUTTER.match(line):
            # Python: frames are indented, the line after them is not.
            hidden[index] = True
            continue
        in_traceback = False
        if _GOROUTINE.match(line) or (in_goroutine and (line[0] == "\t" or line[-1] == ")" or " by " in line)):
            # Go: a call, then its place, indented.
            hidden[index] = in_goroutine = True
            continue
        in_goroutine = False
        is_frame = any(pattern.match(line) for pattern in _FRAMES)
        if in_properties:
            # Node: the error's own properties follow its frames in braces.
            hidden[index] = True
            in_properties = line.rstrip() != "}"
        elif is_frame:
            hidden[index] = True
            in_properties = line.rstrip().endswith(" {")
        else:
            hidden[index] = any(pattern.match(line) for pattern in _NOISE)
            if index >= 2 and _POINTER.match(line) and _SOURCE_PLACE.match(lines[index - 2]):
                # Node: the place, then the line of code, then a pointer into it.
                hidden[index - 1] = True
    return hidden


def _last_named(lines: Sequence[str], is_frame: Sequence[bool]) -> int | None:
    """Return the index of the last line that names an error, ``None`` if there is none."""
    for index in range(len(lines) - 1, -1, -1):
        if is_frame[index]:
            continue
        line = lines[index]
        if _PANIC.match(line) and "panicked at" in line and line.rstrip().endswith(":") and index + 1 < len(lines):
            # Rust: the place is on one line, the message on the next.
            return index + 1 if not is_frame[index + 1] else index
        if _PANIC.match(line) or _NAMED.match(_GUTTER.sub("", line).strip()) or _PHP_OR_RUBY.search(line):
            return index
        if index + 1 < len(lines) and is_frame[index + 1] and _FRAMES[0].match(lines[index + 1]):
            return _heading(lines, is_frame, index)
    return None


def _heading(lines: Sequence[str], is_frame: Sequence[bool], last: int) -> int:
    """Return the index of the first line of an error text that ends at line ``last``, before its frames."""
    for index in range(last, max(-1, last - _MOST_TEXT), -1):
        if is_frame[index]:
            break
        if _HEADING.match(lines[index]):
            return index
    return last
