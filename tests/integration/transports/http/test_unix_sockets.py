"""HTTP over unix sockets: calls, streams and sessions as over TCP, and what is said where no server listens."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import ConfigError, ConnectError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

pytestmark = pytest.mark.both_loops


@pytest.fixture(params=[True, False], ids=["lanes", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> Any:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "server.sock")


def open_connections(manager: McpManager) -> int:
    """Return how many connections to the one server are shown, in use or idle."""
    lines = [each for each in manager.metrics_text().splitlines() if each.startswith("mcp_connection_pool_size{")]
    return sum(int(float(each.rpartition(" ")[2])) for each in lines)


@pytest.mark.parametrize("spelling", ["unix_socket", "url"])
async def test_calls_go_over_a_socket(manager: McpManager, path: str, spelling: str) -> None:
    where: dict[str, Any] = {"url": "http://sidecar.test/mcp", "unix_socket": path}
    if spelling == "url":
        where = {"url": f"http+unix://{path.replace('/', '%2F')}/mcp"}
    with ScriptedServer(unix=path) as server:
        await manager.deploy("a", {**where, **CALM})
        replies = await asyncio.gather(*(manager.execute_raw("a", echo(str(number))) for number in range(20)))
        assert [text_of(each) for each in replies] == [str(number) for number in range(20)]
        host = "sidecar.test" if spelling == "unix_socket" else "localhost"
        assert {each.headers["host"] for each in server.requests} == {host}
        assert {each.path for each in server.requests} == {"/mcp"}
        assert 0 < open_connections(manager) <= server.peak_connections
        await manager.undeploy("a")
        assert {each.verb for each in server.requests} == {"POST", "GET", "DELETE"}


async def test_two_sockets_under_one_url_share_nothing(manager: McpManager, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"{name}.sock") for name in ("a", "b")}
    with ScriptedServer(unix=paths["a"]) as first, ScriptedServer(unix=paths["b"]) as second:
        for name, path in paths.items():
            await manager.deploy(name, {"url": "http://localhost/mcp", "unix_socket": path, **CALM})
        for _ in range(3):
            for name in paths:
                assert text_of(await manager.execute_raw(name, echo(name))) == name
        assert (set(first.executed), set(second.executed)) == ({"a"}, {"b"})
        for name in paths:
            await manager.undeploy(name)


async def test_a_socket_that_comes_later(manager: McpManager, path: str) -> None:
    await manager.deploy(
        "a", {"url": "http://localhost/mcp", "unix_socket": path, **CALM, "restart": {"initial_s": 0.01}}
    )
    error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ConnectError)
    assert f"unix_socket {path}: No such file or directory" in error.message
    assert (error.delivery, error.retryable) == ("not_sent", True)
    with ScriptedServer(unix=path):
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=5)) == "x"
        await manager.undeploy("a")


async def test_a_socket_that_nobody_listens_on(manager: McpManager, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
    await manager.deploy("a", {"url": "http://localhost/mcp", "unix_socket": path, **CALM})
    error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ConnectError)
    assert f"unix_socket {path}: Connection refused" in error.message
    assert error.hint == "check that the server is running"


async def test_a_file_in_place_of_a_socket(manager: McpManager, path: str) -> None:
    config = {"url": "http://localhost/mcp", "unix_socket": path, **CALM}
    await manager.deploy("a", config)
    await asyncio.to_thread(Path(path).write_text, "no socket")
    with pytest.raises(ConfigError, match="unix_socket: is a file, not a socket"):
        await manager.deploy("b", config)
    error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ConnectError)
    assert f"unix_socket {path} is a file, not a socket" in error.message
    assert error.retryable is False


async def test_a_server_that_breaks_off_over_a_socket(manager: McpManager, path: str) -> None:
    with ScriptedServer(unix=path) as server:
        await manager.deploy("a", {"url": "http://localhost/mcp", "unix_socket": path, **CALM})
        server.script("tools/call", faults.Close())
        error = await failure_of(manager, "a", echo("x"))
        assert error.delivery == "unknown"
        assert text_of(await manager.execute_raw("a", echo("y"), timeout=5)) == "y"
        await manager.undeploy("a")


async def test_a_home_directory_is_filled_in(
    manager: McpManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with ScriptedServer(unix=os.path.join(tmp_path, "s.sock")):
        await manager.deploy("a", {"url": "http://localhost/mcp", "unix_socket": "~/s.sock", **CALM})
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        await manager.undeploy("a")
