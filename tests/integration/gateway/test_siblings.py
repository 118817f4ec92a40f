"""Requests that are passed to another worker over its unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.workers.assignment import Assignment, socket_path
from mcp_manager.gateway.workers.listeners import Listeners
from mcp_manager.gateway.workers.siblings import Siblings
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.runtime.background import background_task

pytestmark = pytest.mark.both_loops

SECRET = "a secret of the workers"
CALL = b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{}}'


class Stream:
    """An event stream whose events are kept."""

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.is_open = True
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, events: bytes) -> None:
        self.sent.put_nowait(events)

    def end(self) -> None:
        self.is_open = False


class Request:
    """A request of a client, and what it is answered."""

    path = "/mcp"
    peer: object = ("::1", 7)

    def __init__(self, body: bytes = CALL, **fields: str) -> None:
        self.method = "POST"
        self.on_gone: Callable[[], None] | None = None
        self.body = body
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()}
        self.replied: tuple[int, bytes, bytes] | None = None
        self.stream: Stream | None = None
        self.is_streaming = asyncio.Event()

    def header(self, name: bytes) -> bytes | None:
        value = self._fields.get(name.decode())
        return None if value is None else value.encode()

    def fields(self) -> list[tuple[bytes, bytes]]:
        return [(name.title().encode(), value.encode()) for name, value in self._fields.items()]

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        assert self.replied is None
        self.replied = (status, body, fields)

    def open_events(self, fields: bytes = b"") -> EventStream:
        self.stream = Stream()
        self.is_streaming.set()
        return self.stream


def get() -> Request:
    """Return a GET for a stream."""
    request = Request(b"")
    request.method = "GET"
    return request


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def sibling(directory: Path, handler: Handler) -> AsyncIterator[Siblings]:
    """Run worker 1, and yield what worker 0 has for it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, socket_path(str(directory), 1)).start()
    siblings = Siblings(Assignment(0, 2, str(directory), SECRET, (), -1, -1))
    try:
        yield siblings
    finally:
        await siblings.aclose()
        await runner.cleanup()


