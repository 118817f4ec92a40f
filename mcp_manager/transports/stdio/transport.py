"""MCP over the standard streams of a child process (2025-11-25, basic/transports, stdio): one message per line."""

from __future__ import annotations

import asyncio
from typing import Final

from mcp_manager._core.jsonrpc import FrameError
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets, masked_so_far, printable
from mcp_manager.errors import (
    CallError,
    ProtocolError,
    ServerExitedError,
)
from mcp_manager.events.child_output import OutputWriter, ServerOutput
from mcp_manager.runtime.deadline_timer import DeadlineTimer, remaining_s
from mcp_manager.runtime.read_budget import FLOOD, FLOOD_DETAIL, ReadBudget, read_budget
from mcp_manager.transports.base import Exchange, FrameCheck, LifeSigns, MessageSink, permit_all
from mcp_manager.transports.duplex import DuplexTransport
from mcp_manager.transports.received import broken_reply_to, read_messages
from mcp_manager.transports.stdio.advice import advice_on, start_failure
from mcp_manager.transports.stdio.child import Child, child_environment, how_it_ended
from mcp_manager.transports.stdio.output_lines import LineTooLongError, OutputLines

__all__ = ["StdioTransport"]

_QUOTED: Final = 80
_NEWLINES: Final = bytes.maketrans(b"\r\n", b"  ")
# The assumed cost of the first unsolicited message of a chunk; the following ones are measured.
_FIRST_NS: Final = 20_000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# The longest environment value on Linux (MAX_ARG_STRLEN).
_MAX_SECRET: Final = 128 * 1024


