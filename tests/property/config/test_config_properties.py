"""Any input is a configuration or a ``ConfigError``; a configuration survives being written and read again."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.config import (
    AuthConfig,
    ServerConfig,
    check_server_config,
    load_manager_config,
    parse_server_config,
    redact_url,
)
from mcp_manager.errors import ConfigError

SECRET = "s3cr3t-SENTINEL-value"
FIELDS = [*ServerConfig.__struct_fields__, "type", "disabled", "timeout"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
odd_text = st.text(alphabet=st.sampled_from("aZ0 {}i:$/@#?[]%.-\r\n\x00\x7f\ud800é=\\"), max_size=12)
urlish = st.builds(
    "{}{}{}".format, st.sampled_from(["http://", "https://h", "ftp://", "", "http://[::1]:"]), odd_text, odd_text
)
odd_values = json_values | odd_text | urlish | st.sampled_from(["http", "stdio", "api_key", "bearer", "none", "lazy"])
sections = st.dictionaries(
    st.sampled_from(["type", "key", "token", "header", "open_s", "jitter", "interval_s", "fall", "max_s", "X-A"]),
    odd_values,
    max_size=3,
)
configurations = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=8), odd_values | sections | st.lists(odd_values, max_size=3), max_size=6
)


def parsed(source: Any, *, server_id: str = "one", lenient: bool = False) -> ServerConfig | None:
    try:
        config = parse_server_config(source, server_id=server_id, lenient=lenient)
    except ConfigError as error:
        assert str(error).startswith("Invalid server config: ")
        assert "\n" not in str(error)
        return None
    assert isinstance(config, ServerConfig)
    return config


@given(st.binary(max_size=60), st.booleans())
def test_arbitrary_bytes(data: bytes, lenient: bool) -> None:
    parsed(data, lenient=lenient)


@given(st.text(max_size=60))
def test_arbitrary_text(text: str) -> None:
    parsed(text)


@given(json_values, st.booleans())
def test_arbitrary_json(value: Any, lenient: bool) -> None:
    parsed(json.dumps(value), lenient=lenient)


@given(configurations, st.booleans(), st.booleans())
def test_odd_configurations(source: dict[str, Any], lenient: bool, as_text: bool) -> None:
    config = parsed(json.dumps(source) if as_text else source, lenient=lenient)
    if config is not None and not config.extras:
        assert check_server_config(config, server_id="one") == config


@given(st.text(max_size=300))
def test_server_ids(server_id: str) -> None:
    config = parsed({"url": "http://h"}, server_id=server_id)
    assert config is None or config.name == server_id


@given(urlish)
def test_accepted_urls_work_for_every_instance(url: str) -> None:
    config = parsed({"url": url, "instances": 3})
    if config is not None:
        for index in range(3):
            instance = config.instance_url(index)
            assert "{" not in instance
            assert parsed({"url": instance}) is not None


@given(odd_text, odd_text, odd_text)
def test_no_secret_is_quoted(before: str, after: str, name: str) -> None:
    value = f"{before}{SECRET}{after}"
    sources: list[dict[str, Any]] = [
        {"url": "http://h", "auth": {"type": "api_key", "key": value}},
        {"url": "http://h", "auth": {"type": "bearer", "token": value}},
        {"url": "http://h", "auth": {"type": value}},
        {"url": "http://h", "auth": value},
        {"url": "http://h", "headers": {name: value}},
        {"url": "http://h", "headers": {f"{name}: {value}": 5}},
        {"url": "http://h", "headers": value},
        {"url": f"http://user:{value}@h:99999/"},
        {"command": "x", "env": {name: value}},
        {"command": "x", "env": {f"{name}={value}": ""}},
        {"command": "x", "args": [value, name]},
        {"command": "x", "args": [value, 5]},
    ]
    for source in sources:
        for text in (source, json.dumps(source), json.dumps(source)[:-1]):
            try:
                config = parse_server_config(text, server_id="one")
            except ConfigError as error:
                seen = "".join([str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)])
                assert SECRET not in seen
            else:
                assert SECRET not in repr(config)


@given(st.text(max_size=40), st.text(max_size=20))
def test_redacted_urls_show_no_password_and_no_query_value(path: str, host: str) -> None:
    host = "".join(character for character in host if character not in "/?#@\\")
    shown = redact_url(f"https://user:{SECRET}@{host}/?a={SECRET}&{SECRET}#{path}{SECRET}")
    assert SECRET not in shown


names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).filter(str.strip)
field_values = st.from_regex(r"[!-~]([ -~]{0,8}[!-~])?", fullmatch=True)
header_names = st.from_regex(r"X-[A-Za-z0-9]{1,8}", fullmatch=True)
credentials = st.one_of(
    st.just(AuthConfig()),
    st.builds(AuthConfig, type=st.just("api_key"), key=field_values, header=st.just("Api-Key")),
    st.builds(AuthConfig, type=st.just("bearer"), token=st.from_regex(r"[!-~]{1,12}", fullmatch=True)),
)
common = {
    "name": names,
    "server_type": names,
    "priority": st.integers(0, 255),
    "tags": st.lists(names, unique=True, max_size=3).map(tuple),
    "connect": st.sampled_from(["eager", "lazy"]),
    "connect_timeout_s": st.floats(0.001, 1000),
    "start_timeout_s": st.floats(0.001, 1000),
    "max_instances": st.integers(3, 100),
    "extras": st.dictionaries(names, st.integers(0, 9), max_size=2),
}
http_servers = st.builds(
    ServerConfig,
    url=st.sampled_from(["http://h", "https://h:1/{i}", ("http://a", "http://b"), "http://h:80{i:02d}/x?y=z"]),
    instances=st.sampled_from([-1, 0, 1, 2]),
    auth=credentials,
    headers=st.dictionaries(header_names, field_values, max_size=2).filter(
        lambda headers: len({name.lower() for name in headers}) == len(headers)
    ),
    **common,  # type: ignore[arg-type]
)
stdio_servers = st.builds(
    ServerConfig,
    command=names,
    args=st.lists(names, max_size=3).map(tuple),
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), names, max_size=2),
    instances=st.integers(0, 3),
    **common,  # type: ignore[arg-type]
)


@given(http_servers | stdio_servers)
def test_round_trip(config: ServerConfig) -> None:
    assert check_server_config(config, server_id="one") == config
    assert parse_server_config(msgspec.json.encode(config), server_id="one") == config
    assert parse_server_config(msgspec.to_builtins(config), server_id="one", lenient=True) == config


@pytest.mark.parametrize("suffix", ["json", "toml"])
@given(
    data=st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["manager", "defaults", "servers", "mcpServers"]),
        json_values | configurations | st.dictionaries(names, configurations, max_size=2),
        max_size=4,
    ).map(lambda document: json.dumps(document).encode())
)
def test_arbitrary_files(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / f"arbitrary.{suffix}"
    path.write_bytes(data)
    try:
        config = load_manager_config(path, environment={})
    except ConfigError as error:
        assert str(error).startswith(f"Invalid config file {path}:")
    else:
        assert all(isinstance(server, ServerConfig) for server in config.servers.values())
