"""A server whose name leads elsewhere by now is found there at once, and names are not asked for more than needed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of

from mcp_manager import ConnectError, ManagerConfig, McpManager
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.connections import names

NAME = "moving.test"


class Directory:
    """What the one name resolves to; everything else is left to the system."""

    def __init__(self) -> None:
        self.addresses = ["127.0.0.1"]
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **settings: Any) -> list[Any]:
        if (host.decode() if isinstance(host, bytes) else host) != NAME:
            return socket.getaddrinfo(host, port, **settings)
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for each in self.addresses for found in socket.getaddrinfo(each, port, **settings)]


@pytest.fixture
async def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    directory = Directory()
    # Not that of the system's library: uvloop asks it from C.
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", directory.getaddrinfo)
    return directory


@pytest.fixture
def one() -> Iterator[ScriptedServer]:
    with ScriptedServer(sessions=False) as server:
        yield server


@pytest.fixture
def two(one: ScriptedServer) -> Iterator[ScriptedServer]:
    with ScriptedServer(sessions=False, host="127.0.0.2", port=one.port) as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
def config(request: pytest.FixtureRequest) -> ManagerConfig:
    return ManagerConfig(http_lanes=request.param)


def url_of(server: ScriptedServer) -> str:
    return f"http://{NAME}:{server.port}/mcp"


async def goes(server: ScriptedServer, manager: McpManager) -> None:
    """Have a server end, and the manager notice."""
    server.refuse_connections()
    await eventually(lambda: manager._http.clients.open_connections("a") == 0, "the end of all connections")


async def test_a_server_that_has_moved_is_found_by_the_next_call(
    directory: Directory, one: ScriptedServer, two: ScriptedServer, config: ManagerConfig
) -> None:
    async with McpManager(config) as manager:
        await manager.deploy("a", {"url": url_of(one), **CALM})
        assert text_of(await manager.execute_raw("a", echo("before"), timeout=5)) == "before"
        await goes(one, manager)
        directory.addresses = ["127.0.0.2"]
        for number in range(10):
            assert text_of(await manager.execute_raw("a", echo(str(number)), timeout=5)) == str(number)
    assert (one.executed, two.executed) == (["before"], [str(number) for number in range(10)])


async def test_one_that_is_back_elsewhere_is_found_as_soon(
    directory: Directory, one: ScriptedServer, two: ScriptedServer, config: ManagerConfig
) -> None:
    async with McpManager(config) as manager:
        await manager.deploy("a", {"url": url_of(one), **CALM})
        await manager.execute_raw("a", echo("before"), timeout=5)
        await goes(one, manager)
        for _ in range(3):
            error = await failure_of(manager, "a", echo("nowhere"))
            assert isinstance(error, ConnectError)
        directory.addresses = ["127.0.0.2"]
        assert text_of(await manager.execute_raw("a", echo("after"), timeout=5)) == "after"


async def test_a_name_is_asked_for_once_where_all_is_well(
    directory: Directory, one: ScriptedServer, config: ManagerConfig
) -> None:
    async with McpManager(config) as manager:
        await manager.deploy("a", {"url": url_of(one), **CALM})
        for _ in range(5):
            await asyncio.gather(*(manager.execute_raw("a", echo("x"), timeout=5) for _ in range(20)))
    assert directory.asked == 1


async def test_a_server_that_is_gone_costs_a_question_each_time(
    directory: Directory, one: ScriptedServer, config: ManagerConfig
) -> None:
    async with McpManager(config) as manager:
        await manager.deploy("a", {"url": url_of(one), **CALM})
        await goes(one, manager)
        await failure_of(manager, "a", echo("x"))
        asked = directory.asked
        for _ in range(5):
            await failure_of(manager, "a", echo("x"))
        assert directory.asked == asked + 5


async def test_a_name_that_is_gone_is_told(directory: Directory, one: ScriptedServer, config: ManagerConfig) -> None:
    async with McpManager(config) as manager:
        await manager.deploy("a", {"url": url_of(one), **CALM})
        await manager.execute_raw("a", echo("x"), timeout=5)
        await goes(one, manager)
        directory.addresses = []
        await failure_of(manager, "a", echo("x"))
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "cannot be resolved" in error.message
        directory.addresses = ["127.0.0.1"]
        one.listen()
        assert text_of(await manager.execute_raw("a", echo("back"), timeout=5)) == "back"


async def test_what_is_remembered_of_names_is_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_MOST_KNOWN", 3)
    resolver = names.Names()
    for port in range(1, 10):
        await resolver.resolve(NAME, port)
    assert len(resolver._answers) == 3
    await resolver.close()
