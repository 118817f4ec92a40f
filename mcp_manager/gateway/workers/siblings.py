"""``Siblings``: requests of clients that belong to another worker are passed to it over its unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from mcp_manager._core.jsonrpc import FrameError, scan
from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.security.audit_lines import address_of
from mcp_manager.gateway.workers.assignment import Assignment, socket_path
from mcp_manager.gateway.workers.event_blocks import EventBlocks
from mcp_manager.gateway.workers.trust import OWN_FIELDS, Trust
from mcp_manager.runtime.background import background_task

__all__ = ["SiblingAnswer", "Siblings"]

_log = logging.getLogger(__name__)

_UNREACHABLE: Final = -32006
_LOST: Final = -32000
_RETRY_AFTER_MS: Final = 1_000
_RETRY_AFTER: Final = b"Retry-After: 1\r\n"
_CONNECT_S: Final = 5.0
# What all siblings are told may wait for one that is being restarted, but not for long.
_TELL_S: Final = 10.0
_MOST_TOLD_AT_ONCE: Final = 1_000
_EVENTS: Final = "text/event-stream"
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"transfer-encoding",
        b"content-length",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"accept-encoding",
    }
)
# The others are made by the worker that the client is connected to.
_RETURNED: Final = frozenset({"www-authenticate", "retry-after", "allow", "vary"})
_RETURNED_PREFIXES: Final = ("mcp-", "access-control-")


class SiblingAnswer(NamedTuple):
    """A response of a sibling."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Siblings:
    """The other workers, as one worker reaches them.

    Nothing is sent twice: every request gets a connection of its own, so that one which fails after it was sent is
    reported with ``delivery`` ``unknown``, and one which cannot be sent with ``not_sent``. A sibling that is being
    restarted answers a little later: the parent holds its socket, in whose queue requests wait.

    Parameters
    ----------
    assignment
        What this worker is.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.number: int = assignment.number
        self.count: int = assignment.count
        self.trust: Trust = Trust(assignment.secret)
        self._directory = assignment.directory
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        self._telling: set[asyncio.Task[Any]] = set()

    @property
    def others(self) -> list[int]:
        """The numbers of the other workers."""
        return [number for number in range(self.count) if number != self.number]

    async def aclose(self) -> None:
        """Close all connections to siblings."""
        for task in list(self._telling):
            task.cancel()
        if self._telling:
            await asyncio.wait(self._telling)
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def forward(self, worker: int, incoming: Incoming, principal: str = ANONYMOUS) -> None:
        """Let a sibling answer a request, and pass on its response while it comes.

        Parameters
        ----------
        worker
            The number of the sibling.
        incoming
            The request. If its client goes, the sibling is told so.
        principal
            Whom the request is made for.
        """
        passing = asyncio.current_task()
        assert passing is not None
        is_gone = False

        def gone() -> None:
            nonlocal is_gone
            is_gone = True
            passing.cancel()

        incoming.on_gone = gone
        try:
            await self._pass_on(worker, incoming, principal)
        except asyncio.CancelledError:
            # A task that serves several requests of one connection goes on, unless somebody else cancelled it as well.
            if not is_gone or passing.uncancel():
                raise
        finally:
            incoming.on_gone = None

    async def _pass_on(self, worker: int, incoming: Incoming, principal: str) -> None:
        stream = None
        body = incoming.body
        try:
            async with self._session(worker).request(
                incoming.method,
                _url(incoming.path),
                data=body or None,
                headers=self._headers(incoming.fields(), principal, address_of(incoming.peer)),
                allow_redirects=False,
            ) as response:
                if response.content_type != _EVENTS:
                    incoming.reply(response.status, await response.read(), _returned(response))
                    return
                stream = incoming.open_events(_returned(response))
                # Both may be the same object.
                called, incoming.on_gone = incoming.on_gone, None
                stream.on_gone = called
                blocks = EventBlocks()
                async for chunk in response.content.iter_any():
                    if complete := blocks.take(chunk):
                        stream.send(complete)
                stream.on_gone = None
                stream.end()
        except Exception as error:
            if isinstance(error, aiohttp.ClientError | OSError | TimeoutError):
                _log.warning("worker %d did not answer a request: %s", worker, type(error).__name__)
            else:
                # A fault of this program: the client is answered all the same.
                _log.exception("a request could not be passed to worker %d", worker)
            is_sent = not isinstance(error, aiohttp.ClientConnectorError)
            if stream is not None:
                stream.on_gone = None
            if incoming.method != "POST":
                # The client opens its stream again, and resumes what can be resumed.
                if stream is None:
                    incoming.reply(502 if is_sent else 503, b"", _RETRY_AFTER)
                else:
                    stream.end()
                return
            id_raw = _id_of(body)
            refusal = _refusal(id_raw, is_sent=is_sent)
            if stream is not None:
                stream.send(messages.event(refusal))
                stream.end()
            elif id_raw == messages.NO_ID:
                # A notification or an answer has no reply but the status (2025-11-25, basic/transports).
                incoming.reply(503, refusal, _RETRY_AFTER)
            else:
                incoming.reply(200, refusal)
        finally:
            # Its callback refers to the task, which holds this frame.
            if stream is not None:
                stream.on_gone = None

    async def relay(self, worker: int, request: web.Request, principal: str = ANONYMOUS) -> web.StreamResponse:
        """Let a sibling answer a request that ``aiohttp.web`` serves, such as a POST of HTTP+SSE.

        Returns
        -------
        The response, complete or sent already.
        """
        peer = None if request.transport is None else request.transport.get_extra_info("peername")
        try:
            async with self._session(worker).request(
                request.method,
                _url(request.raw_path),
                data=await request.read() if request.can_read_body else None,
                headers=self._headers(request.raw_headers, principal, address_of(peer)),
                allow_redirects=False,
            ) as response:
                kept = CIMultiDict(
                    (name, value)
                    for name, value in response.headers.items()
                    if name.lower().encode() not in _HOP_BY_HOP and name.lower() not in ("date", "server")
                )
                if response.content_type != _EVENTS:
                    return web.Response(status=response.status, body=await response.read(), headers=kept)
                stream = web.StreamResponse(status=response.status, headers=kept)
                try:
                    await stream.prepare(request)
                    async for chunk in response.content.iter_any():
                        await stream.write(chunk)
                    await stream.write_eof()
                except (aiohttp.ClientError, ConnectionError, TimeoutError):
                    # Either end may be gone. The client reconnects, and resumes what can be resumed.
                    _log.info("a stream of worker %d broke off", worker)
                    if request.transport is not None:
                        request.transport.abort()
                return stream
        except aiohttp.ClientConnectorError:
            return web.Response(status=503, headers={"Retry-After": "1"})
        except aiohttp.ClientError:
            return web.Response(status=502)

    def tell_all(
        self, method: str, path: str, fields: Iterable[tuple[bytes, bytes]], body: bytes, principal: str
    ) -> None:
        """Send a request to all siblings and ignore their answers: what ends a session or cancels a call."""
        headers = self._headers(fields, principal)
        for worker in self.others:
            if len(self._telling) >= _MOST_TOLD_AT_ONCE:
                _log.warning("siblings are too slow: a %s was not passed to worker %d", method, worker)
                continue
            telling = self._tell(worker, method, path, headers, body)
            background_task(telling, f"tell worker {worker}", among=self._telling)

    async def _tell(self, worker: int, method: str, path: str, headers: CIMultiDict[str], body: bytes) -> None:
        try:
            async with (
                asyncio.timeout(_TELL_S),
                self._session(worker).request(method, _url(path), data=body, headers=headers) as response,
            ):
                await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _log.info("worker %d was not told of a %s: %s", worker, method, type(error).__name__)

    async def get(self, path: str, timeout_s: float, fields: Mapping[str, str] | None = None) -> dict[int, bytes]:
        """Return what each sibling answers to a GET with status 200, by number; those that do not in time are left out."""
        headers = self._headers((), ANONYMOUS)
        headers.update(fields or {})

        async def one(worker: int) -> None:
            try:
                async with (
                    asyncio.timeout(timeout_s),
                    self._session(worker).get(_url(path), headers=headers) as response,
                ):
                    body = await response.read()
                    if response.status == 200:
                        found[worker] = body
            except (aiohttp.ClientError, OSError, TimeoutError):
                _log.info("worker %d did not answer %s", worker, path)

        found: dict[int, bytes] = {}
        await asyncio.gather(*(one(worker) for worker in self.others))
        return found

    async def ask(
        self, worker: int, method: str, path: str, body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> SiblingAnswer | None:
        """Return what a sibling answers to a request of this program; ``None`` if it does not answer."""
        headers = self._headers((), ANONYMOUS)
        headers.update(fields or {})
        try:
            async with self._session(worker).request(
                method, _url(path), data=body or None, headers=headers, allow_redirects=False
            ) as response:
                return SiblingAnswer(response.status, CIMultiDict(response.headers), await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _log.info("worker %d did not answer %s: %s", worker, path, type(error).__name__)
            return None

    async def events(self, worker: int, path: str, last_id: str) -> AsyncIterator[bytes]:
        """Yield the blocks of an event stream of a sibling, until it ends."""
        headers = self._headers((), ANONYMOUS)
        if last_id:
            headers["Last-Event-ID"] = last_id
        blocks = EventBlocks()
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session(worker).get(_url(path), headers=headers) as response:
                async for chunk in response.content.iter_any():
                    for block in blocks.take(chunk).split(b"\n\n")[:-1]:
                        yield block

    def _session(self, worker: int) -> aiohttp.ClientSession:
        session = self._sessions.get(worker)
        if session is None:
            # A connection that was kept may end just when a request is sent on it, and nobody knows what became of it.
            connector = aiohttp.UnixConnector(socket_path(self._directory, worker), force_close=True, limit=0)
            session = self._sessions[worker] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return session

    def _headers(
        self, fields: Iterable[tuple[bytes, bytes]], principal: str, client: str | None = None
    ) -> CIMultiDict[str]:
        passed: CIMultiDict[str] = CIMultiDict(self.trust.fields(principal, client))
        for name, value in fields:
            lower = name.lower()
            if lower not in _HOP_BY_HOP and lower not in OWN_FIELDS:
                passed.add(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
        return passed


def _url(path: str) -> URL:
    return URL(f"http://localhost{path}", encoded=True)


def _returned(response: aiohttp.ClientResponse) -> bytes:
    return b"".join(
        f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")
        for name, value in response.headers.items()
        if name.lower() in _RETURNED or name.lower().startswith(_RETURNED_PREFIXES)
    )


def _id_of(body: bytes) -> bytes:
    """Return the id of a request, ``null`` for anything else."""
    try:
        message = scan(body)
    except FrameError:
        return messages.NO_ID
    return messages.NO_ID if message.method is None or message.id_raw is None else message.id_raw


def _refusal(id_raw: bytes, *, is_sent: bool) -> bytes:
    """Return the error response to a message that a sibling has not answered."""
    data = {
        "source": "gateway",
        "delivery": "unknown" if is_sent else "not_sent",
        "retryAfterMs": _RETRY_AFTER_MS,
        "hint": "a worker process of the gateway ended and is started again",
    }
    if is_sent:
        return messages.error(id_raw, _LOST, "The worker that served this session ended before it answered", data)
    return messages.error(id_raw, _UNREACHABLE, "The worker that serves this session is not running", data)
