"""The events of the fleet as server-sent events, for any number of readers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final

import msgspec
from aiohttp import web

from mcp_manager.events.records import Event, EventsMissed
from mcp_manager.events.stream import EventStream
from mcp_manager.gateway.admin.problems import refused
from mcp_manager.gateway.http.keep_alives import KeepAlives
from mcp_manager.gateway.http.web_requests import EVENT_FIELDS, WebEventStream
from mcp_manager.gateway.security.leases import Leases
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.manager import McpManager
from mcp_manager.runtime.background import background_task

__all__ = ["AdminEvents"]

_MOST_KEPT: Final = 2_000
_MOST_READERS: Final = 64
_RETRY_MS: Final = 2_000
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")


class AdminEvents:
    """Send the events of a fleet to whoever reads them.

    Every event has an id, ``{run}-{number}``: the run differs between processes, and the number rises by one. The last
    2,000 events are kept for readers that reconnect.

    Parameters
    ----------
    keep_alives
        Keeps quiet streams alive.
    leases
        Ends streams with the credentials of their readers.
    """

    def __init__(self, keep_alives: KeepAlives, leases: Leases) -> None:
        self._keep_alives = keep_alives
        self._leases = leases
        self._run = token_hex(4)
        self._number = 0
        self._kept: deque[bytes] = deque(maxlen=_MOST_KEPT)
        self._readers: set[WebEventStream] = set()
        self._events: EventStream | None = None
        self._following: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self._is_own: Callable[[str | None], bool] = bool
        self._also: AdminEvents | None = None

    def follow(self, manager: McpManager, is_own: Callable[[str | None], bool], also: AdminEvents | None) -> None:
        """Begin to take the events of a manager, which has been started.

        Parameters
        ----------
        manager
            The manager.
        is_own
            Tells whether this process tells of a server, by its id; ``None``: of what concerns no server.
        also
            What takes the same events, and no others; ``None`` without.
        """
        self._is_own, self._also = is_own, also
        self._events = manager.events(buffer=_MOST_KEPT)
        background_task(self._follow(self._events), "follow the events of the fleet", among=self._following)

    def end(self) -> None:
        """End all streams; readers that reconnect are refused. Idempotent."""
        self._is_over = True
        for reader in list(self._readers):
            reader.end()

    async def aclose(self) -> None:
        """End all streams, and take no more events. Idempotent."""
        self.end()
        if self._events is not None:
            self._events.close()
        for task in list(self._following):
            task.cancel()
        if self._following:
            await asyncio.wait(set(self._following))

    def take(self, kind: str, data: bytes) -> None:
        """Send an event to all readers, and keep it.

        Parameters
        ----------
        kind
            Its name.
        data
            The record as JSON, on one line.
        """
        self._number += 1
        sent = _event(kind, data, self._id())
        self._kept.append(sent)
        for reader in list(self._readers):
            reader.send(sent)

    async def serve(self, request: web.Request, principal: Principal) -> web.StreamResponse:
        """Send events to a client until it goes, its credentials end, or the gateway does.

        ``Last-Event-ID`` names the last event that the client has: the later ones come first. If they are not kept any
        more, or the id is of another run, an event ``missed`` says so.
        """
        if request.method == "HEAD":
            # A stream without a body would never end.
            return web.Response(headers=EVENT_FIELDS)
        if self._is_over:
            raise refused(503, "The gateway is shutting down", Retry_After="1")
        if len(self._readers) >= _MOST_READERS:
            text = f"There are {_MOST_READERS} clients that read events already"
            raise refused(503, text, hint="close one of them", Retry_After="5")
        stream = WebEventStream()
        self._readers.add(stream)
        self._keep_alives.add(stream)
        lease = self._leases.add(principal, stream)
        try:
            stream.send(self._beginning(request.headers.get("Last-Event-ID")))
            return await stream.serve(request)
        finally:
            lease.close()
            self._readers.discard(stream)
            self._keep_alives.discard(stream)

    def _beginning(self, last_id: str | None) -> bytes:
        """Return what a stream begins with: an id to resume from, and the events since the last one of the client."""
        # An id alone is no event, but clients remember it (WHATWG HTML, 9.2.6).
        greeting = f"retry: {_RETRY_MS}\nid: {self._id()}\n\n".encode()
        if last_id is None:
            return greeting
        found = _ID.fullmatch(last_id)
        missing = self._number - int(found[2]) if found is not None and found[1] == self._run else -1
        if 0 <= missing <= len(self._kept):
            return greeting if not missing else b"".join(list(self._kept)[-missing:])
        count = missing - len(self._kept) if missing > 0 else 0
        # Nobody knows how many events another run had.
        return _event("missed", msgspec.json.encode({"count": count or None}), self._id())

    async def _follow(self, events: EventStream) -> None:
        with events:
            async for event in events:
                if self._is_own(getattr(event, "server_id", None)):
                    kind, data = kind_of(event), event.to_json()
                    self.take(kind, data)
                    if self._also is not None:
                        self._also.take(kind, data)
        self.end()

    def _id(self) -> str:
        return f"{self._run}-{self._number}"


def kind_of(event: Event) -> str:
    """Return the name of an event: that of its class, in snake case."""
    return "missed" if isinstance(event, EventsMissed) else _WORD.sub("_", type(event).__name__).lower()


def _event(kind: str, data: bytes, event_id: str) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), kind.encode(), data)
