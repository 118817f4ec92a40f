"""Rules for tools in a configuration: what is accepted, what is refused, and how defaults are merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mcp_manager
from mcp_manager import ConfigError, ServerConfig, ToolsConfig, load_manager_config
from mcp_manager.config import check_server_config, parse_server_config


def parsed(tools: Any) -> ToolsConfig:
    return parse_server_config({"url": "http://localhost/mcp", "tools": tools}, server_id="a").tools


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ({}, ToolsConfig()),
        ({"allow": None}, ToolsConfig()),
        ({"allow": []}, ToolsConfig(allow=())),
        ({"allow": ["read", "li*"], "deny": ["read"]}, ToolsConfig(allow=("read", "li*"), deny=("read",))),
        ({"deny": ["a", "a", "*[!a-z]"]}, ToolsConfig(deny=("a", "a", "*[!a-z]"))),
        ({"deny": ["x" * 256] * 1000}, ToolsConfig(deny=("x" * 256,) * 1000)),
    ],
)
def test_lists_of_names_and_patterns_are_accepted(tools: Any, expected: ToolsConfig) -> None:
    assert parsed(tools) == expected


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        (["read"], "tools: expected an object, got an array"),
        ({"alow": ["read"]}, "tools: unknown field 'alow' (did you mean 'allow'?)"),
        ({"allow": "read"}, "tools.allow: expected an array, got a string"),
        ({"deny": None}, "tools.deny: expected an array, got null"),
        ({"deny": ["a", 3]}, "tools.deny[1]: expected a string, got a number"),
        ({"deny": [""]}, "tools.deny[0]: expected a string of length >= 1"),
        ({"deny": ["x" * 257]}, "tools.deny[0]: expected a string of length <= 256"),
        ({"allow": ["x"] * 1001}, "tools.allow: expected an array of length <= 1000"),
        ({"allow": ["a\n"]}, "tools.allow[0]: contains a control character"),
        ({"allow": ["a "]}, "tools.allow[0]: begins or ends with white space"),
        ({"deny": ["${SECRET_TOOL}"]}, "tools.deny[0]: contains ${, but no variable is filled in here"),
        ({"deny": ["a", f"{'x' * 255}*"] * 65}, "tools.deny: the patterns are 16640 characters long together"),
        ({"allow": ["a\ud800"]}, "tools.allow[0]: contains a lone surrogate"),
    ],
)
def test_what_cannot_work_is_named(tools: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(tools)
    assert str(caught.value).startswith(f"Invalid server config: {problem}")


def test_a_struct_is_checked_as_strictly() -> None:
    config = ServerConfig(url="http://localhost/mcp", tools=ToolsConfig(deny=["a", "b"]))  # type: ignore[arg-type]
    assert check_server_config(config, server_id="a").tools == ToolsConfig(deny=("a", "b"))
    with pytest.raises(ConfigError, match=r"tools\.allow"):
        check_server_config(
            ServerConfig(url="http://localhost/mcp", tools=ToolsConfig(allow="all")),  # type: ignore[arg-type]
            server_id="a",
        )
    assert mcp_manager.ToolsConfig is ToolsConfig


def test_a_server_keeps_the_default_list_that_it_does_not_give_itself(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[defaults.tools]\ndeny = ["delete*"]\nallow = ["read"]\n'
        '[servers.a]\nurl = "http://localhost/mcp"\ntools = { allow = ["*"] }\n'
        '[servers.b]\nurl = "http://localhost/mcp"\n'
    )
    servers = load_manager_config(path).servers
    assert servers["a"].tools == ToolsConfig(allow=("*",), deny=("delete*",))
    assert servers["b"].tools == ToolsConfig(allow=("read",), deny=("delete*",))
