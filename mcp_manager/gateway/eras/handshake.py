"""Clients of the handshake era: ``initialize``, a session, and messages of the server on streams of their own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Final

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import McpManagerError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.channels import Channel, EventStream
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.batches import refuse_batch, take_batch
from mcp_manager.gateway.eras.connection import Connection
from mcp_manager.gateway.eras.introduction import introduction, revision_for
from mcp_manager.gateway.eras.session_messages import SessionMessages
from mcp_manager.gateway.loops import Mark
from mcp_manager.gateway.security.accounting import note_refusal
from mcp_manager.gateway.sent_requests import SentRequest
from mcp_manager.gateway.sessions.ids import SessionIds
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.gateway.sessions.table import SessionTable
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.methods import INITIALIZE
from mcp_manager.protocol.revisions import BATCHING_REVISIONS

__all__ = ["HandshakeEra"]

_SESSION_FIELD: Final = b"Mcp-Session-Id: %b\r\n"
_NOT_FOUND: Final = -32001
_CONFLICT: Final = -32000
_OWN: Final = {"source": "gateway"}


class HandshakeEra:
    """Serve clients of the revisions with a handshake, over HTTP and where a connection is the session.

    Parameters
    ----------
    answering
        Answers their requests.
    sessions
        Keeps what has to be kept of sessions.
    ids
        Makes the ids of sessions.
    mark
        Recognizes this gateway as a client of its own.
    """

    def __init__(
        self,
        answering: Answering,
        sessions: SessionTable | None = None,
        ids: SessionIds | None = None,
        mark: Mark | None = None,
    ) -> None:
        self.sessions: SessionTable = SessionTable() if sessions is None else sessions
        self.ids: SessionIds = SessionIds(Sealer()) if ids is None else ids
        self._mark = Mark() if mark is None else mark
        self._answering = answering
        self._messages = SessionMessages(answering, self.sessions)

    def take(
        self, message: Message, channel: Channel, endpoint: Endpoint, session_id: str | None, principal: str = ANONYMOUS
    ) -> Coroutine[Any, Any, None]:
        """Return the work that takes one message of a client over HTTP, and answers it on its channel.

        Without an id of a session, everything but ``initialize`` is refused with 400, and with one that is not valid
        for this endpoint and principal with 404 (2025-11-25, basic/transports, session management).
        """
        if session_id is not None:
            client = self.ids.find(session_id, endpoint.name, principal)
            if client is not None:
                return self._messages.take(client, endpoint, message, channel)
        return self._take_outside(message, channel, endpoint, session_id, principal)

    def begin(
        self,
        message: Message,
        channel: Channel,
        endpoint: Endpoint,
        session_id: str | None,
        principal: str,
        context: Context,
    ) -> SentRequest | None:
        """Send a request of a client to its server at once; ``None`` if :meth:`take` has to take it."""
        client = None if session_id is None else self.ids.find(session_id, endpoint.name, principal)
        return None if client is None else self._messages.begin(client, endpoint, message, channel, context)

    def resume(self, call: ForwardedCall, channel: Channel, context: Context) -> SentRequest:
        """Return a call that compiled code has sent, as :meth:`begin` does."""
        return self._messages.resume(call, channel, context)

    def adapted(self, call: ForwardedCall, adapt: Callable[[bytes], bytes] | None, response: bytes) -> bytes:
        """Return the response to a call that compiled code has sent, in the terms of the client."""
        return self._messages.adapted(call, adapt, response)

    async def _take_outside(
        self, message: Message, channel: Channel, endpoint: Endpoint, session_id: str | None, principal: str
    ) -> None:
        """Take a message that belongs to no session."""
        if message.method == INITIALIZE and message.id_raw is not None:
            await self._initialize(message, channel, endpoint, principal)
        else:
            status, refusal = _refusal(session_id, message.id_raw)
            note_refusal("session")
            channel.finish(refusal, status)

    async def take_batch(
        self,
        batch: Sequence[Message],
        channel: Channel,
        endpoint: Endpoint,
        session_id: str | None,
        principal: str = ANONYMOUS,
    ) -> None:
        """Take several messages that came as one array, and answer them with an array (2025-03-26 and earlier)."""
        client = None if session_id is None else self.ids.find(session_id, endpoint.name, principal)
        if client is None:
            status, refusal = _refusal(session_id, None)
            refuse_batch(batch, channel, refusal)
            channel.finish(refusal, status)
        elif client.revision not in BATCHING_REVISIONS:
            text = f"Revision {client.revision} has no batches: send one message at a time"
            channel.finish(messages.error(messages.NO_ID, INVALID_REQUEST, text, _OWN), 400)
        else:
            await take_batch(self._messages, batch, channel, client, endpoint)

    def open_stream(
        self,
        session_id: str | None,
        last_event_id: str | None,
        endpoint: Endpoint,
        principal: str,
        open: Callable[[], EventStream],
    ) -> tuple[int, bytes] | None:
        """Open the standing stream of a session, or resume a stream (2025-11-25, basic/transports, listening).

        Parameters
        ----------
        session_id, last_event_id
            The header fields of the GET.
        endpoint, principal
            Where, and for whom.
        open
            Begins the response, if nothing speaks against it.

        Returns
        -------
        The status and the body of a refusal; ``None`` if the stream is open. It is refused with 409 if the session has
        a standing stream already. If the event is unknown or no longer kept, 400 refuses the stream of a call, and a
        new standing stream takes the place of an old one; the session stays.
        """
        client = None if session_id is None else self.ids.find(session_id, endpoint.name, principal)
        if client is None:
            return _refusal(session_id, None)
        found = self.sessions.logs.find(client, last_event_id) if last_event_id else None
        if found is not None:
            log, after = found
            log.attach(open(), after)
            return None
        if last_event_id and not self.sessions.logs.was_standing(last_event_id):
            return 400, _error(INVALID_REQUEST, "There are no events after this Last-Event-ID any more")
        if self.sessions.has_reader(client.session):
            return 409, _error(_CONFLICT, "The session has a stream for messages of the server already")
        if not self.sessions.can_open(client.session):
            return 503, _error(_CONFLICT, "Too many streams are open")
        self.sessions.open(client, endpoint, open())
        return None

    def end_session(self, session_id: str | None, endpoint: Endpoint, principal: str = ANONYMOUS) -> tuple[int, bytes]:
        """End a session for its client, with all that belongs to it; return the status and the body of the response."""
        client = None if session_id is None else self.ids.find(session_id, endpoint.name, principal)
        if client is None or session_id is None:
            return _refusal(session_id, None)
        self.ids.end(session_id, client)
        self._end(client)
        return 200, b""

    def connect(self, endpoint: Endpoint, principal: str, send: Callable[[bytes], None]) -> Connection:
        """Return a session for a connection that carries everything, as over stdio or HTTP+SSE.

        Parameters
        ----------
        endpoint, principal
            What the client sees, and whom it acts for.
        send
            Sends it a message that belongs to none of its requests.
        """
        return Connection(self._messages, self.sessions, endpoint, principal, send, self._end)

    def drain(self) -> None:
        """End the standing streams; their clients may resume them elsewhere."""
        self.sessions.interrupt()

    async def aclose(self) -> None:
        """End all streams. Idempotent."""
        self.sessions.close()

    def _end(self, client: Client) -> None:
        self.sessions.end(client.session)
        self._answering.forwarding.end_session(client.principal, client.session)

    async def _initialize(self, message: Message, channel: Channel, endpoint: Endpoint, principal: str) -> None:
        id_raw = message.id_raw or messages.NO_ID
        try:
            revision, capabilities = revision_for(message.params)
            self._mark.check(capabilities, endpoint)
            session_id, client = self.ids.begin(endpoint.name, principal, revision, capabilities)
            result = await introduction(endpoint, client)
        except McpManagerError as failure:
            channel.finish(failures.as_response(id_raw, failure))
            return
        channel.finish(messages.response(id_raw, result), fields=_SESSION_FIELD % session_id.encode("ascii"))


def _refusal(session_id: str | None, id_raw: bytes | None) -> tuple[int, bytes]:
    """Return the status and the error for a message without a valid session."""
    id_raw = id_raw or messages.NO_ID
    if session_id is None:
        text = "The header Mcp-Session-Id is missing: send initialize first, then the session id of its response"
        return 400, messages.error(id_raw, INVALID_REQUEST, text, _OWN)
    return 404, messages.error(id_raw, _NOT_FOUND, "Session not found: send initialize again", _OWN)


def _error(code: int, text: str, data: Any = _OWN) -> bytes:
    return messages.error(messages.NO_ID, code, text, data)
