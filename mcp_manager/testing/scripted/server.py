"""A scripted MCP server over streamable HTTP: it answers correctly, or with the faults of a script."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

from mcp_manager.testing.scripted.connection import Connection, Fault, Request
from mcp_manager.testing.scripted.listening import stop_listening
from mcp_manager.testing.scripted.watching import Watched

__all__ = ["ScriptedServer"]

_LAST_KNOWN_REVISION: Final = "2025-11-25"
_WAIT_S: Final = 10.0
_TOOLS: Final = [
    {
        "name": "echo",
        "description": "Return the text.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    }
]


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
        self.peak_connections: int = 0
        self.host = host
        self.port: int = port
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
        self._background: set[asyncio.Task[Any]] = set()
        self.is_ending: bool = False

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-server", daemon=True)
        self._thread.start()
        try:
            self.listen()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._thread is not None
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

    def control(self, request: Request) -> tuple[int, bytes] | None:
        """Return ``None``: this server is not controlled over the wire."""
        return None

    def record(self, request: Request) -> Request:
        """Record a request and return it with its number."""
        with self._lock:
            recorded = dataclasses.replace(request, number=len(self._requests))
            self._requests.append(recorded)
        self.news()
        return recorded

    async def before(self, request: Request) -> None:
        """Wait before a request is answered; this server does not."""

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

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin work beside the connections, on the server's loop; it is cancelled at the end."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
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
        mine = asyncio.current_task()
        while asyncio.all_tasks() - self._background - {mine} or self._connections:
            for connection in list(self._connections):
                connection.reset()
            await asyncio.sleep(0)

    async def _shut_down(self) -> None:
        self.is_ending = True
        background = list(self._background)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._stop_listening()


def _error(request_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
