"""A scripted MCP server over streamable HTTP: it answers correctly, or with the faults of a script."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from support.listening import stop_listening
from support.watching import Watched

__all__ = ["Connection", "Fault", "Request", "ScriptedServer"]

_LAST_KNOWN_REVISION: Final = "2025-11-25"
_WAIT_S: Final = 10.0
_REASONS: Final = {200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found"}
_TOOLS: Final = [
    {
        "name": "echo",
        "description": "Return the text.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    }
]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request as it arrived.

    ``verb`` is the HTTP method, ``method`` the JSON-RPC method or ``None``. ``number`` is the number of the request and
    ``connection`` that of its connection, both counted from 0 for each server. Header names are in lower case.
    """

    number: int
    connection: int
    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    message: Any

    @property
    def method(self) -> str | None:
        return self.message.get("method") if isinstance(self.message, dict) else None

    @property
    def id(self) -> Any:
        return self.message.get("id") if isinstance(self.message, dict) else None

    @property
    def params(self) -> Any:
        return self.message.get("params") if isinstance(self.message, dict) else None


class Fault(Protocol):
    """What a server does instead of answering correctly; see ``support.faults``."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        """Play the fault; ``request`` is ``None`` on a new connection from which nothing was read yet."""


class ScriptedServer(Watched):
    """Serve MCP 2025-11-25 on a thread of its own; ``with`` starts and ends it.

    Parameters
    ----------
    sse
        Answer requests with an event stream instead of JSON.
    sessions
        Issue session ids and require them.
    lost_session_status
        The status for a lost session: 404 as specified, or the 400 that several servers send.
    tls
        The context with which to serve https.
    host, port
        The address and port of the loopback interface to listen on; port 0 for any free one.
    unix
        The path of a unix socket to listen on instead.
    """

    def __init__(
        self,
        *,
        sse: bool = False,
        sessions: bool = True,
        lost_session_status: int = 404,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: str | None = None,
    ) -> None:
        super().__init__()
        self.unix = unix
        self.sse = sse
        self.tls = tls
        self.sessions = sessions
        self.lost_session_status = lost_session_status
        self.executed: list[str] = []
        # The cookie that each proper answer sets, "" for none.
        self.cookie: Callable[[Request], str] = lambda request: ""
        self.peak_connections = 0
        self.host = host
        self.port = port
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._live_sessions: set[str] = set()
        self._session_numbers = itertools.count(1)
        self._connection_numbers = itertools.count()
        self._connections: set[Connection] = set()
        self._scripts: dict[str, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self._standing: dict[str, Fault] = {}
        self._on_connect: collections.deque[Fault] = collections.deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-server", daemon=True)
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._thread is not None
        self._run(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What tests set

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        if self.unix is not None:
            return "http://localhost/mcp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/mcp"

    def script(self, on: str, *faults: Fault, times: int = 1) -> None:
        """Play these faults, the whole sequence ``times`` times, for the next requests that match.

        ``on`` is a JSON-RPC method, an HTTP method (``DELETE``), or ``*`` for any POST without a script of its own.
        """
        with self._lock:
            self._scripts[on].extend(faults * times)

    def script_always(self, on: str, fault: Fault | None) -> None:
        """Play a fault for every matching request after its script is used up; ``None`` ends that."""
        with self._lock:
            if fault is None:
                self._standing.pop(on, None)
            else:
                self._standing[on] = fault

    def script_connections(self, *faults: Fault, times: int = 1) -> None:
        """Play these faults on the next connections, before a request is read."""
        with self._lock:
            self._on_connect.extend(faults * times)

    def begin_session(self) -> str:
        """Create a session and return its id."""
        session_id = f"session-{next(self._session_numbers)}"
        with self._lock:
            self._live_sessions.add(session_id)
        return session_id

    def expire_sessions(self) -> None:
        """Forget all sessions."""
        with self._lock:
            self._live_sessions.clear()

    def listen(self) -> None:
        """Accept connections on the same port as before; ``with`` has already done so."""
        self._run(self._listen())

    def refuse_connections(self) -> None:
        """Close the listener and reset all connections, so that new ones are refused."""
        self._run(self._stop_listening())

    # What tests look at

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    def requests_of(self, method: str) -> list[Request]:
        """Return the requests with one JSON-RPC or HTTP method."""
        return [each for each in self.requests if method in (each.method, each.verb)]

    def forget(self) -> None:
        """Forget all requests, and which of them were executed."""
        with self._lock:
            self._requests.clear()
            self.executed.clear()

    @property
    def live_sessions(self) -> set[str]:
        """The sessions that were neither deleted nor expired."""
        with self._lock:
            return set(self._live_sessions)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._connections)

    def is_open(self, connection: int) -> bool:
        """Whether the connection of that number is open."""
        with self._lock:
            return any(each.number == connection for each in self._connections)

    @property
    def connections(self) -> set[Connection]:
        """The open connections."""
        with self._lock:
            return set(self._connections)

    async def wait_for(self, method: str, count: int = 1) -> None:
        """Wait until ``count`` requests of a method have arrived."""
        await self.wait_until(lambda: len(self.requests_of(method)) >= count)

    # Correct answers

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        """Return the status, headers and JSON-RPC reply that the specification requires."""
        if request.verb == "DELETE":
            return self._delete(request)
        if request.verb != "POST":
            return 405, {"Allow": "POST, DELETE"}, None
        if not isinstance(request.message, dict):
            return 400, {}, _error(None, -32700, "Parse error")
        if request.method == "initialize":
            return self._initialize(request)
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if request.method is None or "id" not in request.message:
            return 202, {}, None
        return 200, {}, self._result(request)

    def _initialize(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any]]:
        offered = request.params.get("protocolVersion") if isinstance(request.params, dict) else None
        headers = {}
        if self.sessions:
            headers["Mcp-Session-Id"] = self.begin_session()
        result: dict[str, Any] = {
            "protocolVersion": offered if offered in ("2025-06-18", "2025-03-26") else _LAST_KNOWN_REVISION,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }
        return 200, headers, {"jsonrpc": "2.0", "id": request.id, "result": result}

    def _refusal(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any]] | None:
        if "mcp-protocol-version" not in request.headers:
            return 400, {}, _error(None, -32600, "Bad Request: MCP-Protocol-Version is missing")
        if not self.sessions:
            return None
        session_id = request.headers.get("mcp-session-id")
        if session_id is None:
            return 400, {}, _error(None, -32600, "Bad Request: Missing session ID")
        with self._lock:
            known = session_id in self._live_sessions
        if known:
            return None
        text = "Session not found" if self.lost_session_status == 404 else "Bad Request: No valid session ID provided"
        return self.lost_session_status, {}, _error(None, -32000, text)

    def _result(self, request: Request) -> dict[str, Any]:
        params = request.params if isinstance(request.params, dict) else {}
        result: dict[str, Any] = {}
        match request.method:
            case "ping":
                pass
            case "tools/list":
                result = {"tools": _TOOLS}
            case "tools/call":
                text = params.get("arguments", {}).get("text", "")
                with self._lock:
                    self.executed.append(text)
                result = {"content": [{"type": "text", "text": text}], "isError": False}
            case _:
                return _error(request.id, -32601, f"Method not found: {request.method}")
        return {"jsonrpc": "2.0", "id": request.id, "result": result}

    def _delete(self, request: Request) -> tuple[int, dict[str, str], None]:
        with self._lock:
            known = request.headers.get("mcp-session-id") in self._live_sessions
            self._live_sessions.discard(request.headers.get("mcp-session-id", ""))
        return (200 if known else 404), {}, None

    def cookie_fields(self, request: Request) -> dict[str, str]:
        """Return the header field that sets a cookie in the answer to a request."""
        cookie = self.cookie(request)
        return {"Set-Cookie": cookie} if cookie else {}

    # Internal parts

    def take_fault(self, request: Request) -> Fault | None:
        """Take the next fault of the script for a request; ``None`` if it is to be answered correctly."""
        names = [request.method, request.verb if request.verb != "POST" else None]
        if request.verb == "POST":
            names.append("*")
        with self._lock:
            for name in names:
                if name is not None and self._scripts.get(name):
                    return self._scripts[name].popleft()
            return next((self._standing[name] for name in names if name in self._standing), None)

    def record(self, connection: Connection, verb: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Record a request."""
        try:
            message = json.loads(body) if body else None
        except ValueError:
            message = None
        with self._lock:
            request = Request(
                number=len(self._requests),
                connection=connection.number,
                verb=verb,
                path=path,
                headers=headers,
                body=body,
                message=message,
            )
            self._requests.append(request)
        self.news()
        return request

    def connected(self, connection: Connection) -> Fault | None:
        """Record a new connection; return the fault to play before reading, or ``None``."""
        with self._lock:
            self._connections.add(connection)
            self.peak_connections = max(self.peak_connections, len(self._connections))
            fault = self._on_connect.popleft() if self._on_connect else None
        self.news()
        return fault

    def disconnected(self, connection: Connection) -> None:
        """Record that a connection is closed."""
        with self._lock:
            self._connections.discard(connection)
        self.news()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self.unix is not None:
            numbers = self._connection_numbers
            self._listener = await loop.create_unix_server(lambda: Connection(self, next(numbers)), self.unix)
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=512)
        # asyncio sets this only if the socket's protocol is given; without it a reply in two writes takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        number = self._connection_numbers
        self._listener = await loop.create_server(lambda: Connection(self, next(number)), sock=listener, ssl=self.tls)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await stop_listening(listener)
        # Connection tasks and transports begin and end within the next event-loop iterations.
        while asyncio.all_tasks() != {asyncio.current_task()} or self._connections:
            for connection in list(self._connections):
                connection.reset()
            await asyncio.sleep(0)

    async def _shut_down(self) -> None:
        await self._stop_listening()


