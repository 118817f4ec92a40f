"""A client of the handshake era and a server of that era, both moved by tests, message by message."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

__all__ = ["Event", "EventReader", "HeldCall", "MovedServer", "SessionClient", "events_of"]

WAIT_S: Final = 10.0
_ACCEPT: Final = {"Accept": "application/json, text/event-stream"}


@dataclass
class Event:
    """A server-sent event; ``message`` is ``None`` if it has no data."""

    id: str
    message: Any
    retry: int | None = None


class EventReader:
    """Read the events of a response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def next(self) -> Event | None:
        """Return the next event; ``None`` at the end of the stream."""
        fields: dict[str, list[str]] = {}
        async with asyncio.timeout(WAIT_S):
            while line := (await self.response.content.readline()).decode():
                line = line.rstrip("\n")
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(":")
                    fields.setdefault(name, []).append(value.removeprefix(" "))
                elif fields:
                    break
        if not fields:
            return None
        text = "\n".join(fields.get("data", []))
        self.last_id = fields.get("id", [self.last_id])[0]
        retry = int(fields["retry"][0]) if "retry" in fields else None
        return Event(fields.get("id", [""])[0], json.loads(text) if text else None, retry)

    async def message(self) -> Any:
        """Return the next message; the stream must have one."""
        while True:
            event = await self.next()
            assert event is not None, "the stream has ended"
            if event.message is not None:
                return event.message

    async def rest(self) -> list[Any]:
        """Return all messages until the stream ends."""
        messages = []
        while (event := await self.next()) is not None:
            if event.message is not None:
                messages.append(event.message)
        return messages

    def close(self) -> None:
        """Break the connection."""
        self.response.close()


def events_of(response: aiohttp.ClientResponse) -> EventReader:
    """Return the reader of a response, which must be a stream."""
    assert response.content_type == "text/event-stream", (response.status, response.content_type)
    return EventReader(response)