class StdioTransport(DuplexTransport):
    """Exchange messages with a child process.

    A reply with an unknown id and a line that is not a JSON-RPC message are faults of the server; neither ends the
    session.

    Parameters
    ----------
    config
        The server's configuration: program, environment, limits.
    server_id
        Names the server in errors.
    sink
        Takes the server's requests and notifications, its faults, and its end.
    timer
        Takes the deadlines of calls.
    output
        Takes the program's standard error.
    secrets
        Masks the server's credentials; by default made from ``config``.
    check
        Checks each message right before it is sent.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        server_id: str,
        sink: MessageSink,
        timer: DeadlineTimer,
        output: OutputWriter | None = None,
        secrets: Secrets | None = None,
        check: FrameCheck = permit_all,
    ) -> None:
        assert config.command is not None
        secrets = Secrets(config) if secrets is None else secrets
        super().__init__(config, server_id=server_id, sink=sink, timer=timer, secrets=secrets, check=check)
        self._config = config
        self._max_line = config.max_response_bytes
        self._output = output or OutputWriter(ServerOutput(server_id), 0, self._secrets)
        self._child = Child(
            [config.command, *config.args],
            child_environment(config.env, config.inherit_env),
            config.cwd,
            on_stdout=self._take,
            on_end=self._child_ended,
            on_stderr=self._output.feed,
            on_flood=self.flooded,
        )
        self.messages: int = 0
        self._lines = OutputLines(config.max_response_bytes)
        self._budget: ReadBudget | None = None
        self._is_paused = False
        self._is_first_line = True

    @property
    def pid(self) -> int:
        """The child's process id, 0 before the start."""
        return self._child.pid

    def stderr_tail(self, lines: int = 5) -> str:
        """Return the last lines of the child's standard error as one line, without the values of its ``env``."""
        return self._child.stderr_tail(lines, hidden=self._secrets.texts)

    @property
    def last_words(self) -> str:
        """What the program wrote that is not a message and may say what it waits for; "" if it wrote nothing."""
        words = []
        if stderr := self.stderr_tail():
            words.append(f"its stderr ends: {stderr}")
        # A prompt has no line end.
        if unended := bytes(self._lines.partial[:_MAX_SECRET]):
            words.append(f"its stdout ends: {self._quoted(unended)}")
        elif self._bad_line:
            words.append(f"its stdout says: {self._bad_line}")
        said = "; ".join(words)
        advice = advice_on(self._config, said)
        return f"{advice}; {said}" if advice else said

    async def open(self) -> None:
        """Start the program; raises :class:`ConnectError` with its name and what is wrong."""
        if self._failure is not None:
            raise self._failure.for_caller("not_sent")
        self._budget = read_budget()
        try:
            await self._child.start()
        except (OSError, ValueError) as error:
            raise start_failure(self._config, self._server_id, error) from None
        self._opened = True
        self._output.begin(self._child.pid)

    @property
    def life_signs(self) -> LifeSigns:
        """The signs of life of the program."""
        return self

    async def aclose(self, grace_s: float) -> None:
        """End the child; see :meth:`Child.aclose`. Calls under way fail at once; idempotent."""
        self._closing = True
        self._fail(ServerExitedError("the server was stopped", server_id=self._server_id))
        self._resume()
        await self._child.aclose(grace_s)

    async def _write(self, exchange: Exchange) -> None:
        if not self._child.writable:
            blocked = asyncio.timeout(remaining_s(exchange.deadline_ns))
            try:
                async with blocked:
                    await self._child.wait_writable()
            except TimeoutError:
                if not blocked.expired():
                    raise
                raise self.expired(exchange) from None
        self._check(exchange.frame)
        await self._child.send(_line(exchange.frame))

    def _broken(self) -> CallError:
        return ServerExitedError("the server closed its standard input", server_id=self._server_id)

    def _take(self, data: bytes) -> None:
        if self._failure is None:
            self._lines.feed(data)
            if not self._is_paused:
                self._take_lines()

    def read_on(self) -> None:
        """Take the lines that have waited, and read on if none is left; see :class:`Reader`."""
        self._take_lines()
        if not self._lines.is_behind or self._failure is not None:
            self._resume()

    def flooded(self) -> None:
        """Count a flood; see :class:`Reader`."""
        self._tell(self._sink.on_fault, FLOOD, FLOOD_DETAIL)

    def _take_lines(self) -> None:
        """Take complete lines; stop when the time slice for unsolicited messages is used up."""
        budget = self._budget
        assert budget is not None
        last_ns = 0
        try:
            while self._failure is None and (line := self._lines.take()) is not None:
                if self._take_line(line):
                    continue
                now_ns = budget.clock()
                if not budget.spend(now_ns - last_ns if last_ns else _FIRST_NS):
                    self._pause(budget)
                    return
                last_ns = now_ns
        except LineTooLongError as error:
            self._give_up(error.size)

    def _pause(self, budget: ReadBudget) -> None:
        """Stop reading until the next time slice if lines are left; backpressure holds the program back."""
        if self._lines.is_behind and self._failure is None:
            self._is_paused = True
            self._child.pause()
            budget.wait(self)

    def _resume(self) -> None:
        if self._budget is not None:
            if self._failure is not None:
                self._budget.leave(self)
            if self._is_paused:
                self._is_paused = False
                self._child.resume()

    def _take_line(self, line: bytes) -> bool:
        """Take a line, and return whether it has only replies that callers wait for."""
        if self._is_first_line:
            # Some runtimes start their output with a byte order mark; a reader may ignore it (RFC 8259, section 8.1).
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            messages = read_messages(line, self._faulty, may_batch=self._may_batch)
        except Exception as error:
            # Even an unexpected exception must cost only this line.
            self._take_bad_line(line, error if isinstance(error, FrameError) else FrameError(type(error).__name__, 0))
            return False
        self.messages += 1
        is_awaited = True
        for message in messages:
            if message.method is None:
                is_awaited = self._take_reply(message) and is_awaited
            else:
                is_awaited = False
                self._take_unasked(message)
        return is_awaited

    def _take_bad_line(self, line: bytes, error: FrameError) -> None:
        self._bad_line = self._quoted(line)
        self._bad_lines += 1
        self._tell(self._sink.on_fault, "a line that is not a message", f"({error}) {self._bad_line}")
        request_id = broken_reply_to(line, self._pending.__contains__)
        if request_id is None:
            return
        reply = self._pending.pop(request_id).reply
        if not reply.done():
            reply.set_exception(
                ProtocolError(
                    f"the reply is not JSON-RPC: {error}: {self._bad_line}",
                    server_id=self._server_id,
                    delivery="unknown",
                    retryable=True,
                )
            )

    def _quoted(self, line: bytes) -> str:
        text = masked_so_far(line[:_MAX_SECRET].decode("utf-8", "replace"), self._secrets.texts)
        return printable(text.strip()[:_QUOTED])

    def _give_up(self, size: int) -> None:
        """Kill a server whose output can no longer be split into messages."""
        self._fail(
            ProtocolError(
                f"the server wrote a line of {size} bytes or more, max_response_bytes is {self._max_line}",
                server_id=self._server_id,
                hint="raise max_response_bytes for this server if such replies are expected",
            )
        )
        self._child.kill()

    def _child_ended(self, exit_code: int) -> None:
        self._tell(self._output.finish)
        # The program has ended, so its last lines are taken without regard to the read budget.
        while self._failure is None and self._lines.is_behind:
            self._take_lines()
        error = ServerExitedError(
            f"the server process {how_it_ended(exit_code, self._child.misdeed)}",
            server_id=self._server_id,
            exit_code=exit_code,
            hint=self.last_words or "it wrote nothing to stderr",
        )
        self._fail(error)
        self._resume()
        if self._closing:
            return
        assert self._failure is not None
        self._tell(self._sink.on_closed, self._failure)


def _line(frame: bytes) -> bytes:
    """End a frame with a newline, and replace newlines within it, which are insignificant white space in JSON."""
    if b"\n" in frame or b"\r" in frame:
        frame = frame.translate(_NEWLINES)
    return frame + b"\n"
