"""The fixture of the conformance suite that speaks the handshake era alone, with sessions, streams and resumption."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from _conformance_data import CAPABILITIES, EXTENSIONS, INFO, completion, lists, prompt, resource, skills
from _conformance_http import from_loopback
from _conformance_tools import TOOLS, Question, ToolFailure
from aiohttp import web

__all__ = ["handshake_application"]

_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_RESOURCE_NOT_FOUND: Final = -32002
# In the stateless era questions have names; here they have ids, which no other question may have.
_INPUT_KEY: Final = "mcp-manager/inputKey"


class Stream:
    """Messages for one response, kept so that a client that was cut off can read the rest."""

    def __init__(self, name: str, primes: bool) -> None:
        self.name = name
        self.messages: list[Any] = [None] if primes else []
        self.ended = False
        self.interrupted = asyncio.Event()
        self._changed = asyncio.Event()

    def send(self, message: Any) -> None:
        """Add a message."""
        self.messages.append(message)
        self._wake()

    def end(self) -> None:
        """Add nothing more."""
        self.ended = True
        self._wake()

    async def next(self, position: int) -> bool:
        """Wait for the message at a position; return ``False`` if there will be none, or the response is to end."""
        while position >= len(self.messages) and not self.ended and not self.interrupted.is_set():
            await self._changed.wait()
        return position < len(self.messages) and not self.interrupted.is_set()

    def interrupt(self) -> None:
        """End the response, but not the stream."""
        self.interrupted.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class Session:
    """What the server knows of one client."""

    revision: str
    capabilities: Mapping[str, Any]
    level: str = "debug"
    subscribed: set[str] = field(default_factory=set)
    streams: dict[str, Stream] = field(default_factory=dict)
    questions: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    calls: dict[Any, asyncio.Task[Any]] = field(default_factory=dict)
    standing: Stream | None = None
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def open_stream(self) -> Stream:
        """Begin a stream."""
        stream = Stream(f"s{next(self.numbers)}", self.revision >= "2025-11-25")
        self.streams[stream.name] = stream
        return stream


class _Call:
    """A call, whose questions are requests on its response stream."""

    def __init__(self, server: Server, session: Session, params: Mapping[str, Any], stream: Stream) -> None:
        self._server = server
        self._session = session
        self._stream = stream
        self._token = (params.get("_meta") or {}).get("progressToken")
        self.arguments: Mapping[str, Any] = params.get("arguments") or {}
        self.capabilities = session.capabilities

    async def ask(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        return dict(
            zip(questions, await asyncio.gather(*(self._ask(*each) for each in questions.items())), strict=True)
        )

    async def report(self, progress: float, total: float) -> None:
        if self._token is not None:
            params = {"progressToken": self._token, "progress": progress, "total": total}
            self._stream.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def log(self, level: str, data: Any) -> None:
        if _LEVELS.index(level) >= _LEVELS.index(self._session.level):
            params = {"level": level, "data": data}
            self._stream.send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        self._server.tell(method, params)

    async def interrupt(self) -> None:
        await asyncio.sleep(0.02)
        self._stream.interrupt()

    async def _ask(self, key: str, question: Question) -> Any:
        asked = self._session.questions
        request_id = f"question-{next(self._session.numbers)}"
        answer = asked[request_id] = asyncio.get_running_loop().create_future()
        method, params = question
        named = {**params, "_meta": {_INPUT_KEY: key}}
        self._stream.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": named})
        try:
            return await answer
        finally:
            del asked[request_id]


class Server:
    """The sessions, and what they are told."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification on the standing streams of all sessions that want it."""
        for session in self.sessions.values():
            wanted = method != "notifications/resources/updated" or params["uri"] in session.subscribed
            if wanted and session.standing is not None:
                session.standing.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Take one message."""
        message = json.loads(await request.read())
        if message.get("method") == "initialize":
            return self._initialize(message)
        session, refusal = self._session(request)
        if session is None:
            return refusal
        if "method" not in message:
            _take_answer(session, message)
            return web.Response(status=202)
        if "id" not in message:
            _take_notification(session, message)
            return web.Response(status=202)
        return await self._answer(request, session, message)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Open the standing stream, or continue one that was cut off."""
        session, refusal = self._session(request)
        if session is None:
            return refusal
        name, _, position = request.headers.get("Last-Event-ID", "").partition(".")
        if name:
            stream = session.streams.get(name)
            if stream is None:
                return web.Response(status=404)
            stream.interrupted.clear()
            return await _follow(request, stream, int(position) + 1)
        session.standing = session.open_stream()
        return await _follow(request, session.standing, 0)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """End a session."""
        session, refusal = self._session(request)
        if session is None:
            return refusal
        del self.sessions[request.headers["Mcp-Session-Id"]]
        for stream in session.streams.values():
            stream.end()
        for task in session.calls.values():
            task.cancel()
        return web.Response(status=204)

    def _initialize(self, message: dict[str, Any]) -> web.Response:
        params = message["params"]
        asked = params["protocolVersion"]
        revision = asked if asked in _REVISIONS else _REVISIONS[-1]
        session_id = secrets.token_hex(16)
        self.sessions[session_id] = Session(revision, params.get("capabilities", {}))
        capabilities = {**CAPABILITIES, "extensions": EXTENSIONS}
        result = {
            "protocolVersion": revision,
            "capabilities": capabilities,
            "serverInfo": INFO,
            "instructions": "Test.",
        }
        return web.json_response(_result(message["id"], result), headers={"Mcp-Session-Id": session_id})

    def _session(self, request: web.Request) -> tuple[Session | None, web.Response]:
        session_id = request.headers.get("Mcp-Session-Id")
        if session_id is None:
            return None, _refusal(400, -32000, "Bad Request: Mcp-Session-Id is missing")
        session = self.sessions.get(session_id)
        if session is None:
            return None, _refusal(404, -32001, "Session not found")
        if request.headers.get("MCP-Protocol-Version", session.revision) not in _REVISIONS:
            return None, _refusal(400, -32000, "Bad Request: unsupported protocol version")
        return session, web.Response()

    async def _answer(self, request: web.Request, session: Session, message: dict[str, Any]) -> web.StreamResponse:
        stream = session.open_stream()
        first = len(stream.messages)
        request_id = message["id"]
        task = session.calls[request_id] = asyncio.create_task(self._run(session, message, stream))
        done = asyncio.create_task(stream.next(first))
        await done
        if len(stream.messages) == first + 1 and stream.ended:
            del session.streams[stream.name]
            await task
            return web.json_response(stream.messages[first])
        return await _follow(request, stream, 0)

    async def _run(self, session: Session, message: dict[str, Any], stream: Stream) -> None:
        request_id = message["id"]
        call = _Call(self, session, message.get("params") or {}, stream)
        try:
            result = await _result_of(session, message["method"], message.get("params") or {}, call)
            stream.send(_result(request_id, result))
        except ToolFailure as failure:
            stream.send(_error(request_id, failure))
        finally:
            session.calls.pop(request_id, None)
            stream.end()


