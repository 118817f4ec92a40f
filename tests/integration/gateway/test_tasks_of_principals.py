"""Tasks of one principal are not there for another (2025-11-25, tasks, security; SEP-2663)."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.calls import CALM
from support.catalog_server import tool
from support.principals import Keys, http_for
from support.questioning import StatelessClient
from support.session_clients import SessionClient
from support.stateless_server import StatelessServer, Task, task_result
from support.worker_gateways import WorkerGateways

from mcp_manager.gateway import Gateway

SECRET = "of ann alone"
SESSION_KEY = "k" * 40
EXTENSION: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
_RELATED = "io.modelcontextprotocol/related-task"
_TIME = "2026-01-01T00:00:00Z"
_CAPABILITIES: dict[str, Any] = {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
_TOOL = {"name": "slow", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}}


class TaskServer:
    """A server of 2025-11-25 whose tasks are there for whoever knows their ids."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.tasks: dict[str, str] = {}
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TaskServer]:
        app = web.Application()
        app.router.add_post("/mcp", self.post)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
            yield self
        finally:
            await runner.cleanup()

    async def post(self, request: web.Request) -> web.Response:
        """Answer one message."""
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        fields = {}
        if message["method"] == "initialize":
            fields["Mcp-Session-Id"] = f"session-{next(self._numbers)}"
        answer = self._answer(message["method"], message.get("params", {}))
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], **answer}, headers=fields)

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        name = params.get("taskId")
        if method.startswith("tasks/") and method != "tasks/list" and name not in self.tasks:
            return {"error": {"code": -32602, "message": "Task not found"}}
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": _CAPABILITIES,
                "serverInfo": {"name": "tasks", "version": "1"},
            },
            "tools/list": {"tools": [_TOOL]},
            "tasks/list": {"tasks": [_state(each) for each in self.tasks]},
            "tasks/result": {
                "content": [{"type": "text", "text": self.tasks.get(str(name), "")}],
                "_meta": {_RELATED: {"taskId": name}},
            },
        }
        if method == "tools/call" and "task" not in params:
            return {"result": {"content": []}}
        if method == "tools/call":
            made = f"task-{next(self._numbers)}"
            self.tasks[made] = params["arguments"]["secret"]
            return {"result": {"task": _state(made)}}
        if method in ("tasks/get", "tasks/cancel"):
            return {"result": _state(str(name))}
        return {"result": results.get(method, {})}


def _state(name: str) -> dict[str, Any]:
    return {"taskId": name, "status": "completed", "createdAt": _TIME, "lastUpdatedAt": _TIME, "ttl": 60_000}


def _tasks_in(answer: dict[str, Any]) -> list[str]:
    return [each["taskId"] for each in answer["result"]["tasks"]]


async def _made(client: SessionClient, secret: str) -> str:
    """Let a call become a task, and return its id."""
    [shown] = (await client.request("tools/list"))["result"]["tools"]
    call = {"name": shown["name"], "arguments": {"secret": secret}}
    for _ in range(2):
        assert (await client.request("tools/call", call))["result"] == {"content": []}
    made = await client.request("tools/call", {**call, "task": {"ttl": 60_000}})
    name: str = made["result"]["task"]["taskId"]
    return name