class Connection(asyncio.Protocol):
    """One connection of a client, HTTP/1.1 with keep-alive, and the operations that faults use to break it."""

    def __init__(self, server: ScriptedServer, number: int) -> None:
        self.server = server
        self.number = number
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self.server.disconnected(self)

    # Operations for faults

    async def write(self, data: bytes) -> None:
        """Send raw bytes."""
        assert self._transport is not None
        await self._writable.wait()
        if self._transport.is_closing():
            await self.hang()
        self._transport.write(data)

    async def respond(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", *, reason: str = ""
    ) -> None:
        """Send a whole HTTP response with ``Content-Length``."""
        fields = {**(headers or {}), "Content-Length": str(len(body))}
        if status == 204:
            del fields["Content-Length"]
        await self.write(head(status, fields, reason) + body)

    async def open_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a chunked event stream."""
        fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **(headers or {})}
        await self.write(head(200, fields))

    async def write_chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends it."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self, request: Request) -> None:
        """Answer correctly."""
        status, headers, reply = self.server.answer(request)
        headers = {**headers, **self.server.cookie_fields(request)}
        if reply is None:
            await self.respond(status, headers)
        elif self.server.sse and status == 200:
            await self.open_stream(headers)
            await self.write_chunk(event(reply))
            await self.write_chunk(b"")
        else:
            await self.respond(status, {**headers, "Content-Type": "application/json"}, encode(reply))
        self.server.news()

    def reset(self) -> None:
        """Close with a TCP reset (RFC 9293, section 3.5.2: SO_LINGER 0)."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close in an orderly way after everything written is sent."""
        assert self._transport is not None
        self._transport.close()

    def end_writing(self) -> None:
        """Close only the server's direction of the connection."""
        assert self._transport is not None
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    async def hang(self) -> None:
        """Do nothing until the client disconnects, which cancels this."""
        await asyncio.Event().wait()

    async def _serve(self) -> None:
        fault = self.server.connected(self)
        if fault is not None:
            await fault.play(self, None)
        assert self._transport is not None
        while not self._transport.is_closing():
            request = await self._read_request()
            fault = self.server.take_fault(request)
            if fault is None:
                await self.answer(request)
            else:
                await fault.play(self, request)
            # Nothing may keep an answered request in memory.
            del request, fault

    async def _read_request(self) -> Request:
        raw_head = (await self._read_until(b"\r\n\r\n")).decode("latin-1")
        start, *lines = raw_head.rstrip("\r\n").split("\r\n")
        verb, path, _ = start.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        assert "chunked" not in headers.get("transfer-encoding", ""), "the scripted server reads no chunked requests"
        body = await self._read_exactly(int(headers.get("content-length", "0")))
        return self.server.record(self, verb, path, headers, body)

    async def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            await self._more()
        return self._take(end + len(mark))

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def head(status: int, fields: Mapping[str, str], reason: str = "") -> bytes:
    """Encode the head of an HTTP response."""
    lines = [f"HTTP/1.1 {status} {reason or _REASONS.get(status, 'Scripted')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def encode(message: object) -> bytes:
    """Encode a JSON-RPC message."""
    return json.dumps(message).encode()


def event(message: object) -> bytes:
    """Encode a JSON-RPC message as one server-sent event."""
    return b"event: message\ndata: " + encode(message) + b"\n\n"


def _error(request_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