async def _result_of(session: Session, method: str, params: dict[str, Any], call: _Call) -> dict[str, Any]:
    """Return the result of a request."""
    listed = lists().get(method) or skills(method, params)
    if listed is not None:
        return listed
    match method:
        case "ping":
            return {}
        case "tools/call":
            if params.get("name") not in TOOLS:
                raise ToolFailure(-32602, f"Unknown tool: {params.get('name')}")
            if params["name"] == "slow_compute":
                # Without tasks, nobody would wait that long.
                call.arguments = {**call.arguments, "seconds": 0}
            return await TOOLS[params["name"]][1](call)
        case "prompts/get":
            return await prompt(params["name"], call)
        case "resources/read":
            return resource(params["uri"], _RESOURCE_NOT_FOUND)
        case "resources/subscribe":
            session.subscribed.add(params["uri"])
            return {}
        case "resources/unsubscribe":
            session.subscribed.discard(params["uri"])
            return {}
        case "logging/setLevel":
            session.level = params["level"]
            return {}
        case "completion/complete":
            return completion(params)
    raise ToolFailure(-32601, f"Method not found: {method}")


async def _follow(request: web.Request, stream: Stream, position: int) -> web.StreamResponse:
    """Send the messages of a stream from a position on."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    while await stream.next(position):
        message = stream.messages[position]
        identified = f"id: {stream.name}.{position}\n"
        if message is None:
            await response.write(f"{identified}retry: 50\ndata: \n\n".encode())
        else:
            await response.write(f"event: message\n{identified}data: {json.dumps(message)}\n\n".encode())
        position += 1
    return response


def _take_answer(session: Session, message: dict[str, Any]) -> None:
    question = session.questions.get(message["id"])
    if question is None or question.done():
        return
    if "error" in message:
        error = message["error"]
        question.set_exception(ToolFailure(error["code"], f"The client refused: {error['message']}"))
    else:
        question.set_result(message["result"])


def _take_notification(session: Session, message: dict[str, Any]) -> None:
    if message["method"] == "notifications/cancelled":
        task = session.calls.get(message["params"]["requestId"])
        if task is not None:
            task.cancel()


def _result(request_id: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _error(request_id: Any, failure: ToolFailure) -> dict[str, Any]:
    error: dict[str, Any] = {"code": failure.code, "message": str(failure)}
    if failure.data is not None:
        error["data"] = failure.data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _refusal(status: int, code: int, message: str) -> web.Response:
    return web.json_response(_error(None, ToolFailure(code, message)), status=status)


def handshake_application() -> web.Application:
    """Return the fixture at ``/mcp``."""
    server = Server()
    application = web.Application(middlewares=[from_loopback])
    application.router.add_post("/mcp", server.post)
    application.router.add_get("/mcp", server.get)
    application.router.add_delete("/mcp", server.delete)
    return application
