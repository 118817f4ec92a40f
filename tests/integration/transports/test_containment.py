"""Whatever one server sends, and whatever goes wrong on its behalf: its calls end with an error of ours, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from support.calls import SWIFT, echo, eventually, failure_of, text_of
from support.hostile import ANSWERS
from support.stdio import opened

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError, RpcError
from mcp_manager.health import HealthMonitor, monitor
from mcp_manager.servers.instance import Instance
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.base import Exchange
from mcp_manager.transports.http.transport import HttpTransport
from mcp_manager.transports.stdio import transport as stdio

STAGES = ["initialize", "notifications/initialized", "tools/list", "tools/call", "GET", "DELETE"]
HASTY: dict[str, Any] = {**SWIFT, "connect_timeout_s": 1.0, "retry": {"attempts": 1}, "shutdown_grace_s": 0.2}


@contextlib.contextmanager
def hostile_servers(stage: str) -> Iterator[dict[str, ScriptedServer]]:
    """Serve one server for each hostile answer, which gives it at a stage."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, answer in ANSWERS.items():
            server = servers[name] = stack.enter_context(ScriptedServer())
            server.script_always(stage, answer)
        yield servers


@pytest.mark.parametrize("lanes", [True, False], ids=["lanes", "ordinary"])
@pytest.mark.parametrize("stage", STAGES)
async def test_whatever_a_server_answers_ends_its_own_calls_alone(stage: str, lanes: bool) -> None:
    with ScriptedServer() as good, hostile_servers(stage) as servers:
        config = ManagerConfig(
            http_lanes=lanes,
            servers={"good": {"url": good.url}, **{name: {"url": each.url, **HASTY} for name, each in servers.items()}},
        )
        async with McpManager(config) as manager:

            async def use(name: str) -> None:
                for use in (manager.execute_raw(name, echo("x"), timeout=1.0), manager.list_tools(name, timeout=1.0)):
                    with contextlib.suppress(CallError, RpcError):
                        await use

            await asyncio.gather(*map(use, servers))
            assert text_of(await manager.execute_raw("good", echo("still here"))) == "still here"
            for server in servers.values():
                server.script_always(stage, None)
                # Those that gave a wrong id for the session have forgotten it.
                server.sessions = False
            for name in servers:
                await eventually(lambda name=name: manager.server(name).state == "Healthy", f"the recovery from {name}")
            for name in servers:
                assert text_of(await manager.execute_raw(name, echo(name), timeout=5.0)) == name


@pytest.mark.parametrize("failure", [ValueError, RecursionError, AssertionError, UnicodeError, KeyError, OSError])
async def test_what_a_transport_raises_reaches_nobody_as_it_is(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: HttpTransport, exchange: Exchange) -> None:
        exchange.sent = True
        raise failure("about https://host/?token=sesame-open-1")

    with ScriptedServer() as server, ScriptedServer() as good:
        async with McpManager(ManagerConfig(http_lanes=False)) as manager:
            await manager.deploy("good", {"url": good.url})
            monkeypatch.setattr(HttpTransport, "exchange", broken)
            await manager.deploy("a", {"url": f"{server.url}?token=sesame-open-1", **HASTY})
            error = await failure_of(manager, "a", echo("x"))
            assert error.delivery in ("not_sent", "unknown")
            assert failure.__name__ in error.message
            assert "sesame-open-1" not in str(error) + caplog.text
            assert manager.server("a").state == "Unhealthy"
            monkeypatch.undo()
            assert text_of(await manager.execute_raw("good", echo("y"))) == "y"
            await eventually(lambda: manager.server("a").state == "Healthy", "the recovery")
    told = [each for each in caplog.records if each.levelno == logging.ERROR and "Traceback" in each.getMessage()]
    # Once, however often it was met.
    assert len(told) == 1, [each.getMessage() for each in told]


