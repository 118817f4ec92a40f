"""Servers behind proxies: by tunnel and by absolute target, with credentials, by the environment, and refused."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.calls import CALM, echo, failure_of, text_of
from support.proxy import ScriptedProxy

from mcp_manager import ConnectError, ConnectionLostError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

# Nobody listens there: what arrives has come through the proxy.
NAME = "127.0.0.99"
SECRET = "sentinel-s3cr3t"
QUICK: dict[str, Any] = {**CALM, "connect_timeout_s": 0.5}

pytestmark = pytest.mark.both_loops


@pytest.fixture(params=[True, False], ids=["lanes", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> Any:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ScriptedServer]:
    tls = authority.issue(NAME).load() if request.param == "https" else None
    with ScriptedServer(tls=tls) as server:
        yield server


def settings_of(server: ScriptedServer, authority: Authority, **more: Any) -> dict[str, Any]:
    """Return the settings under which a server is only found by a proxy."""
    url = server.url.replace("127.0.0.1", NAME)
    return {"url": url, "tls": {"ca_file": str(authority.ca_file)}, **CALM, **more}


async def test_calls_go_through_a_proxy(manager: McpManager, server: ScriptedServer, authority: Authority) -> None:
    with ScriptedProxy(hosts={NAME: "127.0.0.1"}) as proxy:
        await manager.deploy("a", settings_of(server, authority, proxy=proxy.url))
        for text in ("one", "two", "three"):
            assert text_of(await manager.execute_raw("a", echo(text))) == text
        await manager.undeploy("a")
        assert {each.verb for each in server.requests} == {"POST", "GET", "DELETE"}
        assert {each.headers["host"] for each in server.requests} == {f"{NAME}:{server.port}"}
        if server.tls is not None:
            assert set(proxy.requests) == {f"CONNECT {NAME}:{server.port} HTTP/1.1"}
        else:
            assert {each.split(" ")[1] for each in proxy.requests} == {f"http://{NAME}:{server.port}/mcp"}


async def test_a_proxy_that_speaks_tls(manager: McpManager, server: ScriptedServer, authority: Authority) -> None:
    with ScriptedProxy(hosts={NAME: "127.0.0.1"}, tls=authority.issue("127.0.0.1").load()) as proxy:
        await manager.deploy("a", settings_of(server, authority, proxy=proxy.url))
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert proxy.requests
        await manager.undeploy("a")


async def test_credentials_reach_the_proxy_and_nobody_else(
    manager: McpManager, server: ScriptedServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedProxy(hosts={NAME: "127.0.0.1"}, credentials=f"us er:{SECRET}@") as proxy:
        url = proxy.with_credentials(f"us%20er:{SECRET}%40")
        await manager.deploy("a", settings_of(server, authority, proxy=url))
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert all("proxy-authorization" not in each.headers for each in server.requests)
        shown = [repr(manager.server("a")), repr(manager.snapshot()), manager.metrics_text()]
        await manager.undeploy("a")
    assert SECRET not in "\n".join(shown) + caplog.text


@pytest.mark.parametrize("given", ["", f"user:{SECRET}"])
async def test_a_proxy_that_wants_other_credentials(
    manager: McpManager, server: ScriptedServer, authority: Authority, given: str
) -> None:
    with ScriptedProxy(hosts={NAME: "127.0.0.1"}, credentials="user:right") as proxy:
        url = proxy.with_credentials(given) if given else proxy.url
        await manager.deploy("a", settings_of(server, authority, proxy=url))
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        said = "refused the credentials" if given else "requires credentials"
        assert f"the proxy {proxy.url} {said} (HTTP 407)" in error.message
        assert "user and password" in error.hint
        assert (error.delivery, error.retryable) == ("not_sent", False)
        assert SECRET not in "".join(traceback.format_exception(error))
        assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "did not connect to the server (HTTP 502)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "did not connect to the server (HTTP 403)"),
        (b"\x00\x01\x02 this is no HTTP\r\n\r\n", "is not HTTP"),
        (b"", "closed"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel(
    manager: McpManager, authority: Authority, answer: bytes, reason: str
) -> None:
    with ScriptedProxy(answer=answer) as proxy:
        url = proxy.with_credentials(f"user:{SECRET}")
        await manager.deploy("a", {"url": f"https://{NAME}/mcp", "proxy": url, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert reason in error.message
        assert proxy.url in error.message
        assert error.delivery == "not_sent"
        assert SECRET not in "".join(traceback.format_exception(error))


async def test_a_proxy_that_cannot_reach_the_server(manager: McpManager) -> None:
    with ScriptedProxy(answer=b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as proxy:
        await manager.deploy("a", {"url": f"http://{NAME}/mcp", "proxy": proxy.url, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert f"the proxy {proxy.url} did not connect to the server (HTTP 502)" in error.message


async def test_a_gateway_behind_a_proxy_may_have_passed_a_call_on(manager: McpManager) -> None:
    with ScriptedServer() as server, ScriptedProxy() as proxy:
        await manager.deploy("a", {"url": server.url, "proxy": proxy.url, **CALM})
        server.script("tools/call", faults.Status(502))
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectionLostError)
        assert error.delivery == "unknown"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(manager: McpManager, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
    await manager.deploy("a", {"url": f"{scheme}://{NAME}/mcp", "proxy": proxy, **CALM})
    error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ConnectError)
    assert f"the proxy http://127.0.0.1:{port} cannot be reached: Connection refused" in error.message
    assert SECRET not in str(error)


# For https, there must be time for the certificates of the system to be read beside it.
@pytest.mark.parametrize(("scheme", "timeout_s"), [("http", 0.25), pytest.param("https", 2.0, marks=pytest.mark.slow)])
async def test_a_proxy_that_says_nothing_ends_with_the_connecting(
    manager: McpManager, scheme: str, timeout_s: float
) -> None:
    with ScriptedProxy(silent=True) as proxy:
        settings = {**CALM, "connect_timeout_s": timeout_s}
        await manager.deploy("a", {"url": f"{scheme}://{NAME}/mcp", "proxy": proxy.url, **settings})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert proxy.url in error.message
        assert error.delivery == "not_sent"


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
async def test_the_environment_names_the_proxy(
    manager: McpManager,
    server: ScriptedServer,
    authority: Authority,
    spelling: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedProxy(hosts={NAME: "127.0.0.1"}) as proxy:
        for variable in [each for each in os.environ if each.lower().endswith("_proxy")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv(spelling("https_proxy" if server.tls else "http_proxy"), proxy.url.removeprefix("http://"))
        await manager.deploy("a", settings_of(server, authority, proxy="env"))
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        asked = len(proxy.requests)
        # Without the setting, nothing is between this machine and itself.
        await manager.deploy("b", settings_of(server, authority))
        assert "Connection refused" in (await failure_of(manager, "b", echo("x"))).message
        monkeypatch.setenv("no_proxy", f"other.test, {NAME}")
        await manager.deploy("c", settings_of(server, authority, proxy="env"))
        assert "Connection refused" in (await failure_of(manager, "c", echo("x"))).message
        for name in "bc":
            await manager.undeploy(name)
        assert len(proxy.requests) == asked
        await manager.undeploy("a")


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:1080", "http://", "ftp://127.0.0.1", f"http://user:{SECRET}@[::"]
)
async def test_a_proxy_of_the_environment_that_cannot_be_used(
    manager: McpManager, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", value)
    monkeypatch.setenv("no_proxy", "")
    await manager.deploy("a", {"url": f"https://{NAME}/mcp", "proxy": "env", **CALM})
    error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ConnectError)
    assert "https_proxy in the environment" in error.message
    assert SECRET not in str(error)


async def test_no_proxy_is_asked_for_addresses_that_are_nobodys_server(manager: McpManager) -> None:
    with ScriptedProxy() as proxy:
        await manager.deploy("a", {"url": "http://169.254.169.254/mcp", "proxy": proxy.url, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "not allowed" in error.message
        assert proxy.requests == []


async def test_the_same_server_by_different_ways_shares_no_connection(
    manager: McpManager, authority: Authority
) -> None:
    with ScriptedServer(tls=authority.issue("127.0.0.1").load()) as server, ScriptedProxy() as proxy:
        tls = {"ca_file": str(authority.ca_file)}
        await manager.deploy("a", {"url": server.url, "tls": tls, "headers": {"X-Who": "a"}, **CALM})
        await manager.deploy(
            "b", {"url": server.url, "tls": tls, "headers": {"X-Who": "b"}, "proxy": proxy.url, **CALM}
        )
        for _ in range(3):
            for name in ("a", "b"):
                assert text_of(await manager.execute_raw(name, echo(name))) == name
        users: dict[int, set[str]] = {}
        for each in server.requests:
            users.setdefault(each.connection, set()).add(each.headers["x-who"])
        assert all(len(each) == 1 for each in users.values())
        for name in ("a", "b"):
            await manager.undeploy(name)
