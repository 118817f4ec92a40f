"""The gateway on standard input and output, for clients that start a command (2025-11-25 and 2026-07-28, stdio)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import FrameError, Message, scan, scan_batch
from mcp_manager.errors import ConfigError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.classification import is_stateless
from mcp_manager.gateway.eras.handshake import HandshakeEra
from mcp_manager.gateway.eras.stateless import StatelessEra
from mcp_manager.gateway.http.endpoint_paths import EndpointPaths
from mcp_manager.gateway.pipes import Pipes
from mcp_manager.gateway.security.accounting import CURRENT, Sender, Usage
from mcp_manager.gateway.security.grants import Grant
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR
from mcp_manager.protocol.methods import CANCELLED, INITIALIZE
from mcp_manager.runtime.background import background_task

__all__ = ["StdioServer", "endpoint_on_stdio", "standard_streams"]

_log = logging.getLogger(__name__)

_OWN: Final = {"source": "gateway"}
_OVERLOADED: Final = -32004
_LISTEN: Final = "subscriptions/listen"
# With more messages under way, requests are refused; not all, because answers of the client may end some.
_MOST_RUNNING: Final = 1024
# With more output that the client does not read, nothing more is read.
_MOST_UNSENT: Final = 1 << 20
# With more output than this, notifications are dropped.
_MOST_UNSENT_NEWS: Final = 8 << 20
# How long cancelled requests may take to end.
_CANCELLED_S: Final = 2.0


class _Cancelled(msgspec.Struct):
    request_id: msgspec.Raw = msgspec.field(name="requestId")


_cancelled_decoder = msgspec.json.Decoder(_Cancelled)


class _Lines:
    """Cut input into lines of bounded length."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._partial = bytearray()
        # Whether the rest of the line is dropped, because it is too long.
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the complete lines, ``None`` in place of each that is too long."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            line = bytes(self._partial) + part if self._partial else part
            self._partial.clear()
            if self._skipping:
                self._skipping = False
            else:
                yield line if len(line) <= self._most_bytes else None
        if not self._skipping:
            self._partial += rest
            if len(self._partial) > self._most_bytes:
                self._partial.clear()
                self._skipping = True
                yield None

    def take_last(self) -> bytes:
        """Return the last line, which the input ended without ending it."""
        last = bytes(self._partial)
        self._partial.clear()
        return last


class _Channel:
    """The way back for one request; see :class:`~mcp_manager.gateway.channels.Channel`."""

    __slots__ = ("_is_cancelled", "_server", "id_raw", "is_lasting", "on_gone", "on_quiet", "sender", "task", "usage")

    can_send = True

    def __init__(self, server: StdioServer, id_raw: bytes | None, sender: Sender | None) -> None:
        self._server = server
        self.sender: Sender | None = sender
        self.usage: Usage | None = None
        self.id_raw: bytes | None = id_raw
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], object] | None = None
        # Whether the request lasts until the client ends it.
        self.is_lasting: bool = False
        self.task: asyncio.Task[None] | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """Cancel the request for the client: nothing more is sent for it."""
        self._is_cancelled = True
        if self.on_gone is None and self.task is not None:
            # It has not got far enough to be told.
            self.task.cancel()
        self.gone()

    def gone(self) -> None:
        """Tell the owner of the request that the client waits no longer."""
        if self.on_gone is not None:
            self.on_gone()

    def send(self, message: bytes) -> None:
        """Send a message before the reply."""
        if not self._is_cancelled:
            self._server.tell(message)

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        """Begin no event stream: messages are lines here."""
        return None

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        """Send the reply."""
        if self.usage is not None:
            self.usage.end(message)
        if not self._is_cancelled:
            self._server.send(message)

    def accept(self) -> None:
        """End without a reply."""


