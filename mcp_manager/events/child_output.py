"""What programs write to their standard error: the latest lines of each server, and whoever follows them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from mcp_manager.config.redaction import CONTROL_SEQUENCE, Secrets, printable
from mcp_manager.events.log_lines import report_handler
from mcp_manager.events.stream import Listeners, Stream
from mcp_manager.serialization import Serializable

__all__ = ["ChildOutputs", "OutputWriter", "ServerOutput", "StderrLine", "StderrLines", "logger_name"]

_LOGGERS: Final = "mcp_manager.child"
_children: Final = logging.getLogger(_LOGGERS)

# What is kept of each server.
_MOST_LINES: Final = 200
_MOST_BYTES: Final = 64 * 1024
# The beginning of a line that is kept, and that is shown.
_LONGEST_LINE: Final = 4096
_LONGEST_SHOWN: Final = 2000
# What may wait for someone who follows the lines, counted with what a line takes beside its text: several times what is
# read from a program at once, so that who takes what there is misses nothing.
_MOST_WAITING: Final = 8 * 1024 * 1024
_PER_LINE: Final = 128
# Lines of a server that are logged at once, and per second.
_LOGGED_AT_ONCE: Final = 200
_LOGGED_PER_S: Final = 200.0


class StderrLine(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """One line that a program wrote to its standard error.

    Attributes
    ----------
    server_id, instance, pid
        The server, the index of the instance, and the id of its process.
    at
        When it was read, in UTC.
    text
        The line without credentials, colours and control characters, at most 2,000 characters.
    missed
        How many lines before this one were dropped because they were not taken in time.
    """

    server_id: str
    instance: int
    pid: int
    at: datetime
    text: str
    missed: int = 0


class _Raw(NamedTuple):
    """A line as it was written; most lines are never looked at."""

    writer: OutputWriter
    at: float
    data: bytes

    @property
    def size(self) -> int:
        """The bytes that it takes while it waits."""
        return len(self.data) + _PER_LINE

    def line(self, missed: int = 0) -> StderrLine:
        writer = self.writer
        return StderrLine(
            server_id=writer.server_id,
            instance=writer.instance,
            pid=writer.pid,
            at=datetime.fromtimestamp(self.at, UTC),
            text=writer.shown(self.data),
            missed=missed,
        )


class StderrLines(Stream[StderrLine]):
    """Lines of a server's programs, as :meth:`McpManager.stderr_lines` returns them.

    Read it with ``async for`` on any event loop, or with ``for`` on any thread but that of the manager's loop.
    """

    def __init__(self, home: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(_MOST_WAITING // _PER_LINE, home)
        self._waiting = 0

    def put(self, item: object) -> None:
        """Add a line, in place of the oldest if they take too much memory."""
        assert isinstance(item, _Raw)
        with self._lock:
            if self._is_over:
                return
            self._waiting += item.size
            while self._waiting > _MOST_WAITING and self._items:
                self._waiting -= self._items.popleft().size
                self._missed += 1
            super().put(item)

    def _next_item(self) -> object:
        found = super()._next_item()
        if not isinstance(found, _Raw):
            return found
        self._waiting -= found.size
        missed, self._missed = self._missed, 0
        return found.line(missed)


class ServerOutput:
    """The latest lines of one server's programs, whichever instance wrote them."""

    __slots__ = ("_bytes", "_kept", "_listeners", "_lock", "_writers", "log", "server_id")

    def __init__(self, server_id: str) -> None:
        self.server_id: str = server_id
        self._kept: deque[_Raw] = deque()
        self._bytes = 0
        self._listeners: Listeners[StderrLine] = Listeners()
        # Lines are added on the manager's loop, and asked for on any thread.
        self._lock = threading.Lock()
        self._writers: tuple[OutputWriter, ...] = ()
        self.log: _OutputLog = _OutputLog(server_id)

    @property
    def is_followed(self) -> bool:
        """Whether somebody follows the lines."""
        return bool(self._listeners)

    def add(self, lines: list[_Raw]) -> None:
        """Keep lines, in place of the oldest, and pass them to those who follow."""
        with self._lock:
            for line in lines[-_MOST_LINES:]:
                self._kept.append(line)
                self._bytes += len(line.data)
            while len(self._kept) > _MOST_LINES or self._bytes > _MOST_BYTES:
                self._bytes -= len(self._kept.popleft().data)
            if self._listeners:
                for line in lines:
                    self._listeners.put(line)

    def read(self, *, follow: bool, home: asyncio.AbstractEventLoop | None) -> StderrLines:
        """Return the lines that are kept and, with ``follow``, all that come."""
        stream = StderrLines(home)
        with self._lock:
            for line in self._kept:
                stream.put(line)
            if follow:
                self._listeners.add(stream)
                return stream
            # What has no line end yet may be a question that a program waits for an answer to.
            for writer in self._writers:
                if writer.partial:
                    stream.put(_Raw(writer, time.time(), bytes(writer.partial)))
        stream.end()
        return stream

    def began(self, writer: OutputWriter) -> None:
        """Note that a program runs."""
        self._writers = (*self._writers, writer)

    def ended(self, writer: OutputWriter) -> None:
        """Note that a program has ended."""
        self._writers = tuple(each for each in self._writers if each is not writer)

    def end(self) -> None:
        """End the streams of those who follow."""
        self._listeners.end()


