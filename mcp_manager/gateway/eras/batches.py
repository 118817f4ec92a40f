"""Several messages in one array, for the revisions that have them (2025-03-26, basic; JSON-RPC 2.0, section 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from mcp_manager._core.jsonrpc import Message
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.channels import Channel, EventStream
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.session_messages import SessionMessages
from mcp_manager.gateway.security.accounting import CURRENT, Sender, Usage
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.methods import INITIALIZE
from mcp_manager.runtime.background import background_task

__all__ = ["refuse_batch", "take_batch"]

_MOST: Final = 100


class _Member:
    """The way back for one message of a batch; see :class:`~mcp_manager.gateway.channels.Channel`."""

    __slots__ = ("_batch", "on_gone", "on_quiet", "sender", "usage")

    def __init__(self, batch: _Batch) -> None:
        self._batch = batch
        self.sender: Sender | None = None
        self.usage: Usage | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], object] | None = None

    @property
    def can_send(self) -> bool:
        return self._batch.channel.can_send

    def send(self, message: bytes) -> None:
        self._batch.send(message)

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        return None

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        if self.usage is not None:
            self.usage.end(message)
        self._batch.replies.append(message)

    def accept(self) -> None:
        """Leave the message without a reply."""
        if self.usage is not None:
            self.usage.end(None)

    async def run(self, message: Message, sender: Sender | None, take: Callable[[], Awaitable[None]]) -> None:
        """Take the message, unless a limit refuses it."""
        usage = self.usage = None if sender is None else sender.begin(message, len(message.frame))
        try:
            if usage is None:
                await take()
            elif usage.refusal is not None:
                self.finish(failures.as_response(message.id_raw or messages.NO_ID, usage.refusal))
            else:
                CURRENT.set(usage)
                await take()
        finally:
            if usage is not None:
                usage.end(None)


class _Batch:
    """The replies to the messages of one array."""

    def __init__(self, channel: Channel) -> None:
        self.channel: Channel = channel
        self.replies: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.channel.send(message)

    def finish(self) -> None:
        """Send all replies as one array; 202 if no message was a request."""
        if self.replies:
            self.channel.finish(b"[%b]" % b",".join(self.replies))
        else:
            self.channel.accept()


def refuse_batch(batch: Sequence[Message], channel: Channel, refusal: bytes) -> None:
    """Take note that the requests of a batch are refused, because it belongs to no session."""
    sender = channel.sender
    if sender is None:
        return
    for message in batch[:_MOST]:
        usage = sender.begin(message, len(message.frame))
        if usage is not None:
            if not usage.reason:
                usage.refused("session")
            usage.end(refusal)


async def take_batch(
    taking: SessionMessages, batch: Sequence[Message], channel: Channel, client: Client, endpoint: Endpoint
) -> None:
    """Take the messages of one array at the same time, and answer them with one array.

    Parameters
    ----------
    taking
        Takes each of them.
    batch
        The messages, of which ``initialize`` is none (2025-03-26, basic/lifecycle).
    channel
        The way back.
    client, endpoint
        Who sends them, and where.
    """
    wrong = None
    if len(batch) > _MOST:
        wrong = f"A batch has at most {_MOST} messages"
    elif any(message.method == INITIALIZE for message in batch):
        wrong = "initialize cannot be part of a batch"
    if wrong is not None:
        channel.finish(messages.error(messages.NO_ID, INVALID_REQUEST, wrong, {"source": "gateway"}), 400)
        return
    answers = _Batch(channel)
    tasks: set[asyncio.Task[Any]] = set()
    for message in batch:
        member = _Member(answers)
        take = partial(taking.take, client, endpoint, message, member)
        background_task(member.run(message, channel.sender, take), "take a message of a batch", among=tasks)
    try:
        await asyncio.wait(list(tasks))
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(list(tasks))
        raise
    answers.finish()
