"""What is wrong in a file: all of it, in order, with its place; our own format is strict; the rest can be loaded."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mcp_manager.config import ServerConfig, check_server_config, load_manager_config, parse_server_config
from mcp_manager.config.load import load_fleet_file
from mcp_manager.errors import ConfigError, ConfigProblem


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_manager_config(path, environment={})
    assert str(caught.value).startswith(f"Invalid config file {path}:")
    return [f"{each.line}:{each.column}: {each.message}" for each in caught.value.problems]


PREFIX = "Invalid config file"
TOML = """[manager]
max_conections = 5
client_name = ""

[default]
priority = 1

[defaults]
request_timeout = 5
breaker = { open = 1 }

[servers.a]
url = "http://h"
request_timeout = 5
timeout = 5
priority = 300

[servers.b]
command = "run"
max_connections = 5

[servers."c.d".auth]
type = "bearer"
token = "${NOPE}"

[servers.e]
url = [
  "http://h",
  "${NOPE}",
]
"""


def test_everything_that_is_wrong_in_our_own_format_is_told_in_order(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "fleet.toml", TOML)) == [
        "2:1: manager: unknown field 'max_conections' (did you mean 'max_connections'?)",
        "3:1: manager.client_name: expected 1 to 256 printable ASCII characters",
        "5:1: unknown table 'default' (did you mean 'defaults'?)",
        "9:1: defaults: unknown field 'request_timeout' (did you mean 'request_timeout_s'?)",
        "10:1: defaults.breaker: unknown field 'open' (did you mean 'open_s'?)",
        "14:1: servers.a: unknown field 'request_timeout' (did you mean 'request_timeout_s'?)",
        "15:1: servers.a: unknown field 'timeout' (did you mean 'request_timeout_s'?)",
        "16:1: servers.a.priority: expected an integer <= 255, got 300",
        "20:1: servers.b: unknown field 'max_connections' (it belongs in the manager table)",
        "22:1: servers['c.d'].url: missing (give url for an HTTP server or command for a stdio server)",
        "24:1: servers['c.d'].auth.token: the environment variable NOPE is not set (set it, or write ${NOPE:-default})",
        "27:1: servers.e.url[1]: the environment variable NOPE is not set (set it, or write ${NOPE:-default})",
    ]


def test_every_mistake_in_the_tables_of_the_manager_is_told(tmp_path: Path) -> None:
    content = """[manager]
