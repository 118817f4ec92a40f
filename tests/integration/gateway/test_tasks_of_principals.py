"""Tasks of one principal, at a server that tells them apart by session (2025-11-25, tasks, security)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.principals import Keys, http_for
from support.session_clients import SessionClient

from mcp_manager.gateway import Gateway

SECRET = "of ann alone"
_TIME = "2026-01-01T00:00:00Z"
_CAPABILITIES = {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
_TOOL = {"name": "slow", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}}


class TaskServer:
    """A server whose tasks belong to the session that has made them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._tasks: dict[str, tuple[str, str]] = {}

    async def post(self, request: web.Request) -> web.Response:
        """Answer one message."""
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        session = request.headers.get("Mcp-Session-Id", "")
        fields = {}
        if message["method"] == "initialize":
            session = fields["Mcp-Session-Id"] = f"session-{next(self._numbers)}"
        answer = self._answer(message["method"], message.get("params", {}), session)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], **answer}, headers=fields)

    def _answer(self, method: str, params: dict[str, Any], session: str) -> dict[str, Any]:
        mine = {name: secret for name, (owner, secret) in self._tasks.items() if owner == session}
        name = params.get("taskId")
        if method.startswith("tasks/") and method != "tasks/list" and name not in mine:
            return {"error": {"code": -32602, "message": "Task not found"}}
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": _CAPABILITIES,
                "serverInfo": {"name": "tasks", "version": "1"},
            },
            "tools/list": {"tools": [_TOOL]},
            "tasks/list": {"tasks": [_state(each) for each in mine]},
            "tasks/result": {"content": [{"type": "text", "text": mine.get(str(name), "")}]},
        }
        if method == "tools/call":
            made = f"task-{next(self._numbers)}"
            self._tasks[made] = session, params["arguments"]["secret"]
            return {"result": {"task": _state(made)}}
        if method in ("tasks/get", "tasks/cancel"):
            return {"result": _state(str(name))}
        return {"result": results.get(method, {})}


def _state(name: str) -> dict[str, Any]:
    return {"taskId": name, "status": "completed", "createdAt": _TIME, "lastUpdatedAt": _TIME, "ttl": 60_000}


@pytest.mark.parametrize("path", ["/servers/tasks/mcp", "/mcp"])
async def test_another_principal_finds_no_task(path: str, tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    app = web.Application()
    app.router.add_post("/mcp", TaskServer().post)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server = {"url": f"http://127.0.0.1:{runner.addresses[0][1]}/mcp", "protocol_version": "2025-11-25"}
        serve = {"listen": "127.0.0.1:0", "auth": keys.auth}
        async with (
            Gateway({"servers": {"tasks": server}}, serve=serve) as gateway,
            http_for(keys, "ann") as of_ann,
            http_for(keys, "bob") as of_bob,
        ):
            # Clients that cannot be asked anything share a session at servers without tasks.
            ann = await SessionClient(of_ann, gateway.url + path).begin({})
            bob = await SessionClient(of_bob, gateway.url + path).begin({})
            [shown] = (await ann.request("tools/list"))["result"]["tools"]
            call = {"name": shown["name"], "arguments": {"secret": SECRET}, "task": {"ttl": 60_000}}
            name = (await ann.request("tools/call", call))["result"]["task"]["taskId"]
            for method in ("tasks/get", "tasks/result", "tasks/cancel"):
                answer = await bob.request(method, {"taskId": name})
                assert "error" in answer, method
                assert SECRET not in json.dumps(answer)
            assert name not in json.dumps(await bob.request("tasks/list"))
            assert SECRET in json.dumps(await ann.request("tasks/result", {"taskId": name}))
    finally:
        await runner.cleanup()
