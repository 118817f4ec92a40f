"""A session whose connection is the session: over stdio, and over HTTP+SSE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from typing import Final

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import McpManagerError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.batches import take_batch
from mcp_manager.gateway.eras.introduction import introduction, revision_for
from mcp_manager.gateway.eras.session_messages import SessionMessages
from mcp_manager.gateway.sessions.table import SessionTable
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.methods import INITIALIZE, PING
from mcp_manager.protocol.revisions import BATCHING_REVISIONS, Era

__all__ = ["Connection"]

_OWN: Final = {"source": "gateway"}


class Connection:
    """The session of one connection; made by :meth:`HandshakeEra.connect`.

    Parameters
    ----------
    taking
        Takes the messages after the handshake.
    sessions
        Keeps what has to be kept of sessions.
    endpoint, principal
        What the client sees, and whom it acts for.
    send
        Sends it a message that belongs to none of its requests.
    end
        Called with the client when the connection ends.
    """

    def __init__(
        self,
        taking: SessionMessages,
        sessions: SessionTable,
        endpoint: Endpoint,
        principal: str,
        send: Callable[[bytes], None],
        end: Callable[[Client], None],
    ) -> None:
        self._taking = taking
        self._sessions = sessions
        self.endpoint: Endpoint = endpoint
        self._principal = principal
        self._send = send
        self._end = end
        self._client: Client | None = None
        self._is_closed = False

    async def take(self, message: Message, channel: Channel) -> None:
        """Take one message, and answer it on its channel.

        It returns when the message is answered: run it in a task of its own, so that others can be taken meanwhile.
        """
        if message.method == INITIALIZE and message.id_raw is not None:
            await self._initialize(message, channel)
        elif self._client is not None:
            await self._taking.take(self._client, self.endpoint, message, channel)
        elif message.method is None or message.id_raw is None:
            channel.accept()
        elif message.method == PING:
            channel.finish(messages.response(message.id_raw, b"{}"))
        else:
            channel.finish(messages.error(message.id_raw, INVALID_REQUEST, "Send initialize first", _OWN))

    async def take_batch(self, batch: Sequence[Message], channel: Channel) -> None:
        """Take several messages that came as one array, and answer them with an array (2025-03-26 and earlier)."""
        client = self._client
        if client is not None and client.revision in BATCHING_REVISIONS:
            await take_batch(self._taking, batch, channel, client, self.endpoint)
            return
        text = "Send initialize first" if client is None else f"Revision {client.revision} has no batches"
        channel.finish(messages.error(messages.NO_ID, INVALID_REQUEST, text, _OWN))

    async def aclose(self) -> None:
        """End the session: its calls are cancelled, and nothing is sent any more. Idempotent."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            self._end(client)

    async def _initialize(self, message: Message, channel: Channel) -> None:
        id_raw = message.id_raw or messages.NO_ID
        if self._client is not None:
            channel.finish(messages.error(id_raw, INVALID_REQUEST, "The session has begun already", _OWN))
            return
        try:
            revision, capabilities = revision_for(message.params)
            client = Client(Era.HANDSHAKE, revision, capabilities, self._principal, token_urlsafe(12))
            result = await introduction(self.endpoint, client)
        except McpManagerError as failure:
            channel.finish(failures.as_response(id_raw, failure))
            return
        if self._client is None and not self._is_closed:
            self._client = client
            self._sessions.connect(client, self.endpoint, self._send)
        channel.finish(messages.response(id_raw, result))
