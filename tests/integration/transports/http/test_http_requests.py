"""What an HTTP server gets to see: credentials, headers, and whom the manager does not talk to."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest
from support.calls import CALM, echo, text_of

from mcp_manager import CallError, ConnectError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SECRET = "sentinel-s3cr3t"


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ({"auth": {"type": "api_key", "key": SECRET}}, "x-api-key", SECRET),
        ({"auth": {"type": "api_key", "key": SECRET, "header": "X-Custom"}}, "x-custom", SECRET),
        ({"auth": {"type": "bearer", "token": SECRET}}, "authorization", f"Bearer {SECRET}"),
        ({"headers": {"X-Team": "blue"}}, "x-team", "blue"),
    ],
)
async def test_every_request_carries_the_credential(settings: dict[str, Any], name: str, expected: str) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, **settings})
            await manager.execute_raw("a", echo("x"))
        assert [request.verb for request in server.requests] == ["POST", "POST", "POST", "GET", "POST", "DELETE"]
        assert {request.headers[name] for request in server.requests} == {expected}
        assert all("cookie" not in request.headers for request in server.requests)


async def test_no_error_and_no_log_line_ever_shows_a_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    scripted = [
        faults.Status(401),
        faults.Status(403),
        faults.Status(404),
        faults.Status(429),
        faults.Status(500),
        faults.Status(503),
        faults.Reset(),
        faults.Close(),
        faults.Bytes(),
    ]
    with ScriptedServer() as server:
        async with McpManager() as manager:
            url = f"{server.url}?token={SECRET}"
            auth = {"type": "bearer", "token": SECRET}
            await manager.deploy("a", {"url": url, "auth": auth, "headers": {"X-Other": SECRET}, **CALM})
            for fault in scripted:
                server.script("tools/call", fault)
                with pytest.raises(CallError) as caught:
                    await manager.execute_raw("a", echo("x"), timeout=2)
                    # A lost session is replaced and the call repeated; the second refusal is the one that is raised.
                    server.script_always("tools/call", fault)
                    await manager.execute_raw("a", echo("x"), timeout=2)
                server.script_always("tools/call", None)
                shown.append(f"{caught.value!s} {caught.value!r} {vars(caught.value)}")
                shown += traceback.format_exception(caught.value)
            shown += [repr(manager.server("a")), manager.metrics_text()]
        server.refuse_connections()
        async with McpManager() as manager:
            await manager.deploy("a", {"url": url, "auth": auth, **CALM})
            with pytest.raises(ConnectError) as refused:
                await manager.execute_raw("a", echo("x"))
            shown += [str(refused.value), *traceback.format_exception(refused.value), repr(manager.servers())]
    assert SECRET not in "\n".join(shown)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/", "http://[fe80::1]/mcp", "http://224.0.0.1/mcp", "http://0.0.0.0:1/mcp"]
)
async def test_addresses_that_are_nobodys_server_are_never_connected_to(url: str) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", {"url": url, **CALM})
        with pytest.raises(ConnectError, match="not allowed") as caught:
            await manager.execute_raw("a", echo("x"))
        assert caught.value.delivery == "not_sent"


async def test_a_limit_of_connections_makes_calls_wait_their_turn() -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(max_connections=2)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            replies = await asyncio.gather(*(manager.execute_raw("a", echo(str(i)), timeout=10) for i in range(30)))
            assert [text_of(reply) for reply in replies] == [str(i) for i in range(30)]
            assert server.open_connections <= 2
            hold = faults.Hold()
            server.script("tools/call", hold, times=2)
            held = [asyncio.create_task(manager.execute_raw("a", echo("held"), timeout=10)) for _ in range(2)]
            await server.wait_for("tools/call", 32)
            with pytest.raises(CallError) as caught:
                await manager.execute_raw("a", echo("waits"), timeout=0.05)
            assert caught.value.delivery == "not_sent"
            hold.release()
            await asyncio.gather(*held)
