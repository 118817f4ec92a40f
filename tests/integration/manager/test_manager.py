"""McpManager on a loop: the fleet's verbs, healing, and what never leaks from one call to another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import psutil
import pytest

from mcp_manager import (
    CallError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineExceededError,
    InvalidRequestError,
    ManagerConfig,
    McpManager,
    NotRunningError,
    OverloadedError,
    RpcError,
    ScaleError,
    ServerConfig,
    ServerExitedError,
    ServerNotFoundError,
    ServerState,
)

ARGS = ("-P", "-m", "mcp_manager.cli.demo_servers.stdio_server")
FAST = {
    "breaker": {"open_s": 0.3, "jitter": 0.0, "consecutive_failures": 3},
    "restart": {"initial_s": 0.1, "jitter": 0.0},
    "health": {"unhealthy_interval_s": 0.2, "unhealthy_interval_max_s": 0.5, "settle_s": 0.1},
}


def stdio(**settings: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": list(ARGS), **FAST, **settings}


async def becomes(manager: McpManager, server_id: str, state: ServerState, within_s: float = 15.0) -> None:
    """Wait for a state by asking for it; the bound only ends a test that has already failed."""
    async with asyncio.timeout(within_s):
        while manager.server(server_id).state is not state:
            await asyncio.sleep(0.01)


async def test_typed_verbs_and_untyped_requests() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio())
        assert {"echo", "add", "sleep"} <= {tool.name for tool in await manager.list_tools("a")}
        result = await manager.call_tool("a", "add", {"a": 20, "b": 22})
        assert (result.text, result.is_error) == ("42", False)
        assert await manager.request("a", "ping") == {}
        await manager.ping("a")
        with pytest.raises(RpcError) as caught:
            await manager.request("a", "no/such/method", {"x": [1]})
        assert (caught.value.code, caught.value.server_id, caught.value.delivery) == (-32601, "a", "answered")
        for params in (3, "x", {1, 2}):
            with pytest.raises(InvalidRequestError):
                await manager.request("a", "ping", params)


async def test_raw_bytes_pass_through_with_the_callers_id() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio())
        reply = await manager.execute_raw("a", b' {"params": {} , "id" : "k\\u0031", "method":"ping"} ')
        assert json.loads(reply) == {"jsonrpc": "2.0", "id": "k1", "result": {}}
        assert b'"k\\u0031"' in reply


async def test_a_killed_child_fails_its_calls_with_delivery_and_comes_back() -> None:
    async with McpManager() as manager:
        # With retries, the next call waits for the restart.
        await manager.deploy("a", stdio(retry={"attempts": 1}))
        await manager.deploy("b", stdio())
        known = {child.pid for child in psutil.Process().children()}
        slow = asyncio.create_task(manager.call_tool("a", "sleep", {"seconds": 30}))
        neighbour = asyncio.create_task(manager.call_tool("b", "sleep", {"seconds": 0.5}))
        await manager.ping("a")
        victim = min(known)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(ServerExitedError) as caught:
            await slow
        assert (caught.value.delivery, caught.value.server_id) == ("unknown", "a")
        assert caught.value.retry_after_s is not None
        assert (manager.server("a").state, manager.server("a").circuit) == (ServerState.UNHEALTHY, "Open")
        with pytest.raises(CircuitOpenError) as refused:
            await manager.ping("a")
        assert refused.value.delivery == "not_sent"
        assert "killed by signal 9 (SIGKILL); it is started again in" in refused.value.message
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s <= caught.value.retry_after_s
        assert not (await neighbour).is_error
        assert manager.server("b").state is ServerState.HEALTHY
        await becomes(manager, "a", ServerState.HEALTHY)
        assert (await manager.call_tool("a", "echo", {"text": "back"})).text == "back"
        assert {child.pid for child in psutil.Process().children()} & {victim} == set()


async def test_a_child_is_started_again_in_its_own_time_whatever_its_circuit_says() -> None:
    async with McpManager() as manager:
        breaker = {"open_s": 60.0, "consecutive_failures": 1}
        await manager.deploy("a", stdio(breaker=breaker, retry={"attempts": 1}))
        os.kill(manager.server("a").pids[0], signal.SIGKILL)
        refused = 0
        async with asyncio.timeout(15):
            while True:
                try:
                    await manager.ping("a")
                    break
                except CallError:
                    # Callers that come meanwhile must not put the restart off.
                    refused += 1
                    await asyncio.sleep(0.01)
        assert refused > 0
        assert manager.server("a").circuit == "Closed"


async def test_a_program_that_exits_at_its_start_opens_its_circuit_and_says_so_in_every_error() -> None:
    program = "import sys; sys.exit('API_KEY is not set')"
    async with McpManager() as manager:
        await manager.deploy(
            "a",
            {
                "command": sys.executable,
                "args": ["-c", program],
                "retry": {"attempts": 1},
                "restart": {"initial_s": 30.0, "jitter": 0.0},
            },
        )
        assert (manager.server("a").state, manager.server("a").circuit) == (ServerState.UNHEALTHY, "Open")
        for _ in range(3):
            with pytest.raises(CircuitOpenError) as refused:
                await manager.ping("a")
            assert refused.value.delivery == "not_sent"
            assert "the server process exited with status 1; it is started again in" in str(refused.value)
            assert "API_KEY is not set" in str(refused.value)
            assert refused.value.retry_after_s is not None and 0 < refused.value.retry_after_s <= 30.01


async def test_a_call_waits_for_a_child_that_is_started_again_soon() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio(restart={"initial_s": 0.3, "max_s": 0.3}))
        [victim] = manager.server("a").pids
        os.kill(victim, signal.SIGKILL)
        await becomes(manager, "a", ServerState.UNHEALTHY)
        answers = await asyncio.gather(*(manager.call_tool("a", "echo", {"text": str(each)}) for each in range(20)))
        assert [each.text for each in answers] == [str(each) for each in range(20)]
        assert victim not in manager.server("a").pids


async def test_a_child_is_started_again_though_nothing_is_probed() -> None:
    async with McpManager() as manager:
        await manager.deploy(
            "a", stdio(health={"enabled": False, "settle_s": 0}, restart={"initial_s": 0.01, "max_s": 0.02})
        )
        for _ in range(2):
            [victim] = manager.server("a").pids
            os.kill(victim, signal.SIGKILL)
            await becomes(manager, "a", ServerState.UNHEALTHY)
            await manager.wait_ready(timeout=20)
            assert manager.server("a").pids not in ((), (victim,))
            # There is no second sign of life to wait for.
            assert manager.server("a").state is ServerState.HEALTHY


async def test_a_deadline_ends_a_call_and_nothing_else() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio())
        with pytest.raises(DeadlineExceededError) as caught:
            await manager.call_tool("a", "sleep", {"seconds": 30}, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.delivery == "unknown"
        assert (await manager.call_tool("a", "echo", {"text": "x"})).text == "x"
        assert manager.server("a").state is ServerState.HEALTHY
        with pytest.raises(InvalidRequestError, match="timeout"):
            await manager.ping("a", timeout=-1)


async def test_a_command_that_does_not_exist_is_deployed_and_named() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"command": "/no/such/program", **FAST})
        assert manager.server("a").state is ServerState.UNHEALTHY
        with pytest.raises((ConnectError, CircuitOpenError)) as caught:
            await manager.ping("a")
        assert caught.value.delivery == "not_sent"
        assert "/no/such/program" in str(manager.server("a").last_error)


async def test_lazy_servers_connect_with_the_first_call() -> None:
    async with McpManager() as manager:
        before = len(psutil.Process().children())
        await manager.deploy("a", stdio(connect="lazy"))
        assert len(psutil.Process().children()) == before
        assert manager.server("a").state is ServerState.INITIALIZING
        health = manager.health()
        assert (health.total_servers, health.degraded_servers) == (1, 1)
        await asyncio.gather(*(manager.ping("a") for _ in range(20)))
        assert len(psutil.Process().children()) == before + 1
        assert manager.server("a").state is ServerState.HEALTHY


async def test_instances_share_the_traffic_and_drain() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio(instances=3))
        assert (manager.server("a").desired, manager.server("a").ready) == (3, 3)
        calls = [asyncio.create_task(manager.call_tool("a", "sleep", {"seconds": 0.3})) for _ in range(12)]
        await manager.ping("a")
        await manager.scale("a", 1)
        assert not any(result.is_error for result in await asyncio.gather(*calls))
        await manager.scale("a", 0)
        assert manager.server("a").state is ServerState.STOPPED
        with pytest.raises(OverloadedError, match="no instance") as caught:
            await manager.ping("a")
        assert caught.value.delivery == "not_sent"
        for wrong in (-1, 65, 1.0, True):
            with pytest.raises(ConfigError):
                await manager.scale("a", wrong)  # type: ignore[arg-type]


async def test_more_instances_than_urls_is_an_error_and_not_a_fake_success() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"url": ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"], "connect": "lazy"})
        with pytest.raises(ScaleError, match="url lists 2"):
            await manager.scale("a", 3)
        assert manager.server("a").desired == 2


async def test_redeploy_replaces_without_losing_a_call() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio(name="old"))
        stop = asyncio.Event()
        failures: list[BaseException] = []
        done = 0

        async def traffic() -> None:
            nonlocal done
            while not stop.is_set():
                try:
                    await manager.call_tool("a", "echo", {"text": "x"})
                    done += 1
                except Exception as error:
                    failures.append(error)

        callers = [asyncio.create_task(traffic()) for _ in range(4)]
        await manager.redeploy("a", stdio(name="new", priority=9))
        assert (manager.server("a").name, manager.server("a").priority) == ("new", 9)
        seen = done
        while done < seen + 20:
            await asyncio.sleep(0)
        stop.set()
        await asyncio.gather(*callers)
        assert failures == []


async def test_redeploy_that_does_not_connect_keeps_what_runs() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio(name="old"))
        with pytest.raises(ConnectError):
            await manager.redeploy("a", {"command": "/no/such/program"})
        assert manager.server("a").name == "old"
        await manager.ping("a")
        with pytest.raises(ServerNotFoundError):
            await manager.redeploy("b", stdio())


async def test_apply_makes_the_fleet_what_the_configuration_says() -> None:
    first = {
        "keep": ServerConfig(command=sys.executable, args=ARGS),
        "change": ServerConfig(command=sys.executable, args=ARGS, priority=1),
        "drop": ServerConfig(command=sys.executable, args=ARGS),
    }
    async with McpManager(ManagerConfig(servers=first)) as manager:
        await manager.wait_ready(timeout=20)
        pids = {child.pid for child in psutil.Process().children()}
        applied = await manager.apply(
            ManagerConfig(
                servers={
                    "keep": first["keep"],
                    "change": ServerConfig(command=sys.executable, args=ARGS, priority=2),
                    "fresh": ServerConfig(command=sys.executable, args=ARGS),
                }
            )
        )
        assert (applied.deployed, applied.updated, applied.undeployed) == (("fresh",), ("change",), ("drop",))
        assert (applied.redeployed, applied.unchanged) == ((), 1)
        assert sorted(view.id for view in manager.servers()) == ["change", "fresh", "keep"]
        assert manager.server("change").priority == 2
        # Two of the three go on, one of them with another priority.
        assert len(pids & {child.pid for child in psutil.Process().children()}) == 2
        dead = ServerConfig(command="/no/such/program")
        applied = await manager.apply(ManagerConfig(servers={"keep": dead, "change": dead, "fresh": dead}))
        assert (applied.redeployed, sorted(applied.failed)) == ((), ["change", "fresh", "keep"])
        assert "/no/such/program" in applied.failed["keep"]
        await manager.ping("keep")
        assert (await manager.apply(ManagerConfig(servers={}))).undeployed == ("change", "fresh", "keep")


async def test_maintenance_takes_a_server_out_and_back() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio())
        await manager.set_maintenance("a", True)
        assert manager.server("a").state is ServerState.MAINTENANCE
        with pytest.raises(OverloadedError, match="maintenance"):
            await manager.ping("a")
        await manager.set_maintenance("a", False)
        await manager.ping("a")
        assert manager.server("a").state is ServerState.HEALTHY


async def test_wait_ready_waits_for_so_many_and_no_longer_than_asked() -> None:
    async with McpManager() as manager:
        await manager.deploy("a", stdio())
        await manager.deploy("gone", {"url": "http://127.0.0.1:9/mcp", **FAST})
        await manager.wait_ready(min=1, timeout=10)
        with pytest.raises(TimeoutError):
            await manager.wait_ready(min=2, timeout=0.05)


async def test_deploying_one_id_at_the_same_time_deploys_it_once() -> None:
    async with McpManager() as manager:
        outcomes = await asyncio.gather(*(manager.deploy("a", stdio()) for _ in range(5)), return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 4
        assert len(manager.servers()) == 1


async def test_a_cancelled_deployment_leaves_nothing_behind() -> None:
    async with McpManager() as manager:
        hang = {"command": sys.executable, "args": ["-c", "import time; time.sleep(60)"], "connect_timeout_s": 30}
        before = len(psutil.Process().children())
        task = asyncio.create_task(manager.deploy("a", hang))
        async with asyncio.timeout(10):
            while len(psutil.Process().children()) == before:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert manager.servers() == []
        await manager.deploy("a", stdio())
        await manager.ping("a")


async def test_stop_ends_calls_under_way_and_refuses_new_ones() -> None:
    manager = McpManager()
    with pytest.raises(NotRunningError, match="start"):
        await manager.ping("a")
    await manager.start()
    await manager.deploy("a", stdio(shutdown_grace_s=0.2))
    slow = asyncio.create_task(manager.call_tool("a", "sleep", {"seconds": 30}))
    await manager.ping("a")
    await manager.stop()
    with pytest.raises(RuntimeError):
        await slow
    with pytest.raises(NotRunningError):
        await manager.ping("a")
    with pytest.raises(NotRunningError):
        await manager.start()


async def test_handlers_answer_what_a_server_asks(tmp_path: Any) -> None:
    server = tmp_path / "asking.py"
    server.write_text(
        """
