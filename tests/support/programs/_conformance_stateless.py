"""The fixture of the conformance suite that speaks the stateless era alone: 2026-07-28."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from _conformance_data import CAPABILITIES, EXTENSIONS, INFO, completion, lists, prompt, resource, skills
from _conformance_http import from_loopback
from _conformance_tasks import EXTENSION, Tasks, missing_extension
from _conformance_tools import TOOLS, Question, ToolFailure
from aiohttp import web

__all__ = ["stateless_application"]

_REVISION: Final = "2026-07-28"
_META: Final = "io.modelcontextprotocol/"
_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_TASK_METHODS: Final = ("tasks/get", "tasks/update", "tasks/cancel")
_METHODS: Final = {
    "server/discover",
    "subscriptions/listen",
    "completion/complete",
    "skills/list",
    "skills/get",
    "resources/directory/read",
    "resources/list",
    "resources/templates/list",
    "tools/list",
    "prompts/list",
    *_NAMED,
    *_TASK_METHODS,
}
_UNCACHED: Final = {"tools/call", "prompts/get", "completion/complete", *_TASK_METHODS}
_TASKS: Final = {"slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input"}
_TASKS_ALONE: Final = {"failing_job", "protocol_error_job"}
_AFTER_INPUT: Final = {"test_tool_with_task"}
_FILTERS: Final = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}


class InputRequired(Exception):
    """A call that cannot end before the client has answered."""

    def __init__(self, questions: Mapping[str, Question], answers: Mapping[str, Any]) -> None:
        super().__init__()
        self.questions = questions
        self.answers = answers


class Refused(Exception):
    """A request that is refused before anything is executed."""

    def __init__(self, status: int, code: int, message: str, data: Any = None) -> None:
        super().__init__()
        self.status = status
        self.failure = ToolFailure(code, message, data)


class _Call:
    """A call, whose questions end it until the client sends the answers."""

    def __init__(self, server: Server, params: Mapping[str, Any], stream: _Stream) -> None:
        meta = params["_meta"]
        self._server = server
        self._stream = stream
        self._token = meta.get("progressToken")
        self._level = meta.get(f"{_META}logLevel")
        self.arguments: Mapping[str, Any] = params.get("arguments") or {}
        self.capabilities: Mapping[str, Any] = meta[f"{_META}clientCapabilities"]
        self.answers = server.opened(params.get("requestState"))
        given = params.get("inputResponses")
        if isinstance(given, dict):
            self.answers |= {key: each for key, each in given.items() if isinstance(each, dict)}

    async def ask(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        for method, _ in questions.values():
            needed = method.partition("/")[0]
            if needed not in self.capabilities:
                required = {"requiredCapabilities": {needed: {}}}
                raise ToolFailure(-32021, "Missing required client capability", required)
        open_questions = {key: each for key, each in questions.items() if key not in self.answers}
        if open_questions:
            raise InputRequired(open_questions, self.answers)
        return {key: self.answers[key] for key in questions}

    async def report(self, progress: float, total: float) -> None:
        if self._token is not None:
            params = {"progressToken": self._token, "progress": progress, "total": total}
            await self._stream.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def log(self, level: str, data: Any) -> None:
        if self._level is not None and _LEVELS.index(level) >= _LEVELS.index(self._level):
            params = {"level": level, "data": data}
            await self._stream.send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        await self._server.tell(method, params)

    async def interrupt(self) -> None:
        """Do nothing: the revision has no resumption."""


class _Stream:
    """A response: JSON, unless something has to be sent before its end."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    async def send(self, message: Any) -> None:
        """Send a message before the reply."""
        if self._response is None:
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            self._response = web.StreamResponse(headers=headers)
            await self._response.prepare(self._request)
        await self._response.write(f"event: message\ndata: {json.dumps(message)}\n\n".encode())

    async def finish(self, message: Any, status: int = 200) -> web.StreamResponse:
        """Send the reply."""
        if self._response is None:
            return web.json_response(message, status=status)
        await self.send(message)
        return self._response