class SessionClient:
    """Speak the handshake era with an endpoint.

    Parameters
    ----------
    http
        Sends the requests.
    url
        The endpoint.
    revision
        The revision to ask for.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str, revision: str = "2025-11-25") -> None:
        self.http = http
        self.url = url
        self.revision = revision
        self.session_id: str | None = None
        self.ids = itertools.count(1)
        self.responses: list[aiohttp.ClientResponse] = []

    def close(self) -> None:
        """Break the connections of all responses that were not read to their end."""
        for response in self.responses:
            response.close()

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of a request in the session."""
        if self.session_id is None:
            return dict(_ACCEPT)
        return {**_ACCEPT, "Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": self.revision}

    async def begin(self, capabilities: dict[str, Any] | None = None) -> Self:
        """Make the handshake."""
        params = {
            "protocolVersion": self.revision,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        response = await self.post("initialize", params, 0)
        assert response.status == 200, await response.text()
        self.initialized = await response.json()
        self.session_id = response.headers["Mcp-Session-Id"]
        assert (await self.notify("notifications/initialized")).status == 202
        return self

    async def send(self, message: Any, **headers: str) -> aiohttp.ClientResponse:
        """POST any message."""
        response = await self.http.post(
            self.url, data=json.dumps(message), headers={"Content-Type": "application/json", **self.headers, **headers}
        )
        self.responses.append(response)
        return response

    async def post(self, method: str, params: Any = None, request_id: object = None) -> aiohttp.ClientResponse:
        """POST a request."""
        request = {"jsonrpc": "2.0", "id": next(self.ids) if request_id is None else request_id, "method": method}
        return await self.send(request if params is None else {**request, "params": params})

    async def request(self, method: str, params: Any = None, request_id: object = None) -> Any:
        """POST a request whose response is JSON, and return that."""
        response = await self.post(method, params, request_id)
        assert response.content_type == "application/json", response.content_type
        return await response.json()

    async def notify(self, method: str, params: Any = None) -> aiohttp.ClientResponse:
        """POST a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        return await self.send(message if params is None else {**message, "params": params})

    async def answer(self, request_id: object, result: Any) -> aiohttp.ClientResponse:
        """POST the answer to a request of the server."""
        return await self.send({"jsonrpc": "2.0", "id": request_id, "result": result})

    async def listen(self, last_event_id: str = "") -> EventReader:
        """Open the standing stream, or resume a stream."""
        response = await self.get(last_event_id)
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        return EventReader(response)

    async def get(self, last_event_id: str = "") -> aiohttp.ClientResponse:
        """GET a stream, and return the response."""
        headers = {**self.headers, "Accept": "text/event-stream"}
        response = await self.http.get(
            self.url, headers={**headers, "Last-Event-ID": last_event_id} if last_event_id else headers
        )
        self.responses.append(response)
        return response

    async def end(self) -> aiohttp.ClientResponse:
        """DELETE the session."""
        return await self.http.delete(self.url, headers=self.headers)


@dataclass
class HeldCall:
    """A request that a :class:`MovedServer` has received, and answers when a test says so.

    ``is_cut`` tells whether the client has closed the connection before the reply.
    """

    server: MovedServer
    message: dict[str, Any]
    session: str
    outgoing: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    is_cut: bool = False

    @property
    def name(self) -> str:
        """The name of the tool."""
        return str(self.message["params"]["name"])

    def send(self, method: str, params: Any) -> None:
        """Send a notification on the stream of the call."""
        self.outgoing.put_nowait({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: Any) -> asyncio.Future[Any]:
        """Send a request on the stream of the call; the future has the response."""
        request_id = next(self.server.request_ids)
        self.server.asked[request_id] = asyncio.get_running_loop().create_future()
        self.outgoing.put_nowait({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return self.server.asked[request_id]

    def reply(self, text: str = "done") -> None:
        """Answer."""
        result = {"content": [{"type": "text", "text": text}], "isError": False}
        self.outgoing.put_nowait({"jsonrpc": "2.0", "id": self.message["id"], "result": result})


class MovedServer:
    """Speak 2025-11-25 over HTTP; tests take its calls from :meth:`call` and answer them."""

    def __init__(self) -> None:
        self.capabilities: dict[str, Any] = {
            "tools": {"listChanged": True},
            "logging": {},
            "resources": {"subscribe": True},
        }
        self.request_ids = itertools.count(1000)
        self.asked: dict[int, asyncio.Future[Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.ended: list[str] = []
        # Everything that was received but calls, as (session, message).
        self.received: list[tuple[str, Any]] = []
        self.standing: dict[str, asyncio.Queue[Any]] = {}
        # The header fields of each POST, as text.
        self.headers: list[str] = []
        self.url = ""
        # Whether calls are answered with JSON, so that nothing is sent before the reply.
        self.replies_json = False
        self._calls: list[HeldCall] = []
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve on a port of the loopback interface."""
        app = web.Application()
        app.router.add_post("/mcp", self._post)
        app.router.add_get("/mcp", self._get)
        app.router.add_delete("/mcp", self._delete)
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def call(self, name: str) -> HeldCall:
        """Wait for a call of a tool, and take it."""
        await self.until(lambda: any(each.name == name for each in self._calls))
        found = next(each for each in self._calls if each.name == name)
        self._calls.remove(found)
        return found

    async def until(self, condition: Any) -> None:
        """Wait until a condition holds for what was received."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await self._changed.wait()

    def methods(self, session: str | None = None) -> list[str]:
        """Return the methods of all that was received but calls."""
        return [each.get("method", "") for name, each in self.received if session in (None, name)]

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        self.headers.append(repr(request.raw_headers))
        session = request.headers.get("Mcp-Session-Id", "")
        if message.get("method") == "initialize":
            return self._initialize(message)
        if session not in self.sessions:
            return web.Response(status=404)
        if message.get("method") == "tools/call":
            return await self._answer(request, HeldCall(self, message, session))
        self.received.append((session, message))
        asked = self.asked.pop(message.get("id"), None) if "method" not in message else None
        if asked is not None and not asked.done():
            asked.set_result(message)
        self._news()
        if "method" in message and "id" in message:
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": self._result(message)})
        return web.Response(status=202)

    def _initialize(self, message: Any) -> web.Response:
        session = f"up-{next(self._numbers)}"
        self.sessions[session] = message["params"]["capabilities"]
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": self.capabilities,
            "serverInfo": {"name": "moved", "version": "1"},
        }
        reply = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        return web.json_response(reply, headers={"Mcp-Session-Id": session})

    def _result(self, message: Any) -> dict[str, Any]:
        tools = [{"name": "hold", "inputSchema": {"type": "object"}}]
        return {"tools": tools} if message["method"] == "tools/list" else {}

    async def _answer(self, request: web.Request, call: HeldCall) -> web.StreamResponse:
        self._calls.append(call)
        self._news()
        if self.replies_json:
            return web.json_response(await call.outgoing.get())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                message = await call.outgoing.get()
                await response.write(b"data: " + json.dumps(message).encode() + b"\n\n")
                if message.get("id") == call.message["id"]:
                    return response
        except (asyncio.CancelledError, ConnectionError):
            call.is_cut = True
            self._news()
            raise

    async def _get(self, request: web.Request) -> web.StreamResponse:
        session = request.headers.get("Mcp-Session-Id", "")
        outgoing = self.standing[session] = asyncio.Queue()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._news()
        with suppress(ConnectionError):
            while True:
                message = await outgoing.get()
                await response.write(b"data: " + json.dumps(message).encode() + b"\n\n")
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        session = request.headers.get("Mcp-Session-Id", "")
        self.sessions.pop(session, None)
        self.ended.append(session)
        self._news()
        return web.Response()
