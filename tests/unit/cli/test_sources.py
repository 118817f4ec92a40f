"""What stands in place of a configuration file, and the ids that follow from it."""

from __future__ import annotations

import pytest

from mcp_manager import ConfigError, InvalidRequestError, ServerNotFoundError
from mcp_manager.cli.options import CommandLine, Options
from mcp_manager.cli.source import Fleet, load, only, patient, server_ids
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.config.load import FleetFile


@pytest.mark.parametrize(
    ("command", "server_id"),
    [
        ("npx -y @modelcontextprotocol/server-everything", "server-everything"),
        ("npx -y some-server@1.2.3 --flag value", "some-server"),
        ("npx --package=a -y @scope/name@latest", "name"),
        ("uvx mcp-server-time --local-timezone UTC", "mcp-server-time"),
        ("uvx --from git+https://example.com/x.git tool", "x.git"),
        ("uv run server.py", "server"),
        ("python -m package.server", "package.server"),
        ("python3.12 -P /opt/server.py", "server"),
        ("/usr/bin/node build/index.js", "index"),
        ("docker run --rm -i mcp/time:latest", "time"),
        ("env KEY=value program", "program"),
        ("/opt/bin/my-server --port 3", "my-server"),
        ("./server.sh", "server"),
        ("npx", "npx"),
        ("@", "@"),
    ],
)
async def test_a_program_is_named_by_what_it_runs(command: str, server_id: str) -> None:
    fleet = await load(Options(config=CommandLine(command.split())))
    assert list(fleet.servers) == [server_id]
    server = fleet.servers[server_id]
    assert [server.command, *server.args] == command.split()
    assert (fleet.place, fleet.lone) == (command, server_id)


async def test_a_program_gets_the_variables_that_are_named() -> None:
    options = Options(config=CommandLine(["program"]), environment=("TOKEN", "MODE=a=b"))
    (server,) = (await load(options)).servers.values()
    assert (server.inherit_env, server.env) == (("TOKEN",), {"MODE": "a=b"})
    with pytest.raises(InvalidRequestError, match="--env is for the program"):
        await load(Options(config="http://h/mcp", environment=("TOKEN",)))


@pytest.mark.parametrize(
    ("url", "server_id"),
    [
        ("https://example.com/mcp", "example.com"),
        ("HTTP://localhost:8080/mcp?key=1", "localhost:8080"),
    ],
)
async def test_a_url_is_named_by_its_host(
    url: str, server_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    fleet = await load(Options(config=url))
    assert list(fleet.servers) == [server_id]
    assert fleet.servers[server_id].auth.type == "none"


async def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        await load(Options(config="http://[bad/mcp"))


def test_a_server_that_is_alone_need_not_be_named() -> None:
    config = ManagerConfig(servers={"a": ServerConfig(url="http://h/mcp")})
    file = FleetFile(config)
    alone = Fleet(file, "http://h/mcp", ("tool", "x=1"), "a")
    assert alone.server_and_rest() == ("a", ("tool", "x=1"))
    named = Fleet(file, "http://h/mcp", ("a", "tool"), "a")
    assert named.server_and_rest() == ("a", ("tool",))
    assert Fleet(file, "file", ("a", "tool")).server_and_rest() == ("a", ("tool",))
    assert Fleet(file, "file", ()).server_and_rest() == (None, ())
    with pytest.raises(InvalidRequestError, match="unexpected argument 'tool'"):
        named.chosen()


def test_an_unknown_server_is_told_with_the_nearest() -> None:
    config = ManagerConfig(servers={"files": ServerConfig(url="http://h/mcp")})
    with pytest.raises(ServerNotFoundError, match=r"did you mean files\? configured: files"):
        only(config, "fils")
    with pytest.raises(ServerNotFoundError, match=r"\(configured: none\)"):
        only(ManagerConfig(), "x" * 100_000)


def test_calls_wait_as_long_as_a_program_may_start() -> None:
    config = ManagerConfig(
        servers={
            "a": ServerConfig(command="a", request_timeout_s=1.0, start_timeout_s=9.0),
            "b": ServerConfig(url="http://h/mcp", request_timeout_s=1.0, start_timeout_s=9.0),
        }
    )
    assert [server.request_timeout_s for server in patient(config).servers.values()] == [9.0, 1.0]


def test_the_ids_of_a_file_that_cannot_be_read_are_none() -> None:
    assert server_ids("no-such-file.toml") == []
