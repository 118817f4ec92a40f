"""What the gateway keeps of sessions: only of those that listen, are asked, or have set something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager.config.serve import ServeConfig
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.news import Listening, News
from mcp_manager.gateway.sessions.event_log import EventLog, EventLogs
from mcp_manager.gateway.sessions.log_levels import LogLevels
from mcp_manager.gateway.sessions.questions import Questions
from mcp_manager.gateway.sessions.running_calls import RunningCalls
from mcp_manager.protocol.methods import LOG_MESSAGE

__all__ = ["SessionTable"]

_LIST_CHANGES: Final = frozenset(LIST_CHANGES)
_MOST_SESSIONS: Final = 50_000
_UNREACHABLE: Final = -32000


class _Pipe:
    """A connection that carries all messages of a session, as over stdio."""

    __slots__ = ("_send", "is_ended", "is_lost", "is_read")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self.is_read: bool = True
        self.is_ended: bool = False
        self.is_lost: bool = False

    def send(self, message: bytes) -> bool:
        if self.is_read:
            self._send(message)
        return self.is_read

    def interrupt(self) -> None:
        """Leave the connection open: whoever made it ends it."""

    def close(self) -> None:
        self.is_read, self.is_lost = False, True


class _Live:
    """A session that listens to its endpoint."""

    __slots__ = ("_table", "client", "endpoint", "listening", "standing")

    def __init__(self, table: SessionTable, client: Client, endpoint: Endpoint) -> None:
        self._table = table
        self.client: Client = client
        self.endpoint: Endpoint = endpoint
        # Where messages go that belong to no call.
        self.standing: EventLog | _Pipe | None = None
        self.listening: Listening | None = None

    def shows(self, server_id: str) -> bool:
        """Return whether the client may see anything of a server."""
        listening = self.listening
        if listening is None:
            return self.endpoint.shows(server_id)
        return listening.endpoint.shows(server_id)

    def see(self, endpoint: Endpoint) -> None:
        """See what the newest request of the client was allowed to see."""
        listening = self.listening
        if listening is not None and listening.endpoint is not endpoint:
            listening.move(endpoint)
        self.endpoint = endpoint

    def deliver(self, method: str, params: bytes) -> None:
        if self.standing is not None:
            self.standing.send(messages.notification(method, params))

    def lost(self) -> None:
        """Take note that the client does not come back for its standing stream."""
        standing, self.standing = self.standing, None
        if standing is not None:
            self._table.questions.end(standing, self.client.session, "The client is gone", withdraw=False)
        if self.listening is None or not self.listening.uris:
            self._table.forget(self.client.session)


class SessionTable:
    """Reach clients of the handshake era outside of their calls, and keep what they have set.

    Parameters
    ----------
    news
        What servers say without being asked; ``None``: nothing is passed on.
    config
        How long questions wait, and what is kept for clients that reconnect.
    worker
        The number of this worker process.
    """

    def __init__(self, news: News | None = None, config: ServeConfig | None = None, worker: int = 0) -> None:
        config = ServeConfig() if config is None else config
        self.questions: Questions = Questions(config.input_wait_s, worker)
        self.logs: EventLogs = EventLogs(config.resume.max_events, config.resume.keep_s, worker)
        self.levels: LogLevels = LogLevels()
        self.calls: RunningCalls = RunningCalls(self.questions, self.logs, self.levels)
        self._news = news
        self._live: dict[str, _Live] = {}

    def __len__(self) -> int:
        return len(self._live)

    # What servers send outside of calls

    def tell(self, session: str, method: str, params: bytes) -> bool:
        """Send a notification of a server on the standing stream of a session; return whether the client gets it.

        Parameters
        ----------
        session
            The name of the session: :attr:`Client.session`.
        method, params
            The notification; ``params`` is JSON. Log messages that are less severe than the session wants are dropped.
        """
        live = self._live.get(session)
        if live is None or live.standing is None:
            return False
        if method == LOG_MESSAGE and not self.levels.wants(session, params):
            return True
        return live.standing.send(messages.notification(method, params))

    def shows(self, session: str, server_id: str) -> bool:
        """Return whether the client of a session may see anything of a server; not if nothing is kept of the session."""
        live = self._live.get(session)
        return live is not None and live.shows(server_id)

    async def ask(self, session: str, method: str, params: bytes) -> bytes:
        """Ask the client of a session on its standing stream, and return the result as JSON.

        Raises
        ------
        RpcError
            Nobody listens, or as for :meth:`Questions.ask`.
        """
        live = self._live.get(session)
        if live is None or live.standing is None:
            raise RpcError(_UNREACHABLE, "The client listens to no stream", {"source": "gateway"})
        return await self.questions.ask(live.client, live.standing, method, params)

    # Standing streams

    def has_reader(self, session: str) -> bool:
        """Whether a connection reads the standing stream of a session."""
        live = self._live.get(session)
        return live is not None and live.standing is not None and live.standing.is_read

    def can_open(self, session: str) -> bool:
        """Whether there is room for the session; one that has subscriptions only, and no stream, may have to go."""
        if session in self._live or len(self._live) < _MOST_SESSIONS:
            return True
        unread = next((name for name, live in self._live.items() if live.standing is None), None)
        if unread is not None:
            self.forget(unread)
        return unread is not None

    def open(self, client: Client, endpoint: Endpoint, stream: EventStream) -> None:
        """Begin the standing stream of a session; one that nobody reads any more is forgotten."""
        live = self._live_of(client, endpoint)
        before = live.standing
        if before is not None:
            if isinstance(before, EventLog):
                before.on_lost = None
            before.close()
            self.questions.end(before, client.session, "The client is gone", withdraw=False)
        log = self.logs.begin(client, stream, is_standing=True)
        live.standing = log
        log.on_lost = live.lost
        self._listen(live)

    def connect(self, client: Client, endpoint: Endpoint, send: Callable[[bytes], None]) -> None:
        """Let everything outside of calls go to a connection, which is the session."""
        live = self._live_of(client, endpoint)
        live.standing = _Pipe(send)
        self._listen(live)

    async def subscribe(self, client: Client, endpoint: Endpoint, uri: str) -> None:
        """Tell a session of updates of a resource; raises as :meth:`Listening.subscribe` does."""
        if not self.can_open(client.session):
            raise RpcError(_UNREACHABLE, "Too many sessions have subscriptions", {"source": "gateway"})
        live = self._live_of(client, endpoint)
        self._listen(live)
        try:
            if live.listening is not None:
                await live.listening.subscribe(uri, client)
        finally:
            self._forget_if_idle(live)

    async def unsubscribe(self, client: Client, uri: str) -> None:
        """End a subscription; nothing happens without one."""
        live = self._live.get(client.session)
        if live is None or live.listening is None:
            return
        try:
            await live.listening.unsubscribe(uri)
        finally:
            self._forget_if_idle(live)

    def forget(self, session: str) -> None:
        """Forget the streams and subscriptions of a session, which may begin others."""
        live = self._live.pop(session, None)
        if live is None:
            return
        if live.listening is not None:
            live.listening.close()
        standing, live.standing = live.standing, None
        if standing is not None:
            if isinstance(standing, EventLog):
                standing.on_lost = None
            standing.close()

    # Ends

    def end(self, session: str) -> None:
        """End a session: its calls are cancelled, its streams end, and servers get no answers from it any more."""
        self.questions.end_session(session)
        self.calls.cancel_session(session)
        self.forget(session)
        self.logs.close_session(session)
        self.levels.forget(session)

    def interrupt(self) -> None:
        """End all standing streams, whose clients may resume them, as when the gateway drains."""
        for live in list(self._live.values()):
            if live.standing is not None:
                live.standing.interrupt()

    def close(self) -> None:
        """End all streams of all sessions."""
        for session in list(self._live):
            self.questions.end_session(session)
            self.forget(session)
        self.logs.close()

    def _live_of(self, client: Client, endpoint: Endpoint) -> _Live:
        live = self._live.get(client.session)
        if live is None:
            live = self._live[client.session] = _Live(self, client, endpoint)
        else:
            live.see(endpoint)
        return live

    def _listen(self, live: _Live) -> None:
        if live.listening is None and self._news is not None:
            live.listening = self._news.listen(live.endpoint, live.deliver, _LIST_CHANGES, live.client)

    def _forget_if_idle(self, live: _Live) -> None:
        if live.standing is None and (live.listening is None or not live.listening.uris):
            if self._live.get(live.client.session) is live:
                self.forget(live.client.session)
