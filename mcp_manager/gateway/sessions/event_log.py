"""Event streams that a client can resume: what was sent on them is kept for a while."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Final

from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.client import Client
from mcp_manager.runtime.background import bare_context

__all__ = ["EventLog", "EventLogs"]

_RESUMABLE: Final = frozenset({"2025-03-26", "2025-06-18", "2025-11-25"})
_PRIMED: Final = frozenset({"2025-11-25"})
_RETRY: Final = b"retry: 1000\n\n"
_PRIMING: Final = b"id: %b\nretry: 1000\ndata: \n\n"
_MOST_BYTES_OF_ONE: Final = 8 * 1024 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_LOGS: Final = 50_000
_STANDING: Final = "s"
_OF_CALL: Final = "c"


class EventLog:
    """One stream of events to a client: sent to the connection that reads them, and kept for the next one.

    Made by :meth:`EventLogs.begin`. ``session`` names the session that it belongs to.

    Attributes
    ----------
    on_lost
        Called once when the client is gone and can no longer resume the stream.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_expiry",
        "_key",
        "_logs",
        "_next",
        "_stream",
        "is_ended",
        "is_lost",
        "on_lost",
        "session",
    )

    def __init__(self, logs: EventLogs, key: bytes, session: str) -> None:
        self._logs = logs
        # Empty if nothing is kept.
        self._key = key
        self.session: str = session
        # Made with the first event that is kept: most standing streams are idle.
        self._events: deque[bytes] | None = None
        self._bytes = 0
        self._next = 0
        self._stream: EventStream | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.is_ended: bool = False
        self.is_lost: bool = False
        self.on_lost: Callable[[], None] | None = None

    @property
    def is_read(self) -> bool:
        """Whether a connection of the client reads the stream."""
        return self._stream is not None

    def send(self, message: bytes) -> bool:
        """Send a message as an event; return whether the client reads it now, or may read it later."""
        if self.is_ended or self.is_lost:
            return False
        if self._key:
            event = messages.event(message, b"%b.%d" % (self._key, self._next))
            self._append(event)
        else:
            event = messages.event(message)
        if self._stream is not None:
            self._stream.send(event)
        return True

    def prime(self) -> None:
        """Send an event without a message, so that the client knows where to resume (2025-11-25, basic/transports)."""
        assert self._stream is not None
        # Not kept: who resumes has received it.
        self._stream.send(_PRIMING % (b"%b.%d" % (self._key, self._next)))
        self._next += 1

    def attach(self, stream: EventStream, after: int = -1) -> None:
        """Send all events after a number to a connection of the client, and those to come; see :meth:`can_resume`."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        before, self._stream = self._stream, stream
        if before is not None:
            before.on_gone = None
            before.end()
        stream.on_gone = self._detach
        missed = self._next - 1 - after
        if missed and self._events is not None:
            stream.send(b"".join(list(self._events)[-missed:]))
        if self.is_ended:
            self._leave(stream)

    def can_resume(self, after: int) -> bool:
        """Whether all events after that number are kept."""
        kept = 0 if self._events is None else len(self._events)
        return not self.is_lost and self._next - kept - 1 <= after < self._next

    def end(self) -> None:
        """End the stream after what was sent; its events are kept for a client that did not get them. Idempotent."""
        if self.is_ended:
            return
        self.is_ended = True
        if self._stream is not None:
            self._leave(self._stream)

    def interrupt(self) -> None:
        """End the connection of the client, which may resume the stream."""
        if self._stream is not None:
            if self._key:
                self._stream.send(_RETRY)
            self._leave(self._stream)

    def close(self) -> None:
        """End the stream, and forget its events. Idempotent."""
        self.end()
        self._lose()

    def drop_events(self) -> None:
        """Drop all events that are kept, to save memory."""
        self._events = None
        self._logs.bytes -= self._bytes
        self._bytes = 0

    def _append(self, event: bytes) -> None:
        if self._events is None:
            self._events = deque()
        events = self._events
        events.append(event)
        self._next += 1
        self._bytes += len(event)
        self._logs.bytes += len(event)
        while len(events) > self._logs.max_events or self._bytes > _MOST_BYTES_OF_ONE:
            length = len(events.popleft())
            self._bytes -= length
            self._logs.bytes -= length
        if self._logs.bytes > _MOST_BYTES:
            self._logs.make_room(self)

    def _leave(self, stream: EventStream) -> None:
        stream.on_gone = None
        stream.end()
        self._detach()

    def _detach(self) -> None:
        self._stream = None
        if not self._key or self.is_lost:
            self._lose()
            return
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(self._logs.keep_s, self._lose, context=bare_context())

    def _lose(self) -> None:
        """Forget the stream: the client is gone, and comes too late if it comes."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.is_lost:
            return
        self.is_lost = True
        self.drop_events()
        self._logs.forget(self._key)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()


