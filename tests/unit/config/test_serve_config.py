"""The tables ``serve`` and ``views``: what they hold, what is refused, and what never shows."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcp_manager import ConfigError, ServeConfig, ViewConfig
from mcp_manager.config.full_text_search import has_full_text_search
from mcp_manager.config.gateway_tables import serve_config_of
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
        ({"serve": []}, "serve: expected an object, got an array (write [serve], with single brackets)"),
        ({"serve": {"auth": "jwt"}}, "serve.auth: expected an object, got a string (write a table: [serve.auth])"),
        ({"serve": {"limits": {"rate": 1}}}, "serve.limits: expected an array, got an object (write [[serve.limits]]"),
        ({"serve": {"auth": {"type": "jwt", "issuers": {}}}}, "serve.auth.issuers: expected an array, got an object (write [["),
        ({"serve": {"host": "h"}}, "serve: unknown field 'host' (did you mean 'listen'?)"),
        ({"serve": {"zzz": 1}}, "serve: unknown field 'zzz' (mcp-manager help gateway lists the known ones)"),
        ({"serve": {"views": {}}}, "serve: unknown field 'views' (write [views.NAME], beside [serve])"),
        ({"serve": {"admin": {"operators": []}}}, "serve.admin: unknown field 'operators' (name them in serve.auth"),
        ({"serve": {"pins": {"mode": "enforce"}}}, "serve.pins.mode: is not one of block, off, warn"),
        ({"serve": {"credentials": {"s": {"type": "x"}}}}, "serve.credentials[...].type: is not one of enterprise, ex"),
        ({"serve": {"audit": {"path": "stdout"}}}, "serve.audit.path: cannot be standard output (write stderr"),
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


JWT = {"type": "jwt", "issuer": "https://idp.example.com", "audience": ["https://g/mcp"]}
OPAQUE = {
    "type": "introspection",
    "introspection_endpoint": "https://idp.example.com/introspect",
    "client_id": "g",
    "client_secret": "${CLIENT_SECRET}",
}


@pytest.mark.parametrize("auth", [JWT, {**JWT, "issuer": "http://127.0.0.1:1/as"}, {**JWT, "issuer": "http://[::1]:1"}])
def test_clients_may_have_signed_tokens(auth: dict[str, Any]) -> None:
    serve = load_fleet_mapping({"servers": {}, "serve": {"auth": auth}}).serve
    assert serve is not None
    assert serve.auth.issuer == auth["issuer"]


def test_the_secret_of_the_gateway_may_be_a_variable_and_never_shows(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode({"servers": {}, "serve": {"auth": OPAQUE}}))
    serve = load_fleet_file(path, environment={"CLIENT_SECRET": KEY}).serve
    assert serve is not None
    assert serve.auth.client_secret == KEY
    assert KEY not in f"{serve!r} {serve.to_dict()}"


@pytest.mark.parametrize(
    ("auth", "problem"),
    [
        ({"type": "jwk"}, "type: is not one of none, api_key, jwt, introspection"),
        ({"type": "api_key"}, "keys_file: missing (make a key with mcp-manager key new NAME --file FILE, and give FILE here)"),
        ({"keys_file": "k"}, "keys_file: cannot be combined with type 'none' (set type to 'api_key', or drop it)"),
        ({"type": "api_key", "keys_file": "k", "audience": ["x"]}, "audience: cannot be combined with type 'api_key'"),
        ({**OPAQUE, "algorithms": ["RS256"]}, "algorithms: cannot be combined with type 'introspection'"),
        ({**JWT, "client_id": "x"}, "client_id: cannot be combined with type 'jwt'"),
        ({"type": "jwt", "audience": ["x"]}, "issuer: missing"),
        ({"type": "jwt", "issuer": "https://a"}, "audience: missing"),
        ({**JWT, "issuer": "http://idp.example.com"}, "issuer: must begin with https:// (http:// is accepted for loopback addresses only)"),
        ({**JWT, "issuer": "http://127.0.0.1.evil.example.com"}, "issuer: must begin with https"),
        ({**JWT, "jwks_url": "https://u:p@h/"}, "jwks_url: contains a user name or password"),
        ({**JWT, "resource": "gateway.example.com"}, "resource: is not a URL (begin it with https://, as in https://idp.example.com)"),
        ({**JWT, "resource": "https://g/?x"}, "resource: has a query"),
        ({**JWT, "algorithms": ["RS256", "HS256"]}, "algorithms[1]: is not accepted: whoever can verify such a token"),
        ({**JWT, "algorithms": ["none"]}, "algorithms[0]: is not accepted: anybody could forge such a token"),
        ({**JWT, "algorithms": ["RS255"]}, "algorithms[0]: is not one of RS256, RS384"),
        ({**JWT, "algorithms": []}, "algorithms: must not be empty"),
        ({**JWT, "scopes": ["a b"]}, "scopes[0]: is not a scope"),
        ({**JWT, "principal_claim": ""}, "principal_claim: must not be empty"),
        ({**OPAQUE, "client_secret": None}, "client_secret: missing"),
        ({**OPAQUE, "introspection_endpoint": None}, "introspection_endpoint: missing (give it, or issuer)"),
        ({**OPAQUE, "client_secret": "${NOT_SET_ANYWHERE}"}, "client_secret: the environment variable"),
    ],
)  # fmt: skip
def test_authentication_that_cannot_work_is_refused(
    auth: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", KEY)
    told = message({"servers": {}, "serve": {"auth": auth}})
    assert told.startswith(f"Invalid configuration: serve.auth.{problem}"), told
    assert KEY not in told


@pytest.mark.parametrize("auth", [{"type": "jwt", "issuer": "https://a"}, {"type": "api_key"}])
def test_authentication_is_checked_in_code_as_in_a_file(auth: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="missing"):
        serve_config_of({"auth": auth})


def test_a_search_needs_its_names_and_full_text_search(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"views": {"v": {"discovery": "search", "rename": {"a__b": "call_tool"}}}}
    assert "must not be call_tool: the gateway has a tool of this name" in message(taken)
    assert not load_fleet_mapping({"views": {"v": {"rename": {"a__b": "call_tool"}}}}).views["v"].hot

    class Lacking:
        Error = sqlite3.Error

        @staticmethod
        def connect(name: str) -> sqlite3.Connection:
            connection = sqlite3.connect(name)
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            return connection

    has_full_text_search.cache_clear()
    try:
        for module in (Lacking, None):
            has_full_text_search.cache_clear()
            monkeypatch.setitem(sys.modules, "sqlite3", module)  # type: ignore[arg-type]
            for document in ({"serve": {"discovery": "search"}}, {"views": {"v": {"discovery": "search"}}}):
                told = message(document)
                assert "discovery: search needs FTS5" in told and 'or discovery = "list"' in told
            assert load_fleet_mapping({"views": {"v": {"discovery": "list"}}}).views
    finally:
        has_full_text_search.cache_clear()