async def test_a_request_is_passed_on_with_its_fields_and_what_shows_the_sibling(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update({name.lower(): value for name, value in request.headers.items()}, body=await request.text())
        return web.json_response({"ok": 1}, headers={"Mcp-Session-Id": "s", "Server": "x"})

    incoming = Request(
        mcp_session_id="s", accept="*/*", connection="close", mcp_manager_sibling="forged", mcp_manager_principal="root"
    )
    async with sibling(tmp_path, answer) as siblings:
        await siblings.forward(1, incoming, "Zoë/1")
    assert incoming.replied == (200, b'{"ok": 1}', b"Mcp-Session-Id: s\r\n")
    assert seen["body"] == CALL.decode()
    assert (seen["mcp-session-id"], seen["accept"]) == ("s", "*/*")
    received = Request(
        **{name.replace("-", "_"): value for name, value in seen.items() if name.startswith("mcp-manager-")}
    )
    trust = siblings.trust
    # The secret opens nothing over a network.
    assert not trust.is_sibling(received)
    received.peer = ""
    assert trust.is_sibling(received) and not trust.is_counted(received) and not trust.is_own(received)
    assert (trust.principal_of(received), trust.client_of(received)) == ("Zoë/1", "[::1]:7")
    assert not trust.is_sibling(incoming) and not trust.is_counted(incoming)
    # A request of the sibling itself comes over its unix socket only.
    own = Request(mcp_manager_sibling=seen["mcp-manager-sibling"])
    assert not trust.is_counted(own) and not trust.is_own(own)
    own.peer = ""
    assert trust.is_own(own) and trust.is_counted(own)
    assert incoming.on_gone is None


async def test_events_are_passed_on_while_they_come(tmp_path: Path) -> None:
    proceed = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\ndata: ")
        await proceed.wait()
        await response.write(b"2\n\n")
        return response

    incoming = Request()
    async with sibling(tmp_path, answer) as siblings:
        passing = background_task(siblings.forward(1, incoming), "forward")
        await incoming.is_streaming.wait()
        assert incoming.stream is not None
        assert await incoming.stream.sent.get() == b"data: 1\n\n"
        proceed.set()
        assert await incoming.stream.sent.get() == b"data: 2\n\n"
        await passing
    assert not incoming.stream.is_open


async def test_a_client_that_goes_ends_the_request_at_the_sibling(tmp_path: Path) -> None:
    arrived, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    incoming = Request()
    async with sibling(tmp_path, answer) as siblings:
        passing = background_task(siblings.forward(1, incoming), "forward")
        await arrived.wait()
        assert incoming.on_gone is not None
        incoming.on_gone()
        await passing
        await cancelled.wait()
    assert incoming.replied is None


async def test_a_sibling_that_ends_before_it_answers_is_told_as_unknown(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    incoming = Request()
    async with sibling(tmp_path, answer) as siblings:
        await siblings.forward(1, incoming)
    assert incoming.replied is not None
    status, body, _ = incoming.replied
    assert status == 200
    assert b'"id":"a"' in body
    assert b'"delivery":"unknown"' in body


async def test_a_sibling_that_ends_within_a_stream_is_told_on_the_stream(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        assert request.transport is not None
        request.transport.close()
        return response

    incoming = Request()
    async with sibling(tmp_path, answer) as siblings:
        await siblings.forward(1, incoming)
        standing = get()
        await siblings.forward(1, standing)
    assert incoming.stream is not None
    assert incoming.stream.sent.get_nowait() == b"data: 1\n\n"
    assert b'"delivery":"unknown"' in incoming.stream.sent.get_nowait()
    assert not incoming.stream.is_open
    assert incoming.replied is None
    # A standing stream has no reply to fail: its client opens it again.
    assert standing.stream is not None
    assert standing.stream.sent.get_nowait() == b"data: 1\n\n"
    assert standing.stream.sent.empty()
    assert not standing.stream.is_open


async def test_a_client_is_answered_whatever_fails_in_between(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({})

    def fields() -> list[tuple[bytes, bytes]]:
        raise ValueError("a fault of the gateway")

    incoming = Request()
    monkeypatch.setattr(incoming, "fields", fields)
    async with sibling(tmp_path, answer) as siblings:
        await siblings.forward(1, incoming)
    assert incoming.replied is not None
    status, body, _ = incoming.replied
    assert (status, b'"delivery":"unknown"' in body) == (200, True)
    assert "could not be passed to worker 1" in caplog.text


async def test_a_sibling_that_does_not_run_is_told_as_not_sent(tmp_path: Path) -> None:
    siblings = Siblings(Assignment(0, 2, str(tmp_path), SECRET, (), -1, -1))
    incoming = Request()
    await siblings.forward(1, incoming)
    assert incoming.replied is not None
    assert incoming.replied[0] == 200 and b'"delivery":"not_sent"' in incoming.replied[1]
    for unanswered in (
        Request(b'{"jsonrpc":"2.0","method":"notifications/x"}'),
        Request(b'{"jsonrpc":"2.0","id":"0.x","result":{}}'),
        get(),
    ):
        await siblings.forward(1, unanswered)
        assert unanswered.replied is not None
        assert (unanswered.replied[0], unanswered.replied[2]) == (503, b"Retry-After: 1\r\n")
    await siblings.aclose()


async def test_many_calls_wait_for_a_worker_that_does_not_accept(tmp_path: Path) -> None:
    with Listeners(("127.0.0.1", 0), 1) as listeners, ExitStack() as opened:
        ours, theirs = socket.socketpair()
        opened.enter_context(ours)
        opened.enter_context(theirs)
        held = [os.dup(each.fileno()) for each in (listeners.public[0], listeners.siblings[0])]
        worker = Worker(Assignment(0, 1, listeners.directory, SECRET, (), *held), theirs)
        opened.enter_context(worker.listener)
        await worker.listen_to_siblings(asyncio.Protocol)
        try:
            # The event loop gets no turn to accept one.
            for _ in range(300):
                waiting = opened.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(socket_path(listeners.directory, 0))
        finally:
            await worker.aclose()
