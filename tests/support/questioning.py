"""A server of 2025-11-25 over HTTP whose tools ask the client, and a client of 2026-07-28 that answers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from aiohttp import web

__all__ = ["NAME", "QuestioningServer", "Reply", "StatelessClient"]

NAME = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
_META = "io.modelcontextprotocol/"
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri", "tasks/get": "taskId"}
_TOOLS = ("ask", "pair", "twice", "never", "chatty", "visit", "plain")


class _Call:
    """One call on its response stream."""

    def __init__(self, server: QuestioningServer, response: web.StreamResponse, message: dict[str, Any]) -> None:
        self.server = server
        self.response = response
        self.id = message["id"]
        self.params: dict[str, Any] = message.get("params", {})

    async def send(self, **message: Any) -> None:
        await self.response.write(b"data: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n")

    async def ask(self, method: str, params: dict[str, Any], name: str | None = None) -> Any:
        number = next(self.server.numbers)
        if name is not None:
            params = {**params, "_meta": {"mcp-manager/inputKey": name}}
        answer = self.server.asked[number] = asyncio.get_running_loop().create_future()
        await self.send(id=number, method=method, params=params)
        return await answer

    async def run(self) -> dict[str, Any]:
        match self.params.get("name"):
            case "ask":
                return {"answers": [await self.ask("elicitation/create", NAME)]}
            case "pair":
                asking = (self.ask("elicitation/create", NAME, "who"), self.ask("roots/list", {}, "where"))
                return {"answers": list(await asyncio.gather(*asking))}
            case "twice":
                first = await self.ask("elicitation/create", NAME, "first")
                return {"answers": [first, await self.ask("elicitation/create", NAME, "second")]}
            case "never":
                self.server.waiting.set()
                await asyncio.Event().wait()
            case "chatty":
                token = self.params["_meta"]["progressToken"]
                for level in ("debug", "info", "error"):
                    await self.send(method="notifications/message", params={"level": level, "data": level})
                await self.send(method="notifications/progress", params={"progressToken": token, "progress": 1})
        return {"seen": self.params}


class QuestioningServer:
    """Serve on the running loop; ``async with`` starts and ends it."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.asked: dict[Any, asyncio.Future[Any]] = {}
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()
        self.called: list[dict[str, Any]] = []
        self.capabilities: list[dict[str, Any]] = []
        self.levels: list[str] = []
        self.url = ""
        application = web.Application()
        application.router.add_route("*", "/mcp", self._serve)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        for asked in self.asked.values():
            asked.cancel()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        if "method" not in message:
            asked = self.asked.pop(message["id"])
            if "result" in message:
                asked.set_result(message["result"])
            else:
                asked.set_result({"refused": message["error"]["code"]})
            return web.Response(status=202)
        if "id" not in message:
            if message["method"] == "notifications/cancelled":
                self.cancelled.set()
            return web.Response(status=202)
        if message["method"] == "tools/call":
            self.called.append(message["params"])
            return await self._call(request, message)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], **self._simple(message)})

    def _simple(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["method"]:
            case "initialize":
                self.capabilities.append(message["params"]["capabilities"])
                capabilities: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}}
                info = {"name": "questioning", "version": "1"}
                version = message["params"]["protocolVersion"]
                return {"result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}}
            case "tools/list":
                schema = {"type": "object", "properties": {"place": {"type": "string", "x-mcp-header": "Place"}}}
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in _TOOLS]
                return {"result": {"tools": [*tools, {"name": "located", "inputSchema": schema}]}}
            case "resources/read":
                return {"error": {"code": -32002, "message": "Resource not found", "data": message["params"]}}
            case "logging/setLevel":
                self.levels.append(message["params"]["level"])
                return {"result": {}}
            case "ping":
                return {"result": {}}
        return {"error": {"code": -32601, "message": "Method not found"}}

    async def _call(self, request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        if message["params"]["name"] == "visit" and len(self.called) < 2:
            page = {"mode": "url", "elicitationId": "e", "url": "http://127.0.0.1/x", "message": "Sign in"}
            error = {"code": -32042, "message": "Visit it", "data": {"elicitations": [page]}}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        call = _Call(self, response, message)
        learned = await call.run()
        lacks = "refused" in json.dumps(learned) and not call.params.get("arguments", {}).get("copes")
        result = {"content": [], "structuredContent": learned, **({"isError": True} if lacks else {})}
        await call.send(id=message["id"], result=result)
        return response


class Reply:
    """What a client got for one request."""

    def __init__(self, status: int, messages: list[dict[str, Any]]) -> None:
        self.status = status
        self.before = messages[:-1]
        self.message = messages[-1]

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = self.message["result"]
        return result

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.message["error"]
        return error


class StatelessClient:
    """Send requests of 2026-07-28.

    Parameters
    ----------
    session, url
        The HTTP session, and the endpoint.
    capabilities
        What every request declares.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, **capabilities: Any) -> None:
        self.session = session
        self.url = url
        self.capabilities = capabilities
        self._numbers = itertools.count(1)

    def post(
        self, method: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Start a request; the result is a context with the response."""
        params = dict(params or {})
        meta = {f"{_META}protocolVersion": "2026-07-28", f"{_META}clientCapabilities": self.capabilities}
        params["_meta"] = {**meta, **params.get("_meta", {})}
        fields = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
        }
        if method in _NAMED and _NAMED[method] in params:
            fields["Mcp-Name"] = params[_NAMED[method]]
        body = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        return self.session.post(self.url, json=body, headers={**fields, **(headers or {})})

    async def send(
        self, method: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request, and return what came."""
        async with self.post(method, params, headers) as response:
            text = await response.text()
            if response.content_type != "text/event-stream":
                return Reply(response.status, [json.loads(text)])
            events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
            return Reply(response.status, [json.loads(each) for each in events])

    async def call(self, name: str, **members: Any) -> Reply:
        """Call a tool; further members go to ``params``."""
        return await self.send("tools/call", {"name": name, "arguments": {}, **members})

    async def again(self, tool: str, asked: Reply, **responses: Any) -> Reply:
        """Call a tool again, with input that it has asked for."""
        state = {"requestState": asked.result["requestState"]} if "requestState" in asked.result else {}
        return await self.call(tool, inputResponses=responses, **state)