class StdioServer:
    """Serve one client over two descriptors, with one JSON message on each line.

    A message tells by itself which era it belongs to, so that a client may probe with either. Lines that are no
    messages are answered with an error and change nothing.

    Parameters
    ----------
    handshake, stateless
        Take the messages of the two eras.
    endpoint
        What the client sees.
    max_request_bytes
        The longest line; a longer one is dropped and answered with an error.
    drain_timeout_s
        How long requests may go on after the end of the input.
    sender
        Counts the requests; ``None`` if nothing is counted.
    """

    def __init__(
        self,
        handshake: HandshakeEra,
        stateless: StatelessEra,
        endpoint: Endpoint,
        *,
        max_request_bytes: int = 4 << 20,
        drain_timeout_s: float = 5.0,
        sender: Sender | None = None,
    ) -> None:
        self._sender = sender
        self._handshake = handshake
        self._stateless = stateless
        self._endpoint = endpoint
        self._most_bytes = max_request_bytes
        self._drain_timeout_s = drain_timeout_s
        self._connection = handshake.connect(endpoint, ANONYMOUS, self.tell)
        self._lines = _Lines(max_request_bytes)
        self._running: set[asyncio.Task[Any]] = set()
        # The requests of the stateless era by their ids, which their cancellation names.
        self._stateless_calls: dict[bytes, _Channel] = {}
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._pipes: Pipes | None = None

    @property
    def endpoint(self) -> Endpoint:
        """What the client sees."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection.endpoint = endpoint

    async def serve(self, source: int, target: int, stop: asyncio.Event | None = None) -> None:
        """Serve until the input ends, nobody reads the output any more, or it is stopped.

        Parameters
        ----------
        source, target
            Descriptors to read from and write to; they are not closed.
        stop
            Ends it at once, as :meth:`stop` does.
        """
        if stop is not None:
            stopping = background_task(self._stop_with(stop), "wait for the end of the gateway")
            try:
                await self._serve(source, target)
            finally:
                stopping.cancel()
                await asyncio.wait({stopping})
        else:
            await self._serve(source, target)

    def stop(self) -> None:
        """End: requests under way are cancelled. Idempotent."""
        self._over.set()

    async def _stop_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.stop()

    async def _serve(self, source: int, target: int) -> None:
        pipes = self._pipes = Pipes(
            source,
            target,
            take=self._input.put_nowait,
            ended=lambda: self._input.put_nowait(None),
            broken=self._over.set,
        )
        pipes.start()
        reading = background_task(self._read(pipes), "read the messages of a client")
        over = background_task(self._over.wait(), "wait for the end of a client")
        try:
            await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not self._over.is_set():
                await self._finish_calls(over)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._drain_timeout_s):
                        await asyncio.wait(
                            {over, background_task(pipes.drain(), "write what is left", among=self._running)},
                            return_when=asyncio.FIRST_COMPLETED,
                        )
        finally:
            await self._end(pipes, reading, over)

    def send(self, message: bytes) -> None:
        """Send a message."""
        if self._pipes is not None:
            # Messages of servers may have line breaks between their members, where a space means the same.
            if b"\n" in message or b"\r" in message:
                message = message.replace(b"\r", b" ").replace(b"\n", b" ")
            self._pipes.write(message + b"\n")

    def tell(self, message: bytes) -> None:
        """Send a message that is not a reply; it is dropped if the client has not read for long."""
        if self._pipes is not None and self._pipes.unsent_bytes < _MOST_UNSENT_NEWS:
            self.send(message)

    # Reading

    async def _read(self, pipes: Pipes) -> None:
        while (data := await self._input.get()) is not None:
            for line in self._lines.feed(data):
                await self._take_line(pipes, line)
            pipes.read_on()
        await self._take_line(pipes, self._lines.take_last())

    async def _take_line(self, pipes: Pipes, line: bytes | None) -> None:
        if line is None:
            self._refuse(INVALID_REQUEST, f"The message is longer than {self._most_bytes} bytes")
            return
        line = line.strip()
        if not line:
            return
        while len(self._running) >= 2 * _MOST_RUNNING or pipes.unsent_bytes > _MOST_UNSENT:
            await self._wait_for_room(pipes)
        try:
            if line.startswith(b"["):
                self._run(self._take_batch(scan_batch(line)))
                return
            message = scan(line)
        except FrameError as error:
            code = PARSE_ERROR if not _is_json(line) else INVALID_REQUEST
            self._refuse(code, f"Not a JSON-RPC message: {error}")
            return
        await self._take(message)

    async def _wait_for_room(self, pipes: Pipes) -> None:
        self._room.clear()
        waits: set[asyncio.Task[Any]] = {background_task(self._room.wait(), "wait for a request to end")}
        if pipes.unsent_bytes > _MOST_UNSENT:
            waits = {background_task(pipes.drain(), "wait for a client to read")}
        try:
            await asyncio.wait(waits)
        finally:
            for each in waits:
                each.cancel()

    async def _take(self, message: Message) -> None:
        channel = _Channel(self, message.id_raw, self._counting())
        if message.method == CANCELLED and message.id_raw is None and self._cancels(message):
            return
        if message.id_raw is not None and message.method is not None and len(self._running) >= _MOST_RUNNING:
            text = f"More than {_MOST_RUNNING} requests are under way: wait for replies"
            self.send(messages.error(message.id_raw, _OVERLOADED, text, _OWN))
            return
        if self._is_refused(message, channel):
            return
        if is_stateless(message, None):
            if message.method == _LISTEN:
                channel.is_lasting = True
            if message.id_raw is not None:
                self._stateless_calls[message.id_raw] = channel
            self._run(self._take_stateless(message, channel), channel)
            return
        taking = self._run(self._guarded(channel, partial(self._connection.take, message, channel)), channel)
        if message.method == INITIALIZE:
            # What follows needs the session.
            await asyncio.wait({taking})

    def _counting(self) -> Sender | None:
        return None if self._sender is None else self._sender.current()

    def _is_refused(self, message: Message, channel: _Channel) -> bool:
        """Count a message; return whether a limit refuses it."""
        if channel.sender is None:
            return False
        usage = channel.usage = channel.sender.begin(message, len(message.frame))
        if usage is None or usage.refusal is None:
            return False
        channel.finish(failures.as_response(message.id_raw or messages.NO_ID, usage.refusal))
        return True

    async def _take_stateless(self, message: Message, channel: _Channel) -> None:
        try:
            await self._guarded(channel, partial(self._stateless.take, message, channel, self._endpoint, None))
        finally:
            if channel.id_raw is not None and self._stateless_calls.get(channel.id_raw) is channel:
                del self._stateless_calls[channel.id_raw]

    async def _take_batch(self, batch: list[Message]) -> None:
        channel = _Channel(self, None, self._counting())
        await self._guarded(channel, partial(self._connection.take_batch, batch, channel))

    async def _guarded(self, channel: _Channel, take: Callable[[], Awaitable[None]]) -> None:
        """Take a message; a fault of the gateway costs one reply."""
        if channel.usage is not None:
            CURRENT.set(channel.usage)
        try:
            await take()
        except Exception:
            _log.exception("a message of a client was not taken", extra={"event": "message_failed"})
            if channel.id_raw is not None:
                channel.finish(messages.error(channel.id_raw, INTERNAL_ERROR, "Internal error of the gateway", _OWN))

    def _cancels(self, message: Message) -> bool:
        """Cancel the request of the stateless era that a notification names; return whether there is one."""
        try:
            request_id = bytes(_cancelled_decoder.decode(message.params or b"{}").request_id)
        except (msgspec.DecodeError, RecursionError):
            return False
        channel = self._stateless_calls.pop(request_id, None)
        if channel is None:
            return False
        channel.cancel()
        return True

    def _refuse(self, code: int, text: str) -> None:
        self.send(messages.error(messages.NO_ID, code, text, _OWN))

    def _run(self, work: Coroutine[Any, Any, None], channel: _Channel | None = None) -> asyncio.Task[None]:
        task: asyncio.Task[None] = background_task(work, "take a message of a client", among=self._running)
        task.add_done_callback(self._make_room)
        if channel is not None:
            channel.task = task
            if channel.usage is not None:
                # Also if it is cancelled before it has begun.
                ended = channel.usage.end
                task.add_done_callback(lambda _: ended(None))
        return task

    def _make_room(self, task: asyncio.Task[None]) -> None:
        self._room.set()

    # The end

    async def _finish_calls(self, over: asyncio.Task[Any]) -> None:
        """Wait until the requests under way have ended, for a while: a client may have closed its end early."""
        for channel in [each for each in self._stateless_calls.values() if each.is_lasting]:
            channel.gone()
        ends = asyncio.get_running_loop().time() + self._drain_timeout_s
        while self._running and not over.done():
            left_s = ends - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            await asyncio.wait({*self._running, over}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    async def _end(self, pipes: Pipes, *tasks: asyncio.Task[Any]) -> None:
        for channel in list(self._stateless_calls.values()):
            channel.gone()
        left = {*tasks, *self._running}
        for task in left:
            task.cancel()
        await self._connection.aclose()
        try:
            await asyncio.wait(left, timeout=_CANCELLED_S)
        finally:
            self._pipes = None
            await pipes.aclose()


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def endpoint_on_stdio(paths: EndpointPaths, path: str, grant: Grant | None) -> Endpoint:
    """Return the endpoint that a client on standard input sees, as its grant allows it.

    Raises
    ------
    ConfigError
        There is no such endpoint, or the rules do not show it to this client.
    """
    endpoint = paths.find(path, grant)
    if endpoint is not None:
        return endpoint
    if paths.find(path) is not None:
        raise ConfigError(
            f"No rule in serve.allow allows a client with --stdio to use {path!r:.200}",
            hint='its name is "anonymous": add a rule with principals = ["anonymous"]',
        )
    raise ConfigError(f"There is no endpoint {path!r:.200}", hint="/mcp is the whole fleet")


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[int, int]]:
    """Take standard input and output for messages alone, and return their descriptors.

    Meanwhile, whatever else in this process or its children writes to standard output writes to standard error, and
    whatever else reads standard input reads nothing.
    """
    sys.stdout.flush()
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        yield source, target
    finally:
        sys.stdout.flush()
        os.dup2(source, 0)
        os.dup2(target, 1)
        for descriptor in (nothing, source, target):
            os.close(descriptor)
