"""How a command-line program ends: every error is one line on standard error and an exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn

from mcp_manager.cli.table import complain
from mcp_manager.errors import CallError, McpManagerError

__all__ = ["MISUSED", "Parser", "run_program"]

MISUSED: Final = 2
"""The exit status for a mistake in arguments or configuration, and for an unknown server."""

_FAILED: Final = 1
_INTERRUPTED: Final = 130


class Parser(argparse.ArgumentParser):
    """Complain in one line, as every other error of this program does."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see {self.prog} --help)")
        self.exit(MISUSED)


def run_program(
    parser: Parser,
    argv: Sequence[str] | None,
    begin: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
) -> int:
    """Parse arguments, do the work on an event loop and complain of what goes wrong.

    Parameters
    ----------
    parser
        What the arguments mean.
    argv
        The arguments without the program's name; ``None`` for those of this process.
    begin
        Called with the parsed arguments; returns the coroutine that does the work and returns the exit status. Either may
        raise :class:`~mcp_manager.errors.McpManagerError`.

    Returns
    -------
    The exit status: that of the work, or 1 (a call failed, or standard output was closed), 2 (misused), 130 (interrupted).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A server may describe itself in characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        options = parser.parse_args(argv)
    except SystemExit as done:
        return int(done.code or 0)
    try:
        status = asyncio.run(begin(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except McpManagerError as error:
        complain(str(error))
        return _FAILED if isinstance(error, CallError) else MISUSED
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough; the interpreter must not try again at its exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    return status
