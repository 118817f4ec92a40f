"""MCP over the standard streams of a child process (2025-11-25, basic/transports, stdio): one message per line."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Final

from mcp_manager._core.jsonrpc import FrameError, Message, scan_batch
from mcp_manager.config import ServerConfig
from mcp_manager.errors import CallError, ConnectError, ProtocolError, ServerExitedError
from mcp_manager.transports.base import Exchange, MessageSink
from mcp_manager.transports.child import Child, child_environment

__all__ = ["StdioTransport"]

_log = logging.getLogger(__name__)

_QUOTED: Final = 80
_NEWLINES: Final = bytes.maketrans(b"\r\n", b"  ")


class StdioTransport:
    """Exchange frames with a child process.

    Parameters
    ----------
    config
        The server's configuration: program, environment, limits.
    server_id
        Names the server in errors.
    sink
        Takes requests and notifications of the server, and the news of its death.
    """

    def __init__(self, config: ServerConfig, *, server_id: str, sink: MessageSink) -> None:
        assert config.command is not None
        self._command = config.command
        self._server_id = server_id
        self._sink = sink
        self._max_line = config.max_response_bytes
        self._child = Child(
            [config.command, *config.args],
            child_environment(config.env, config.inherit_env),
            config.cwd,
            on_stdout=self._take,
            on_end=self._child_ended,
        )
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._closing = False
        self._failure: CallError | None = None
        self.stray_replies = 0
        self.bad_lines = 0

    @property
    def pid(self) -> int:
        """The child's process id, 0 before the start."""
        return self._child.pid

    def stderr_tail(self, lines: int = 5) -> str:
        """Return the last lines the child wrote to its standard error."""
        return self._child.stderr_tail(lines)

    async def open(self) -> None:
        """Start the program; raises :class:`ConnectError` naming it and what is wrong."""
        try:
            await self._child.start()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            where = f" in {error.filename!r}" if isinstance(error, OSError) and error.filename != self._command else ""
            raise ConnectError(
                f"cannot start {self._command!r}: {reason}{where if error.__class__ is not ValueError else ''}",
                server_id=self._server_id,
                hint="check command, args and cwd",
            ) from None

    def settle(self, revision: str) -> None:
        """Do nothing: stdio sends no version with its messages."""

    async def exchange(self, exchange: Exchange) -> Message:
        """Write a request and wait for the reply with its id; see :meth:`Transport.exchange`."""
        if self._failure is not None:
            raise self._not_sent()
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[exchange.request_id] = reply
        try:
            await self._send(exchange.frame, exchange)
            return await reply
        finally:
            # Forgotten on every way out: a reply that comes later finds nobody.
            self._pending.pop(exchange.request_id, None)
            if reply.done() and not reply.cancelled():
                reply.exception()

    async def notify(self, frame: bytes) -> None:
        """Write a frame that gets no reply."""
        if self._failure is not None:
            raise self._not_sent()
        await self._send(frame, None)

    async def aclose(self, grace_s: float) -> None:
        """End the child in order; see :meth:`Child.aclose`."""
        self._closing = True
        self._fail_pending(ServerExitedError("the server is being stopped", server_id=self._server_id))
        await self._child.aclose(grace_s)

    async def _send(self, frame: bytes, exchange: Exchange | None) -> None:
        # A newline within JSON text is insignificant white space, and on the wire it would end the message.
        line = frame.translate(_NEWLINES) + b"\n" if b"\n" in frame or b"\r" in frame else frame + b"\n"
        try:
            await self._child.send(line)
        except BrokenPipeError:
            raise self._not_sent() from None
        if exchange is not None:
            exchange.sent = True

    def _take(self, data: bytes) -> None:
        """Cut the output into lines, wherever its chunks end."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._partial:
                self._partial.append(line)
                line = b"".join(self._partial)
                self._partial.clear()
                self._partial_size = 0
            if len(line) > self._max_line:
                self._give_up(len(line))
                return
            if line and not line.isspace():
                self._take_line(line)
        if rest:
            self._partial.append(rest)
            self._partial_size += len(rest)
            if self._partial_size > self._max_line:
                self._give_up(self._partial_size)

    def _take_line(self, line: bytes) -> None:
        try:
            messages = scan_batch(line)
        except FrameError as error:
            self.bad_lines += 1
            if self.bad_lines == 1:
                quoted = line[:_QUOTED].decode("utf-8", "replace")
                text = "".join(char if char.isprintable() else " " for char in quoted)
                _log.warning(
                    "server %r wrote a line that is no message (%s), ignored: %s", self._server_id, error, text
                )
            return
        for message in messages:
            if message.method is not None:
                self._sink.on_message(message)
                continue
            identifier = message.id
            reply = self._pending.pop(identifier, None) if isinstance(identifier, int) else None
            if reply is None:
                self.stray_replies += 1
            elif not reply.done():
                reply.set_result(message)

    def _give_up(self, size: int) -> None:
        """End a server whose output can no longer be cut into messages."""
        self._partial.clear()
        self._partial_size = 0
        self._failure = ProtocolError(
            f"the server wrote a line of {size} bytes or more, max_response_bytes is {self._max_line}",
            server_id=self._server_id,
            delivery="unknown",
            hint="raise max_response_bytes for this server if such replies are expected",
        )
        self._fail_pending(self._failure)
        self._child.signal(signal.SIGKILL)

    def _child_ended(self, exit_code: int) -> None:
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"exited with status {exit_code}"
        stderr = self._child.stderr_tail()
        error = ServerExitedError(
            f"the server process {how}",
            server_id=self._server_id,
            exit_code=exit_code,
            hint=f"its stderr ends: {stderr}" if stderr else "it wrote nothing to stderr",
        )
        if self._failure is None:
            self._failure = error
        self._fail_pending(error)
        if not self._closing:
            self._sink.on_closed(self._failure)

    def _fail_pending(self, error: CallError) -> None:
        pending = list(self._pending.values())
        self._pending.clear()
        for reply in pending:
            if not reply.done():
                reply.set_exception(error.for_caller("unknown"))

    def _not_sent(self) -> CallError:
        error = self._failure or ServerExitedError("the server process closed its input", server_id=self._server_id)
        return error.for_caller("not_sent")