import json, sys
def send(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
waiting = None
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        sent = message["params"]["capabilities"]
        send({"id": message["id"], "result": {"protocolVersion": "2025-11-25", "capabilities": {}}})
    elif message.get("method") == "tools/call":
        waiting = message["id"]
        send({"id": "ask-1", "method": message["params"]["name"], "params": {"q": 1}})
    elif message.get("id") == "ask-1":
        answer = {key: message[key] for key in ("result", "error") if key in message}
        send({"id": waiting, "result": {"content": [], "structuredContent": {"answer": answer, "sent": sent}}})
"""
    )

    async def roots(server_id: str, params: Any) -> Any:
        return {"roots": [], "asked": [server_id, params]}

    async def broken(server_id: str, params: Any) -> Any:
        raise RuntimeError("handler bug")

    handlers = {"roots/list": roots, "sampling/createMessage": broken}
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("a", {"command": sys.executable, "args": [str(server)], "protocol_version": "2025-11-25"})
        told = (await manager.call_tool("a", "roots/list")).structured_content
        assert told["answer"] == {"result": {"roots": [], "asked": ["a", {"q": 1}]}}
        assert set(told["sent"]) == {"roots", "sampling"}
        told = (await manager.call_tool("a", "sampling/createMessage")).structured_content
        assert told["answer"]["error"]["code"] == -32603
        assert "handler bug" not in json.dumps(told)
        told = (await manager.call_tool("a", "elicitation/create")).structured_content
        assert told["answer"]["error"]["code"] == -32601
        assert (await manager.call_tool("a", "ping")).structured_content["answer"] == {"result": {}}