client_name = ""
retry_budget = { ratioo = 1 }
[manager.telemetry]
metrics = "yes"
endpont = "http://c"
traces = { ratio = 7, slowest = 1 }
"""
    told = problems(write(tmp_path, "fleet.toml", content))
    assert [each.partition(": ")[0] for each in told] == ["2:1", "3:1", "5:1", "6:1", "7:1", "7:1"]
    assert "manager.retry_budget: unknown field 'ratioo' (did you mean 'ratio'?)" in told[1]
    assert told[2].startswith("5:1: manager.telemetry.metrics: ")
    assert "manager.telemetry: unknown field 'endpont' (did you mean 'endpoint'?)" in told[3]
    assert told[4].startswith("7:1: manager.telemetry.traces.ratio: ")
    assert "manager.telemetry.traces: unknown field 'slowest'" in told[5]


def test_one_problem_has_its_place_in_the_message_too(tmp_path: Path) -> None:
    path = write(tmp_path, "fleet.toml", "[servers.a]\nurl = 'http://h'\nprioritty = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_manager_config(path)
    told = "servers.a: unknown field 'prioritty' (did you mean 'priority'?)"
    assert str(caught.value) == f"Invalid config file {path}:3:1: {told}"
    assert caught.value.problems == (ConfigProblem(str(path), 3, 1, told),)
    assert str(caught.value.problems[0]) == f"{path}:3:1: {told}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[servers.a]\nurl = http://h\n", "2:7: malformed TOML: Invalid value"),
        ("[servers.a]\nurl = 'http://h'\n" * 2, "3:11: malformed TOML: Cannot declare ('servers', 'a') twice"),
        ("", None),
    ],
)
def test_malformed_text_has_its_place_once(tmp_path: Path, content: str, told: str | None) -> None:
    path = write(tmp_path, "fleet.toml", content or b"\xff")
    with pytest.raises(ConfigError) as caught:
        load_manager_config(path)
    message = str(caught.value)
    assert message == f"Invalid config file {path}:{told}" if told else message.startswith(f"{PREFIX} {path}: byte 0")


def test_an_error_with_problems_survives_the_way_to_another_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_manager_config(write(tmp_path, "fleet.toml", TOML))
    other = pickle.loads(pickle.dumps(caught.value))
    assert other.problems == caught.value.problems
    assert str(other) == str(caught.value)


def test_after_many_problems_the_rest_is_not_looked_at(tmp_path: Path) -> None:
    servers = {f"s{number}": {"url": "nonsense"} for number in range(1500)}
    with pytest.raises(ConfigError) as caught:
        load_manager_config(write(tmp_path, "mcp.json", {"mcpServers": servers}))
    assert len(caught.value.problems) == 1000
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(": at least 1000 problems")
    assert (len(lines), lines[-1]) == (52, "and 950 more")


def test_in_a_lenient_load_further_problems_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    servers = {f"s{number}": {"url": "nonsense"} for number in range(1003)}
    path = write(tmp_path, "mcp.json", {"mcpServers": {**servers, "ok": {"command": "run"}}})
    with caplog.at_level(logging.WARNING, "mcp_manager"):
        loaded = load_fleet_file(path, lenient=True)
    assert (list(loaded.config.servers), len(loaded.problems)) == (["ok"], 1000)
    assert caplog.records[-1].getMessage() == f"{path}: 3 more problems; their servers are left out"


LENIENT = {
    "mcpServers": {
        **{f"ok{number}": {"command": "run"} for number in range(38)},
        "a": {"command": "run", "env": {"K": "${KEY_A}"}},
        "b": {"url": "http://h/mcp", "headers": {"Authorization": "Bearer ${KEY_B}"}},
        "c": {"type": "ws", "url": "http://h"},
    }
}


@pytest.mark.parametrize("table", ["mcpServers", "servers"])
def test_the_servers_that_are_right_can_be_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture, table: str) -> None:
    path = write(tmp_path, "fleet.json", {table: LENIENT["mcpServers"]})
    with pytest.raises(ConfigError, match="3 problems"):
        load_manager_config(path, environment={})
    with caplog.at_level(logging.WARNING, "mcp_manager"):
        loaded = load_fleet_file(path, environment={}, lenient=True)
    assert list(loaded.config.servers) == [f"ok{number}" for number in range(38)]
    assert [each.message.partition(":")[0] for each in loaded.problems] == [
        f"{table}.a.env.K",
        f"{table}.b.headers.Authorization",
        f"{table}.c.type",
    ]
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{each}; the server is left out" for each in loaded.problems]
    assert load_manager_config(path, environment={}, lenient=True) == loaded.config


def test_the_settings_of_the_manager_stay_when_a_server_is_left_out(tmp_path: Path) -> None:
    content = {"manager": {"max_connections": 7}, "defaults": {"priority": 3}}
    wrong = {"a": {"url": "x"}, "b": {"command": "x", "disabled": "yes"}, "c": {"command": "x", "max_connections": 1}}
    path = write(tmp_path, "fleet.json", {**content, "servers": {**wrong, "ok": {"command": "run"}}})
    config = load_manager_config(path, lenient=True)
    assert (config.max_connections, list(config.servers), config.servers["ok"].priority) == (7, ["ok"], 3)


@pytest.mark.parametrize(("name", "module", "extra"), [("a.yaml", "yaml", "yaml"), ("mcp.json", "dotenv", "clients")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = write(tmp_path, name, {"mcpServers": {"a": {"command": "run", "envFile": ".env"}}})
    with pytest.raises(ConfigError, match="which is not installed") as caught:
        load_manager_config(path)
    assert caught.value.hint == f"pip install 'pymcp-manager[{extra}]'"


@pytest.mark.parametrize(
    "content",
    [
        {"manager": {"max_connections": -1}, "servers": {"a": {"command": "x"}}},
        {"defaults": {"priority": 300}, "servers": {"a": {"command": "x"}}},
        {"manger": {}, "servers": {"a": {"command": "x"}}},
        {"servers": []},
        "{",
    ],
)
def test_what_concerns_the_whole_file_is_an_error_all_the_same(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ConfigError):
        load_manager_config(write(tmp_path, "fleet.json", content), lenient=True)


def test_servers_that_are_off_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
[servers.a]
command = "run"
disabled = true
[servers.b]
command = "run"
enabled = false
[servers.c]
command = "run"
enabled = true
disabled = false
[mcpServers.d]
command = "run"
disabled = true
"""
    with caplog.at_level(logging.INFO, "mcp_manager"):
        loaded = load_fleet_file(write(tmp_path, "fleet.toml", text))
    assert list(loaded.config.servers) == ["c"]
    assert loaded.switched_off == ("a", "b", "d")
    assert [record.getMessage() for record in caplog.records] == [
        "servers.a: is switched off, and left out",
        "servers.b: is switched off, and left out",
        "mcpServers.d: is switched off, and left out",
    ]


def test_our_own_format_can_be_yaml_and_can_name_its_schema(tmp_path: Path) -> None:
    text = "manager: {max_connections: 5}\nservers:\n  a: {url: 'http://h', request_timeout_s: 3}\n"
    config = load_manager_config(write(tmp_path, "fleet.yaml", text))
    assert (config.max_connections, config.servers["a"].request_timeout_s) == (5, 3.0)
    content = {"$schema": "./fleet.schema.json", "servers": {"a": {"url": "http://h"}}}
    assert list(load_manager_config(write(tmp_path, "fleet.json", content)).servers) == ["a"]


