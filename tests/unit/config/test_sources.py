"""What a manager and a server can be made from, and what is said of anything else."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import pytest

from mcp_manager import ConfigError, LimitsConfig, ManagerConfig, McpManager, PyMcpManager, Selector, ServerConfig
from mcp_manager.config.sources import fleet_config_of, manager_config_of
from mcp_manager.config.spec import server_config_of

URL = "https://search.example.com/mcp"


class InMemory:
    """The shape of a server object of the SDK."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_initialization_options(self) -> None: ...

    async def run(self, *streams: Any) -> None: ...


OBJECT: Any = InMemory("tools")
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
SECRET = "s3cr3t-token"


@pytest.mark.parametrize(
    ("source", "places"),
    [
        (None, {}),
        (ManagerConfig(servers={"a": ServerConfig(url=URL)}), {"a": URL}),
        (URL, {"search.example.com": URL}),
        ("http://localhost:8000/mcp", {"localhost:8000": "http://localhost:8000/mcp"}),
        (ServerConfig(url=URL, name="search"), {"search": URL}),
        (OBJECT, {"tools": OBJECT}),
        ([OBJECT, URL], {"tools": OBJECT, "search.example.com": URL}),
        ({"servers": {"a": {"url": URL}}}, {"a": URL}),
        ({"servers": {"a": URL, "b": OBJECT, "c": {"server": OBJECT}}}, {"a": URL, "b": OBJECT, "c": OBJECT}),
        ({"servers": {"a": ServerConfig(url=URL), "b": ("npx", "x")}}, {"a": URL, "b": "npx"}),
        ({"mcpServers": {"a": {"command": "npx", "args": ["x"], "autoApprove": []}}}, {"a": "npx"}),
        ({"servers": {"a": {"type": "http", "url": URL}}, "inputs": []}, {"a": URL}),
        ({"context_servers": {"a": {"command": "npx"}}}, {"a": "npx"}),
        ({"a": URL, "b": {"command": "npx"}, "c": OBJECT}, {"a": URL, "b": "npx", "c": OBJECT}),
        ({"url": URL}, {"search.example.com": URL}),
        ({"command": "npx", "args": ["-y", "@scope/files@1.2"]}, {"files": "npx"}),
        ({}, {}),
    ],
)
def test_a_manager_is_made_from_what_describes_a_fleet(source: Any, places: dict[str, Any]) -> None:
    config = manager_config_of(source)
    assert {name: each.url or each.command or each.server for name, each in config.servers.items()} == places


def test_a_mapping_is_read_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_TOKEN", "s3cr3t-token")
    document = {
        "manager": {"max_connections": 5},
        "defaults": {"request_timeout_s": 3},
        "servers": {
            "a": {"url": URL, "auth": {"type": "bearer", "token": "${SEARCH_TOKEN}"}},
            "b": {"url": URL, "disabled": True},
        },
    }
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(document))
    assert manager_config_of(document) == manager_config_of(path) == manager_config_of(str(path))
    assert McpManager.from_file(path)._config == PyMcpManager.from_file(str(path))._config == manager_config_of(path)


def test_everything_that_is_wrong_in_a_mapping_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        McpManager({"servers": {"a": {"urll": URL}, "b": {"url": 5}, "c": URL}})
    assert [str(each) for each in caught.value.problems] == [
        "servers.a: unknown field 'urll' (did you mean 'url'?)",
        "servers.b.url: expected a string or an array, got a number",
    ]
    assert str(caught.value).startswith("Invalid configuration: 2 problems")
    assert list(manager_config_of({"servers": {"a": {"urll": URL}, "c": URL}}, lenient=True).servers) == ["c"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (5, "value of type int .*give a ManagerConfig, the path of a file, a URL, a server object"),
        (b"{}", "value of type bytes"),
        ('{"servers": {}}', "JSON text.*give the mapping itself"),
        ({"foo": 1}, "none of the known tables"),
        (
            {"time": "uvx"},
            r'servers.time: a text must be a URL.*a program and its arguments as a list, such as \["uvx"',
        ),
        ({"time": "./server.py", "docs": URL}, r"servers.time: a text must be a URL"),
        ({"name": "time", "tags": ["a"]}, "none of the known tables"),
        ({"sever": {"a": {"url": URL}}}, "unknown table 'sever'.*did you mean 'servers'"),
        ({"servers": {"a": URL}, "max_connections": 5}, "'max_connections'.*it belongs in the manager table"),
        ([OBJECT, OBJECT], "two servers have the id 'tools'.*a mapping of servers by id"),
        (["npx", "-y"], r"is no command line.*give a mapping of servers by id"),
        (["a.toml", "b.toml"], "a.toml: cannot be read"),
        (" ", "made from an empty text"),
        ("localhost:8000/mcp", "needs its scheme.*put http:// or https:// before"),
        (ENDLESS, "nested too deeply"),
        ([{"manager": {"max_connections": 1}}, {"manager": {"max_connections": 2}}], "several sources have settings"),
        ({"servers": {"a": 5}}, "servers.a: expected a ServerConfig, a mapping of its fields, a URL"),
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(source: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        manager_config_of(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"wss://user:{SECRET}@h/mcp", "begins with 'wss://'.*use http://"),
        (f'["{SECRET}"]', "made from JSON text"),
        (f"servers:\n  a: {SECRET}", "made from JSON text"),
    ],
)
def test_a_text_that_is_no_path_is_not_quoted(source: str, said: str) -> None:
    for refuse in (manager_config_of, fleet_config_of):
        with pytest.raises(ConfigError, match=said) as caught:
            refuse(source)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("source", [f"https://user:{SECRET}@h/mcp", SECRET.encode()])