class EventLogs:
    """All streams of this worker that clients can resume (2025-03-26 and later, basic/transports, resumability).

    An id of an event is ``{worker}.{stream}.{number}``; the stream's part begins with its kind, cannot be guessed, and
    works for one session.

    Parameters
    ----------
    max_events
        How many of the latest events of a stream are kept; 0: no stream can be resumed.
    keep_s
        Seconds that a stream is kept after its client is gone.
    worker
        The number of this worker process.
    """

    def __init__(self, max_events: int = 256, keep_s: float = 60.0, worker: int = 0) -> None:
        self.max_events: int = max_events
        self.keep_s: float = keep_s
        # How much all streams keep.
        self.bytes: int = 0
        self._worker = worker
        self._logs: dict[bytes, EventLog] = {}
        # A set only where there are several: most sessions have their standing stream alone.
        self._of_sessions: dict[str, EventLog | set[EventLog]] = {}

    def __len__(self) -> int:
        return len(self._logs)

    def begin(self, client: Client, stream: EventStream, *, is_standing: bool = False) -> EventLog:
        """Begin a stream on a connection of the client: of a call, or the standing one of its session."""
        key = b""
        if self.max_events and client.revision in _RESUMABLE and len(self._logs) < _MOST_LOGS:
            kind = _STANDING if is_standing else _OF_CALL
            key = f"{self._worker}.{kind}{token_urlsafe(12)}".encode("ascii")
        log = EventLog(self, key, client.session)
        if key:
            self._logs[key] = log
            self._remember(log)
        log.attach(stream)
        if key and client.revision in _PRIMED:
            log.prime()
        return log

    def _remember(self, log: EventLog) -> None:
        others = self._of_sessions.get(log.session)
        if others is None:
            self._of_sessions[log.session] = log
        elif isinstance(others, set):
            others.add(log)
        else:
            self._of_sessions[log.session] = {others, log}

    def find(self, client: Client, last_event_id: str) -> tuple[EventLog, int] | None:
        """Return the stream of an event, and the number of that event.

        Returns
        -------
        ``None`` if the client had no such stream, or if not all events after this one are kept.
        """
        key, _, number = last_event_id.rpartition(".")
        log = self._logs.get(key.encode("utf-8", "surrogateescape"))
        if (
            log is None
            or log.session != client.session
            or not (number.isascii() and number.isdigit() and len(number) < 20)
        ):
            return None
        after = int(number)
        return (log, after) if log.can_resume(after) else None

    def was_standing(self, last_event_id: str) -> bool:
        """Whether an event id has the form of one of a standing stream, which may be long forgotten."""
        _, _, stream = last_event_id.partition(".")
        return stream.startswith(_STANDING)

    def forget(self, key: bytes) -> None:
        """Forget a stream; called by it."""
        log = self._logs.pop(key, None)
        if log is not None:
            of_session = self._of_sessions[log.session]
            if isinstance(of_session, set) and len(of_session) > 1:
                of_session.discard(log)
            else:
                del self._of_sessions[log.session]

    def make_room(self, newest: EventLog) -> None:
        """Drop the events of the oldest streams, until half of the memory for events is free."""
        for log in self._logs.values():
            if log is not newest:
                log.drop_events()
            if self.bytes <= _MOST_BYTES // 2:
                return

    def close_session(self, session: str) -> None:
        """End all streams of a session, and forget their events."""
        of_session = self._of_sessions.get(session)
        if of_session is not None:
            for log in list(of_session) if isinstance(of_session, set) else [of_session]:
                log.close()

    def close(self) -> None:
        """End all streams."""
        for log in list(self._logs.values()):
            log.close()
