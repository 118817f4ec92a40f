"""MCP over the standard streams of a child process (2025-11-25, basic/transports, stdio): one message per line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.deadlines import Deadline
from mcp_manager._core.jsonrpc import FrameError, Message
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets, masked_so_far, printable
from mcp_manager.errors import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
    ServerExitedError,
)
from mcp_manager.events.child_output import OutputWriter, ServerOutput
from mcp_manager.protocol.revisions import BATCHING_REVISIONS
from mcp_manager.runtime.deadline_timer import DeadlineTimer, remaining_s
from mcp_manager.runtime.read_budget import FLOOD, FLOOD_DETAIL, ReadBudget, read_budget
from mcp_manager.transports.base import Exchange, FrameCheck, LifeSigns, MessageSink, permit_all
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.received import broken_reply_to, read_messages
from mcp_manager.transports.stdio.advice import advice_on, start_failure
from mcp_manager.transports.stdio.child import Child, child_environment, how_it_ended
from mcp_manager.transports.stdio.output_lines import LineTooLongError, OutputLines

__all__ = ["StdioTransport"]

_QUOTED: Final = 80
_NEWLINES: Final = bytes.maketrans(b"\r\n", b"  ")
# How many given-up requests are remembered; a reply to an older one is counted as a stray reply.
_MAX_FORGOTTEN: Final = 1024
# The assumed cost of the first unsolicited message of a chunk; the following ones are measured.
_FIRST_NS: Final = 20_000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# The longest environment value on Linux (MAX_ARG_STRLEN).
_MAX_SECRET: Final = 128 * 1024


class _Waiting(Deadline):
    """A request that waits for its reply, and its deadline."""

    __slots__ = ("_transport", "bad_lines", "exchange", "reply")

    def __init__(
        self, exchange: Exchange, reply: asyncio.Future[Message], transport: StdioTransport, bad_lines: int
    ) -> None:
        self.exchange = exchange
        self.reply = reply
        # The number of lines that were not messages when it was sent.
        self.bad_lines = bad_lines
        self._transport = transport

    def expired(self) -> None:
        if not self.reply.done():
            self.reply.set_exception(self._transport.expired(self.exchange, self.bad_lines))


class StdioTransport:
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
        self._config = config
        self._server_id = server_id
        self._sink = sink
        self._check = check
        self._max_line = config.max_response_bytes
        self._request_timeout_ns = round(config.request_timeout_s * 1e9)
        self._secrets = Secrets(config) if secrets is None else secrets
        self._containment = Containment(server_id, self._secrets)
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
        self._wheel = timer.wheel
        self._lag = timer.lag
        self._pending: dict[int, _Waiting] = {}
        # The deadlines of given-up requests.
        self._forgotten: dict[int, int] = {}
        self.messages: int = 0
        self._lines = OutputLines(config.max_response_bytes)
        self._budget: ReadBudget | None = None
        self._is_paused = False
        self._opened = False
        self._closing = False
        self._failure: CallError | None = None
        self._is_first_line = True
        self._may_batch = True
        # The last line that was not a message, masked and printable, and the number of such lines.
        self._bad_line = ""
        self._bad_lines = 0

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

    def expired(self, exchange: Exchange, bad_lines: int = -1) -> DeadlineExceededError:
        """Make the error for a missed deadline; its hint quotes a line that is not a message and came meanwhile."""
        is_telling = 0 <= bad_lines < self._bad_lines
        error = DeadlineExceededError(
            "no reply within the deadline",
            server_id=self._server_id,
            delivery="unknown" if exchange.sent else "not_sent",
            hint=f"meanwhile it wrote a line that is not a message: {self._bad_line}" if is_telling else "",
        )
        self._lag.excuse(error, exchange.began_ns, exchange.deadline_ns)
        return error

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

    def called_until_ns(self) -> int:
        """Return the latest deadline of its unanswered requests; see :class:`LifeSigns`."""
        waiting = (each.exchange.deadline_ns for each in self._pending.values())
        return max([0, *waiting, *self._forgotten.values()])

    @property
    def keeps_session(self) -> bool:
        """Always false: the process is the session."""
        return False

    @property
    def has_request_streams(self) -> bool:
        """Always false: all messages share one pipe."""
        return False

    def settle(self, revision: str | None) -> None:
        """Accept batches from now on only if the revision has them; stdio sends no version with its messages."""
        self._may_batch = revision is None or revision in BATCHING_REVISIONS

    async def listen(self) -> None:
        """Do nothing: the pipes are open in both directions."""

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> None:
        """Return ``None``: all requests share one pipe."""

    def landed(self, exchange: Exchange, answer: Any) -> NoReturn:
        """Never called: there is no channel."""
        raise NotImplementedError

    async def exchange(self, exchange: Exchange) -> Message:
        """Write a request and wait for the reply with its id; see :meth:`Transport.exchange`."""
        self._check_open()
        request_id = exchange.request_id
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        exchange.began_ns = time.monotonic_ns()
        waiting = _Waiting(exchange, reply, self, self._bad_lines)
        self._pending[request_id] = waiting
        if exchange.deadline_ns:
            self._wheel.add(waiting, exchange.deadline_ns)
        try:
            try:
                await self._write(exchange)
                exchange.sent = True
            except BrokenPipeError:
                # The program is about to end; its end fails the reply with a more specific error.
                pass
            return await reply
        except DeadlineExceededError:
            if exchange.sent:
                self._sink.on_given_up(exchange, "deadline exceeded")
            raise
        except asyncio.CancelledError:
            if exchange.sent:
                self._sink.on_given_up(exchange, "cancelled by the caller")
            raise
        finally:
            self._wheel.remove(waiting)
            if self._pending.pop(request_id, None) is not None and exchange.sent:
                self._forget(request_id, exchange.deadline_ns)
            if reply.done() and not reply.cancelled():
                reply.exception()
            # They have the exception, whose traceback holds this frame.
            del reply, waiting

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """Write a request; see :meth:`Transport.exchange_lasting`."""
        return await self.exchange(exchange)

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """Write a message that gets no reply."""
        self._check_open()
        try:
            await self._write(Exchange(frame, 0, deadline_ns))
        except BrokenPipeError:
            error = self._failure or ServerExitedError(
                "the server closed its standard input", server_id=self._server_id
            )
            raise error.for_caller("not_sent") from None

    def interrupt(self) -> None:
        """Fail every exchange under way; see :meth:`Transport.interrupt`."""
        self._fail_pending(ConnectionLostError("the server was stopped during the call", server_id=self._server_id))

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

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure.for_caller("not_sent")
        if not self._opened:
            raise ConnectError("the server was not started", server_id=self._server_id)

    def _forget(self, request_id: int, deadline_ns: int) -> None:
        """Remember a given-up request, so that its late reply is dropped silently."""
        if len(self._forgotten) >= _MAX_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        # A given-up request explains a busy program for request_timeout_s at the most, not for its own longer deadline.
        self._forgotten[request_id] = min(deadline_ns, time.monotonic_ns() + self._request_timeout_ns)

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
                self._tell(self._sink.on_message, message)
        return is_awaited

    def _take_reply(self, message: Message) -> bool:
        request_id = message.id
        if isinstance(request_id, int) and request_id in self._pending:
            reply = self._pending.pop(request_id).reply
            if not reply.done():
                reply.set_result(message)
            return True
        if isinstance(request_id, int) and request_id in self._forgotten:
            del self._forgotten[request_id]
        else:
            self._tell(self._sink.on_fault, "a reply that nobody waits for", "")
        return False

    def _faulty(self, kind: str, detail: str) -> None:
        self._tell(self._sink.on_fault, kind, detail)

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

    def _tell(self, listener: Callable[..., None], *news: object) -> None:
        """Call a method of the sink; an exception there must not stop the reading."""
        try:
            listener(*news)
        except Exception as error:
            # Logged: it is not the server's fault.
            self._containment.failure(error, "unknown")

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

    def _fail(self, error: CallError) -> None:
        """Fail every call under way; later calls fail with the first error."""
        if self._failure is None:
            self._failure = error
        self._fail_pending(error)

    def _fail_pending(self, error: CallError) -> None:
        pending = list(self._pending.values())
        self._pending.clear()
        for waiting in pending:
            if not waiting.reply.done():
                waiting.reply.set_exception(error.for_caller("unknown" if waiting.exchange.sent else "not_sent"))


def _line(frame: bytes) -> bytes:
    """End a frame with a newline, and replace newlines within it, which are insignificant white space in JSON."""
    if b"\n" in frame or b"\r" in frame:
        frame = frame.translate(_NEWLINES)
    return frame + b"\n"