async def test_a_fault_of_the_monitor_concerns_one_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proper = Instance.call
    probed = asyncio.Event()

    async def broken(self: Instance, *args: Any) -> Any:
        if self.template.server_id == "a":
            raise ZeroDivisionError("scripted")
        probed.set()
        return await proper(self, *args)

    with ScriptedServer() as server, ScriptedServer() as good:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **HASTY})
            await manager.deploy("good", {"url": good.url, **HASTY})
            monkeypatch.setattr(Instance, "call", broken)
            await eventually(lambda: manager.server("a").state == "Unhealthy", "the failing probes")
            assert "ZeroDivisionError" in str(manager.server("a").last_error)
            await asyncio.wait_for(probed.wait(), 10.0)
            assert manager.server("good").state == "Healthy"
            monkeypatch.undo()
            await eventually(lambda: manager.server("a").state == "Healthy", "the recovery")
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert [each.count("ZeroDivisionError: scripted") for each in told] == [1]


async def test_a_fault_in_one_turn_of_the_monitor_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as server, ScriptedServer() as good:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **HASTY})
            await manager.deploy("good", {"url": good.url, **HASTY})
            proper = monitor.is_silent

            def broken(watch: Any, *others: Any) -> bool:
                if watch.supervisor.server_id == "a":
                    raise ZeroDivisionError("scripted")
                return proper(watch, *others)

            monkeypatch.setattr(monitor, "is_silent", broken)
            await eventually(lambda: manager.server("a").state == "Unhealthy", "what its turns come to")
            good.script_always("*", ANSWERS["no HTTP"])
            good.script_always("ping", ANSWERS["no HTTP"])
            await eventually(lambda: manager.server("good").state == "Unhealthy", "the news of the other one")
            monkeypatch.undo()
            await eventually(lambda: manager.server("a").state == "Healthy", "the recovery")


async def test_a_line_that_breaks_the_reader_costs_that_line(monkeypatch: pytest.MonkeyPatch) -> None:
    proper = stdio.read_messages

    def broken(line: bytes, *others: Any, **more: Any) -> Any:
        if b"poison" in line:
            raise RecursionError("scripted")
        return proper(line, *others, **more)

    monkeypatch.setattr(stdio, "read_messages", broken)
    async with opened() as subject:
        await subject.say("poison\n")
        assert subject.bad_lines == 1


@pytest.mark.allow_leaks("objects", reason="the record of what was logged holds the traceback until the test is over")
async def test_a_fault_of_one_deployment_fails_neither_start_nor_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    proper = HealthMonitor.probe

    async def broken(self: HealthMonitor, instance: Instance) -> bool:
        if instance.template.server_id == "a":
            raise ZeroDivisionError("scripted")
        return await proper(self, instance)

    with ScriptedServer() as server, ScriptedServer() as good:
        monkeypatch.setattr(HealthMonitor, "probe", broken)
        first = {"a": {"url": server.url, **HASTY}, "good": {"url": good.url, **HASTY}}
        async with McpManager(ManagerConfig(servers=first)) as manager:
            assert text_of(await manager.execute_raw("good", echo("y"))) == "y"
            await eventually(lambda: manager.server("a").state == "Healthy", "a probe of the monitor's own")
            changed = {each: {**first[each], "request_timeout_s": 7.0} for each in first}
            applied = await manager.apply(ManagerConfig(servers={**changed, "more": {"url": good.url, **HASTY}}))
            assert applied.updated == ("a", "good")
            assert applied.deployed == ("more",)
            assert text_of(await manager.execute_raw("a", echo("z"))) == "z"


async def test_what_a_redirect_quotes_is_masked_before_it_is_cut() -> None:
    secret = "sesame-" + "o" * 60
    with ScriptedServer() as server:
        # The end of what is shown falls into the secret.
        server.script_always("*", faults.Redirect(f"http://127.0.0.1:1/{'a' * 150}/{secret}", status=307))
        server.script_always("initialize", faults.Redirect(f"http://127.0.0.1:1/{'a' * 150}/{secret}", status=307))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, "headers": {"X-Token": secret}, **HASTY})
            error = await failure_of(manager, "a", echo("x"))
            assert "/aaa" in str(error)
            assert "sesame-" not in str(error)
