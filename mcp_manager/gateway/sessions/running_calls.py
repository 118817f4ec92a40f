"""Requests of clients of the handshake era that are under way, each with the stream that belongs to it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.calls.exchange_listener import ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.sessions.event_log import EventLog, EventLogs
from mcp_manager.gateway.sessions.log_levels import LogLevels
from mcp_manager.gateway.sessions.questions import Questions
from mcp_manager.protocol.methods import LOG_MESSAGE

__all__ = ["Cancellable", "RunningCall", "RunningCalls"]

_UNREACHABLE: Final = -32000


class _Cancelled(msgspec.Struct):
    request_id: msgspec.Raw = msgspec.field(name="requestId")


_cancelled_decoder = msgspec.json.Decoder(_Cancelled)


class Cancellable(Protocol):
    """What answers a request: a task, or something that makes one."""

    def cancel(self) -> Any:
        """Cancel it."""


class Running(Protocol):
    """A request under way, which its client may cancel."""

    def cancel(self) -> None:
        """Cancel it for its client."""


class RunningCall:
    """One request of a client: what its server sends goes to the client on the request's own stream.

    Parameters
    ----------
    calls
        Those that it belongs to.
    client, endpoint
        Who asks, and where.
    message, channel
        The request, and the way back.
    id_raw
        The id of the request, as JSON.

    Attributes
    ----------
    task
        What answers it, set when that begins.
    """

    __slots__ = (
        "_calls",
        "_has_asked",
        "_is_gone",
        "_log",
        "channel",
        "client",
        "endpoint",
        "id_raw",
        "is_cancelled",
        "key",
        "message",
        "task",
    )

    def __init__(
        self,
        calls: RunningCalls,
        client: Client,
        endpoint: Endpoint,
        message: Message,
        channel: Channel,
        id_raw: bytes,
    ) -> None:
        self._calls = calls
        self.client: Client = client
        self.endpoint: Endpoint = endpoint
        self.message: Message = message
        self.channel: Channel = channel
        self.id_raw: bytes = id_raw
        self.key: tuple[str, bytes] = client.session, id_raw
        self.task: Cancellable | None = None
        self.is_cancelled: bool = False
        self._log: EventLog | None = None
        self._has_asked = False
        self._is_gone = False

    def on_message(self, sent: ServerMessage) -> Awaitable[bytes] | None:
        """Take what the server sends before its reply; see :data:`mcp_manager.calls.exchange_listener.OnMessage`."""
        if sent.wants_answer:
            return self._ask(sent)
        if sent.method != LOG_MESSAGE or self._calls.levels.wants(self.client.session, sent.raw_params):
            self.send(messages.notification(sent.method, sent.raw_params))
        return None

    def send(self, message: bytes) -> bool:
        """Send a message before the reply; return whether the client gets it, now or when it resumes the stream."""
        if self._log is not None:
            return self._log.send(message)
        if not self.channel.can_send:
            return False
        if self.open_stream():
            assert self._log is not None
            return self._log.send(message)
        if self._is_gone:
            return False
        self.channel.send(message)
        return True

    def open_stream(self) -> bool:
        """Begin the event stream of the call, and return whether there is one: not over stdio.

        That the client has closed its connection cancels nothing (2025-11-25, basic/transports, sending messages).
        """
        if self._log is not None:
            return True
        stream = None if self._is_gone else self.channel.open_events()
        if stream is None:
            return False
        if not stream.is_open:
            self._is_gone = True
            return False
        self._log = self._calls.logs.begin(self.client, stream)
        self._log.on_lost = self._lost
        return True

    def finish(self, reply: bytes) -> None:
        """Send the reply, unless the client has cancelled the request, and end the stream."""
        self._end_questions()
        if self._log is None:
            if self.is_cancelled:
                self.channel.accept()
            else:
                self.channel.finish(reply)
            return
        if self.channel.usage is not None:
            self.channel.usage.end(None if self.is_cancelled else reply)
        if not self.is_cancelled:
            self._log.send(reply)
        self._log.on_lost = None
        self._log.end()

    def cancel(self) -> None:
        """Cancel it for its client: the server is told once, and no reply is sent."""
        if not self.is_cancelled and self.task is not None:
            self.is_cancelled = True
            self.task.cancel()

    def abandon(self) -> None:
        """End without a reply, as when the gateway ends."""
        self._end_questions()
        if self._log is not None:
            self._log.close()

    async def _ask(self, sent: ServerMessage) -> bytes:
        self._has_asked = True
        if self._log is None and not self.channel.can_send:
            raise RpcError(_UNREACHABLE, "The client accepts no event stream", {"source": "gateway"})
        return await self._calls.questions.ask(self.client, self, sent.method, sent.raw_params)

    def _end_questions(self) -> None:
        if self._has_asked:
            self._calls.questions.end(self, self.client.session, "the request that it belongs to has ended")

    def _lost(self) -> None:
        if self._has_asked:
            self._calls.questions.end(self, self.client.session, "The client is gone", withdraw=False)


class RunningCalls:
    """The requests of all clients of this worker that are under way.

    Parameters
    ----------
    questions, logs, levels
        What clients are asked, their streams, and the log messages that they want.
    """

    def __init__(self, questions: Questions, logs: EventLogs, levels: LogLevels) -> None:
        self.questions: Questions = questions
        self.logs: EventLogs = logs
        self.levels: LogLevels = levels
        self.running: dict[tuple[str, bytes], Running] = {}
        """What is under way, by the name of the session and the id of the request."""

    def __len__(self) -> int:
        return len(self.running)

    def begin(self, call: RunningCall, task: Cancellable | None) -> None:
        """Begin a call, which this task answers."""
        call.task = task
        self.running[call.key] = call
        # A client that has the id of an event can resume the stream, and get the reply, if its connection breaks.
        call.channel.on_quiet = call.open_stream

    def end(self, call: RunningCall) -> None:
        """Forget a call."""
        if self.running.get(call.key) is call:
            del self.running[call.key]
        # They refer to the call.
        call.task = None
        call.channel.on_quiet = None

    def cancel(self, client: Client, params: bytes | None) -> None:
        """Cancel the call that ``notifications/cancelled`` of a client names; nothing happens if there is none."""
        try:
            request_id = bytes(_cancelled_decoder.decode(params or b"{}").request_id)
        except msgspec.DecodeError:
            return
        call = self.running.get((client.session, request_id))
        if call is not None:
            call.cancel()

    def of_session(self, session: str) -> list[Running]:
        """Return the calls of a session."""
        return [call for (name, _), call in self.running.items() if name == session]

    def cancel_session(self, session: str) -> None:
        """Cancel all calls of a session that has ended."""
        for call in self.of_session(session):
            call.cancel()