class OutputWriter:
    """Takes the standard error of one program.

    Parameters
    ----------
    output
        Keeps the lines.
    instance
        The index of the instance.
    secrets
        The credentials to mask when a line is shown.
    """

    __slots__ = ("_output", "_secrets", "instance", "partial", "pid")

    def __init__(self, output: ServerOutput, instance: int, secrets: Secrets) -> None:
        self._output = output
        self._secrets = secrets
        self.instance: int = instance
        self.pid: int = 0
        # The unfinished last line.
        self.partial: bytearray = bytearray()

    @property
    def server_id(self) -> str:
        """The id of the server."""
        return self._output.server_id

    def begin(self, pid: int) -> None:
        """Note the id of the process, which has just been started."""
        self.pid = pid
        self._output.began(self)

    def feed(self, data: bytes) -> int:
        """Take a chunk; return how many nanoseconds that took beyond what its size explains."""
        logger = self._output.log.logger()
        pieces = data.split(b"\n")
        if self.partial:
            pieces[0] = (bytes(self.partial) + pieces[0])[:_LONGEST_LINE]
        self.partial = bytearray(pieces.pop()[:_LONGEST_LINE])
        if logger is None and not self._output.is_followed:
            del pieces[:-_MOST_LINES]
        if not pieces:
            return 0
        now = time.time()
        lines = [_Raw(self, now, each[:_LONGEST_LINE]) for each in pieces if each and not each.isspace()]
        self._output.add(lines)
        if logger is None:
            return 0
        began_ns = time.perf_counter_ns()
        for line in lines:
            self._output.log.write(logger, line)
        return time.perf_counter_ns() - began_ns

    def finish(self) -> None:
        """Take what has no line end, because the program has ended."""
        if self.partial:
            self.feed(b"\n")
        self._output.ended(self)

    def shown(self, data: bytes) -> str:
        """Return a line as text that can be shown."""
        # As on a terminal, what follows a carriage return replaces what was before it.
        text = data.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        text = self._secrets.masked_so_far(CONTROL_SEQUENCE.sub("", text).replace("\t", "    "))
        text = printable(text).rstrip()
        return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


class _OutputLog:
    """Writes the lines of one server's programs to the log, so many per second at the most."""

    __slots__ = ("_left", "_left_out", "_name", "_refilled_at", "_server_id")

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id
        self._name = logger_name(server_id)
        self._left = float(_LOGGED_AT_ONCE)
        self._refilled_at = 0.0
        self._left_out = 0

    def logger(self) -> logging.Logger | None:
        """Return the logger that takes the lines, ``None`` if none does."""
        # Loggers are never freed. So one with the server's own name is used if there is one, and not made here.
        own = logging.Logger.manager.loggerDict.get(self._name)
        logger = own if isinstance(own, logging.Logger) else _children
        return logger if logger.isEnabledFor(logging.DEBUG) else None

    def write(self, logger: logging.Logger, line: _Raw) -> None:
        """Log a line, or count it as left out."""
        now = time.monotonic()
        self._left = min(_LOGGED_AT_ONCE, self._left + (now - self._refilled_at) * _LOGGED_PER_S)
        self._refilled_at = now
        if self._left < 1.0:
            self._left_out += 1
            return
        self._left -= 1.0
        extra = {
            "event": "child_output",
            "server_id": self._server_id,
            "instance": line.writer.instance,
            "pid": line.writer.pid,
        }
        text = line.writer.shown(line.data)
        if self._left_out:
            extra["left_out"], self._left_out = self._left_out, 0
            text += f" ({extra['left_out']} lines before this one were left out)"
        record = logger.makeRecord(self._name, logging.DEBUG, __file__, 0, "%s", (text,), None, None, extra)
        try:
            logger.handle(record)
        except Exception:
            report_handler()


class ChildOutputs:
    """The output of the programs of every server of a manager."""

    __slots__ = ("_outputs",)

    def __init__(self) -> None:
        self._outputs: dict[str, ServerOutput] = {}

    def of(self, server_id: str) -> ServerOutput:
        """Return the output of a server's programs."""
        # In one step, because several threads may ask.
        return self._outputs.setdefault(server_id, ServerOutput(server_id))

    def forget(self, server_id: str) -> None:
        """Forget a server that was removed, and end the streams of those who follow it."""
        output = self._outputs.pop(server_id, None)
        if output is not None:
            output.end()

    def end(self) -> None:
        """Forget all servers."""
        for server_id in list(self._outputs):
            self.forget(server_id)


def logger_name(server_id: str) -> str:
    """Return the name of the logger for the standard error of a server's programs.

    It is ``mcp_manager.child.`` and the id. In the id, letters, digits, ``-`` and ``_`` of ASCII stay, and everything
    else is percent-encoded as in URLs, dots included: a dot would make one server's logger the parent of another's.
    """
    return f"{_LOGGERS}.{quote(server_id, safe='', errors='replace').replace('.', '%2E').replace('~', '%7E')}"