def test_our_own_json_has_no_comments(tmp_path: Path) -> None:
    text = '{"manager": {}, // mine\n "servers": {}}'
    assert problems(write(tmp_path, "fleet.json", text)) == [
        "1:17: malformed JSON: Expecting property name enclosed in double quotes"
    ]
    load_manager_config(write(tmp_path, "fleet.jsonc", text))


@pytest.mark.parametrize("field", ["client_secret", "token_endpoint"])
def test_variables_are_filled_in_everywhere_in_auth(tmp_path: Path, field: str) -> None:
    auth = {"type": "oauth", "client_id": "${ID}", "scopes": ["${ID}"], "parameters": {"p": "${ID}"}}
    auth |= {"authorization_endpoint": "https://h/${ID}", "token_endpoint": "https://h/t", field: "https://h/${ID}"}
    path = write(tmp_path, "fleet.json", {"servers": {"a": {"url": "http://h", "auth": auth}}})
    found = load_manager_config(path, environment={"ID": "four"}).servers["a"].auth
    assert (found.client_id, found.scopes, found.parameters) == ("four", ("four",), {"p": "four"})
    assert getattr(found, field) == "https://h/four"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"url": "http://h/${A}"}, "url"),
        ({"url": ["http://h", "http://${A:-b}"]}, "url[1]"),
        ({"url": "http://h", "headers": {"X-A": "${env:A}"}}, "headers.X-A"),
        ({"command": "run", "env": {"K": "x${A}"}}, "env.K"),
        ({"url": "http://h", "auth": {"type": "bearer", "token": "${A}"}}, "auth.token"),
        ({"url": "http://h", "proxy": "http://${A}"}, "proxy"),
    ],
)
def test_variables_outside_of_files_are_refused(settings: dict[str, Any], field: str) -> None:
    for text in (settings, json.dumps(settings)):
        with pytest.raises(ConfigError) as caught:
            parse_server_config(text, server_id="a")
        assert str(caught.value) == (
            f"Invalid server config: {field}: contains a variable such as ${{VAR}}, which is filled in only in "
            "configuration files (give its value, or a ServerConfig, which is taken as it is)"
        )


def test_what_is_no_variable_is_taken_as_it_is() -> None:
    settings = {"command": "sh", "args": ["-c", "echo ${HOME}"], "env": {"A": "$HOME ${a[@]} $${B} ${"}}
    config = parse_server_config(settings, server_id="a")
    assert (config.args, config.env) == (("-c", "echo ${HOME}"), {"A": "$HOME ${a[@]} $${B} ${"})
    struct = ServerConfig(url="http://h", headers={"X-A": "${A}"})
    assert check_server_config(struct, server_id="a").headers == {"X-A": "${A}"}


# Bounds


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    for name, size in (("a.json", 16), ("a.toml", 16), ("a.yaml", 2)):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(size * 2**20 + 1)
        tracemalloc.start()
        assert problems(path) == [f"None:None: is larger than {size} MiB (split it)"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * size * 2**20


def test_a_fifo_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "fifo.json"
    os.mkfifo(path)
    assert problems(path) == ["None:None: cannot be read: it is not a regular file"]
    link = tmp_path / "zero.json"
    link.symlink_to("/dev/zero")
    assert problems(link) == ["None:None: cannot be read: it is not a regular file"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[" * 1_000_000),
        ("a.json", '{"a":' * 1_000_000),
        ("a.json", '"' + "\\" * 1_000_001),
        ("a.json", "/*" * 1_000_000),
        ("a.json", "{" + "," * 1_000_000 + "}"),
        ("a.json", '{"servers": {' + " ," * 500_000 + "}}"),
        ("a.toml", "a = " + "[" * 1_000_000),
        ("a.toml", 'a = "' + "\\" * 1_000_001),
        ("a.yaml", "[" * 1_000_000),
        ("a.yaml", "- " * 1_000_000),
        ("a.yaml", "a: &a {b: *a, c: *a}"),
    ],
)
def test_hostile_text_ends_as_an_error(tmp_path: Path, name: str, text: str) -> None:
    assert len(problems(write(tmp_path, name, text))) == 1


def test_a_large_file_is_read_and_its_problems_are_placed(tmp_path: Path) -> None:
    servers = {f"server-{number}": {"url": f"http://host-{number}/mcp", "tags": ["x"]} for number in range(5_000)}
    servers["server-4999"]["priority"] = 999
    found = problems(write(tmp_path, "fleet.json", json.dumps({"servers": servers}, indent=1)))
    assert found == ["30002:4: servers.server-4999.priority: expected an integer <= 255, got 999"]