@pytest.mark.parametrize("sessions", ["per_client", "shared"])
async def test_tasks_of_sessions_belong_to_their_principal(sessions: str, tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    async with TaskServer().running() as server, http_for(keys, "ann") as of_ann, http_for(keys, "bob") as of_bob:
        servers = {"tasks": {"url": server.url, "protocol_version": "2025-11-25"}}
        serve = {
            "listen": "127.0.0.1:0",
            "auth": keys.auth,
            "sessions": sessions,
            "session_keys": [SESSION_KEY],
        }
        names: dict[str, str] = {}
        async with Gateway({"servers": servers}, serve=serve) as gateway:
            for path in ("/servers/tasks/mcp", "/mcp"):
                # Clients that cannot be asked anything, which share a session at servers without tasks.
                ann = await SessionClient(of_ann, gateway.url + path).begin({})
                bob = await SessionClient(of_bob, gateway.url + path).begin({})
                name = names[path] = await _made(ann, SECRET)
                raw = list(server.tasks)[-1]
                mine = await _made(bob, "of bob")
                for method in ("tasks/get", "tasks/result", "tasks/cancel"):
                    for tried in (name, raw, "nothing"):
                        answer = await bob.request(method, {"taskId": tried, "uri": "x"})
                        assert answer["error"] == {
                            "code": -32602,
                            "message": f"Task not found: {tried[:100]}",
                            "data": {"source": "gateway"},
                        }
                    assert "error" in await bob.request(method.title(), {"taskId": raw})
                assert _tasks_in(await bob.request("tasks/list"))[-1:] == [mine]
                assert name in _tasks_in(await ann.request("tasks/list"))
                assert mine not in _tasks_in(await ann.request("tasks/list"))
                result = (await ann.request("tasks/result", {"taskId": name}))["result"]
                assert result["content"][0]["text"] == SECRET and result["_meta"][_RELATED] == {"taskId": name}
                assert (await ann.request("tasks/get", {"taskId": name}))["result"]["taskId"] == name
            assert len(_tasks_in(await bob.request("tasks/list"))) == 2
        if sessions == "shared":
            # Another process with the same keys knows whose they are.
            async with Gateway({"servers": servers}, serve=serve) as gateway:
                for path, name in names.items():
                    bob = await SessionClient(of_bob, gateway.url + path).begin({})
                    assert "error" in await bob.request("tasks/result", {"taskId": name})
                    ann = await SessionClient(of_ann, gateway.url + path).begin({})
                    assert SECRET in json.dumps(await ann.request("tasks/result", {"taskId": name}))


async def test_tasks_are_there_whichever_worker_a_request_reaches(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    async with TaskServer().running() as server, http_for(keys, "ann") as of_ann, http_for(keys, "bob") as of_bob:
        config = {"servers": {"tasks": {"url": server.url, "protocol_version": "2025-11-25"}}}
        async with WorkerGateways.running(config, auth=keys.auth) as workers:
            first, second = (f"{url}/servers/tasks/mcp" for url in workers.urls)
            ann = await SessionClient(of_ann, first).begin({})
            bob = await SessionClient(of_bob, first).begin({})
            ann.url = bob.url = second
            name = await _made(ann, SECRET)
            for url in (first, second):
                ann.url = bob.url = url
                assert _tasks_in(await ann.request("tasks/list")) == [name]
                assert SECRET in json.dumps(await ann.request("tasks/result", {"taskId": name}))
                assert _tasks_in(await bob.request("tasks/list")) == []
                for tried in (name, *server.tasks):
                    assert "error" in await bob.request("tasks/result", {"taskId": tried})


async def test_without_authentication_tasks_of_one_server_stay_as_they_are() -> None:
    async with TaskServer().running() as server:
        servers = {"tasks": {"url": server.url, "protocol_version": "2025-11-25"}}
        async with (
            Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway,
            aiohttp.ClientSession() as http,
        ):
            one = await SessionClient(http, f"{gateway.url}/servers/tasks/mcp").begin({})
            name = await _made(one, SECRET)
            assert name in server.tasks
            other = await SessionClient(http, f"{gateway.url}/servers/tasks/mcp").begin({})
            assert _tasks_in(await other.request("tasks/list")) == [name]
            assert SECRET in json.dumps(await other.request("tasks/result", {"taskId": name}))
            merged = await SessionClient(http, f"{gateway.url}/mcp").begin({})
            [sealed] = _tasks_in(await merged.request("tasks/list"))
            assert SECRET in json.dumps(await merged.request("tasks/result", {"taskId": sealed}))


async def test_tasks_of_stateless_clients_belong_to_their_principal(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "ann", "bob")
    results = {
        "tools/list": {"resultType": "complete", "tools": [tool("slow")]},
        "tools/call": task_result("t/1", {"status": "working"}, "task"),
    }
    with StatelessServer(results=results) as server:
        server.tasks["t/1"] = Task([{"status": "working"}])
        async with (
            Gateway(
                {"servers": {"tasks": {"url": server.url, **CALM}}}, serve={"listen": "127.0.0.1:0", "auth": keys.auth}
            ) as gateway,
            http_for(keys, "ann") as of_ann,
            http_for(keys, "bob") as of_bob,
        ):
            for path, called in (("/servers/tasks/mcp", "slow"), ("/mcp", "tasks__slow")):
                ann = StatelessClient(of_ann, gateway.url + path, **EXTENSION)
                bob = StatelessClient(of_bob, gateway.url + path, **EXTENSION)
                name = (await ann.call(called)).result["taskId"]
                assert (await ann.call(called)).result["taskId"] == name
                for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                    for tried in (name, "t/1", "nothing"):
                        reply = await bob.send(method, {"taskId": tried, "inputResponses": {}}, {"Mcp-Name": tried})
                        assert (reply.status, reply.error["code"]) == (400, -32602)
                        assert reply.error["message"] == f"Task not found: {tried[:100]}"
                found = await ann.send("tasks/get", {"taskId": name})
                assert (found.result["taskId"], found.result["status"]) == (name, "working")
            assert not server.tasks["t/1"].cancelled
            # Nor is it there for a client of the other era.
            session = await SessionClient(of_bob, f"{gateway.url}/servers/tasks/mcp").begin({})
            assert "error" in await session.request("tasks/get", {"taskId": "t/1"})
