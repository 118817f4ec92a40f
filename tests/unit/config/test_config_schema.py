"""The JSON Schema of the configuration file: complete, valid, and of one mind with the loader."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from mcp_manager import config
from mcp_manager.config import load_manager_config
from mcp_manager.config.schema import config_schema
from mcp_manager.errors import ConfigError

SCHEMA = config_schema()
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
STRUCTS = {
    name: kind
    for name in config.__all__
    if isinstance(kind := getattr(config, name), type) and issubclass(kind, msgspec.Struct)
}


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every property in a schema."""
    if isinstance(schema, dict):
        for name, each in schema.get("properties", {}).items():
            yield f"{path}.{name}", each
        for name, each in schema.items():
            yield from fields(each, f"{path}/{name}")


def test_it_is_a_valid_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_field_has_a_description_in_plain_text() -> None:
    found = dict(fields(SCHEMA))
    assert len(found) > 200
    for path, each in found.items():
        assert len(each["description"]) > 10, path
        assert "``" not in each["description"] and ":class:" not in each["description"], path


@pytest.mark.parametrize("name", STRUCTS)
def test_it_has_every_field_of_every_struct(name: str) -> None:
    properties = SCHEMA["$defs"]["Server" if name == "ServerConfig" else name]["properties"]
    # Neither the servers of a manager nor a server in memory stand in a table of settings.
    expected = set(STRUCTS[name].__struct_fields__) - (
        {"servers", "server"} if name in ("ManagerConfig", "ServerConfig") else set()
    )
    more = {"type", "disabled", "enabled"} if name == "ServerConfig" else set()
    assert set(properties) == expected | more
    for field in msgspec.structs.fields(STRUCTS[name]):
        shown = properties.get(field.name, {}).get("default", msgspec.NODEFAULT)
        if shown is not msgspec.NODEFAULT and field.default is not msgspec.NODEFAULT:
            assert shown == msgspec.to_builtins(field.default), field.name


GOOD: list[Any] = [
    {},
    {"$schema": "./x.json", "servers": {"a": {"url": "http://h", "type": "streamable-http"}}},
    {"manager": {"max_connections": 5, "retry_budget": {"ratio": 0.1}}, "defaults": {"priority": 3, "env": {"A": "b"}}},
    {
        "servers": {
            "a": {"url": ["http://h", "http://i"], "tags": ["x"], "auth": {"type": "bearer", "token": "${T:-x}"}}
        }
    },
    {"servers": {"a": {"command": "run", "disabled": True, "tools": {"allow": ["a*"]}, "extras": {"x": None}}}},
    {"mcpServers": {"a": {"command": "run", "anything": 1}}},
    {
        "servers": {
            "a": {"url": "http://h", "limits": {"tools": {"x": {"rate": 2.0}}}, "retry": {"budget": {"ttl_s": 3}}}
        }
    },
]
BAD: list[Any] = [
    {"default": {}},
    {"manager": {"max_conections": 5}},
    {"manager": {"servers": {}}},
    {"manager": {"shutdown_timeout_s": 0}},
    {"defaults": {"url": "http://h"}},
    {"servers": []},
    {"servers": {"": {"url": "http://h"}}},
    {"servers": {"a": {"url": "http://h", "request_timeout": 5}}},
    {"servers": {"a": {"url": "http://h", "priority": 256}}},
    {"servers": {"a": {"url": "http://h", "instances": -1}}},
    {"servers": {"a": {"url": "http://h", "auth": {"type": "basic"}}}},
    {"servers": {"a": {"url": "http://h", "connect": "soon"}}},
    {"servers": {"a": {"url": "http://h", "transport": "ws"}}},
    {"servers": {"a": {"url": "http://h", "breaker": {"open": 1}}}},
    {"servers": {"a": {"url": 5}}},
    {"servers": {"a": {"url": "http://h", "headers": {"X": 1}}}},
    {"servers": {"a": {"url": "http://h", "request_timeout_s": "5"}}},
]


@pytest.mark.parametrize("document", GOOD, ids=json.dumps)
def test_what_is_right_passes_both(document: Any, tmp_path: Path) -> None:
    VALIDATOR.validate(document)
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    load_manager_config(path, environment={})


@pytest.mark.parametrize("document", BAD, ids=json.dumps)
def test_what_is_wrong_passes_neither(document: Any, tmp_path: Path) -> None:
    assert not VALIDATOR.is_valid(document)
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_manager_config(path, environment={})


def test_toml_is_checked_by_it_too() -> None:
    text = "#:schema ./fleet.schema.json\n[manager]\nmax_connections = 5\n[servers.a]\nurl = 'http://h'\n"
    VALIDATOR.validate(tomllib.loads(text))
    assert not VALIDATOR.is_valid(tomllib.loads(text.replace("max_connections", "max_conections")))
