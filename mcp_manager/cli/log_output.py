"""The manager's log on the command line: as text or JSON, on standard error, or as the result of a verb."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, one_line, paint
from mcp_manager.observe.log_format import JsonFormatter

__all__ = ["CHILD", "Collected", "Output", "level_number", "line_of", "logging_to", "shown_log", "text_line"]

CHILD: Final = "mcp_manager.child."
"""The loggers of what programs write to their standard error begin with this; the server's id follows."""

_PACKAGE: Final = "mcp_manager"
# Their warnings concern what the user has written or stored, so they are shown in any case.
_ALWAYS_SHOWN: Final = ("mcp_manager.config", "mcp_manager.auth", "mcp_manager.fleet.file_watch", "mcp_manager.gateway")
_COLOURED: Final = {logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "error"}


class Output(logging.Handler):
    """Pass every record on as one line of text.

    Parameters
    ----------
    line
        Makes the line of a record.
    write
        Takes the line.
    """

    def __init__(self, line: Callable[[logging.LogRecord], str], write: Callable[[str], object]) -> None:
        super().__init__()
        self._line = line
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a failure is reported as the logging module does."""
        try:
            self._write(self._line(record))
        except Exception:
            self.handleError(record)


class Collected(logging.Handler):
    """Keep the records of the loggers whose names begin with one of these.

    Attributes
    ----------
    records
        The records so far.
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._names = names

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        if record.name.startswith(self._names):
            self.records.append(record)


def text_line(record: logging.LogRecord, *, colours: bool = False) -> str:
    """Return a record as one line: time, level, message; or the program's own line, marked by ``|``."""
    stamp = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"
    message = one_line(_message(record))
    if record.name.startswith(CHILD):
        return f"{stamp} {'|':<8}{message}"
    level = record.levelname.lower().ljust(8)
    return f"{stamp} {paint(_COLOURED.get(record.levelno, ''), level) if colours else level}{message}"


def line_of(options: Options, *, colours: bool = False, json: bool = False) -> Callable[[logging.LogRecord], str]:
    """Return what makes the line of a record: JSON if ``--log-format`` or ``json`` says so, else text."""
    if json or options.log_format == "json":
        return JsonFormatter().format
    return partial(text_line, colours=colours)


@contextlib.contextmanager
def logging_to(handler: logging.Handler, level: int) -> Iterator[None]:
    """Send the package's log to a handler, from a level on."""
    logger = logging.getLogger(_PACKAGE)
    before = logger.level
    handler.setLevel(level)
    if logger.getEffectiveLevel() > level:
        logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def shown_log(options: Options) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the log is shown on standard error, as the options say."""
    if options.verb == "logs":
        # There the log is the result.
        return contextlib.nullcontext()
    # The doctor's findings contain the warnings.
    is_told = not options.quiet and options.verb != "doctor"
    level = logging.WARNING if options.log_level is None else level_number(options.log_level)
    is_for_people = options.log_level is None and options.log_format == "text"
    handler = Output(_warning, _complain) if is_for_people else Output(line_of(options), _to_stderr)
    if options.log_level is None:
        handler.addFilter(lambda record: is_told and record.name.startswith(_ALWAYS_SHOWN))
    return logging_to(handler, level)


def _warning(record: logging.LogRecord) -> str:
    return f"{record.levelname.lower()}: {_message(record)}"


def _complain(text: str) -> None:
    # Whoever read the output may have left; that is not for a handler of the log to tell.
    with contextlib.suppress(BrokenPipeError):
        complain(text)


def level_number(level: str) -> int:
    """Return a level, which is one of the names that the logging module knows in small letters, as a number."""
    return logging.getLevelNamesMapping()[level.upper()]


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    return text


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