class Server:
    """The tasks, the listening streams, and the key of the states."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._tasks = Tasks()
        self._listening: dict[Any, tuple[Any, dict[str, Any], _Stream]] = {}

    def sealed(self, answers: Mapping[str, Any]) -> str:
        """Return a state that nobody else can make."""
        body = json.dumps({"answers": answers, "nonce": secrets.token_hex(8)}).encode()
        return f"{base64.urlsafe_b64encode(body).decode()}.{hmac.new(self._key, body, hashlib.sha256).hexdigest()}"

    def opened(self, state: Any) -> dict[str, Any]:
        """Return the answers of a state."""
        if state is None:
            return {}
        body, _, mac = str(state).partition(".")
        try:
            decoded = base64.urlsafe_b64decode(body)
        except binascii.Error:
            decoded = b""
        if not hmac.compare_digest(hmac.new(self._key, decoded, hashlib.sha256).hexdigest(), mac):
            raise ToolFailure(-32602, "The requestState is not one of this server")
        answers: dict[str, Any] = json.loads(decoded)["answers"]
        return answers

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification to the streams that asked for it."""
        for subscription, asked, stream in list(self._listening.values()):
            name = _FILTERS.get(method)
            if asked.get(name) if name is not None else params.get("uri") in asked.get("resourceSubscriptions", ()):
                meta = {f"{_META}subscriptionId": subscription}
                await stream.send({"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": meta}})

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Take one request."""
        message = json.loads(await request.read())
        request_id = message.get("id")
        stream = _Stream(request)
        try:
            _check(request, message)
            if request_id is None:
                return web.Response(status=202)
            if message["method"] == "subscriptions/listen":
                return await self._listen(request_id, message["params"], stream)
            result = await self._result(message["method"], message["params"], stream)
        except Refused as refused:
            return web.json_response(_error(request_id, refused.failure), status=refused.status)
        except ToolFailure as failure:
            status = {-32601: 404, -32021: 400}.get(failure.code, 200)
            return await stream.finish(_error(request_id, failure), status)
        except InputRequired as required:
            asked = {key: {"method": each[0], "params": each[1]} for key, each in required.questions.items()}
            state = self.sealed(required.answers)
            result = {"resultType": "input_required", "inputRequests": asked, "requestState": state}
        meta = {f"{_META}serverInfo": INFO}
        cached = {} if message["method"] in _UNCACHED else {"ttlMs": 1000, "cacheScope": "public"}
        whole = {"resultType": "complete", **cached, **result, "_meta": meta}
        return await stream.finish({"jsonrpc": "2.0", "id": request_id, "result": whole})

    async def _listen(self, request_id: Any, params: dict[str, Any], stream: _Stream) -> web.StreamResponse:
        asked = params["notifications"]
        meta = {f"{_META}subscriptionId": request_id}
        token = object()
        acknowledged = {"notifications": asked, "_meta": meta}
        self._listening[token] = (request_id, asked, stream)
        try:
            method = "notifications/subscriptions/acknowledged"
            await stream.send({"jsonrpc": "2.0", "method": method, "params": acknowledged})
            await asyncio.Event().wait()
        finally:
            del self._listening[token]
        raise AssertionError

    async def _result(self, method: str, params: dict[str, Any], stream: _Stream) -> dict[str, Any]:
        """Return the result of a request."""
        listed = lists().get(method) or skills(method, params)
        if listed is not None:
            return listed
        capabilities = params["_meta"][f"{_META}clientCapabilities"]
        knows_tasks = EXTENSION in capabilities.get("extensions", {})
        match method:
            case "server/discover":
                offered = {**CAPABILITIES, "extensions": {**EXTENSIONS, EXTENSION: {}}}
                return {"supportedVersions": [_REVISION], "capabilities": offered, "instructions": "Test."}
            case "tools/call":
                return await self._call(params, stream, knows_tasks=knows_tasks)
            case "prompts/get":
                return await prompt(params["name"], _Call(self, params, stream))
            case "resources/read":
                return resource(params["uri"], -32602)
            case "completion/complete":
                return completion(params)
        if not knows_tasks:
            raise missing_extension()
        return self._tasks.result_of(method, params)

    async def _call(self, params: dict[str, Any], stream: _Stream, *, knows_tasks: bool) -> dict[str, Any]:
        name = params.get("name")
        if name not in TOOLS:
            raise ToolFailure(-32602, f"Unknown tool: {name}")
        tool = TOOLS[name][1]
        call = _Call(self, params, stream)
        if name in _TASKS_ALONE and not knows_tasks:
            raise missing_extension()
        if name in _AFTER_INPUT and knows_tasks:
            await tool(call)
            return self._tasks.create(tool, call.arguments, call.capabilities, call.answers)
        if name in _TASKS and knows_tasks:
            return self._tasks.create(tool, call.arguments, call.capabilities)
        return await tool(call)


def _check(request: web.Request, message: dict[str, Any]) -> None:
    """Refuse a request whose header fields do not say what its body says."""
    headers = request.headers
    version = headers.get("MCP-Protocol-Version")
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if version is None:
        raise Refused(400, -32020, "MCP-Protocol-Version is missing")
    if not isinstance(meta, dict) or any(
        f"{_META}{each}" not in meta for each in ("protocolVersion", "clientCapabilities")
    ):
        raise Refused(400, -32602, "A member of _meta is missing")
    if meta[f"{_META}protocolVersion"] != version:
        raise Refused(400, -32020, "MCP-Protocol-Version differs from the body")
    if version != _REVISION:
        raise Refused(400, -32022, "Unsupported protocol version", {"supported": [_REVISION], "requested": version})
    method = message["method"]
    if headers.get("Mcp-Method") != method:
        raise Refused(400, -32020, "Mcp-Method differs from the body")
    if "id" in message and method not in _METHODS:
        raise Refused(404, -32601, f"Method not found: {method}")
    member = "taskId" if method in _TASK_METHODS else _NAMED.get(method)
    if member is not None and _decoded(headers.get("Mcp-Name")) != params.get(member):
        raise Refused(400, -32020, "Mcp-Name differs from the body")
    if method == "tools/call" and params["name"] in TOOLS:
        schema = TOOLS[params["name"]][0]
        for name, described in schema["properties"].items():
            suffix = described.get("x-mcp-header")
            given = (params.get("arguments") or {}).get(name)
            if suffix is not None and _decoded(headers.get(f"Mcp-Param-{suffix}")) != given:
                raise Refused(400, -32020, f"Mcp-Param-{suffix} differs from the body")


def _decoded(value: str | None) -> str | None:
    """Decode the value of a header field (2026-07-28, value encoding)."""
    if value is None:
        return None
    value = value.strip(" \t")
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(400, -32020, "A header field is no valid Base64") from None


def _error(request_id: Any, failure: ToolFailure) -> dict[str, Any]:
    error: dict[str, Any] = {"code": failure.code, "message": str(failure)}
    if failure.data is not None:
        error["data"] = failure.data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def stateless_application() -> web.Application:
    """Return the fixture at ``/mcp``."""
    application = web.Application(middlewares=[from_loopback])
    application.router.add_post("/mcp", Server().post)
    return application
