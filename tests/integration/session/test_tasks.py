"""Calls that become tasks: followed over HTTP in both eras, answered, cancelled, and driven by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, tool_call
from support.stateless_server import StatelessServer, Task, task_result

from mcp_manager import McpManager
from mcp_manager.errors import (
    CallError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    RpcError,
    TaskError,
)
from mcp_manager.testing.faults import RpcErrorReply, Status
from mcp_manager.testing.scripted import Request, ScriptedServer

RESULT = {"content": [{"type": "text", "text": "done"}], "isError": False}
DONE = {"status": "completed", "result": RESULT}
WORKING = {"status": "working"}


class TaskServer(StatelessServer):
    """A server of 2026-07-28 that makes a task of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.results["tools/call"] = lambda params: task_result(params["name"], WORKING, "task")


@pytest.fixture
def server() -> Iterator[TaskServer]:
    with TaskServer() as running:
        yield running


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async def elicit(server_id: str, params: Any) -> Any:
        return {"action": "accept", "content": {"asked": params["message"]}}

    async with McpManager(handlers={"elicitation/create": elicit}) as running:
        yield running


@pytest.mark.both_loops
async def test_a_call_that_becomes_a_task_is_a_call_like_any_other(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([WORKING, WORKING, DONE])
    await manager.deploy("a", {"url": server.url, **CALM})
    assert (await manager.call_tool("a", "job")).text == "done"
    assert server.tasks["job"].polls == 3
    server.tasks["job"] = Task([DONE])
    reply = json.loads(await manager.execute_raw("a", tool_call("job", {}, "mine")))
    assert reply == {"jsonrpc": "2.0", "id": "mine", "result": RESULT}
    assert not server.tasks["job"].cancelled


async def test_a_failed_task_is_the_error_of_the_call(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([{"status": "failed", "error": {"code": -32000, "message": "it broke"}}])
    await manager.deploy("a", {"url": server.url, **CALM})
    with pytest.raises(RpcError, match="it broke"):
        await manager.call_tool("a", "job")


async def test_a_cancelled_task_is_a_task_error_and_no_failure_of_the_server(
    server: TaskServer, manager: McpManager
) -> None:
    server.tasks["job"] = Task([{"status": "cancelled"}])
    await manager.deploy("a", {"url": server.url, **CALM, "breaker": {"enabled": True, "consecutive_failures": 1}})
    for _ in range(2):
        with pytest.raises(TaskError):
            await manager.call_tool("a", "job")


async def test_a_task_that_asks_is_answered_by_the_handlers(server: TaskServer, manager: McpManager) -> None:
    asked = {key: {"method": "elicitation/create", "params": {"message": key}} for key in ("name", "age")}
    server.tasks["job"] = task = Task([WORKING, DONE], asked=asked)
    await manager.deploy("a", {"url": server.url, **CALM})
    assert (await manager.call_tool("a", "job")).text == "done"
    assert {key: answer["content"]["asked"] for key, answer in task.answers.items()} == {"name": "name", "age": "age"}
    assert task.updates == 1


async def test_a_task_that_asks_what_nobody_answers_is_cancelled(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([DONE], asked={"x": {"method": "sampling/createMessage", "params": {}}})
    await manager.deploy("a", {"url": server.url, **CALM})
    with pytest.raises(InputRequiredError):
        await manager.call_tool("a", "job")
    await server.wait_until(lambda: server.tasks["job"].cancelled)


async def test_a_deadline_cancels_the_task(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([WORKING])
    await manager.deploy("a", {"url": server.url, **CALM})
    with pytest.raises(DeadlineExceededError):
        await manager.call_tool("a", "job", timeout=0.2)
    await server.wait_until(lambda: server.tasks["job"].cancelled)


async def test_a_caller_that_gives_up_cancels_the_task(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([WORKING])
    await manager.deploy("a", {"url": server.url, **CALM})
    calling = asyncio.ensure_future(manager.call_tool("a", "job"))
    await server.wait_for("tasks/get", 2)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await server.wait_until(lambda: server.tasks["job"].cancelled)


async def test_the_end_of_a_server_ends_the_calls_that_follow_tasks(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([{"status": "working", "pollIntervalMs": 60_000}])
    server.results["tools/call"] = lambda params: task_result(
        params["name"], {"status": "working", "pollIntervalMs": 60_000}, "task"
    )
    await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 0.05})
    calling = asyncio.ensure_future(manager.call_tool("a", "job"))
    await server.wait_for("tools/call")
    await manager.undeploy("a")
    with pytest.raises(ConnectionLostError) as caught:
        await calling
    assert caught.value.delivery == "unknown"


@pytest.mark.parametrize("status", [401, 404, 429])
async def test_a_refused_poll_does_not_pass_for_a_refused_call(
    server: TaskServer, manager: McpManager, status: int
) -> None:
    server.tasks["job"] = Task([WORKING])
    server.script_always("tasks/get", Status(status))
    await manager.deploy("a", {"url": server.url, **CALM})
    with pytest.raises(CallError) as caught:
        await manager.call_tool("a", "job", timeout=1.0)
    # The task was begun, and nobody knows what it did.
    assert caught.value.delivery == "unknown"
    await server.wait_until(lambda: server.tasks["job"].cancelled)


async def test_only_tool_calls_become_tasks(server: TaskServer, manager: McpManager) -> None:
    server.results["prompts/get"] = task_result("job", WORKING, "task")
    await manager.deploy("a", {"url": server.url, **CALM})
    with pytest.raises(Exception, match="which prompts/get does not allow"):
        await manager.get_prompt("a", "x")


async def test_tasks_can_be_looked_at_and_cancelled_by_hand(server: TaskServer, manager: McpManager) -> None:
    server.tasks["job"] = Task([WORKING])
    await manager.deploy("a", {"url": server.url, **CALM})
    task = await manager.get_task("a", "job")
    assert (task.task_id, task.status, task.ttl_ms, task.poll_interval_ms) == ("job", "working", 60000, 50)
    assert not task.is_over
    await manager.cancel_task("a", "job")
    assert server.tasks["job"].cancelled
    with pytest.raises(RpcError, match="Unknown task"):
        await manager.get_task("a", "other")


class EarlierTaskServer(ScriptedServer):
    """A server of 2025-11-25 whose tool ``slow`` can be called only as a task."""

    def __init__(self, **tasks: Any) -> None:
        super().__init__()
        self.offered = {"requests": {"tools": {"call": {}}}, "cancel": {}, "list": {}} if not tasks else tasks
        self.states: list[dict[str, Any]] = []
        self.last_task = 2
        self.cancelled = 0

    def _initialize(self, request: Request) -> Any:
        status, headers, reply = super()._initialize(request)
        reply["result"]["capabilities"]["tasks"] = self.offered
        return status, headers, reply

    def _result(self, request: Request) -> dict[str, Any]:
        params = request.params or {}
        result: dict[str, Any]
        match request.method:
            case "tools/call" if params["name"] == "slow":
                if "task" not in params:
                    return self._refused(request, -32601, "the tool must be called as a task")
                result = {"task": {"taskId": "t1", "status": "working", "ttl": 1000, "pollInterval": 50}}
            case "tools/call" if params["name"] == "none":
                return self._refused(request, -32601, "no such tool" + (" as a task" if "task" in params else ""))
            case "tasks/get":
                state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
                result = {"taskId": "t1", "createdAt": "2025", "pollInterval": 50, "ttl": None, **state}
            case "tasks/result":
                result = RESULT
            case "tasks/list":
                page = {"taskId": f"t{params.get('cursor', '0')}", "status": "working"}
                following = int(params.get("cursor", 0)) + 2
                result = {"tasks": [page], **({"nextCursor": str(following)} if following <= self.last_task else {})}
            case "tasks/cancel":
                self.cancelled += 1
                result = {"taskId": "t1", "status": "cancelled"}
            case _:
                return super()._result(request)
        return {"jsonrpc": "2.0", "id": request.id, "result": result}

    def _refused(self, request: Request, code: int, message: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request.id, "error": {"code": code, "message": message}}


@pytest.fixture
def earlier() -> Iterator[EarlierTaskServer]:
    with EarlierTaskServer() as running:
        yield running


@pytest.mark.parametrize("last", [{"status": "completed"}, {"status": "input_required"}])
async def test_a_tool_that_wants_a_task_gets_one(
    earlier: EarlierTaskServer, manager: McpManager, last: dict[str, Any]
) -> None:
    earlier.states = [WORKING, last]
    await manager.deploy("a", {"url": earlier.url, **CALM})
    reply = json.loads(await manager.execute_raw("a", tool_call("slow", {"n": 1}, 5)))
    assert reply == {"jsonrpc": "2.0", "id": 5, "result": RESULT}
    assert earlier.requests_of("tools/call")[-1].params == {"name": "slow", "arguments": {"n": 1}, "task": {}}
    assert len(earlier.requests_of("tasks/get")) == 2
    assert (await manager.call_tool("a", "slow", on_progress=lambda *_: None)).text == "done"


async def test_a_tool_that_is_not_there_stays_an_error(earlier: EarlierTaskServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": earlier.url, **CALM})
    with pytest.raises(RpcError) as caught:
        await manager.call_tool("a", "none")
    assert caught.value.message == "no such tool"
    assert len(earlier.requests_of("tools/call")) == 2


async def test_a_server_without_tasks_is_not_asked_for_one(manager: McpManager) -> None:
    with EarlierTaskServer(list={}) as earlier:
        await manager.deploy("a", {"url": earlier.url, **CALM})
        with pytest.raises(RpcError, match="must be called as a task"):
            await manager.call_tool("a", "slow")
        assert len(earlier.requests_of("tools/call")) == 1


async def test_giving_up_cancels_an_earlier_task_too(earlier: EarlierTaskServer, manager: McpManager) -> None:
    earlier.states = [WORKING]
    await manager.deploy("a", {"url": earlier.url, **CALM})
    with pytest.raises(DeadlineExceededError):
        await manager.call_tool("a", "slow", timeout=0.2)
    await earlier.wait_until(lambda: earlier.cancelled == 1)


async def test_a_tool_whose_session_is_lost_while_its_task_runs_is_not_called_again(
    earlier: EarlierTaskServer, manager: McpManager
) -> None:
    earlier.states = [WORKING]
    await manager.deploy("a", {"url": earlier.url, **CALM})
    calling = asyncio.ensure_future(manager.call_tool("a", "slow"))
    await earlier.wait_for("tasks/get")
    earlier.expire_sessions()
    with pytest.raises(ConnectionLostError) as caught:
        await calling
    assert caught.value.delivery == "unknown"
    assert len([each for each in earlier.requests_of("tools/call") if "task" in each.params]) == 1


async def test_params_that_cannot_ask_for_a_task_keep_their_refusal(
    earlier: EarlierTaskServer, manager: McpManager
) -> None:
    earlier.script("tools/call", RpcErrorReply(-32601, "no"))
    await manager.deploy("a", {"url": earlier.url, **CALM})
    reply = json.loads(await manager.execute_raw("a", b'{"id":1,"method":"tools/call","params":[]}'))
    assert reply["error"] == {"code": -32601, "message": "no"}
    assert len(earlier.requests_of("tools/call")) == 1


async def test_earlier_tasks_can_be_driven_by_hand(earlier: EarlierTaskServer, manager: McpManager) -> None:
    earlier.states = [{"status": "completed", "statusMessage": "ready"}]
    await manager.deploy("a", {"url": earlier.url, **CALM})
    task = await manager.start_task("a", "slow", {"n": 1}, ttl_s=60)
    assert earlier.requests_of("tools/call")[0].params["task"] == {"ttl": 60000}
    assert (task.task_id, task.status, task.ttl_ms, task.poll_interval_ms) == ("t1", "working", 1000, 50)
    task = await manager.get_task("a", task.task_id)
    assert (task.is_over, task.status_message, task.ttl_ms) == (True, "ready", None)
    assert (await manager.task_result("a", task.task_id)).text == "done"
    assert [each.task_id for each in await manager.list_tasks("a")] == ["t0", "t2"]
    await manager.cancel_task("a", task.task_id)
    with pytest.raises(Exception, match="instead of making it a task"):
        await manager.start_task("a", "echo", {"text": "x"})


async def test_all_pages_of_a_list_of_tasks_share_one_timeout(earlier: EarlierTaskServer, manager: McpManager) -> None:
    # So many pages that they take seconds; each of them alone comes at once.
    earlier.last_task = 1_000_000
    await manager.deploy("a", {"url": earlier.url, **CALM})
    with pytest.raises(DeadlineExceededError):
        await manager.list_tasks("a", timeout=0.2)
