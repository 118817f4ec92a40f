"""Configuration files: both formats, the tables, defaults, client formats, variables, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_manager.config import AuthConfig, ManagerConfig, load_manager_config
from mcp_manager.errors import ConfigError

SECRET = "s3cr3t-SENTINEL-value"
ENVIRONMENT = {"TOKEN": SECRET, "EMPTY": "", "HOST": "example.com", "LOOP": "${TOKEN}"}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: Any, name: str = "fleet.json") -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def load(path: Path, environment: Mapping[str, str] = ENVIRONMENT) -> ManagerConfig:
    return load_manager_config(path, environment=environment)


def message(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    error = caught.value
    assert SECRET not in "".join([str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)])
    assert error.__cause__ is None
    assert error.__context__ is None
    told = re.fullmatch(rf"Invalid config file {re.escape(str(path))}(?::\d+:\d+)?: (.*)", str(error), re.DOTALL)
    assert told is not None
    return told[1]


def servers(settings: Any) -> dict[str, Any]:
    return {"servers": {"one": settings}}


TOML = """
[manager]
max_connections = 500
shutdown_timeout_s = 3

[defaults]
priority = 7
request_timeout_s = 20
args = ["--default"]

[defaults.headers]
X-Tenant = "acme"
X-Trace = "on"

[defaults.breaker]
open_s = 2.5
consecutive_failures = 3

[servers.search]
url = "https://${HOST}/mcp"
auth = { type = "bearer", token = "${TOKEN}" }
priority = 9
breaker = { open_s = 1 }
headers = { x-trace = "off" }

