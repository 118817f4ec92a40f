"""A scripted server of 2026-07-28 with configurable subscriptions, caching hints and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer, event

__all__ = ["ALL_CAPABILITIES", "REVISION", "ListenStream", "Silence", "StatelessServer", "Task", "task_result"]

REVISION = "2026-07-28"
_SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"


@dataclass(frozen=True)
class Silence:
    """Open a listening stream and never acknowledge it."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        await connection.hang()


@dataclass
class ListenStream:
    """A ``subscriptions/listen`` request and the stream that answers it."""

    request: Request
    connection: Connection
    open: bool = True

    @property
    def asked(self) -> dict[str, Any]:
        """The requested filter."""
        asked: dict[str, Any] = self.request.params["notifications"]
        return asked


@dataclass
class Task:
    """A task of the extension.

    ``tasks/get`` answers with one of ``states`` after the other, and repeats the last one. ``asked`` are input requests
    by key: each is in every answer until ``tasks/update`` has answered it.
    """

    states: list[dict[str, Any]]
    asked: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    updates: int = 0
    polls: int = 0
    cancelled: bool = False


class StatelessServer(ScriptedServer):
    """Serve 2026-07-28 over HTTP on a thread of its own.

    Parameters
    ----------
    capabilities
        The capabilities in the result of ``server/discover``.
    results
        Results by method, or functions ``make(params)`` that return one.
    honour
        ``honour(asked)`` returns the filter to acknowledge; by default the whole requested one.
    """

    def __init__(
        self,
        *,
        capabilities: Mapping[str, Any] | None = None,
        results: Mapping[str, dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
        honour: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        sse: bool = False,
    ) -> None:
        super().__init__(sse=sse, sessions=False)
        self.capabilities = dict(capabilities if capabilities is not None else ALL_CAPABILITIES)
        self.results = dict(results or {})
        self.honour = honour
        self.tasks: dict[str, Task] = {}
        self._streams: list[ListenStream] = []
        self._streams_lock = threading.Lock()

    # What tests use

    @property
    def streams(self) -> list[ListenStream]:
        """The open listening streams, in the order of their requests."""
        with self._streams_lock:
            return [each for each in self._streams if each.open]

    def tell(self, method: str, params: Mapping[str, Any] | None = None, *, stream: ListenStream | None = None) -> None:
        """Send a notification on a listening stream, the last one by default."""
        target = stream or self.streams[-1]
        tagged = {**(params or {}), "_meta": {_SUBSCRIPTION_KEY: target.request.id}}
        self._on_loop(target.connection.write_chunk(event({"jsonrpc": "2.0", "method": method, "params": tagged})))

    def end_gracefully(self, stream: ListenStream | None = None) -> None:
        """End a listening stream with its result."""
        self._on_loop(self._end(stream or self.streams[-1]))

    def cancel(self, stream: ListenStream | None = None) -> None:
        """Send ``notifications/cancelled`` for a listening stream, without closing it."""
        target = stream or self.streams[-1]
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": target.request.id}}
        self._on_loop(target.connection.write_chunk(event(message)))

    def drop(self, stream: ListenStream | None = None) -> None:
        """Break the connection of a listening stream."""
        connection = (stream or self.streams[-1]).connection
        assert self._loop is not None
        self._loop.call_soon_threadsafe(connection.reset)

    async def wait_for_streams(self, count: int) -> None:
        """Wait until exactly ``count`` listening streams are open."""
        await self.wait_until(lambda: len(self.streams) == count)

    # Correct answers

    def take_fault(self, request: Request) -> Fault | None:
        fault = super().take_fault(request)
        if fault is None and request.method == "subscriptions/listen":
            return _Listen(self)
        return fault

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        if request.verb != "POST":
            return 405, {"Allow": "POST"}, None
        if not isinstance(request.params, dict) or _VERSION_KEY not in request.params.get("_meta", {}):
            return 400, {}, _error(request.id, -32600, "Bad Request: no stateless request")
        if request.id is None:
            return 202, {}, None
        assert request.headers["mcp-method"] == request.method
        reply = self._reply(request)
        missing = "error" in reply and reply["error"]["code"] == -32601
        return (404 if missing else 200), {}, reply

    def _reply(self, request: Request) -> dict[str, Any]:
        scripted = self.results.get(request.method or "")
        if scripted is not None:
            return _result(request.id, scripted(request.params) if callable(scripted) else scripted)
        match request.method:
            case "server/discover":
                return _result(request.id, {"supportedVersions": [REVISION], "capabilities": self.capabilities})
            case "tasks/get" | "tasks/update" | "tasks/cancel":
                assert request.headers["mcp-name"] == request.params["taskId"]
                return self._task(request)
            case _:
                return super()._result(request)

    def _task(self, request: Request) -> dict[str, Any]:
        task_id = request.params["taskId"]
        task = self.tasks.get(task_id)
        if task is None:
            return _error(request.id, -32602, "Unknown task")
        if request.method == "tasks/cancel":
            task.cancelled = True
            return _result(request.id, {"resultType": "complete"})
        if request.method == "tasks/update":
            task.updates += 1
            task.answers |= request.params["inputResponses"]
            return _result(request.id, {"resultType": "complete"})
        task.polls += 1
        open_questions = {key: each for key, each in task.asked.items() if key not in task.answers}
        if open_questions:
            state = {"status": "input_required", "inputRequests": open_questions}
        else:
            state = task.states.pop(0) if len(task.states) > 1 else task.states[0]
        return _result(request.id, task_result(task_id, state))

    # Internal parts

    def disconnected(self, connection: Connection) -> None:
        with self._streams_lock:
            for each in self._streams:
                if each.connection is connection:
                    each.open = False
        super().disconnected(connection)

    def opened(self, stream: ListenStream) -> None:
        """Record a listening stream."""
        with self._streams_lock:
            self._streams.append(stream)
        self.news()

    def _on_loop(self, work: Any) -> None:
        self._run(work)

    async def _end(self, stream: ListenStream) -> None:
        meta = {_SUBSCRIPTION_KEY: stream.request.id}
        stream.open = False
        await stream.connection.write_chunk(
            event(_result(stream.request.id, {"resultType": "complete", "_meta": meta}))
        )
        await stream.connection.write_chunk(b"")
        stream.connection.close()


@dataclass(frozen=True)
class _Listen:
    server: StatelessServer

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        assert request.headers["mcp-method"] == "subscriptions/listen"
        stream = ListenStream(request, connection)
        honoured = self.server.honour(stream.asked)
        acknowledged = {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": honoured, "_meta": {_SUBSCRIPTION_KEY: request.id}},
        }
        await connection.open_stream()
        # Recorded before the client can see the stream.
        self.server.opened(stream)
        await connection.write_chunk(event(acknowledged))
        await asyncio.Event().wait()


ALL_CAPABILITIES: Mapping[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "extensions": {"io.modelcontextprotocol/tasks": {}},
}


def task_result(task_id: str, state: Mapping[str, Any], kind: str = "complete") -> dict[str, Any]:
    """Return a result with the state of a task."""
    return {
        "resultType": kind,
        "taskId": task_id,
        "createdAt": "2026-11-25T10:30:00Z",
        "lastUpdatedAt": "2026-11-25T10:30:00Z",
        "ttlMs": 60000,
        "pollIntervalMs": 50,
        **state,
    }


def _result(request_id: object, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _error(request_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
