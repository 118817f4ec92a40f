"""A program in a pseudo-terminal of a given size, and what a terminal emulator shows of its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import pyte

__all__ = ["COMMAND", "Terminal", "shown_at"]

COMMAND = (sys.executable, "-P", "-W", "error", "-m", "mcp_manager")

_LIMIT_S = 30.0
_LINES = 400
_NOT_PASSED_ON = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


class Terminal:
    """Run a program in a pseudo-terminal; ``with`` starts it and always ends it.

    The emulator is twice as wide as the program believes, so that a line that is too long is seen where it leaves the
    terminal, and is not wrapped.

    Parameters
    ----------
    command
        The program and its arguments.
    columns, lines
        The size of the terminal.
    environment
        Variables on top of this process's; those that change sizes or colours are not passed on.
    """

    def __init__(
        self, command: Sequence[str], columns: int, lines: int = 24, environment: Mapping[str, str] | None = None
    ) -> None:
        self.columns = columns
        self.raw = b""
        self._command = list(command)
        self._lines = lines
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        self._environment = {**kept, "TERM": "xterm-256color", **(environment or {})}
        self._screen = pyte.Screen(2 * columns, _LINES)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        self.resize(self.columns, self._lines)
        self.modes = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            self._command, stdin=slave, stdout=slave, stderr=slave, env=self._environment, preexec_fn=_own_terminal
        )
        self._slave = slave
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self._master, self._slave):
            os.close(end)

    @property
    def display(self) -> list[str]:
        """The lines that are shown, down to the last one with text."""
        shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def text(self) -> str:
        """The lines that are shown, joined."""
        return "\n".join(self.display)

    @property
    def overflowing(self) -> list[str]:
        """The lines that are wider than the terminal."""
        return [
            line
            for line, cells in zip(
                self._screen.display, map(self._screen.buffer.__getitem__, range(_LINES)), strict=True
            )
            if any(column >= self.columns and cell.data.strip() for column, cell in cells.items())
        ]

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as the program found it: its modes, its cursor, and its usual screen."""
        left_screen = self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l")
        return termios.tcgetattr(self._slave) == self.modes and not self._screen.cursor.hidden and left_screen

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; what is beyond it is gone."""
        self.columns = columns
        for line in self._screen.buffer.values():
            for column in [each for each in line if each >= columns]:
                del line[column]
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Type something."""
        os.write(self._master, keys.encode())

    def wait_until(self, condition: Callable[[Terminal], bool]) -> None:
        """Read until a condition holds; it is checked after everything that arrives."""
        deadline = time.monotonic() + _LIMIT_S
        while not condition(self):
            assert time.monotonic() < deadline, self.text
            self._read(0.5)
            assert self.process.poll() is None or condition(self), self.text

    def finish(self, number: signal.Signals | None = None) -> int:
        """Read until the program ends, after a signal if one is given; return its exit status."""
        if number is not None:
            self.process.send_signal(number)
        deadline = time.monotonic() + _LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], within_s)
        if not ready:
            return False
        with contextlib.suppress(OSError):
            output = os.read(self._master, 65536)
            self.raw += output
            self._stream.feed(output)
            return bool(output)
        return False


def shown_at(columns: int, *arguments: str, environment: Mapping[str, str] | None = None, status: int = 0) -> list[str]:
    """Run the command line in a terminal; return the lines that are left, none of which is too wide."""
    with Terminal([*COMMAND, *arguments], columns, environment=environment) as terminal:
        assert terminal.finish() == status, terminal.text
        assert terminal.overflowing == []
        assert terminal.is_restored
        return terminal.display


def _own_terminal() -> None:
    """Make the standard input the controlling terminal, and let Ctrl-C end the program."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