[mcpServers.time]
command = "mcp-server-time"
env = { ZONE = "${ZONE:-UTC}" }
"""


def test_toml(write: Write) -> None:
    config = load(write(TOML, "fleet.toml"))
    assert (config.max_connections, config.shutdown_timeout_s, config.connect_concurrency) == (500, 3.0, 64)
    search, time = config.servers["search"], config.servers["time"]
    assert search.name == "search"
    assert search.url == "https://example.com/mcp"
    assert search.auth == AuthConfig(type="bearer", token=SECRET)
    assert (search.priority, search.request_timeout_s, search.args) == (9, 20.0, ())
    assert search.headers == {"X-Tenant": "acme", "x-trace": "off"}
    assert (search.breaker.open_s, search.breaker.consecutive_failures) == (1.0, 3)
    assert (time.command, time.args, time.env) == ("mcp-server-time", ("--default",), {"ZONE": "UTC"})
    assert (time.priority, time.headers, time.breaker.open_s) == (7, {}, 2.5)


def test_client_format(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    document = {
        "inputs": [],
        "mcpServers": {
            "git": {
                "command": "uvx",
                "args": ["mcp-server-git"],
                "env": {"A": "b"},
                "cwd": "/srv",
                "alwaysAllow": ["log"],
            },
            "web": {"type": "streamableHttp", "url": "https://h/mcp", "headers": {"X-A": "b"}, "timeout": 60_000},
            "off": {"command": "x", "type": "sse", "disabled": True},
        },
    }
    config = load(write(document))
    assert list(config.servers) == ["git", "web"]
    assert config.servers["git"].cwd == "/srv"
    assert config.servers["git"].extras == {"alwaysAllow": ["log"]}
    assert config.servers["web"].transport == "http"
    assert config.servers["web"].request_timeout_s == 60.0
    assert config.servers["web"].extras == {"timeout": 60_000}
    assert [record.getMessage() for record in caplog.records] == [
        "mcpServers.web: timeout is ignored, because its unit differs between clients; give request_timeout_s"
    ]


@pytest.mark.parametrize("name", ["fleet.json", "fleet.JSON"])
def test_empty_document(write: Write, name: str) -> None:
    assert load(write({}, name)) == ManagerConfig()
    assert load(write("", "fleet.toml")) == ManagerConfig()
    assert load(write(b"\xef\xbb\xbf{}", name)) == ManagerConfig()


def test_settings_of_the_manager_in_another_table_are_refused(write: Write) -> None:
    one = {"url": "https://example.com/mcp", "max_connections": 5}
    path = write({"max_connections": 5, "servers": {"one": one}})
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [problem.message for problem in caught.value.problems] == [
        "unknown table 'max_connections' (it belongs in the manager table)",
        "servers.one: unknown field 'max_connections' (it belongs in the manager table)",
    ]


def test_near_misses_are_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    document = {"mcpservers": {}, "mcpServers": {"one": {"url": "http://h", "prioritty": 1, "timeout": 5}}}
    with caplog.at_level(logging.WARNING, "mcp_manager"):
        load(write(document))
    assert [record.getMessage() for record in caplog.records] == [
        "mcpservers: unknown field, ignored; did you mean 'mcpServers'?",
        "mcpServers.one: ignored: prioritty (did you mean priority?); timeout is ignored, because its unit differs"
        " between clients; give request_timeout_s",
    ]


def test_variables(write: Write) -> None:
    settings = {
        "command": "${env:HOST}/${TOKEN}",
        "args": [
            "$HOME",
            "$$HOST",
            "$${HOST}",
            "${NOPE:-a:-b}",
            "${EMPTY:-full}",
            "x${EMPTY}y",
            "${LOOP}",
            "${env:NOPE:-}",
        ],
        "env": {"${HOST}": "${TOKEN}"},
        "cwd": "/${HOST}",
        "name": "${HOST}",
    }
    config = load(write(servers(settings))).servers["one"]
    assert config.command == f"example.com/{SECRET}"
    assert config.args == ("$HOME", "$$HOST", "${HOST}", "a:-b", "full", "xy", "${TOKEN}", "")
    assert config.env == {"${HOST}": SECRET}
    assert config.cwd == "/example.com"
    assert config.name == "${HOST}"


def test_variables_in_lists_templates_and_auth(write: Write) -> None:
    listed = {"url": ["http://${HOST}/a", "http://b"], "headers": {"X-A": "${TOKEN}"}}
    assert load(write(servers(listed))).servers["one"].url == ("http://example.com/a", "http://b")
    template = {"url": "http://${HOST}:90{i:02d}/", "auth": {"type": "api_key", "key": "${TOKEN}", "header": "X-$"}}
    config = load(write(servers(template))).servers["one"]
    assert config.instance_url(3) == "http://example.com:9003/"
    assert config.auth == AuthConfig(type="api_key", key=SECRET, header="X-$")


def test_variables_come_from_the_process_by_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_MANAGER_TEST_HOST", "from.process")
    config = load_manager_config(str(write(servers({"url": "http://${MCP_MANAGER_TEST_HOST}"}))))
    assert config.servers["one"].url == "http://from.process"


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({"command": "${NOPE}"}, "command", "the environment variable NOPE is not set"),
        ({"command": "x", "args": ["a", "${NOPE}"]}, "args[1]", "the environment variable NOPE is not set"),
        ({"command": "x", "env": {"A": "${env:NOPE}"}}, "env.A", "the environment variable NOPE is not set"),
        ({"command": "x", "cwd": "${NOPE}"}, "cwd", "the environment variable NOPE is not set"),
        ({"url": "http://${NOPE}"}, "url", "the environment variable NOPE is not set"),
        ({"url": ["http://h", "${NOPE}"]}, "url[1]", "the environment variable NOPE is not set"),
        ({"url": "http://h", "headers": {"X-A": "${NOPE}"}}, "headers.X-A", "NOPE is not set"),
        ({"url": "http://h", "auth": {"type": "api_key", "key": "${NOPE}"}}, "auth.key", "NOPE is not set"),
        ({"url": "http://h", "auth": {"type": "bearer", "token": "${NOPE}"}}, "auth.token", "NOPE is not set"),
        ({"url": "http://h", "auth": {"type": "bearer", "token": "${EMPTY}"}}, "auth.token", "must not be empty"),
        (
            {"url": "http://h", "auth": {"type": "api_key", "key": "k", "header": "${TOKEN} x"}},
            "auth.header",
            "is not a header",
        ),
        ({"url": "http://${TOKEN}@h"}, "url", "put credentials in auth"),
        ({"url": "http://h:${TOKEN}"}, "url", "has an invalid port"),
        ({"url": "http://h", "headers": {"X-A": "${TOKEN}\n"}}, "headers.X-A", "contains a line break"),
        ({"command": "${input:key}"}, "command", "needs the input 'key', which the client asks its user for"),
        ({"command": "${}"}, "command", "contains a malformed placeholder"),
        ({"command": "${HOST"}, "command", "contains a malformed placeholder"),
        ({"command": "${A-B}"}, "command", "contains a malformed placeholder"),
        ({"url": "http://h", "disabled": "yes"}, "disabled", "expected true or false, got a string"),
        ({"url": "http://h", "priority": 256}, "priority", "expected an integer <= 255, got 256"),
        ({"url": "http://h", "auth": {"type": "bearer", "tokn": SECRET}}, "auth", "unknown field 'tokn'"),
        ({"type": "ws", "url": "http://h"}, "type", "is not supported yet"),
    ],
)
def test_bad_server(write: Write, settings: dict[str, Any], field: str, problem: str) -> None:
    text = message(write(servers(settings)))
    assert text.startswith(f"servers.one.{field}: ")
    assert problem in text


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"zzz": 1}, "has none of the known tables (use manager, defaults, servers, mcpServers, serve, views)"),
        ({"servers": []}, "servers: expected an object, got an array"),
        ({"servers": None}, "servers: expected an object, got null"),
        ({"mcpServers": {"a": 1}}, "mcpServers.a: expected an object, got 1"),
        ({"mcpServers": {"a": SECRET}}, "mcpServers.a: expected an object, got a string"),
        ({"servers": {"": {"url": "http://h"}}}, "servers['']: must not be empty"),
        ({"servers": {"a\nb": {"url": "http://h"}}}, r"servers['a\nb']: contains a control character"),
        ({"servers": {"a.b": {}}}, "servers['a.b'].url: missing"),
        ({"servers": {"a": {"url": "http://h"}}, "mcpServers": {"a": {}}}, "servers.a: the same id"),
        ({"manager": []}, "manager: expected an object"),
        (
            {"manager": {"max_conections": 1}},
            "manager: unknown field 'max_conections' (did you mean 'max_connections'?)",
        ),
        ({"manager": {"servers": {}}}, "manager: unknown field 'servers'"),
        ({"manager": {"max_connections": -1}}, "manager.max_connections: expected an integer >= 0, got -1"),
        (
            {"manager": {"max_connections_per_origin": -1}},
            "manager.max_connections_per_origin: expected an integer >= 0, got -1",
        ),
        ({"manager": {"shutdown_timeout_s": "1"}}, "manager.shutdown_timeout_s: expected a number, got a string"),
        ({"manager": {"client_name": "a\r\nb"}}, "manager.client_name: expected 1 to 256 printable ASCII"),
        ({"defaults": {"prioritty": 1}}, "defaults: unknown field 'prioritty' (did you mean 'priority'?)"),
        ({"defaults": {"url": "http://h"}}, "defaults.url: cannot be a default"),
        ({"defaults": {"priority": 300}}, "defaults.priority: expected an integer <= 255, got 300"),
        ({"defaults": {"headers": {"Host": "x"}}}, "defaults.headers.Host: is set by the manager"),
        ({"defaults": {"env": {"A": 5}}}, "defaults.env.A: expected a string, got a number"),
        (
            {"defaults": {"auth": {"type": "bearer", "token": "${NOPE}"}}},
            "defaults.auth.token: the environment variable",
        ),
        ({"defaults": {"breaker": {"open": 1}}}, "defaults.breaker: unknown field 'open'"),
    ],
)
def test_bad_document(write: Write, document: Any, problem: str) -> None:
    assert message(write(document)).startswith(problem)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "", "malformed JSON"),
        ("a.json", '{\n "servers": {,}}', "malformed JSON"),
        ("a.json", f'{{"servers": {{"a": {{"auth": {{"key": "{SECRET}', "malformed JSON"),
        ("a.json", "[]", "expected an object, got an array"),
        (
            "a.json",
            '{"servers": {"a": {"url": "http://h"}, "a": {}}}',
            "a: malformed JSON: the key is given twice",
        ),
        ("a.json", '{"a":' * 100_000, "malformed JSON: nested too deeply"),
        ("a.json", b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ("a.toml", "[servers\n", "malformed TOML: "),
        ("a.toml", f'[servers.a.auth]\nkey = "{SECRET}\n', "malformed TOML: "),
        ("a.toml", "a = 1\na = 2\n", "malformed TOML: "),
        ("a.toml", "a = " + "[" * 100_000, "malformed TOML: nested too deeply"),
        ("a.toml", "a = " + "9" * 5000, "malformed TOML: "),
        ("a.toml", b"a = '\xff'", "byte 5 is not UTF-8"),
        (
            "a.toml",
            "[servers.a]\nurl = 'http://h'\npriority = 1979-05-27\n",
            "servers.a.priority: expected a JSON value",
        ),
        (
            "a.toml",
            "[servers.a]\nurl = 'http://h'\nrequest_timeout_s = nan\n",
            "servers.a.request_timeout_s: expected a",
        ),
        ("a.yml.txt", "servers: {}", "the name must end in .json, .jsonc, .toml, .yaml or .yml"),
        ("servers", "{}", "the name must end in .json, .jsonc, .toml, .yaml or .yml"),
    ],
)
def test_bad_file(write: Write, name: str, content: str | bytes, problem: str) -> None:
    path = write(content, name)
    text = message(path)
    assert text.startswith(problem)
    if "TOML: " in problem and len(content) < 1000:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems[0].line is not None


@pytest.mark.parametrize("value", [-1, 1.5, "4", 2_000_000])
def test_how_many_programs_start_at_a_time_is_a_number_in_range(write: Write, value: object) -> None:
    assert message(write({"manager": {"start_concurrency": value}})).startswith("manager.start_concurrency: expected")
    assert load(write({"manager": {"start_concurrency": 3}})).start_concurrency == 3


def test_unreadable_file(tmp_path: Path) -> None:
    assert message(tmp_path / "missing.json").startswith("cannot be read: No such file")
    folder = tmp_path / "folder.json"
    folder.mkdir()
    assert message(folder).startswith("cannot be read: Is a directory")
    assert message(Path(str(tmp_path / "nul\x00.json"))).startswith("cannot be read: the name contains a NUL")


def test_foreign_values_of_any_kind_are_kept(write: Write) -> None:
    config = load(write("[mcpServers.a]\nurl = 'http://h'\nsince = 1979-05-27\nratio = nan\n", "a.toml"))
    assert set(config.servers["a"].extras) == {"since", "ratio"}
