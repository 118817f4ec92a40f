"""How a command-line program runs and ends: every error is one line or one JSON object, and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from mcp_manager.cli.screen import complain, error_object, print_json
from mcp_manager.errors import ConfigError, McpManagerError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    import click

    from mcp_manager.cli.options import Options

__all__ = ["FAILED", "MISUSED", "Work", "run_program", "verb_at"]

FAILED: Final = 1
"""The exit status for a call that failed, or a server."""

MISUSED: Final = 2
"""The exit status for a mistake in arguments or configuration, and for an unknown server."""

_INTERRUPTED: Final = 130
_HANGUP: Final = getattr(signal, "SIGHUP", None)
_ENDINGS: Final = tuple(
    _number for name in ("SIGTERM", "SIGHUP") if (_number := getattr(signal, name, None)) is not None
)


class Work:
    """What a parsed command line asks for.

    Parameters
    ----------
    begin
        Returns the coroutine that does the work and returns the exit status; it may import what that needs.
    options
        How to show the log, and the verb.
    """

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, int]], options: Options) -> None:
        self.begin = begin
        self.options = options


def verb_at(place: str, options: Options) -> Work:
    """Return the work of a verb, whose function is imported when it runs; ``place`` is ``module:function``."""

    def begin() -> Coroutine[Any, Any, int]:
        module, _, name = place.partition(":")
        function: Callable[[Options], Coroutine[Any, Any, int]]
        function = getattr(importlib.import_module(f"mcp_manager.cli.{module}"), name)
        return function(options)

    return Work(begin, options)


def run_program(
    command: click.Command, argv: Sequence[str], *, name: str = "mcp-manager", tells_json: bool = True
) -> int:
    """Parse arguments, do the work on an event loop and report what goes wrong.

    Parameters
    ----------
    command
        What the arguments mean; it returns a :class:`Work`.
    argv
        The arguments without the program's name.
    name
        The program's name.
    tells_json
        Whether ``--json`` asks for failures as JSON.

    Returns
    -------
    The exit status: that of the work, or 1 (a call failed, or standard output was closed), 2 (misused), 130 (interrupted).
    """
    import click  # noqa: PLC0415 - importing this package must not load it

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A server may describe itself in characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    own = argv[: argv.index("--")] if "--" in argv else argv
    as_json = tells_json and "--json" in own
    verb = ""
    try:
        parsed = command.main(list(argv), prog_name=name, standalone_mode=False)
        verb = f" {parsed.options.verb}".rstrip() if isinstance(parsed, Work) else ""
        status = _run(parsed) if isinstance(parsed, Work) else int(parsed or 0)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except click.ClickException as error:
        _report(_usage(error, f"{name}{verb}"), as_json, type(error).__name__)
        return MISUSED
    except McpManagerError as error:
        _report(error, as_json)
        # What happened while it ran is a RuntimeError, as the errors of calls are.
        return FAILED if isinstance(error, RuntimeError) else MISUSED
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough; the interpreter must not try again at its exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _run(work: Work) -> int:
    """Run a verb; a signal that ends the program first lets it put the terminal and its programs in order."""
    import asyncio  # noqa: PLC0415 - --version and --help do without

    from mcp_manager.cli.log_output import shown_log  # noqa: PLC0415 - as above

    ending: list[int] = []

    async def supervised() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        had_terminal = _has_terminal()

        def end(number: int) -> None:
            if number == _HANGUP and _follows_a_file(work.options) and _has_terminal() == had_terminal:
                # The terminal was not closed: the file is to be read again.
                return
            ending.append(number)
            task.cancel()

        taken: list[int] = []
        for number in _ENDINGS:
            # Elsewhere than on the main thread there are no signals; one that is ignored stays ignored.
            if signal.getsignal(number) is signal.SIG_DFL:
                with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                    loop.add_signal_handler(number, end, number)
                    taken.append(number)
        try:
            return await work.begin()
        finally:
            # Not every loop does so when it is closed.
            for number in taken:
                loop.remove_signal_handler(number)

    with shown_log(work.options):
        try:
            with asyncio.Runner(loop_factory=_loop_factory(work.options.verb)) as runner:
                return runner.run(supervised())
        except asyncio.CancelledError:
            if not ending:
                raise
    os.kill(os.getpid(), ending[0])
    return 128 + ending[0]


def _loop_factory(verb: str) -> Callable[[], AbstractEventLoop] | None:
    """Return what makes the event loop of a verb: that of uvloop for a gateway, if it is installed."""
    if verb != "serve":
        # The others end before a faster loop has earned the time that its import takes.
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    made: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return made


def _follows_a_file(options: Options) -> bool:
    from mcp_manager.cli.source import file_of  # noqa: PLC0415 - most verbs follow none

    return options.watch and file_of(options) is not None


def _has_terminal() -> bool:
    """Tell whether this process has a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _usage(error: click.ClickException, path: str) -> str:
    """Say in one line what is wrong with the arguments, and where to read more."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else path
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]} (see {path} --help)"


def _report(error: McpManagerError | str, as_json: bool, kind: str = "") -> None:
    if as_json:
        print_json(error_object(error, kind))
        sys.stdout.flush()
    else:
        # A file has each of its problems on a line, with its place.
        problems = error.problems if isinstance(error, ConfigError) else ()
        for line in problems or (error,):
            complain(str(line))
