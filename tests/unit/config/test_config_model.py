"""The configuration structs: defaults, URLs of instances, and that showing one never shows a credential."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from mcp_manager.config import (
    AuthConfig,
    BreakerConfig,
    HealthConfig,
    ManagerConfig,
    RestartConfig,
    ServerConfig,
    redact_url,
)
from mcp_manager.errors import ConfigError

SECRET = "s3cr3t-SENTINEL-value"


def test_repr_shows_no_credential() -> None:
    config = ServerConfig(
        url=f"https://{SECRET}:{SECRET}@h:1/mcp?token={SECRET}&{SECRET}#{SECRET}",
        auth=AuthConfig(type="api_key", key=SECRET, token=SECRET),
        headers={"X-Tenant": SECRET},
        env={"TOKEN": SECRET},
        args=("--token", SECRET),
        extras={"oauth": {"secret": SECRET}},
    )
    several = msgspec.structs.replace(config, url=(f"http://h/?a={SECRET}", SECRET))
    manager = ManagerConfig(servers={"one": config, "two": several})
    for value in (config, several, manager, config.auth):
        assert SECRET not in repr(value)
        assert SECRET not in str(value)
        assert SECRET not in f"{value}"
        assert SECRET not in repr(value.__rich_repr__())
    assert "headers={'X-Tenant': '***'}" in repr(config)
    assert "env={'TOKEN': '***'}" in repr(config)
    assert "url='https://***@h:1/mcp?token=***&***'" in repr(config)
    assert repr(config.auth) == "AuthConfig(type='api_key', key='***', token='***', header='X-API-Key')"
    assert repr(AuthConfig()) == "AuthConfig(type='none', key=None, token=None, header='X-API-Key')"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/mcp", "http://h/mcp"),
        ("http://h/a?b", "http://h/a?***"),
        ("http://h/a?b=c=d&e=", "http://h/a?b=***&e=***"),
        ("http://u:p@q@h/a", "http://***@h/a"),
        ("http://h?x=http://u@v/", "http://h?x=***"),
        ("u:p@h", "***"),
        ("", ""),
    ],
)
def test_redact_url(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("url", "index", "expected"),
    [
        ("http://h/mcp", 3, "http://h/mcp"),
        (("http://a", "http://b"), 1, "http://b"),
        ("http://h:90{i:02d}/", 7, "http://h:9007/"),
        ("http://h:90{i:02}/", 12, "http://h:9012/"),
        ("http://s{i}.h/{i:03d}", 4, "http://s4.h/004"),
        ("http://s{i:d}.h/", 10, "http://s10.h/"),
    ],
)
def test_instance_url(url: str | tuple[str, ...], index: int, expected: str) -> None:
    assert ServerConfig(url=url).instance_url(index) == expected


@pytest.mark.parametrize(
    ("url", "index"),
    [(None, 0), (("http://a",), 1), (("http://a",), -1), ("http://h", -1), ("http://h:900{i}/", 10)],
)
def test_instance_url_that_does_not_exist(url: str | tuple[str, ...] | None, index: int) -> None:
    with pytest.raises(ConfigError, match=f"instance {index}"):
        ServerConfig(url=url).instance_url(index)


def test_kinds_of_url() -> None:
    plain, listed, template = (
        ServerConfig(url=url) for url in ("http://h", ("http://a", "http://b"), "http://h:80{i:02d}")
    )
    assert (plain.url_limit, listed.url_limit, template.url_limit) == (None, 2, None)
    assert (plain.has_url_template, listed.has_url_template, template.has_url_template) == (False, False, True)


def test_instances_default_to_one_per_url() -> None:
    assert ServerConfig(url="http://h").instances == 1
    assert ServerConfig(command="server").instances == 1
    assert ServerConfig(url=("http://a", "http://b", "http://c")).instances == 3
    assert ServerConfig(url=("http://a", "http://b", "http://c"), instances=2).instances == 2
    assert ServerConfig(url="http://h", instances=0).instances == 0


def test_transport_follows_the_command() -> None:
    assert ServerConfig(url="http://h").transport == "http"
    assert ServerConfig(command="server").transport == "stdio"


def test_breaker_defaults_are_those_of_the_specification() -> None:
    assert msgspec.structs.asdict(BreakerConfig()) == {
        "enabled": True,
        "window_s": 10.0,
        "min_calls": 20,
        "failure_rate": 0.5,
        "consecutive_failures": 5,
        "slow_call_s": 0.0,
        "slow_rate": 0.8,
        "open_s": 5.0,
        "open_max_s": 300.0,
        "jitter": 0.2,
        "trip_decay_s": 30.0,
        "half_open_permits": 1,
        "half_open_successes": 2,
        "probe_ttl_s": 30.0,
        "active_first": True,
        "probe_grace_s": 2.0,
        "timeout_floor_s": 1.0,
        "rpc_errors": (),
    }


def test_defaults_are_valid_by_their_own_rules() -> None:
    for kind in (AuthConfig, BreakerConfig, HealthConfig, RestartConfig, ManagerConfig):
        assert msgspec.convert(msgspec.structs.asdict(kind()), kind) == kind()


def test_structs_are_frozen_and_share_no_state() -> None:
    config = ServerConfig(url="http://h")
    with pytest.raises(AttributeError):
        config.priority = 1  # type: ignore[misc]
    assert ServerConfig().headers is not ServerConfig().headers


def test_pickle_round_trip() -> None:
    config = ServerConfig(command="server", env={"A": "b"}, instances=3)
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("url", [5, ["http://h/mcp", 5], object()])
def test_a_configuration_with_a_url_of_a_wrong_type_can_be_shown(url: Any) -> None:
    assert "url=" in repr(ServerConfig(url=url))
