"""The tables ``serve`` and ``views``: what they hold, what is refused, and what never shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcp_manager import ConfigError, ServeConfig, ViewConfig
from mcp_manager.config.listen_address import ListenAddress, parse_listen_address
from mcp_manager.config.load import load_fleet_file, load_fleet_mapping
from mcp_manager.config.sources import manager_config_of

KEY = "k" * 40


def message(document: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_fleet_mapping(document)
    return str(caught.value)


def test_a_file_has_the_fleet_the_gateway_and_its_views(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        """
        [serve]
        listen = "[::1]:9000"
        session_keys = ["${SESSION_KEY}", "${OLD_KEY:-01234567890123456789012345678901}"]
        resume = { max_events = 3 }
        [views.support]
        servers = ["tickets"]
        names = "short"
        rename = { tickets__find_ticket = "find" }
        [servers.tickets]
        url = "http://127.0.0.1:1/mcp"
        """
    )
    file = load_fleet_file(path, environment={"SESSION_KEY": KEY})
    assert [*file.config.servers] == ["tickets"]
    assert file.serve is not None
    assert file.serve.listen == "[::1]:9000"
    assert file.serve.session_keys == (KEY, "01234567890123456789012345678901")
    assert file.serve.resume.max_events == 3
    assert file.views == {
        "support": ViewConfig(servers=("tickets",), names="short", rename={"tickets__find_ticket": "find"})
    }
    assert KEY not in f"{file.serve!r} {file.serve.to_dict()} {file!r}"
    assert KEY in str(file.serve.to_dict(reveal_secrets=True))


def test_a_file_without_these_tables_has_none(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[servers.a]\nurl = 'http://h/mcp'\n")
    file = load_fleet_file(path)
    assert file.serve is None
    assert not file.views


def test_a_manager_sets_them_aside() -> None:
    config = manager_config_of(
        {"servers": {"a": "http://127.0.0.1:1/mcp"}, "serve": {"workers": 2}, "views": {"v": {}}}
    )
    assert [*config.servers] == ["a"]


def test_servers_may_have_the_names_of_these_tables() -> None:
    config = manager_config_of({"serve": {"url": "http://127.0.0.1:1/mcp"}, "views": "http://127.0.0.1:2/mcp"})
    assert [*config.servers] == ["serve", "views"]


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"serve": {"listen": "8080"}}, "serve.listen: has no port from 0 to 65535"),
        ({"serve": {"listen": "127.0.0.1:65536"}}, "serve.listen: has no port"),
        ({"serve": {"listen": ":80"}}, "serve.listen: has no host"),
        ({"serve": {"listen": "::1:80"}}, "serve.listen: has no host"),
        ({"serve": {"listen": "[x]:80"}}, "serve.listen: has no IPv6 address in its brackets"),
        ({"serve": {"listen": "http://127.0.0.1:80"}}, "serve.listen: is an address, not a URL"),
        ({"serve": {"listen": "unix:"}}, "serve.listen: has no path of a socket"),
        ({"serve": {"listen": f"unix:/{'x' * 103}"}}, "serve.listen: the path of a socket has at most 103 bytes"),
        ({"serve": {"listn": "127.0.0.1:80"}}, "serve: unknown field 'listn' (did you mean 'listen'?)"),
        ({"serve": {"resume": {"max_event": 1}}}, "serve.resume: unknown field 'max_event'"),
        ({"serve": {"resume": 1}}, "serve.resume: expected an object, got 1"),
        ({"serve": {"sessions": "own"}}, "serve.sessions: is not one of per_client, shared"),
        ({"serve": {"allowed_hosts": ["https://h"]}}, "serve.allowed_hosts[0]: is not a host"),
        ({"serve": {"allowed_hosts": "h"}}, "serve.allowed_hosts: expected an array, got a string"),
        ({"serve": {"allowed_origins": ["https://h/"]}}, "serve.allowed_origins[0]: is not an origin"),
        ({"serve": {"allowed_origins": ["*"]}}, "serve.allowed_origins[0]: is not an origin"),
        ({"serve": {"session_keys": [KEY, "short"]}}, "serve.session_keys[1]: expected 32 to 4096 characters, got 5"),
        ({"serve": {"session_keys": ["${NOT_SET_ANYWHERE}"]}}, "serve.session_keys[0]: the environment variable"),
        ({"serve": {"workers": 0}}, "serve.workers: expected an integer >= 1, got 0"),
        ({"serve": {"keepalive_s": 0}}, "serve.keepalive_s: expected a number > 0.0, got 0"),
        ({"serve": {"key_file": "k.pem"}}, "serve.key_file: needs cert_file"),
        ({"serve": {"stateful": [""]}}, "serve.stateful[0]: expected a string of length >= 1"),
        ({"serve": []}, "serve: expected an object, got an array"),
        ({"views": {"a/b": {}}}, "views.a/b: the name of a view has 1 to 64 letters"),
        ({"views": {"a": 1}}, "views.a: expected an object, got 1"),
        ({"views": {"a": {"names": "long"}}}, "views.a.names: is not one of full, short"),
        ({"views": {"a": {"rename": {"s__t": "x y"}}}}, "views.a.rename.s__t: the name of a tool has 1 to 128"),
        ({"views": {"a": {"rename": {"s__t": "x", "s__u": "x"}}}}, "views.a.rename.s__u: two tools have this name"),
        ({"views": {"a": {"tool": ["x"]}}}, "views.a: unknown field 'tool' (did you mean 'tools'?)"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(tables: dict[str, Any], problem: str) -> None:
    told = message({"servers": {}, **tables})
    assert told.startswith(f"Invalid configuration: {problem}"), told
    assert KEY not in told


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet_mapping(
            {"serve": {"listen": "x", "workers": 0}, "views": {"a": {"names": "b", "tools": 1}}, "servers": {}}
        )
    assert [each.message.partition(":")[0] for each in caught.value.problems] == [
        "serve.listen", "serve.workers", "views.a.names", "views.a.tools"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080), True),
        ("localhost:0", ListenAddress("localhost", 0), True),
        ("[::1]:80", ListenAddress("::1", 80), True),
        ("0.0.0.0:80", ListenAddress("0.0.0.0", 80), False),
        ("gateway.example.com:443", ListenAddress("gateway.example.com", 443), False),
        ("unix:/run/gateway.sock", ListenAddress(socket_path="/run/gateway.sock"), True),
        ("systemd", ListenAddress(is_inherited=True), False),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: ListenAddress, is_loopback: bool) -> None:
    assert parse_listen_address(text) == address
    assert address.is_loopback is is_loopback
    assert str(address) == text


def test_the_defaults_are_valid() -> None:
    assert load_fleet_mapping({"servers": {}, "serve": msgspec.structs.asdict(ServeConfig())}).serve == ServeConfig()