def test_what_describes_no_fleet_is_not_quoted(source: Any) -> None:
    with pytest.raises(ConfigError, match="config must be a ManagerConfig") as caught:
        fleet_config_of(source)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "python server.py", f"wss://user:{SECRET}@h/mcp", f"url: {SECRET}"])
def test_a_text_that_describes_no_server_says_what_a_text_may_be(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"a URL of http or https, or a JSON object.*as a list") as caught:
        server_config_of("a", spec)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (URL, {}),
        ({"url": URL}, {}),
        (json.dumps({"url": URL}), {}),
        (json.dumps({"url": URL}).encode(), {}),
        (ServerConfig(url=URL), {}),
        (None, {"url": URL}),
        ({"url": URL, "limits": LimitsConfig(max_concurrent=8)}, {}),
    ],
)
def test_a_server_is_made_from_what_describes_it(spec: Any, fields: dict[str, Any]) -> None:
    expected = ServerConfig(url=URL, name="a", tags=("x",), limits=LimitsConfig(max_concurrent=8))
    for limits in ({"max_concurrent": 8}, LimitsConfig(max_concurrent=8)):
        assert server_config_of("a", spec, {**fields, "tags": ["x"], "limits": limits}) == expected


def test_a_list_is_a_program_or_one_url_for_each_instance() -> None:
    program = server_config_of("a", ["npx", "-y", "server"])
    assert (program.command, program.args, program.transport) == ("npx", ("-y", "server"), "stdio")
    several = server_config_of("a", [URL, "https://b.example.com/mcp"])
    assert (several.instances, several.url) == (2, (URL, "https://b.example.com/mcp"))
    with pytest.raises(ConfigError, match="must hold nothing but URLs"):
        server_config_of("a", [URL, "npx"])
    with pytest.raises(ConfigError, match="a list of a program and its arguments"):
        server_config_of("a", [])


def test_fields_replace_those_of_another_form_as_a_whole() -> None:
    shared = ServerConfig(url=URL, headers={"X-A": "${NOT_FILLED_IN}"}, limits=LimitsConfig(max_concurrent=8))
    changed = server_config_of("a", shared, {"limits": {"max_waiting": 3}})
    assert (changed.limits, changed.headers) == (LimitsConfig(max_waiting=3), shared.headers)
    with pytest.raises(ConfigError, match=r"unknown field 'tag'.*did you mean 'tags'"):
        server_config_of("a", shared, {"tag": "x"})
    with pytest.raises(ConfigError, match=r"limits: unknown field 'max_concurrency'.*did you mean 'max_concurrent'"):
        server_config_of("a", URL, {"limits": {"max_concurrency": 8}})


class Policy(enum.StrEnum):
    ROUND_ROBIN = "round_robin"


def test_lists_mappings_and_enumerations_stand_for_what_the_structs_hold() -> None:
    given: dict[str, Any] = {
        "url": [URL],
        "tags": ["a"],
        "auth": {"type": "bearer", "token": "secret-token"},
        "limits": {"tools": {"slow": {"rate": 2}}},
        "balancing": {"policy": Policy.ROUND_ROBIN, "weights": [1.0]},
        "tools": {"allow": ["a*"]},
    }
    config = ServerConfig(**given)
    assert (config.url, config.tags, config.tools.allow, config.balancing.weights) == ((URL,), ("a",), ("a*",), (1.0,))
    assert (config.auth.type, config.limits.tools["slow"].rate) == ("bearer", 2)
    assert "secret-token" not in repr(config)
    checked = server_config_of("a", config)
    assert type(checked.balancing.policy) is str
    assert ManagerConfig(telemetry={"traces": {"ratio": 0.5}}).telemetry.traces is not None
    assert ManagerConfig(servers={"a": {"url": URL}}).servers["a"] == ServerConfig(url=URL, name="a")
    assert Selector(tags=["b", "a"]).tags == ("a", "b")


def test_an_unknown_field_of_a_section_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match=r"auth: unknown field 'tokn'.*did you mean 'token'"):
        ServerConfig(url=URL, auth={"tokn": "secret"})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["python -m tool", "npx", "ftp://example.com/mcp", "fleet.toml"])
def test_a_text_that_is_no_url_is_told_how_to_write_a_program(text: str) -> None:
    told = (
        r"a text must be a URL of http or https, or a JSON object \(give a program and its arguments as a list, such as"
    )
    with pytest.raises(ConfigError, match=told) as caught:
        server_config_of("time", text)
    assert text not in str(caught.value)


def test_a_mapping_of_command_lines_is_told_how_to_write_a_program() -> None:
    with pytest.raises(ConfigError, match=r"servers.time: a text must be a URL .* as a list, such as"):
        manager_config_of({"time": "uvx mcp-server-time", "search": "https://search.example.com/mcp"})
